//! The name that a client asks for, read off the first bytes of its TLS connection: RFC 8446 sections 4.1.2 and 5.1,
//! RFC 6066 section 3.
//!
//! Pure: no socket and no clock here, and nothing is decrypted. Where OpenSSL reads a hello otherwise or refuses it, so
//! does this: what is passed through by name here must not be another name to who ends the TLS.

/// How long a ClientHello may be, the headers of its records left out.
pub const LONGEST: usize = 16 * 1024;
/// The same with the headers of its records, of which there may be one for each few bytes.
pub const LONGEST_WITH_RECORDS: usize = 2 * LONGEST;

/// A record's header: its type, a version, and the length of what follows.
const RECORD_HEADER: usize = 5;
/// RFC 8446 section 5.1: a record holds no more.
const LONGEST_RECORD: usize = 16 * 1024;
/// A message's header: its type and its length.
const MESSAGE_HEADER: usize = 4;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peek {
    /// They may become a ClientHello, and nothing more can be said before there are so many.
    Incomplete {
        /// More than there are, and no more than `LONGEST_WITH_RECORDS`.
        needed: usize,
    },
    /// A whole ClientHello, whatever follows it.
    ClientHello {
        /// The name that it asks for, in lower case and without a trailing dot.
        sni: Option<String>,
    },
    /// Another protocol than TLS.
    NotTls,
    /// TLS, but no ClientHello that could be served, and why.
    Malformed(&'static str),
}

/// Looks at the first bytes of a connection, however they are split into records.
pub fn peek(bytes: &[u8]) -> Peek {
    let message = match message(bytes) {
        Ok(message) => message,
        Err(peek) => return peek,
    };
    match sni(&message) {
        Ok(sni) => Peek::ClientHello { sni },
        Err(why) => Peek::Malformed(why),
    }
}

/// The body of the first message, out of its records.
fn message(bytes: &[u8]) -> Result<Vec<u8>, Peek> {
    let mut message: Vec<u8> = Vec::new();
    let mut at = 0;
    loop {
        let record = bytes.get(at..).unwrap_or_default();
        let is_handshake = record.first().is_none_or(|kind| *kind == HANDSHAKE);
        // Whatever the version, its first byte has been 3 since SSL 3.
        let is_tls = record.get(1).is_none_or(|major| *major == 3);
        if !is_handshake || !is_tls {
            return Err(match at {
                0 => Peek::NotTls,
                _ => Peek::Malformed("another record stands within it"),
            });
        }
        let Some(&[_, _, _, high, low]) = record.first_chunk() else {
            return Err(incomplete(at + RECORD_HEADER));
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 || length > LONGEST_RECORD {
            return Err(Peek::Malformed("a record has no legal length"));
        }
        let body = &record[RECORD_HEADER..];
        let body = &body[..length.min(body.len())];
        let before = message.len();
        message.extend_from_slice(body);
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(Peek::Malformed("the first message is another one"));
        }
        let whole = match message.first_chunk() {
            Some(&[_, 0, 0, 0]) => return Err(Peek::Malformed(CUT_SHORT)),
            Some(&[_, high, middle, low]) => {
                MESSAGE_HEADER + u32::from_be_bytes([0, high, middle, low]) as usize
            }
            None => MESSAGE_HEADER,
        };
        if whole > LONGEST {
            return Err(Peek::Malformed(TOO_LONG));
        }
        if message.len() >= whole && whole > MESSAGE_HEADER {
            message.truncate(whole);
            message.drain(..MESSAGE_HEADER);
            return Ok(message);
        }
        if body.len() < length {
            return Err(incomplete(at + RECORD_HEADER + length.min(whole - before)));
        }
        at += RECORD_HEADER + length;
    }
}

const TOO_LONG: &str = "it is longer than 16 KiB";
const CUT_SHORT: &str = "it ends before all its fields";

fn incomplete(needed: usize) -> Peek {
    match needed > LONGEST_WITH_RECORDS {
        true => Peek::Malformed(TOO_LONG),
        false => Peek::Incomplete { needed },
    }
}

/// The name that this hello asks for.
fn sni(hello: &[u8]) -> Result<Option<String>, &'static str> {
    let mut rest = Reader(hello);
    let fixed = rest.take(2 + 32).and(rest.vector(1)).and(rest.vector(2)).and(rest.vector(1));
    fixed.ok_or(CUT_SHORT)?;
    if rest.0.is_empty() {
        // Legal before TLS 1.3.
        return Ok(None);
    }
    let mut extensions = Reader(rest.vector(2).ok_or(CUT_SHORT)?);
    if !rest.0.is_empty() {
        return Err("something stands behind its extensions");
    }
    let mut name = None;
    while !extensions.0.is_empty() {
        let kind = extensions.take(2).map(number).ok_or(CUT_SHORT)?;
        let data = extensions.vector(2).ok_or(CUT_SHORT)?;
        if kind == usize::from(SERVER_NAME) && name.replace(server_name(data)?).is_some() {
            return Err("it asks for a name twice");
        }
    }
    Ok(name)
}

