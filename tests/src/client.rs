//! A small HTTP/1.1 client that leaves every byte to the test, and curl for HTTP/2.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::path::Path;
use std::process::{Command, Output};

use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslStream, SslVerifyMode};

use crate::certs::{Pair, pin_of};
use crate::{PATIENCE, real};

/// One connection, with what was read beyond the last response.
pub struct Client {
    stream: Stream,
    unread: Vec<u8>,
}

enum Stream {
    Plain(TcpStream),
    Tls(SslStream<TcpStream>),
}

/// How TLS is spoken to a listener.
#[derive(Default)]
pub struct ClientTls<'a> {
    /// The name asked for; nothing is sent where absent.
    pub sni: Option<&'a str>,
    /// What is trusted; absent: whatever comes.
    pub ca: Option<&'a Path>,
    /// What is shown.
    pub certificate: Option<&'a Pair>,
}

/// A response as it came.
#[derive(Debug)]
pub struct Response {
    /// `HTTP/1.1`, say.
    pub version: String,
    /// The status code.
    pub status: u16,
    /// In order, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// Decoded where it was chunked.
    pub body: Vec<u8>,
}

impl Client {
    /// Plain, to a port of this machine.
    pub fn plain(port: u16) -> Self {
        Self { stream: Stream::Plain(connected(port)), unread: Vec::new() }
    }

