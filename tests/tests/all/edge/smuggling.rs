//! Requests that two servers may read in two ways. Each is either refused, and its connection closed, or reaches the
//! upstream as exactly one request; the page prints what becomes of it here and at nginx, and is held to it.

use std::io::{Read, Write};

use crate::page::Page;
use crate::{Edge, raw};

use super::bytes::{LAST, Proxying, Recorder, exchange, statuses};

const HEAD: &str = "| request | Vestibule | nginx |";

/// What would be smuggled.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// Each by the name under which the page tells of it.
fn cases() -> Vec<(&'static str, String)> {
    let post = |fields: &str, body: &str| format!("POST /x HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n{body}");
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    let coded =
        |value: &str| post(&format!("Transfer-Encoding:{value}\r\n"), &format!("0\r\n\r\n{SMUGGLED}"));
    let length = |value: &str| post(&format!("Content-Length: {value}\r\n"), "hello");
    let line = |line: &str| format!("{line}\r\nHost: a.test\r\n\r\n");
    let field = |field: &str| format!("GET /x HTTP/1.1\r\nHost: a.test\r\n{field}\r\n\r\n");
    let host = |fields: &str| format!("GET /x HTTP/1.1\r\n{fields}\r\n");
    let both = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
    vec![
        ("Content-Length and Transfer-Encoding", post(both, &format!("0\r\n\r\n{SMUGGLED}"))),
        (
            "the same, the other way round",
            post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
        ),
        ("`Transfer-Encoding: xchunked`", coded(" xchunked")),
        ("`Transfer-Encoding: chunked, identity`", coded(" chunked, identity")),
        ("`Transfer-Encoding: identity, chunked`", coded(" identity, chunked")),
        ("`Transfer-Encoding: gzip, chunked`", coded(" gzip, chunked")),
        ("`Transfer-Encoding: identity`", coded(" identity")),
        ("an empty Transfer-Encoding", coded("")),
        ("a tab before `chunked`", coded("\tchunked")),
        ("a vertical tab before `chunked`", coded(" \x0bchunked")),
        (
            "a space before the colon of Transfer-Encoding",
            post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
        ),
        ("a folded Transfer-Encoding", post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n")),
        ("`Transfer-Encoding: \"chunked\"`", coded(" \"chunked\"")),
        (
            "two Transfer-Encodings",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"),
        ),
        (
            "Transfer-Encoding in HTTP/1.0",
            "POST /x HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        ),
        ("`Content-Length: +5`", length("+5")),
        ("`Content-Length: -5`", length("-5")),
        ("`Content-Length: 5, 5`", length("5, 5")),
        ("`Content-Length: 0x5`", length("0x5")),
        ("`Content-Length: 5 5`", length("5 5")),
        ("an empty Content-Length", length("")),
        ("a Content-Length of 2^64 + 5", length("18446744073709551621")),
        ("two Content-Lengths that differ", post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!")),
        ("two Content-Lengths that do not", post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello")),
        ("spaces around a Content-Length", length(" 5 ")),
        ("a body longer than its Content-Length", post("Content-Length: 5\r\n", &format!("hello{SMUGGLED}"))),
        (
            "a body of a GET",
            format!("GET /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello{SMUGGLED}"),
        ),
        ("a chunk's size `0x5`", chunked("0x5\r\nhello\r\n0\r\n\r\n")),
        ("a chunk's size `+5`", chunked("+5\r\nhello\r\n0\r\n\r\n")),
        ("a chunk's size that overflows", chunked("10000000000000005\r\nhello\r\n0\r\n\r\n")),
        ("a chunk's size that ends in a bare LF", chunked("5\nhello\r\n0\r\n\r\n")),
        ("an extension with a bare LF", chunked(&format!("5;x\nhello\r\n0\r\n\r\n{SMUGGLED}"))),
        ("an extension with a bare CR", chunked("5;x\ry\r\nhello\r\n0\r\n\r\n")),
        ("an extension", chunked("5;x=y\r\nhello\r\n0\r\n\r\n")),
        ("a chunk without its CRLF", chunked("5\r\nhello0\r\n\r\n")),
        ("a chunk that ends in a bare LF", chunked("5\r\nhello\n0\r\n\r\n")),
        ("a chunk longer than its size", chunked("5\r\nhelloXX0\r\n\r\n")),
        ("trailers that end in a bare LF", chunked("0\r\nx: y\n\r\n")),
        ("a request as a trailer", chunked(&format!("0\r\n{SMUGGLED}"))),
        ("a header line that ends in a bare LF", "GET /x HTTP/1.1\nHost: a.test\n\n".into()),
        ("a bare CR in a value", field("x: a\rGET /smuggled HTTP/1.1")),
        ("a NUL in a value", field("x: a\0b")),
        ("a folded value", field("x: a\r\n b")),
        ("a space before a colon", field("x : a")),
        ("a field without a colon", field("x")),
        ("a field without a name", field(": x")),
        ("a bracket in a name", field("x[y]: a")),
        ("a space in the target", line("GET /x y HTTP/1.1")),
        ("a tab in the request line", line("GET\t/x HTTP/1.1")),
        ("a fragment in the target", line("GET /x#y HTTP/1.1")),
        ("no version", line("GET /x")),
        ("`HTTP/1.2`", line("GET /x HTTP/1.2")),
        ("`PRI * HTTP/2.0`", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into()),
        ("authority-form", line("GET a.test:80 HTTP/1.1")),
        ("CONNECT", line("CONNECT a.test:443 HTTP/1.1")),
        ("`GET *`", line("GET * HTTP/1.1")),
        ("`OPTIONS *`", line("OPTIONS * HTTP/1.1")),
        ("absolute-form", line("GET http://a.test/x HTTP/1.1")),
        ("absolute-form for another Host", line("GET http://b.test/x HTTP/1.1")),
        ("no Host", host("x: y\r\n")),
        ("no Host in HTTP/1.0", "GET /x HTTP/1.0\r\n\r\n".into()),
        ("two Hosts", host("Host: a.test\r\nHost: a.test\r\n")),
        ("an empty Host", host("Host:\r\n")),
        ("a Host with a user", host("Host: me@a.test\r\n")),
        ("a Host with a space", host("Host: a.test b.test\r\n")),
        ("a Host with a port that is none", host("Host: a.test:x\r\n")),
        ("a Host with port 65536", host("Host: a.test:65536\r\n")),
        ("a Host with a path", host("Host: a.test/x\r\n")),
        ("a second request at once", format!("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n{SMUGGLED}")),
        ("a second request behind one that is refused", format!("GET /x HTTP/1.1\r\n\r\n{SMUGGLED}")),
        (
            "bytes behind an upgrade that is refused",
            format!(
                "GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n{SMUGGLED}"
            ),
        ),
        (
            "bytes behind an upgrade to h2c",
            format!(
                "GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n{SMUGGLED}"
            ),
        ),
        (
            "`Connection: content-length`",
            post("Connection: content-length\r\nContent-Length: 5\r\n", "hello"),
        ),
        ("`Content_Length` beside the real one", post("Content_Length: 0\r\nContent-Length: 5\r\n", "hello")),
    ]
}

/// What became of it: the first status, and what has reached the upstream where that is not the one request.
fn outcome(port: u16, upstream: &Recorder, request: &str) -> String {
    let answers = exchange(port, request.as_bytes());
    let reached = upstream.take();
    let count = |path: &str| reached.iter().filter(|it| it.split(' ').nth(1) == Some(path)).count();
    let first = reached.len() - count("/last") - count("/smuggled");
    assert!(first <= 1, "{request:?} reached the upstream as {reached:#?}");
    let status = answers.first().map_or("closed".to_owned(), u16::to_string);
    match (first, count("/smuggled")) {
        (0 | 1, 0) => status,
        _ => format!("{status}, and the second"),
    }
}

#[test]
fn no_request_is_smuggled_and_the_page_tells_what_becomes_of_each() {
    let (ours, theirs) = (Recorder::start(), Recorder::start());
    let edge = Edge::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"127.0.0.1:{}\"] }} }}\nroutes: [{{ upstream: origin }}]",
        ours.port
    ));
    let nginx = Proxying::start(theirs.port);
    let mut rows = Vec::new();
    for (name, request) in cases() {
        let outcome_here = outcome(edge.port, &ours, &request);
        assert!(!outcome_here.contains("second"), "{name}: {outcome_here}");
        let answered: u16 = outcome_here.parse().unwrap_or_else(|_| panic!("{name}: {outcome_here}"));
        assert!(matches!(answered, 200 | 400 | 405 | 505), "{name}: {answered}");
        rows.push(format!("| {name} | {outcome_here} | {} |", outcome(nginx.port, &theirs, &request)));
    }
    let text = Page::read("docs/edge.md").text;
    let table: Vec<&str> = text.lines().skip_while(|line| *line != HEAD).skip(2).take(rows.len()).collect();
    // Of nginx it is enough that it serves or refuses, which another version of it words otherwise.
    let gist = |row: &str| {
        let (here, there) = row.trim_end_matches(" |").rsplit_once(" | ").unwrap_or((row, ""));
        (here.to_owned(), there.starts_with("200"))
    };
    let [told, found] = [table, rows.iter().map(String::as_str).collect()]
        .map(|rows: Vec<&str>| rows.into_iter().map(gist).collect::<Vec<_>>());
    assert_eq!(told, found, "the page would have to say:\n{}", rows.join("\n"));
}

#[test]
fn a_refused_request_ends_its_connection_and_the_log_says_why() {
    let origin = Recorder::start();
    let edge = Edge::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"127.0.0.1:{}\"] }} }}\nroutes: [{{ upstream: origin }}]",
        origin.port
    ));
    for (name, request) in cases() {
        let answers = exchange(edge.port, request.as_bytes());
        let status = answers[0];
        if status != 200 {
            assert_eq!(answers, [status], "{name}: the connection went on");
            let line = edge.gateway.log_line(|line| line["status"] == status);
            assert!(!line["cause"].is_null(), "{name}: {line}");
        }
    }
    for request in origin.take() {
        assert!(!request.contains("smuggled") || !request.starts_with("GET /smuggled"), "{request}");
    }
}