/// The one name of the extension `server_name`.
fn server_name(data: &[u8]) -> Result<String, &'static str> {
    const ILLEGAL: &str = "its `server_name` is not legal";
    let mut data = Reader(data);
    let mut list = Reader(data.vector(2).ok_or(ILLEGAL)?);
    let kind = list.take(1).ok_or(ILLEGAL)?;
    let name = list.vector(2).ok_or(ILLEGAL)?;
    let name = name.strip_suffix(b".").unwrap_or(name);
    // It is compared, and written to logs: brackets and colons are of addresses, which some send though they may not.
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:[]".contains(byte);
    let is_legal = kind == [HOST_NAME] && (1..=253).contains(&name.len()) && name.iter().all(is_plain);
    if !is_legal || !data.0.is_empty() || !list.0.is_empty() {
        return Err(ILLEGAL);
    }
    Ok(name.iter().map(|byte| byte.to_ascii_lowercase() as char).collect())
}

/// What is still to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// What has its length before it, in so many bytes.
    fn vector(&mut self, length_bytes: usize) -> Option<&'a [u8]> {
        let length = self.take(length_bytes).map(number)?;
        self.take(length)
    }
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

#[cfg(test)]
mod tests {
    use openssl::ssl::{Ssl, SslConnector, SslMethod};

    use super::*;

    #[test]
    fn the_name_is_found_in_what_a_real_client_sends() {
        for (asked, expected) in [
            (Some("api.green.example"), Some("api.green.example")),
            (Some("API.Green.example"), Some("api.green.example")),
            (None, None),
        ] {
            let sent = openssl(asked);
            assert_eq!(peek(&sent), hello(expected));
            assert_eq!(
                peek(&[&sent[..], b"early data"].concat()),
                hello(expected),
                "what follows is not read"
            );
        }
    }

    #[test]
    fn however_it_is_split_into_records_the_name_is_the_same() {
        let message = &openssl(Some("a.test"))[RECORD_HEADER..];
        for size in [1, 2, 3, 4, 5, 100, message.len() - 1, message.len()] {
            assert_eq!(peek(&records(message, size)), hello(Some("a.test")), "records of {size}");
        }
    }

    #[test]
    fn however_it_is_split_into_packets_what_is_needed_is_told_and_never_less_than_the_next_byte() {
        for sent in [openssl(Some("a.test")), records(&openssl(Some("a.test"))[RECORD_HEADER..], 7)] {
            let (mut length, mut looks) = (0, 0);
            for cut in 0..sent.len() {
                let Peek::Incomplete { needed } = peek(&sent[..cut]) else { panic!("{cut}") };
                assert!(cut < needed && needed <= sent.len(), "{cut} {needed}");
            }
            while let Peek::Incomplete { needed } = peek(&sent[..length]) {
                (length, looks) = (needed, looks + 1);
            }
            assert_eq!(length, sent.len());
            assert!(looks <= 3 + 2 * sent.len() / 7, "{looks} looks");
        }
    }

    #[test]
    fn another_protocol_is_told_by_its_first_bytes() {
        for bytes in [&b"G"[..], b"GET / HTTP/1.1\r\n", b"SSH-2.0-x\r\n", b"\x80\x2e\x01", b"\x16\x02", b"\0"]
        {
            assert_eq!(peek(bytes), Peek::NotTls, "{bytes:?}");
        }
        assert!(matches!(peek(b""), Peek::Incomplete { needed: 5 }));
    }

