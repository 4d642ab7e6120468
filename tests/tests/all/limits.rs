//! Every limit is finite, and is the one that the file says.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use serde_json::json;
use vestibule_tests::certs::Certs;
use vestibule_tests::client::Client;
use vestibule_tests::gateway::Gateway;
use vestibule_tests::origin::{Opening, Origin, OriginTls, Reply};
use vestibule_tests::{PATIENCE, ports};

use crate::raw::{self, connected, is_closed, is_silent};
use crate::{Edge, quoted};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// A gateway whose listener has these keys, in front of an origin that answers.
fn listener(keys: &str) -> (Gateway, Origin, u16) {
    let (origin, port) = (Origin::script(|_| Reply::ok("served").into()), ports::free());
    let gateway = Gateway::start(&format!(
        "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\", {keys} }} }}\n\
         upstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\nroutes: [{{ upstream: origin }}]",
        origin.address()
    ));
    (gateway, origin, port)
}

/// How long it took, in seconds.
fn seconds<T>(run: impl FnOnce() -> T) -> (f64, T) {
    let begun = Instant::now();
    let done = run();
    (begun.elapsed().as_secs_f64(), done)
}

#[test]
fn a_client_that_stalls_within_a_request_head_is_closed() {
    let (_gateway, origin, port) = listener("keepalive: { idle_timeout: 1s }");
    for requests_before in [0, 1] {
        let mut client = connected(port);
        for _ in 0..requests_before {
            client.write_all(GET).unwrap();
            raw::head(&mut client).unwrap();
        }
        let seen = origin.requests().len();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a.te").unwrap();
        let (took, closed) = seconds(|| is_closed(&mut client));
        assert!(closed && took < 4.0, "after {requests_before} requests: {closed} after {took} s");
        assert_eq!(origin.requests().len(), seen);
    }
}

