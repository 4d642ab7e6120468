//! Serves one accepted connection as the script says.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;

use openssl::base64;
use openssl::sha::sha1;
use openssl::ssl::{NameType, Ssl, SslAcceptor, SslRef, SslStream};

use super::{Answer, Handshake, Opening, Request, Shared};

/// Until either side ends it. What came is in the record; an error only says that the connection broke.
pub(super) fn serve(number: usize, shared: &Shared, socket: TcpStream) -> io::Result<()> {
    Connection { number, shared, unread: Vec::new() }.serve(socket)
}

struct Connection<'a> {
    number: usize,
    shared: &'a Shared,
    unread: Vec<u8>,
}

/// Plain or TLS.
trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

/// Whether the connection goes on.
enum Next {
    Request,
    End,
}

impl Connection<'_> {
    fn serve(&mut self, socket: TcpStream) -> io::Result<()> {
        let raw = socket.try_clone()?;
        socket.set_nodelay(true)?;
        let done = match (self.shared.opening)(self.number) {
            Opening::Reset => Ok(Next::End).inspect(|_| reset(&raw)),
            Opening::Stall => until_peer_leaves(&mut &socket),
            Opening::Speak(words) => {
                (&socket).write_all(words)?;
                until_peer_leaves(&mut &socket)
            }
            Opening::Serve => match &self.shared.acceptor {
                None => self.requests(&mut &socket, &raw),
                Some(acceptor) => {
                    let mut stream = self.handshake(acceptor, socket)?;
                    let done = self.requests(&mut stream, &raw);
                    let _ = stream.shutdown();
                    done
                }
            },
        };
        // The record of sockets holds the descriptor, so closing takes a word of its own.
        let _ = raw.shutdown(Shutdown::Both);
        done.map(|_| ())
    }

    fn handshake(&self, acceptor: &SslAcceptor, socket: TcpStream) -> io::Result<SslStream<TcpStream>> {
        let raw = socket.try_clone()?;
        let mut stream = SslStream::new(Ssl::new(acceptor.context())?, socket)?;
        if let Err(error) = stream.accept() {
            self.shared.update(|state| state.failed_handshakes += 1);
            let _ = raw.shutdown(Shutdown::Both);
            return Err(io::Error::other(error));
        }
        let ssl = stream.ssl();
        let handshake = Handshake {
            connection: self.number,
            sni: ssl.servername(NameType::HOST_NAME).map(str::to_owned),
            resumed: ssl.session_reused(),
            client: client_name(ssl),
        };
        self.shared.update(|state| state.handshakes.push(handshake));
        Ok(stream)
    }

    fn requests(&mut self, wire: &mut dyn Wire, raw: &TcpStream) -> io::Result<Next> {
        loop {
            if let Next::End = self.request(wire, raw)? {
                return Ok(Next::End);
            }
        }
    }

    fn request(&mut self, wire: &mut dyn Wire, raw: &TcpStream) -> io::Result<Next> {
        let head = self.until(wire, b"\r\n\r\n")?;
        let mut request = parsed(&String::from_utf8_lossy(&head));
        request.connection = self.number;
        request.number = self.shared.update(|state| {
            request.number = state.requests.len();
            state.requests.push(request.clone());
            request.number
        });
        match (self.shared.script)(&request) {
            Answer::Reply(reply) => {
                self.body(wire, &request)?;
                wire.write_all(&reply.bytes())?;
                return Ok(Next::Request);
            }
            Answer::Raw(bytes) => {
                self.body(wire, &request)?;
                wire.write_all(&bytes)?;
                return Ok(Next::Request);
            }
            Answer::ReplyAndClose(reply) => {
                self.body(wire, &request)?;
                wire.write_all(&reply.bytes())?;
            }
            Answer::Early(reply) => {
                wire.write_all(&reply.bytes())?;
                let _ = raw.shutdown(Shutdown::Write);
                // Unread bytes would turn the close into a reset, which may overtake the answer.
                return until_peer_leaves(wire);
            }
            Answer::ResetAfterHead => reset(raw),
            Answer::ResetAfterBody => {
                self.body(wire, &request)?;
                reset(raw);
            }
            Answer::Close => self.body(wire, &request)?,
            Answer::Stall => return until_peer_leaves(wire),
            Answer::Stream(chunks) => {
                self.body(wire, &request)?;
                wire.write_all(CHUNKED)?;
                for bytes in chunks {
                    wire.write_all(&chunk(&bytes))?;
                }
                wire.write_all(&chunk(b""))?;
                return Ok(Next::Request);
            }
            Answer::Duplex => {
                wire.write_all(CHUNKED)?;
                self.pieces(wire, &request, |wire, piece| wire.write_all(&chunk(piece)))?;
                wire.write_all(&chunk(b""))?;
                return Ok(Next::Request);
            }
            Answer::AfterEnd(reply) => {
                until_peer_leaves(wire)?;
                wire.write_all(&reply.bytes())?;
            }
            Answer::Upgrade => self.upgrade(wire, &request)?,
        }
        Ok(Next::End)
    }

    /// Reads the body into the record.
    fn body(&mut self, wire: &mut dyn Wire, request: &Request) -> io::Result<()> {
        self.pieces(wire, request, |_, _| Ok(()))
    }

    /// Reads the body into the record, and hands on each piece as it comes.
    fn pieces(
        &mut self,
        wire: &mut dyn Wire,
        request: &Request,
        mut each: impl FnMut(&mut dyn Wire, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let number = request.number;
        if request.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
            loop {
                let line = self.until(wire, b"\r\n")?;
                let length = String::from_utf8_lossy(&line);
                let length = usize::from_str_radix(length.trim(), 16).map_err(io::Error::other)?;
                self.record(wire, number, length, &mut each)?;
                self.until(wire, b"\r\n")?;
                if length == 0 {
                    break;
                }
            }
        } else {
            let length = request.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
            self.record(wire, number, length, &mut each)?;
        }
        self.shared.update(|state| state.requests[number].complete = true);
        Ok(())
    }

    fn record(
        &mut self,
        wire: &mut dyn Wire,
        number: usize,
        mut length: usize,
        each: &mut impl FnMut(&mut dyn Wire, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        while length > 0 {
            if self.unread.is_empty() {
                self.fill(wire)?;
            }
            let bytes: Vec<u8> = self.unread.drain(..length.min(self.unread.len())).collect();
            length -= bytes.len();
            each(wire, &bytes)?;
            self.shared.update(|state| state.requests[number].body.extend(bytes));
        }
        Ok(())
    }

    fn upgrade(&mut self, wire: &mut dyn Wire, request: &Request) -> io::Result<()> {
        let token = request.header("upgrade").unwrap_or_default();
        let mut head =
            format!("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {token}\r\n");
        if let Some(key) = request.header("sec-websocket-key") {
            // RFC 6455, section 1.3.
            let accept = sha1(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes());
            head += &format!("sec-websocket-accept: {}\r\n", base64::encode_block(&accept));
        }
        wire.write_all(format!("{head}\r\n").as_bytes())?;
        loop {
            let bytes = std::mem::take(&mut self.unread);
            wire.write_all(&bytes)?;
            self.shared.update(|state| state.requests[request.number].body.extend(bytes));
            self.fill(wire)?;
        }
    }

    fn until(&mut self, wire: &mut dyn Wire, mark: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(mark.len()).position(|w| w == mark) {
                return Ok(self.unread.drain(..at + mark.len()).collect());
            }
            self.fill(wire)?;
        }
    }

    fn fill(&mut self, wire: &mut dyn Wire) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        let read = wire.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.unread.extend(&buffer[..read]);
        Ok(())
    }
}

