//! The head of an HTTP/1 request, looked at line by line as its bytes come: what is not to the letter of RFC 9112 is
//! refused before the engine sees it, since leniency is what request smuggling lives on. Pure.
//!
//! The engine still parses. It takes a bare line feed for an end of line, a list of codings that ends in `chunked`, and
//! drops a Content-Length beside a Transfer-Encoding; here each of them is an error. What a head asks for, its Host and
//! its path included, is `proxy::admit`'s to judge.

use std::time::Duration;

use crate::diagnose::Cause;

/// How much a client of HTTP may ask of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Fields of a head.
    pub headers: usize,
    /// Bytes of a head.
    pub head_size: usize,
    /// Bytes of a target.
    pub url: usize,
    /// How long a head may take from its first byte to its last.
    pub head_timeout: Duration,
    /// Requests on one connection.
    pub requests_per_connection: usize,
    /// How long the next piece of a body may take.
    pub body_idle: Duration,
    /// Bytes a second that a body must come with on average, beyond `body_idle`.
    pub body_rate: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            headers: 100,
            head_size: 64 << 10,
            url: 16 << 10,
            head_timeout: Duration::from_secs(10),
            requests_per_connection: 10_000,
            body_idle: Duration::from_secs(60),
            body_rate: 100,
        }
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The status that tells the client.
    pub status: u16,
    /// For the log.
    pub words: &'static str,
}

impl Fault {
    /// Under which cause it is logged.
    pub fn cause(self) -> Cause {
        match self.status {
            408 => Cause::ClientTooSlow,
            414 => Cause::UrlTooLong,
            431 => Cause::HeadTooLarge,
            _ => Cause::RequestInvalid,
        }
    }
}

/// How the body of a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// After so many bytes.
    Length(u64),
    /// With its last chunk.
    Chunked,
}

/// A head of which a part has come.
#[derive(Debug)]
pub struct Head {
    limits: RequestLimits,
    size: usize,
    fields: usize,
    /// A line that has begun in an earlier read.
    begun: Vec<u8>,
    version: Option<Version>,
    host: bool,
    length: Option<u64>,
    chunked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

/// No method is longer.
const METHOD: usize = 64;

impl Head {
    /// One whose first byte is yet to come.
    pub fn new(limits: RequestLimits) -> Self {
        Self {
            limits,
            size: 0,
            fields: 0,
            begun: Vec::new(),
            version: None,
            host: false,
            length: None,
            chunked: false,
        }
    }

    /// Looks at the next bytes. Once the head is whole: how many of them belong to it, and what follows it.
    ///
    /// # Errors
    /// It is not legal, or exceeds a limit.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<(usize, Framing)>, Fault> {
        let mut at = 0;
        while let Some(length) = bytes[at..].iter().position(|byte| *byte == b'\n') {
            let part = &bytes[at..=at + length];
            at += part.len();
            self.grow(part)?;
            let ended = if self.begun.is_empty() {
                self.line(part)?
            } else {
                let mut line = std::mem::take(&mut self.begun);
                line.extend_from_slice(part);
                self.line(&line)?
            };
            if let Some(framing) = ended {
                return Ok(Some((at, framing)));
            }
        }
        let rest = &bytes[at..];
        self.grow(rest)?;
        self.begun.extend_from_slice(rest);
        if self.version.is_none() {
            // No line feed is needed to see that it is too long.
            self.target(&self.begun)?;
        }
        Ok(None)
    }

    fn grow(&mut self, part: &[u8]) -> Result<(), Fault> {
        self.size += part.len();
        if self.size > self.limits.head_size {
            // A request line that is too long is told as such.
            self.target(&[&self.begun, part].concat())?;
            return Err(Fault { status: 431, words: "a head larger than `head_size`" });
        }
        Ok(())
    }