    #[test]
    fn what_begins_as_tls_and_is_no_legal_hello_is_malformed() {
        let check = |what: &str, bytes: &[u8]| {
            let peeked = peek(bytes);
            assert!(matches!(peeked, Peek::Malformed(_)), "{what}: {peeked:?}");
        };
        check("an empty record", b"\x16\x03\x01\0\0");
        check("a record that is too long", b"\x16\x03\x01\x40\x01");
        check("a server's hello", b"\x16\x03\x01\0\x05\x02\0\0\x01x");
        check("a hello of nothing", b"\x16\x03\x01\0\x04\x01\0\0\0");
        check("a hello of 16 MiB", b"\x16\x03\x01\0\x04\x01\xff\xff\xff");
        check("an alert within", b"\x16\x03\x01\0\x01\x01\x15\x03\x01\0\x02\x02\x28");
        let name = |list: &[u8]| client_hello(&[(0, list)]);
        check("no list of names", &name(b""));
        check("an empty list", &name(b"\0\0"));
        check("an empty name", &name(b"\0\x03\0\0\0"));
        check("a dot", &name(b"\0\x04\0\0\x01."));
        check("a name of another kind", &name(b"\0\x04\x01\0\x01a"));
        check("two names", &name(b"\0\x08\0\0\x01a\0\0\x01b"));
        check("more than the list", &name(b"\0\x04\0\0\x01ab"));
        check("a line feed", &name(b"\0\x05\0\0\x02a\n"));
        check("a zero byte", &name(b"\0\x05\0\0\x02a\0"));
        check("too long a name", &name(&named(&"a".repeat(254))));
        check("the extension twice", &client_hello(&[(0, &named("a.test")), (0, &named("b.test"))]));
        assert_eq!(peek(&client_hello(&[(0, &named("A.test."))])), hello(Some("a.test")));
        assert_eq!(peek(&client_hello(&[(7, b"x")])), hello(None));
    }

    #[test]
    fn a_hello_without_extensions_asks_for_no_name() {
        let mut body = [[3, 3].as_slice(), &[0; 32], b"\0\0\x02\x13\x01\x01\0"].concat();
        assert_eq!(peek(&records(&message_of(&body), 999)), hello(None));
        body.push(0);
        assert!(matches!(peek(&records(&message_of(&body), 999)), Peek::Malformed(_)));
    }

    #[test]
    fn a_hello_may_have_16_kib_and_no_more() {
        let padded = |length: usize| {
            let bare = client_hello(&[(21, b"")]).len();
            records(&client_hello(&[(21, &vec![0; length - bare + RECORD_HEADER])])[RECORD_HEADER..], 16_000)
        };
        assert_eq!(peek(&padded(LONGEST)), hello(None));
        assert_eq!(peek(&padded(LONGEST + 1)), Peek::Malformed(TOO_LONG));
        // All of it is never waited for where its records are as small as can be.
        let tiny = records(&message_of(&vec![0; LONGEST - MESSAGE_HEADER]), 1);
        let mut length = 0;
        while let Peek::Incomplete { needed } = peek(&tiny[..length]) {
            length = needed;
            assert!(length <= LONGEST_WITH_RECORDS);
        }
        assert_eq!(peek(&tiny[..length]), Peek::Malformed(TOO_LONG));
    }

    #[test]
    fn no_bytes_whatever_make_it_panic() {
        let sent = openssl(Some("a.test"));
        for _ in 0..20_000 {
            let mut bytes = sent.clone();
            for _ in 0..fastrand::usize(1..6) {
                let at = fastrand::usize(..bytes.len().min(120));
                bytes[at] = fastrand::u8(..);
            }
            bytes.truncate(fastrand::usize(..=bytes.len()));
            if let Peek::Incomplete { needed } = peek(&bytes) {
                assert!(needed > bytes.len() && needed <= LONGEST_WITH_RECORDS);
            }
        }
    }

    fn hello(sni: Option<&str>) -> Peek {
        Peek::ClientHello { sni: sni.map(str::to_owned) }
    }

    /// The first flight of OpenSSL's client.
    fn openssl(sni: Option<&str>) -> Vec<u8> {
        let context = SslConnector::builder(SslMethod::tls_client()).unwrap().build().into_context();
        let mut ssl = Ssl::new(&context).unwrap();
        if let Some(sni) = sni {
            ssl.set_hostname(sni).unwrap();
        }
        let mut written = Written(Vec::new());
        let _ = openssl::ssl::SslStream::new(ssl, &mut written).unwrap().connect();
        written.0
    }

    struct Written(Vec<u8>);

    impl std::io::Read for Written {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::WouldBlock.into())
        }
    }

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn client_hello(extensions: &[(u16, &[u8])]) -> Vec<u8> {
        let mut listed = Vec::new();
        for (kind, data) in extensions {
            listed.extend([kind.to_be_bytes(), (data.len() as u16).to_be_bytes()].as_flattened());
            listed.extend_from_slice(data);
        }
        let body = [[3, 3].as_slice(), &[0; 32], b"\0\0\x02\x13\x01\x01\0", &prefixed(&listed)].concat();
        records(&message_of(&body), LONGEST_RECORD)
    }

    fn named(name: &str) -> Vec<u8> {
        prefixed(&[&[HOST_NAME][..], &prefixed(name.as_bytes())].concat())
    }

    fn prefixed(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
    }

    fn message_of(body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u32).to_be_bytes();
        [&[CLIENT_HELLO][..], &length[1..], body].concat()
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        let record = |part: &[u8]| [&[HANDSHAKE, 3, 1][..], &prefixed(part)].concat();
        message.chunks(size).flat_map(record).collect()
    }
}