#[test]
fn a_client_that_sends_its_request_head_byte_by_byte_is_closed() {
    let (_gateway, origin, port) = listener("keepalive: { idle_timeout: 1s }");
    let mut client = connected(port);
    client.write_all(GET).unwrap();
    raw::head(&mut client).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut rest = [0; 4096];
    let (took, ()) = seconds(|| {
        // Each byte comes well within the idle timeout; what ends the loop is the end of the connection.
        while client.write_all(b"x").is_ok() {
            match client.read(&mut rest) {
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => return,
                Ok(0) => return,
                _ => {}
            }
        }
    });
    assert!((8.0..15.0).contains(&took), "after {took} s");
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn an_idle_kept_connection_is_closed_at_the_listeners_idle_timeout() {
    let (_gateway, _origin, port) = listener("keepalive: { idle_timeout: 1s }");
    let mut client = connected(port);
    client.write_all(GET).unwrap();
    raw::head(&mut client).unwrap();
    let (took, closed) = seconds(|| is_closed(&mut client));
    assert!(closed && (0.8..3.0).contains(&took), "{closed} after {took} s");
}

#[test]
fn a_connection_that_never_says_a_word_is_closed_at_the_listeners_idle_timeout() {
    let (_gateway, _origin, port) = listener("keepalive: { idle_timeout: 1s }");
    let (took, closed) = seconds(|| is_closed(&mut connected(port)));
    assert!(closed && (0.8..3.0).contains(&took), "{closed} after {took} s");
}

#[test]
fn a_header_block_that_is_too_large_is_refused() {
    let (_gateway, origin, port) = listener("");
    let many: String = (0..300).map(|n| format!("x-{n}: 1\r\n")).collect();
    let large = format!("x-large: {}\r\n", "l".repeat(2 << 20));
    for (what, fields) in [("300 fields", many), ("2 MiB", large)] {
        let mut client = Client::plain(port);
        // The gateway closes before it has read all of it, and that may cut the sending short.
        let _ = client.try_send(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"));
        match client.try_response() {
            Ok(response) => assert!(matches!(response.status, 400 | 431), "{what}: {response:?}"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{what}"),
        }
        assert!(origin.requests().is_empty(), "{what}");
    }
    assert_eq!(Client::plain(port).get("a.test", "/").status, 200);
}

#[test]
fn a_connection_past_the_limit_waits_until_another_one_closes() {
    let (_gateway, origin, port) = listener("max_connections: 2");
    let (mut first, mut second) = (Client::plain(port), Client::plain(port));
    assert_eq!((first.get("a.test", "/").status, second.get("a.test", "/").status), (200, 200));
    let mut third = connected(port);
    third.write_all(GET).unwrap();
    assert!(is_silent(&third, Duration::from_millis(400)), "it was let in");
    assert_eq!(origin.requests().len(), 2);
    drop(first);
    assert!(raw::head(&mut third).unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(second.get("a.test", "/").status, 200);
}

#[test]
fn a_client_that_never_finishes_its_tls_handshake_is_closed() {
    let certs = Certs::new();
    let leaf = certs.server(&certs.authority("ca"), &["a.test"]);
    let port = ports::free();
    let _gateway = Gateway::start(&format!(
        "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\", tls: {{ certificates: [{{ cert: {}, key: {} }}] }} }} }}\n\
         routes: [{{ respond: {{ body: hello }} }}]",
        quoted(&leaf.cert),
        quoted(&leaf.key),
    ));
    // The beginning of a record that promises 512 bytes more.
    for bytes in [&b""[..], &b"\x16\x03\x01\x02\x00\x01"[..]] {
        let mut client = connected(port);
        client.write_all(bytes).unwrap();
        let (took, closed) = seconds(|| is_closed(&mut client));
        assert!(closed && took < 15.0, "{bytes:?}: {closed} after {took} s");
        if !bytes.is_empty() {
            assert!(took > 5.0, "{bytes:?}: closed after {took} s already");
        }
    }
}

/// One GET: how long it took, its status and the cause in its line of the access log.
fn timed(edge: &Edge, path: &str) -> (f64, u16, serde_json::Value) {
    let (took, (status, cause)) = seconds(|| edge.outcome("a.test", path));
    (took, status, cause)
}

#[test]
fn an_upstream_that_never_finishes_tls_is_given_up_at_the_connect_timeout() {
    let origin = Origin::opening(|_| Opening::Stall);
    let edge = Edge::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"{}\"], tls: {{ verify: off }}, connect_timeout: 500ms }} }}\n\
         routes: [{{ upstream: origin }}]",
        origin.address()
    ));
    let (took, status, cause) = timed(&edge, "/");
    assert_eq!((status, cause), (504, json!("tls_handshake_timeout")));
    assert!((0.45..1.5).contains(&took), "after {took} s");
}

#[test]
fn an_upstream_that_refuses_is_a_502_and_one_that_stays_silent_a_504() {
    let (silent, refused) = (Origin::opening(|_| Opening::Stall), ports::free());
    let edge = Edge::start(&format!(
        "upstreams: {{ silent: {{ endpoints: [\"{}\"] }}, refused: {{ endpoints: [\"127.0.0.1:{refused}\"] }} }}\n\
         routes:\n  - {{ match: {{ paths: [/silent] }}, upstream: silent, timeouts: {{ attempt: 500ms }} }}\n  \
         - {{ match: {{ paths: [/refused] }}, upstream: refused, timeouts: {{ attempt: 500ms }} }}",
        silent.address(),
    ));
    let (took, status, cause) = timed(&edge, "/silent");
    assert_eq!((status, cause), (504, json!("upstream_timeout")));
    assert!((0.45..1.0).contains(&took), "after {took} s");
    let (took, status, cause) = timed(&edge, "/refused");
    assert_eq!((status, cause), (502, json!("connect_refused")));
    assert!(took < 0.4, "after {took} s");
}

/// Answers with this, and then a byte every 200 ms for as long as anybody is there.
fn trickling(answer: &'static str) -> u16 {
    raw::server(move |_, mut socket| {
        raw::head(&mut socket)?;
        socket.write_all(answer.as_bytes())?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        loop {
            match socket.read(&mut [0]) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => socket.write_all(b"x")?,
                _ => return Ok(()),
            }
        }
    })
}

#[test]
fn an_attempt_that_trickles_is_cut_at_its_deadline() {
    let head = trickling("HTTP/1.1 200 OK\r\nx-endless: ");
    let body = trickling("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n");
    for limit in ["attempt", "request"] {
        let edge = Edge::start(&format!(
            "upstreams: {{ head: {{ endpoints: [\"127.0.0.1:{head}\"] }}, body: {{ endpoints: [\"127.0.0.1:{body}\"] }} }}\n\
             routes:\n  - {{ match: {{ paths: [/head] }}, upstream: head, timeouts: {{ {limit}: 1s }} }}\n  \
             - {{ match: {{ paths: [/body] }}, upstream: body, timeouts: {{ {limit}: 1s }} }}"
        ));
        let (took, status, cause) = timed(&edge, "/head");
        assert_eq!((status, cause), (504, json!("upstream_timeout")), "{limit}");
        assert!((0.9..1.3).contains(&took), "{limit}: after {took} s");

        let mut client = connected(edge.port);
        client.write_all(b"GET /body HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
        let (took, _) = seconds(|| is_closed(&mut client));
        assert!((0.9..1.3).contains(&took), "{limit}, body: after {took} s");
        assert_eq!(edge.gateway.log_of("/body")["cause"], "upstream_timeout", "{limit}");
    }
}

/// Passes bytes on to an origin, and the first only after a while.
fn late(origin: u16, by: Duration) -> u16 {
    raw::server(move |_, near| {
        let far = TcpStream::connect(("127.0.0.1", origin))?;
        // The lateness that is under test.
        std::thread::sleep(by);
        let (mut up, mut down) = ((near.try_clone()?, far.try_clone()?), (far, near));
        let upwards = std::thread::spawn(move || io::copy(&mut up.0, &mut up.1));
        let _ = io::copy(&mut down.0, &mut down.1);
        let _ = down.1.shutdown(std::net::Shutdown::Both);
        let _ = upwards.join();
        Ok(())
    })
}

#[test]
fn an_attempts_deadline_counts_the_time_that_the_handshake_took() {
    let certs = Certs::new();
    let leaf = certs.server(&certs.authority("ca"), &["a.test"]);
    let tls = OriginTls { certificate: &leaf, clients: None, insist_on_sni: false };
    let origin = Origin::tls(&tls, |_| vestibule_tests::origin::Answer::Stall);
    let port = late(origin.port, Duration::from_millis(500));
    let edge = Edge::start(&format!(
        "upstreams: {{ late: {{ endpoints: [\"127.0.0.1:{port}\"], tls: {{ verify: off }} }} }}\n\
         routes: [{{ upstream: late, timeouts: {{ attempt: 1s }} }}]"
    ));
    let (took, status, cause) = timed(&edge, "/");
    assert_eq!((status, cause), (504, json!("upstream_timeout")));
    assert_eq!(origin.requests().len(), 1, "the handshake was not finished");
    assert!((0.9..1.3).contains(&took), "after {took} s");
}

/// A port whose queue of connections is full, until the one who holds the other end of the channel lets go: the
/// kernel drops what asks to connect, and the asker asks again a second later. Then nobody answers.
fn full(let_in: mpsc::Receiver<()>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // SAFETY: plain system call on a descriptor that is open.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let waiting = TcpStream::connect(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || {
        let _ = let_in.recv_timeout(PATIENCE);
        drop(waiting);
        let kept: Vec<_> = listener.incoming().take(2).collect();
        let _ = let_in.recv_timeout(PATIENCE);
        drop(kept);
    });
    port
}