    /// Looks at a line, its end included; gives the framing where it is the empty one at the end.
    fn line(&mut self, line: &[u8]) -> Result<Option<Framing>, Fault> {
        let line = line.strip_suffix(b"\r\n").ok_or(bad("a line that ends in a bare line feed"))?;
        match (line, self.version) {
            // RFC 9112 section 2.2: some clients send one behind the body before.
            (b"", None) => Ok(None),
            (b"", Some(version)) => self.framing(version).map(Some),
            (_, None) => self.request_line(line).map(|()| None),
            (_, Some(_)) => self.field(line).map(|()| None),
        }
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), Fault> {
        self.target(line)?;
        let mut parts = line.split(|byte| *byte == b' ');
        let (method, target, version) = (parts.next(), parts.next(), parts.next());
        let (Some(method), Some(target), Some(version), None) = (method, target, version, parts.next())
        else {
            return Err(bad("a request line that is not a method, a target and a version"));
        };
        if !is_token(method) {
            return Err(bad("a method with a character that none has"));
        }
        if target.is_empty() || target.iter().any(|byte| *byte < b' ' || *byte == 0x7f) {
            return Err(bad("a target with a control character, or none"));
        }
        if target.contains(&b'#') {
            return Err(bad("a fragment in the target"));
        }
        self.version = match version {
            b"HTTP/1.1" => Some(Version::Http11),
            b"HTTP/1.0" => Some(Version::Http10),
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
                return Err(Fault { status: 505, words: "another version than HTTP/1.0 and HTTP/1.1" });
            }
            _ => return Err(bad("a request line without a version of HTTP")),
        };
        Ok(())
    }

    /// Whether the target fits, of a request line that may have begun only.
    fn target(&self, line: &[u8]) -> Result<(), Fault> {
        if self.version.is_some() {
            return Ok(());
        }
        let Some(method) = line.iter().position(|byte| *byte == b' ') else {
            return if line.len() > METHOD { Err(bad("a method longer than any")) } else { Ok(()) };
        };
        let target = line[method + 1..].split(|byte| *byte == b' ').next().unwrap_or_default();
        match target.len() > self.limits.url {
            true => Err(Fault { status: 414, words: "a target longer than `url`" }),
            false => Ok(()),
        }
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Fault> {
        let (name, value) = field(line)?;
        self.fields += 1;
        if self.fields > self.limits.headers {
            return Err(Fault { status: 431, words: "more fields than `headers`" });
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => once(&mut self.host, "several Hosts")?,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = decimal(value).ok_or(bad("a Content-Length that is no number"))?;
                if self.length.replace(length).is_some() {
                    return Err(bad("several Content-Lengths"));
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(bad("another Transfer-Encoding than `chunked`"));
                }
                once(&mut self.chunked, "several Transfer-Encodings")?;
            }
            _ => {}
        }
        Ok(())
    }

    fn framing(&self, version: Version) -> Result<Framing, Fault> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(bad("a Content-Length beside a Transfer-Encoding")),
            // RFC 9112 section 6.1: whoever speaks HTTP/1.0 knows no chunks.
            (true, None) if version == Version::Http10 => Err(bad("a Transfer-Encoding in HTTP/1.0")),
            (true, None) => Ok(Framing::Chunked),
            (false, None | Some(0)) => Ok(Framing::Empty),
            (false, Some(length)) => Ok(Framing::Length(length)),
        }
    }
}

/// Notes that a field has come, which may come once.
fn once(seen: &mut bool, words: &'static str) -> Result<(), Fault> {
    if std::mem::replace(seen, true) { Err(bad(words)) } else { Ok(()) }
}

fn bad(words: &'static str) -> Fault {
    Fault { status: 400, words }
}