    /// The same from another of the addresses that this machine has to itself, such as 127.0.0.2.
    pub fn plain_from(address: Ipv4Addr, port: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((address, 0).into()).unwrap();
            socket.connect((Ipv4Addr::LOCALHOST, port).into()).await.unwrap().into_std().unwrap()
        });
        stream.set_nonblocking(false).unwrap();
        Self { stream: Stream::Plain(with_patience(stream)), unread: Vec::new() }
    }

    /// Over TLS.
    pub fn tls(port: u16, tls: &ClientTls) -> Result<Self, openssl::ssl::HandshakeError<TcpStream>> {
        let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
        match tls.ca {
            Some(ca) => builder.set_ca_file(ca).unwrap(),
            None => builder.set_verify(SslVerifyMode::NONE),
        }
        if let Some(pair) = tls.certificate {
            builder.set_certificate_chain_file(&pair.cert).unwrap();
            builder.set_private_key_file(&pair.key, SslFiletype::PEM).unwrap();
        }
        let mut configuration = builder.build().configure().unwrap();
        configuration.set_use_server_name_indication(tls.sni.is_some());
        configuration.set_verify_hostname(tls.sni.is_some() && tls.ca.is_some());
        let stream = configuration.connect(tls.sni.unwrap_or_default(), connected(port))?;
        Ok(Self { stream: Stream::Tls(stream), unread: Vec::new() })
    }

    /// Over a handshake that the test has made itself.
    pub fn over(stream: SslStream<TcpStream>) -> Self {
        Self { stream: Stream::Tls(stream), unread: Vec::new() }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes).unwrap();
        self
    }

    /// The same where the other side may have gone.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(s) => s.write_all(bytes.as_ref()),
            Stream::Tls(s) => s.write_all(bytes.as_ref()),
        }
    }

    /// A GET on a connection that stays open.
    pub fn get(&mut self, host: &str, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).response()
    }

    /// A POST on a connection that stays open.
    pub fn post(&mut self, host: &str, path: &str, body: &[u8]) -> Response {
        self.send(format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n", body.len()));
        self.send(body).response()
    }

    /// The next response, whole.
    pub fn response(&mut self) -> Response {
        self.try_response().unwrap_or_else(|e| panic!("no whole response: {e}"))
    }

    /// The next response, or why there is none.
    pub fn try_response(&mut self) -> io::Result<Response> {
        let mut response = self.try_head()?;
        response.body = if matches!(response.status, 100..=199 | 204 | 304) {
            Vec::new()
        } else if response.header("transfer-encoding") == Some("chunked") {
            self.chunked()?
        } else if let Some(length) = response.header("content-length") {
            let length = length.parse().map_err(io::Error::other)?;
            self.exactly(length)?
        } else {
            self.to_end()?
        };
        Ok(response)
    }

    /// The next response's head alone; its body is left to `chunk` or `exactly`.
    pub fn head(&mut self) -> Response {
        self.try_head().unwrap_or_else(|e| panic!("no response head: {e}"))
    }

    fn try_head(&mut self) -> io::Result<Response> {
        let text = String::from_utf8(self.until(b"\r\n\r\n")?).map_err(io::Error::other)?;
        let mut lines = text.trim_end().split("\r\n");
        let mut first = lines.next().unwrap_or_default().splitn(3, ' ');
        let version = first.next().unwrap_or_default().to_owned();
        let status = first.next().and_then(|s| s.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not a response: {text}")))?;
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())).collect();
        Ok(Response { version, status, headers, body: Vec::new() })
    }

    /// The next chunk of a chunked body; empty at its end.
    pub fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let line = String::from_utf8(self.until(b"\r\n")?).map_err(io::Error::other)?;
        let length = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        let mut bytes = self.exactly(length + 2)?;
        bytes.truncate(length);
        Ok(bytes)
    }

    /// So many bytes.
    pub fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < length {
            self.fill()?;
        }
        Ok(self.unread.drain(..length).collect())
    }

    /// All bytes up to the end of the connection.
    pub fn to_end(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.fill() {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(std::mem::take(&mut self.unread));
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Ends the sending direction of a plain connection.
    pub fn finish_sending(&mut self) {
        match &mut self.stream {
            Stream::Plain(s) => s.shutdown(Shutdown::Write).unwrap(),
            Stream::Tls(s) => {
                // The end as TLS tells it, and then that of the connection.
                s.shutdown().unwrap();
                s.get_ref().shutdown(Shutdown::Write).unwrap();
            }
        }
    }

    /// The common name of the certificate that the other side showed.
    pub fn peer_name(&self) -> Option<String> {
        let Stream::Tls(stream) = &self.stream else { return None };
        let certificate = stream.ssl().peer_certificate()?;
        let entry = certificate.subject_name().entries_by_nid(openssl::nid::Nid::COMMONNAME).next()?;
        entry.data().to_string().ok()
    }

    /// The pin of the certificate that the other side showed, as `certs::pin` has it.
    pub fn peer_pin(&self) -> Option<String> {
        let Stream::Tls(stream) = &self.stream else { return None };
        stream.ssl().peer_certificate().map(|certificate| pin_of(&certificate))
    }

    fn chunked(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                return Ok(body);
            }
            body.extend(chunk);
        }
    }

    fn until(&mut self, mark: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(mark.len()).position(|w| w == mark) {
                return Ok(self.unread.drain(..at + mark.len()).collect());
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        let read = match &mut self.stream {
            Stream::Plain(s) => s.read(&mut buffer)?,
            Stream::Tls(s) => s.read(&mut buffer)?,
        };
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.unread.extend(&buffer[..read]);
        Ok(())
    }
}

impl Response {
    /// The first header of this name, given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}: {}", self.text()))
    }
}

/// One GET on a connection of its own.
pub fn get(port: u16, host: &str, path: &str) -> Response {
    Client::plain(port).get(host, path)
}

/// Runs curl, quiet but for errors, and gives what came of it.
pub fn curl(args: &[&str]) -> Output {
    let mut command = Command::new(real::program("curl"));
    command.args(["-sS", "--max-time", "20"]).args(args);
    command.output().unwrap_or_else(|e| panic!("curl does not start: {e}"))
}

fn connected(port: u16) -> TcpStream {
    with_patience(TcpStream::connect(("127.0.0.1", port)).unwrap_or_else(|e| panic!("port {port}: {e}")))
}

fn with_patience(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}
