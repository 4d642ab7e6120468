//! Bare frames (RFC 9113 section 4), for a server that says what no library lets it.

use std::io::{self, Read, Write};

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

/// HEADERS.
pub const HEADERS: u8 = 1;
/// RST_STREAM.
pub const RST_STREAM: u8 = 3;
/// SETTINGS.
pub const SETTINGS: u8 = 4;
/// GOAWAY.
pub const GOAWAY: u8 = 7;

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
            let mut head = [0; 9];
            self.0.read_exact(&mut head)?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload)?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let frame = Frame { kind: head[3], flags: head[4], stream, payload };
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
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        self.0.write_all(&bytes)
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