/// Name and value of a field's line, given without its end.
///
/// # Errors
/// It is none. RFC 9112 section 5.
pub fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(bad("a field that is folded over several lines"));
    }
    let colon = line.iter().position(|byte| *byte == b':').ok_or(bad("a field without a colon"))?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if matches!(name.last(), Some(b' ' | b'\t')) {
        return Err(bad("a space between a field's name and its colon"));
    }
    if !is_token(name) {
        return Err(bad("a field's name with a character that none has"));
    }
    if value.iter().any(|byte| matches!(byte, 0..=8 | 10..=31 | 0x7f)) {
        return Err(bad("a field's value with a control character"));
    }
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let from = value.iter().position(|byte| !is_space(byte)).unwrap_or(value.len());
    let to = value.iter().rposition(|byte| !is_space(byte)).map_or(from, |last| last + 1);
    Ok((name, &value[from..to]))
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &[u8]) -> bool {
    !text.is_empty()
        && text.iter().all(|byte| match byte {
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`'
            | b'|' | b'~' => true,
            byte => byte.is_ascii_alphanumeric(),
        })
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        // The engine counts in a signed number in places.
        number.checked_mul(10)?.checked_add(digit).filter(|number| *number <= i64::MAX as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RequestLimits = RequestLimits {
        headers: 4,
        head_size: 200,
        url: 20,
        head_timeout: Duration::from_secs(1),
        requests_per_connection: 1,
        body_idle: Duration::from_secs(1),
        body_rate: 1,
    };

    /// What comes of a head: in one piece, byte by byte, and cut anywhere, it is the same.
    fn read(head: &[u8]) -> Result<Option<(usize, Framing)>, Fault> {
        let whole = Head::new(LIMITS).read(head);
        for cut in 0..head.len() {
            let mut begun = Head::new(LIMITS);
            let cut_up = match begun.read(&head[..cut]) {
                Ok(None) => begun.read(&head[cut..]).map(|it| it.map(|(at, framing)| (at + cut, framing))),
                ended => ended,
            };
            assert_eq!(cut_up, whole, "{} cut at {cut}", head.escape_ascii());
        }
        let (mut slow, mut at, mut last) = (Head::new(LIMITS), 0, Ok(None));
        while at < head.len() && last == Ok(None) {
            last = slow.read(&head[at..=at]).map(|it| it.map(|(length, framing)| (at + length, framing)));
            at += 1;
        }
        assert_eq!(last, whole, "{} byte by byte", head.escape_ascii());
        whole
    }

    fn request(fields: &str) -> Result<Framing, Fault> {
        let head = format!("POST /x HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
        let read = read(format!("{head}GET / HTTP/1.1\r\n").as_bytes())?;
        let (length, framing) = read.unwrap();
        assert_eq!(length, head.len());
        Ok(framing)
    }

    #[test]
    fn the_end_of_a_head_is_found_and_what_follows_it() {
        for (fields, framing) in [
            ("", Framing::Empty),
            ("Content-Length: 0\r\n", Framing::Empty),
            ("content-length:5\r\n", Framing::Length(5)),
            ("Content-Length:\t 005 \r\n", Framing::Length(5)),
            ("transfer-encoding: Chunked\t\r\n", Framing::Chunked),
            ("X-Content-Length: 7\r\nx:\r\n", Framing::Empty),
        ] {
            assert_eq!(request(fields), Ok(framing), "{fields:?}");
        }
        let blank = b"\r\n\r\nGET / HTTP/1.0\r\n\r\n";
        assert_eq!(read(blank), Ok(Some((blank.len(), Framing::Empty))));
        assert_eq!(read(b"GET / HTTP/1.1\r\nHost: a"), Ok(None));
    }

    #[test]
    fn what_is_not_to_the_letter_is_refused_in_words() {
        for (fields, words) in [
            ("x: 1\n", "a line that ends in a bare line feed"),
            ("\n", "a line that ends in a bare line feed"),
            (" x: 1\r\n", "a field that is folded over several lines"),
            ("x: 1\r\n\ty\r\n", "a field that is folded over several lines"),
            ("x : 1\r\n", "a space between a field's name and its colon"),
            ("x\r\n", "a field without a colon"),
            (": 1\r\n", "a field's name with a character that none has"),
            ("x\x0b: 1\r\n", "a field's name with a character that none has"),
            ("x(y): 1\r\n", "a field's name with a character that none has"),
            ("ü: 1\r\n", "a field's name with a character that none has"),
            ("x: a\0b\r\n", "a field's value with a control character"),
            ("x: a\rb\r\n", "a field's value with a control character"),
            ("host: b.test\r\n", "several Hosts"),
            ("content-length: +5\r\n", "a Content-Length that is no number"),
            ("content-length: -5\r\n", "a Content-Length that is no number"),
            ("content-length: 5, 5\r\n", "a Content-Length that is no number"),
            ("content-length: 0x5\r\n", "a Content-Length that is no number"),
            ("content-length: 5 5\r\n", "a Content-Length that is no number"),
            ("content-length: 9223372036854775808\r\n", "a Content-Length that is no number"),
            ("content-length: 184467440737095516160\r\n", "a Content-Length that is no number"),
            ("content-length:\r\n", "a Content-Length that is no number"),
            ("content-length: 5\r\ncontent-length: 5\r\n", "several Content-Lengths"),
            ("transfer-encoding: xchunked\r\n", "another Transfer-Encoding than `chunked`"),
            ("transfer-encoding: gzip, chunked\r\n", "another Transfer-Encoding than `chunked`"),
            ("transfer-encoding: chunked, identity\r\n", "another Transfer-Encoding than `chunked`"),
            ("transfer-encoding: identity\r\n", "another Transfer-Encoding than `chunked`"),
            ("transfer-encoding:\r\n", "another Transfer-Encoding than `chunked`"),
            ("transfer-encoding: \x0bchunked\r\n", "a field's value with a control character"),
            ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", "several Transfer-Encodings"),
            (
                "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
                "a Content-Length beside a Transfer-Encoding",
            ),
            (
                "content-length: 5\r\ntransfer-encoding: chunked\r\n",
                "a Content-Length beside a Transfer-Encoding",
            ),
        ] {
            assert_eq!(request(fields), Err(bad(words)), "{fields:?}");
        }
        let old = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(read(old), Err(bad("a Transfer-Encoding in HTTP/1.0")));
    }

    #[test]
    fn a_request_line_is_three_words() {
        for line in [
            "GET /",
            "GET  / HTTP/1.1",
            "GET / HTTP/1.1 ",
            " GET / HTTP/1.1",
            "GET /a b HTTP/1.1",
            "GET / HTTP/1",
            "GET\t/ HTTP/1.1",
            "G(T / HTTP/1.1",
            "GET /#x HTTP/1.1",
            "GET /\x01 HTTP/1.1",
            "GET / http/1.1",
        ] {
            let status = read(format!("{line}\r\n\r\n").as_bytes()).unwrap_err().status;
            assert_eq!(status, 400, "{line:?}");
        }
        for line in ["PRI * HTTP/2.0", "GET / HTTP/0.9", "GET / HTTP/1.2"] {
            assert_eq!(read(format!("{line}\r\n\r\n").as_bytes()).unwrap_err().status, 505, "{line}");
        }
    }

    #[test]
    fn each_limit_holds_and_not_a_byte_earlier() {
        let url = |length: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(length - 1));
        assert!(read(url(20).as_bytes()).is_ok());
        assert_eq!(read(url(21).as_bytes()).unwrap_err().status, 414);
        assert_eq!(read(url(300).as_bytes()).unwrap_err().status, 414, "longer than a head may be");

        let fields = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(count));
        assert!(read(fields(4).as_bytes()).is_ok());
        assert_eq!(read(fields(5).as_bytes()).unwrap_err().status, 431);

        let sized = |size: usize| format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(size - 23));
        assert_eq!(read(sized(200).as_bytes()), Ok(Some((200, Framing::Empty))));
        assert_eq!(read(sized(201).as_bytes()).unwrap_err().status, 431);
        assert_eq!(read("x".repeat(65).as_bytes()).unwrap_err().status, 400);
    }
}
