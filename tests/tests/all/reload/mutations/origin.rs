//! Origins that tell what they were asked, and remember nothing: they answer a hundred thousand requests.

use std::io::{self, Read, Write};
use std::thread;
use std::time::Duration;

use openssl::ssl::{Ssl, SslAcceptor, SslFiletype, SslMethod, SslStream, SslVerifyMode};
use vestibule_tests::certs::{Authority, Pair};

use crate::raw;

/// How long the slow one takes: long beside the timeout that a route may have, and beside a busy machine's delays.
const SLOW: Duration = Duration::from_millis(150);

/// A plain one; gives its port.
pub fn plain(name: &'static str) -> u16 {
    raw::server(move |_, mut socket| serve(&mut socket, name, Duration::ZERO))
}

/// A plain one that takes its time.
pub fn slow() -> u16 {
    raw::server(|_, mut socket| serve(&mut socket, "slow", SLOW))
}

/// One over TLS; with `clients`, for those alone that show a certificate of theirs.
pub fn tls(name: &'static str, shown: &Pair, clients: Option<&Authority>) -> u16 {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    builder.set_certificate_chain_file(&shown.cert).unwrap();
    builder.set_private_key_file(&shown.key, SslFiletype::PEM).unwrap();
    builder.set_session_id_context(name.as_bytes()).unwrap();
    if let Some(clients) = clients {
        builder.set_ca_file(&clients.cert).unwrap();
        builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    }
    let context = builder.build().into_context();
    raw::server(move |_, socket| {
        let mut stream = SslStream::new(Ssl::new(&context)?, socket)?;
        stream.accept().map_err(io::Error::other)?;
        serve(&mut stream, name, Duration::ZERO)
    })
}

/// Answers until the other side leaves.
fn serve(wire: &mut (impl Read + Write), name: &str, after: Duration) -> io::Result<()> {
    let mut unread = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            fill(wire, &mut unread)?;
        };
        let head = String::from_utf8_lossy(&unread[..end]).into_owned();
        let fields = || head.lines().skip(1).filter_map(|line| line.split_once(": "));
        let length = fields().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
        while unread.len() < end + length {
            fill(wire, &mut unread)?;
        }
        let sent = String::from_utf8_lossy(&unread[end..end + length]).into_owned();
        unread.drain(..end + length);
        thread::sleep(after);
        // The id is another one for each request.
        let told = fields().filter(|(name, _)| !name.eq_ignore_ascii_case("x-request-id"));
        let told: String = told.map(|(name, value)| format!("{name}: {value}\n")).collect();
        let asked = head.lines().next().unwrap_or_default();
        let body = format!("{name} was asked: {asked}\n{told}{sent}\n");
        let length = body.len();
        write!(wire, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nserver: {name}\r\n\r\n{body}")?;
        wire.flush()?;
    }
}

fn fill(wire: &mut impl Read, unread: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 8192];
    match wire.read(&mut buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => {
            unread.extend(&buffer[..count]);
            Ok(())
        }
    }
}