#[test]
fn an_attempts_deadline_counts_the_time_that_connecting_took() {
    let (sender, receiver) = mpsc::channel();
    let port = full(receiver);
    let edge = Arc::new(Edge::start(&format!(
        "upstreams: {{ full: {{ endpoints: [\"127.0.0.1:{port}\"], tls: {{ verify: off }}, connect_timeout: 10s }} }}\n\
         routes: [{{ upstream: full, timeouts: {{ attempt: 2s }} }}]"
    )));
    let asking = edge.clone();
    let asked = std::thread::spawn(move || timed(&asking, "/"));
    // The first try to connect has come and was dropped; the second comes a second after it.
    std::thread::sleep(Duration::from_millis(500));
    sender.send(()).unwrap();
    let (took, status, cause) = asked.join().unwrap();
    assert_eq!(status, 504, "{cause}");
    assert!((1.8..2.6).contains(&took), "{cause} after {took} s");
}

#[test]
fn a_kept_upstream_connection_outlives_the_deadlines_of_its_requests() {
    let origin = Origin::echo();
    let edge = Edge::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\n\
         routes: [{{ upstream: origin, timeouts: {{ attempt: 300ms, request: 400ms }} }}]",
        origin.address()
    ));
    for _ in 0..3 {
        let mut client = connected(edge.port);
        client.write_all(GET).unwrap();
        raw::head(&mut client).unwrap();
        // Reads past the body first, which may come behind the head.
        let mut buffer = [0; 4096];
        client.set_read_timeout(Some(Duration::from_millis(600))).unwrap();
        while client.read(&mut buffer).is_ok_and(|count| count > 0) {}
    }
    let connections: Vec<usize> = origin.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [0, 0, 0]);
}
