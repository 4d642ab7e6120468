//! What HTTP/2 could carry into HTTP/1.1: nothing that ends a line, and no second way to say how long a body is.

use vestibule_tests::certs::Certs;
use vestibule_tests::gateway::Gateway;
use vestibule_tests::http2::frames::{
    self, Client, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM,
};
use vestibule_tests::ports;

use super::bytes::Recorder;
use crate::quoted;

type Fields = Vec<(&'static str, &'static str)>;

/// A header block of literals, of which nothing is indexed.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            block.push(text.len() as u8);
            block.extend(text.bytes());
        }
    }
    block
}

/// The pseudo-headers of a GET, and these fields behind them.
fn get(fields: &[(&'static str, &'static str)]) -> Fields {
    [&[(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/x")], fields].concat()
}

fn cases() -> Vec<(Fields, &'static [u8])> {
    let target =
        |path| vec![(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", path)];
    let host = |host| vec![(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", "/x")];
    let mut cases: Vec<(Fields, &[u8])> = [
        get(&[("x", "a\r\nx-evil: b")]),
        get(&[("x", "a\nb")]),
        get(&[("x", "a\0b")]),
        get(&[("x\r\ny", "a")]),
        get(&[("x: y", "a")]),
        get(&[("x y", "a")]),
        get(&[("X", "a")]),
        get(&[("", "a")]),
        get(&[("transfer-encoding", "chunked")]),
        get(&[("connection", "close")]),
        get(&[("keep-alive", "1")]),
        get(&[("upgrade", "websocket")]),
        get(&[("proxy-connection", "close")]),
        get(&[("te", "gzip")]),
        get(&[(":path", "/y")]),
        get(&[("x", "a"), (":method", "GET")]),
        get(&[(":status", "200")]),
        get(&[("host", "b.test")]),
        get(&[("content-length", "+5")]),
        get(&[("content-length", "5"), ("content-length", "6")]),
        target("x"),
        target(""),
        target("/x y"),
        target("/x\r\nx-evil: y"),
        target("/../x"),
        target("/x%2f"),
        host("me@a.test"),
        host("a.test b.test"),
        host(""),
        vec![(":method", "GET"), (":scheme", "https"), (":authority", "a.test")],
        vec![(":scheme", "https"), (":authority", "a.test"), (":path", "/x")],
        vec![(":method", "G ET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/x")],
        vec![(":method", "CONNECT"), (":authority", "a.test:443")],
    ]
    .into_iter()
    .map(|fields| (fields, &b""[..]))
    .collect();
    cases.push((get(&[("content-length", "1")]), b"hello"));
    cases.push((get(&[("content-length", "50")]), b"hello"));
    cases
}

#[test]
fn nothing_of_http_2_is_smuggled_into_http_1() {
    let certs = Certs::new();
    let leaf = certs.server(&certs.authority("ca"), &["a.test"]);
    let (origin, port) = (Recorder::start(), ports::free());
    let _gateway = Gateway::start(&format!(
        "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\", tls: {{ certificates: [{{ cert: {}, key: {} }}] }} }} }}\n\
         upstreams: {{ origin: {{ endpoints: [\"127.0.0.1:{}\"] }} }}\nroutes: [{{ upstream: origin }}]",
        quoted(&leaf.cert),
        quoted(&leaf.key),
        origin.port
    ));
    // One that is as it should be, so that what is refused is refused for what it is.
    assert!(is_served(port, &get(&[("x", "a\tb")]), b""));
    assert!(is_served(port, &get(&[("content-length", "5"), ("te", "trailers")]), b"hello"));
    assert_eq!(origin.take().len(), 2);
    for (fields, body) in cases() {
        assert!(!is_served(port, &fields, body), "{fields:?}");
        assert_eq!(origin.take(), [""; 0], "{fields:?}");
    }
}

/// Whether the answer to it is a 200.
fn is_served(port: u16, fields: &[(&str, &str)], body: &[u8]) -> bool {
    let mut client = Client::tls(port, &[]);
    let flags = END_HEADERS | if body.is_empty() { END_STREAM } else { 0 };
    let mut bytes = frames::frame(HEADERS, flags, 1, &block(fields));
    if !body.is_empty() {
        bytes.extend(frames::frame(DATA, END_STREAM, 1, body));
    }
    client.send(&bytes).unwrap();
    let told = client
        .wait_for(|it| it.kind == GOAWAY || (it.stream == 1 && matches!(it.kind, HEADERS | RST_STREAM)));
    // 200 is entry 8 of the static table.
    told.is_ok_and(|frame| frame.kind == HEADERS && frame.payload.first() == Some(&0x88))
}
