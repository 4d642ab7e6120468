//! Clients that are slow, half gone or gone: served where they keep within the limits, and never waited for beyond them.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use serde_json::json;
use vestibule_tests::client::Client;
use vestibule_tests::gateway::Gateway;
use vestibule_tests::origin::{Answer, Origin, Reply};
use vestibule_tests::ports;

use super::bytes::Proxying;
use crate::raw::{self, connected, is_closed};

/// A gateway whose listener has these limits.
fn limited(limits: &str, origin: &Origin) -> (Gateway, u16) {
    let port = ports::free();
    let yaml = format!(
        "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\", limits: {{ {limits} }} }} }}\n\
         upstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\nroutes: [{{ upstream: origin }}]",
        origin.address()
    );
    (Gateway::start(&yaml), port)
}

fn served() -> Origin {
    Origin::script(|_| Reply::ok("served").into())
}

#[test]
fn a_request_that_comes_byte_by_byte_is_served() {
    let origin = served();
    let (_gateway, port) = limited("head_timeout: 30s", &origin);
    for request in [
        "POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello",
        "POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nx: y\r\n\r\n",
    ] {
        let mut client = Client::plain(port);
        for byte in request.bytes() {
            client.send([byte]);
        }
        assert_eq!(client.response().status, 200, "{request}");
        let seen = origin.requests().pop().unwrap();
        assert_eq!((seen.body.as_slice(), seen.complete), (&b"hello"[..], true));
    }
}

#[test]
fn a_head_that_stalls_is_told_so_and_closed() {
    let origin = served();
    let (gateway, port) = limited("head_timeout: 1s", &origin);
    for requests_before in [0, 1] {
        let mut client = connected(port);
        for _ in 0..requests_before {
            client.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
            raw::head(&mut client).unwrap();
        }
        let before = origin.requests().len();
        client.write_all(b"GET /stalled HTTP/1.1\r\nHost: a.te").unwrap();
        let mut came = String::new();
        client.read_to_string(&mut came).unwrap();
        assert!(came.contains("HTTP/1.1 408 ") && came.contains("connection: close"), "{came}");
        assert_eq!(origin.requests().len(), before);
    }
    let line = gateway.log_line(|line| line["status"] == 408);
    assert_eq!(line["cause"], "client_too_slow");
}

#[test]
fn a_body_that_stalls_or_trickles_is_told_so_and_closed() {
    let origin = served();
    for (limits, piece) in [("body_idle: 1s", None), ("body_idle: 1s, body_rate: 1KiB", Some(b"x"))] {
        let (gateway, port) = limited(limits, &origin);
        let mut client = connected(port);
        client.write_all(b"POST /slow HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\nx").unwrap();
        client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut came = Vec::new();
        // A piece well within the idle time, until there is an answer.
        while came.is_empty() {
            if let Some(piece) = piece {
                let _ = client.write_all(piece);
            }
            let mut buffer = [0; 4096];
            if let Ok(count) = client.read(&mut buffer) {
                assert!(count > 0, "{limits}: closed without a word");
                came.extend(&buffer[..count]);
            }
        }
        assert!(came.starts_with(b"HTTP/1.1 408 "), "{limits}: {}", came.escape_ascii());
        client.set_read_timeout(Some(vestibule_tests::PATIENCE)).unwrap();
        assert!(is_closed(&mut client));
        let line = gateway.log_of("/slow");
        assert_eq!((&line["status"], &line["cause"]), (&json!(408), &json!("client_too_slow")));
        origin.wait_for("the end of the request", |all| all.last().is_some_and(|last| !last.complete));
    }
}

#[test]
fn a_body_that_is_not_legal_is_told_so_and_never_whole_upstream() {
    let origin = served();
    let (gateway, port) = limited("", &origin);
    let mut client = Client::plain(port);
    client.send("POST /odd HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    origin.wait_for("the first chunk", |all| all.iter().any(|it| it.body == b"hello"));
    client.send("5;\nhello\r\n0\r\n\r\n");
    assert_eq!(client.response().status, 400);
    assert!(client.to_end().unwrap().is_empty());
    assert_eq!(gateway.log_of("/odd")["cause"], "request_invalid");
    assert!(!origin.requests()[0].complete);
}

#[test]
fn a_client_that_reads_slowly_gets_all_of_its_answer() {
    let body = "slow ".repeat(200_000);
    let sent = body.clone();
    let origin = Origin::script(move |_| Reply::ok(&sent).into());
    let (_gateway, port) = limited("", &origin);
    let mut client = Client::plain(port);
    let head = client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").head();
    assert_eq!(head.header("content-length"), Some(body.len().to_string().as_str()));
    let mut came = Vec::new();
    while came.len() < body.len() {
        came.extend(client.exactly(1000.min(body.len() - came.len())).unwrap());
        std::thread::yield_now();
    }
    assert_eq!(came, body.as_bytes());
}

#[test]
fn a_client_that_ends_its_side_before_the_answer_is_taken_to_be_gone() {
    let origin = Origin::script(|_| Answer::Stall);
    let (gateway, port) = limited("", &origin);
    let mut client = connected(port);
    client.write_all(b"GET /half HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
    origin.wait_for("the request", |all| !all.is_empty());
    client.shutdown(Shutdown::Write).unwrap();
    assert!(is_closed(&mut client));
    assert_eq!(gateway.log_of("/half")["cause"], "client_closed");
    origin.wait_for_close();
}

#[test]
fn a_client_that_resets_its_connection_ends_its_request_upstream() {
    let origin = served();
    let (gateway, port) = limited("", &origin);
    let client = connected(port);
    (&client).write_all(b"POST /gone HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhello").unwrap();
    origin.wait_for("a part of the body", |all| all.iter().any(|it| it.body == b"hello"));
    // A close with a linger of none is a reset.
    without_linger(&client);
    drop(client);
    assert_eq!(gateway.log_of("/gone")["cause"], "client_closed");
    origin.wait_for_close();
    assert!(!origin.requests()[0].complete);
    assert_eq!(Client::plain(port).get("a.test", "/").status, 200);
}

#[test]
fn nginx_beside_does_with_such_clients_what_the_page_says() {
    let origin = Origin::script(|_| Answer::Stall);
    let nginx = Proxying::start(origin.address().rsplit_once(':').unwrap().1.parse().unwrap());
    let stalled = |sent: &str| {
        let mut client = connected(nginx.port);
        client.write_all(sent.as_bytes()).unwrap();
        let mut came = Vec::new();
        // It may end by a reset, too.
        let _ = client.read_to_end(&mut came);
        String::from_utf8(came).unwrap()
    };
    assert_eq!(stalled("GET / HTTP/1.1\r\nHost: a.te"), "", "within a head");
    assert_eq!(stalled("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\nx"), "", "within a body");
    assert!(origin.requests().is_empty());

    let mut half = connected(nginx.port);
    half.write_all(b"GET /half HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
    origin.wait_for("the request", |all| !all.is_empty());
    half.shutdown(Shutdown::Write).unwrap();
    assert!(is_closed(&mut half));
    origin.wait_for_close();
}

fn without_linger(client: &std::net::TcpStream) {
    use std::os::fd::AsRawFd;

    let none = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: plain system call on a descriptor that is open, with a struct of its own size.
    let set = unsafe {
        libc::setsockopt(
            client.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const none).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    assert_eq!(set, 0);
}