#[test]
fn no_answer_of_an_upstream_is_split_or_left_for_the_next_client() {
    let answers: [&[u8]; 9] = [
        b"HTTP/1.1 200 OK\r\nx: a\rx-evil: b\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nx: a\r\n x-evil: b\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\nx: a\ncontent-length: 2\n\nok",
        b"HTTP/1.1 200 O\rK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nx-evil: b\r\ncontent-length: 4\r\n\r\nevil",
    ];
    for answer in answers {
        let origin = raw::server(move |_, mut socket| {
            // What stands behind an answer is there while its connection is kept; others end with theirs.
            while raw::head(&mut socket).is_ok() {
                socket.write_all(answer)?;
                if !answer.ends_with(b"evil") {
                    break;
                }
            }
            Ok(())
        });
        let edge = Edge::start(&format!(
            "upstreams: {{ origin: {{ endpoints: [\"127.0.0.1:{origin}\"] }} }}\nroutes: [{{ upstream: origin }}]"
        ));
        for _ in 0..2 {
            let mut client = raw::connected(edge.port);
            client.write_all(LAST).unwrap();
            let mut came = Vec::new();
            client.read_to_end(&mut came).unwrap();
            let told = came.escape_ascii().to_string();
            let end =
                came.windows(4).position(|it| it == b"\r\n\r\n").unwrap_or_else(|| panic!("no head: {told}"));
            let lines =
                came[..end].split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
            for line in lines {
                assert!(!line.iter().any(|byte| matches!(byte, b'\r' | 0)), "{told}");
                assert!(!line.starts_with(b"x-evil") && !line.starts_with(b" "), "{told}");
            }
            assert_eq!(statuses(&came).len(), 1, "{told}");
        }
    }
}
