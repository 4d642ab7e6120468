//! Bare frames (RFC 9113 section 4), for a client or a server that says what no library lets it.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use openssl::ssl::{SslConnector, SslMethod, SslStream, SslVerifyMode};

use crate::PATIENCE;

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// DATA is 0, HEADERS 1, RST_STREAM 3, SETTINGS 4, PING 6, GOAWAY 7, WINDOW_UPDATE 8.
    pub kind: u8,
    /// END_STREAM is 1, and ACK; END_HEADERS is 4.
    pub flags: u8,
    /// 0 is the connection.
    pub stream: u32,
    /// The rest.
    pub payload: Vec<u8>,
}

/// DATA.
pub const DATA: u8 = 0;
/// HEADERS.
pub const HEADERS: u8 = 1;
/// PRIORITY.
pub const PRIORITY: u8 = 2;
/// RST_STREAM.
pub const RST_STREAM: u8 = 3;
/// SETTINGS.
pub const SETTINGS: u8 = 4;
/// PING.
pub const PING: u8 = 6;
/// GOAWAY.
pub const GOAWAY: u8 = 7;
/// WINDOW_UPDATE.
pub const WINDOW_UPDATE: u8 = 8;
/// CONTINUATION.
pub const CONTINUATION: u8 = 9;

/// END_STREAM, of HEADERS and DATA.
pub const END_STREAM: u8 = 1;
/// END_HEADERS, of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 4;
/// ACK, of SETTINGS and PING.
pub const ACK: u8 = 1;

impl Frame {
    fn read(stream: &mut impl Read) -> io::Result<Self> {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Ok(Self { kind: head[3], flags: head[4], stream, payload })
    }

    /// The error code of a GOAWAY.
    pub fn goaway_code(&self) -> Option<u32> {
        let code = self.payload.get(4..8).filter(|_| self.kind == GOAWAY)?;
        Some(u32::from_be_bytes(code.try_into().ok()?))
    }
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The header block of `GET / HTTP/2` over https for the host `a.test`, with nothing that a peer would have to remember.
pub fn get() -> Vec<u8> {
    // Entries 2, 7 and 4 of the static table, and `:authority` (entry 1) as a literal that is not indexed.
    let mut block = vec![0x82, 0x87, 0x84, 0x01, 6];
    block.extend(b"a.test");
    block
}

/// The client's side of a connection over TLS.
pub struct Client(SslStream<TcpStream>);

impl Client {
    /// Connects, has ALPN choose HTTP/2 and sends the preface and these SETTINGS; whatever certificate comes is taken.
    pub fn tls(port: u16, settings: &[(u16, u32)]) -> Self {
        let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
        builder.set_verify(SslVerifyMode::NONE);
        builder.set_alpn_protos(b"\x02h2").unwrap();
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        let ssl = builder.build().configure().unwrap().verify_hostname(false).into_ssl("a.test").unwrap();
        let stream = ssl.connect(socket).unwrap();
        assert_eq!(stream.ssl().selected_alpn_protocol(), Some(&b"h2"[..]));
        let mut client = Self(stream);
        let settings: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        let preface =
            [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &settings)].concat();
        client.send(&preface).unwrap();
        client
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// The next frame, whatever it is.
    pub fn frame(&mut self) -> io::Result<Frame> {
        Frame::read(&mut self.0)
    }

    /// The next frame that is so.
    pub fn wait_for(&mut self, wanted: impl Fn(&Frame) -> bool) -> io::Result<Frame> {
        loop {
            let frame = self.frame()?;
            if wanted(&frame) {
                return Ok(frame);
            }
        }
    }

    /// The connection below, for a thread that reads while another one writes, or for what is not to be read.
    pub fn socket(&self) -> &TcpStream {
        self.0.get_ref()
    }
}

/// The server's side of a connection.
pub struct Server<S>(S);

impl<S: Read + Write> Server<S> {
    /// Reads the preface and says SETTINGS.
    pub fn greet(mut stream: S) -> io::Result<Self> {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface)?;
        assert!(preface.starts_with(b"PRI * HTTP/2.0"), "{preface:?}");
        let mut server = Self(stream);
        server.write(SETTINGS, 0, 0, &[])?;
        Ok(server)
    }

    /// The next frame that speaks of a stream, or GOAWAY; SETTINGS are acknowledged.
    pub fn frame(&mut self) -> io::Result<Frame> {
        loop {
            let frame = Frame::read(&mut self.0)?;
            match (frame.kind, frame.flags & 1, frame.stream) {
                (SETTINGS, 0, _) => self.write(SETTINGS, 1, 0, &[])?,
                (GOAWAY, ..) | (_, _, 1..) => return Ok(frame),
                _ => {}
            }
        }
    }

    /// The next request's stream.
    pub fn request(&mut self) -> io::Result<u32> {
        loop {
            let frame = self.frame()?;
            if frame.kind == HEADERS {
                return Ok(frame.stream);
            }
        }
    }

    /// Sends a frame.
    pub fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        self.0.write_all(&frame(kind, flags, stream, payload))
    }

    /// 200 without a body.
    pub fn ok(&mut self, stream: u32) -> io::Result<()> {
        // Entry 8 of the static table: `:status: 200` (RFC 7541 appendix A).
        self.write(HEADERS, 4 | 1, stream, &[0x88])
    }

    /// RST_STREAM with an error code.
    pub fn reset(&mut self, stream: u32, code: u32) -> io::Result<()> {
        self.write(RST_STREAM, 0, stream, &code.to_be_bytes())
    }

    /// GOAWAY without an error, after the last stream that counts.
    pub fn goaway(&mut self, last: u32) -> io::Result<()> {
        self.write(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat())
    }
}