const CHUNKED: &[u8] = b"HTTP/1.1 200 Scripted\r\ntransfer-encoding: chunked\r\n\r\n";

/// One chunk on the wire; the empty one ends the body.
fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn until_peer_leaves(wire: &mut dyn Wire) -> io::Result<Next> {
    let mut buffer = [0; 16 * 1024];
    while wire.read(&mut buffer)? > 0 {}
    Ok(Next::End)
}

/// Disconnecting a TCP socket by an address of no family sends RST at once, whoever else holds the descriptor.
fn reset(socket: &TcpStream) {
    // SAFETY: all zeroes is a value of this plain struct; AF_UNSPEC is 0.
    let address: libc::sockaddr = unsafe { std::mem::zeroed() };
    let length = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the descriptor is open for as long as `socket` lives, and the address outlives the call.
    unsafe { libc::connect(socket.as_raw_fd(), &address, length) };
}

fn client_name(ssl: &SslRef) -> Option<String> {
    let certificate = ssl.peer_certificate()?;
    let entry = certificate.subject_name().entries_by_nid(openssl::nid::Nid::COMMONNAME).next()?;
    entry.data().to_string().ok()
}

fn parsed(head: &str) -> Request {
    let mut lines = head.trim_end().split("\r\n");
    let mut first = lines.next().unwrap_or_default().splitn(3, ' ').map(str::to_owned);
    let mut word = || first.next().unwrap_or_default();
    let (method, target, version) = (word(), word(), word());
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())).collect();
    Request { method, target, version, headers, ..Request::default() }
}
