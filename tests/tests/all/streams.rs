//! Bodies that flow while they are made, upgrades, and plain bytes at layer 4.

use std::sync::{Mutex, mpsc};

use vestibule_tests::certs::Certs;
use vestibule_tests::client::{Client, ClientTls};
use vestibule_tests::gateway::Gateway;
use vestibule_tests::http2::{Http2Client, message};
use vestibule_tests::origin::{Answer, Origin, Reply};
use vestibule_tests::ports;
use vestibule_tests::real::{Program, Server, ServerTls, Version};

use crate::{Edge, quoted};

fn to(origin: &Origin, route: &str) -> Edge {
    Edge::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\nroutes: [{{ upstream: origin, {route} }}]",
        origin.address()
    ))
}

/// An origin whose one answer is fed by the test.
fn fed() -> (Origin, mpsc::Sender<Vec<u8>>) {
    let (sender, receiver) = mpsc::channel();
    let receiver = Mutex::new(Some(receiver));
    (Origin::script(move |_| Answer::Stream(receiver.lock().unwrap().take().expect("one request"))), sender)
}

#[test]
fn a_response_body_passes_while_it_is_made() {
    let (origin, sender) = fed();
    let edge = to(&origin, "");
    let mut client = Client::plain(edge.port);
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(client.head().status, 200);
    for word in ["one", "two", "three"] {
        sender.send(word.into()).unwrap();
        assert_eq!(client.chunk().unwrap(), word.as_bytes());
    }
    drop(sender);
    assert!(client.chunk().unwrap().is_empty());
}

#[test]
fn each_server_sent_event_arrives_before_the_next_is_sent() {
    let certs = Certs::new();
    let pair = certs.server(&certs.authority("ca"), &["a.test"]);
    let (plain, tls) = (ports::free(), ports::free());
    for client in ["plain", "TLS", "HTTP/2"] {
        let (origin, sender) = fed();
        let _gateway = Gateway::start(&format!(
            "version: 1\nlisteners:\n  web: {{ address: \"127.0.0.1:{plain}\" }}\n  web-tls: {{ address: \"127.0.0.1:{tls}\", \
             tls: {{ certificates: [{{ cert: {}, key: {} }}] }} }}\n\
             upstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\nroutes: [{{ upstream: origin }}]\n",
            quoted(&pair.cert),
            quoted(&pair.key),
            origin.address()
        ));
        let events = |mut next: Box<dyn FnMut() -> Vec<u8> + '_>| {
            for number in 0..20 {
                // One after the other: the next event exists only when the one before has arrived.
                let event = message(&format!("id: {number}\ndata: {}\n\n", "x".repeat(number * 300)));
                sender.send(event.to_vec()).unwrap();
                let mut come = Vec::new();
                while come.len() < event.len() {
                    come.extend(next());
                }
                assert_eq!(come, event, "{client}, event {number}");
            }
        };
        if client == "HTTP/2" {
            let client = Http2Client::tls(tls, "a.test");
            let mut exchange = client.send(http::Request::get("https://a.test/").body(()).unwrap(), true);
            assert_eq!(exchange.head().status(), 200);
            events(Box::new(|| message(&exchange.message().expect("an event")).to_vec()));
            continue;
        }
        let mut client = match client {
            "TLS" => Client::tls(tls, &ClientTls { sni: Some("a.test"), ..ClientTls::default() }).unwrap(),
            _ => Client::plain(plain),
        };
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\nAccept: text/event-stream\r\n\r\n");
        assert_eq!(client.head().status, 200);
        events(Box::new(|| client.chunk().unwrap()));
    }
}

#[test]
fn a_request_body_passes_while_it_is_made() {
    let origin = Origin::script(|_| Reply::ok("all of it").into());
    let edge = to(&origin, "");
    let mut client = Client::plain(edge.port);
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut expected = Vec::new();
    for word in ["one", "two", "three"] {
        expected.extend(word.bytes());
        client.send(format!("{:x}\r\n{word}\r\n", word.len()));
        origin.wait_for("the part of the body so far", |all| all.first().is_some_and(|r| r.body == expected));
    }
    assert_eq!(client.send("0\r\n\r\n").response().text(), "all of it");
}

#[test]
fn bodies_flow_both_ways_at_once() {
    let origin = Origin::script(|_| Answer::Duplex);
    let edge = to(&origin, "");
    let mut client = Client::plain(edge.port);
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 6\r\n\r\nabc");
    assert_eq!(client.head().status, 200);
    assert_eq!(client.chunk().unwrap(), b"abc");
    assert_eq!(client.send("def").chunk().unwrap(), b"def");
    assert!(client.chunk().unwrap().is_empty());
}

#[test]
fn large_bodies_pass_whole() {
    let size = 8 * 1024 * 1024;
    let origin = Origin::script(move |_| Reply::ok(&"r".repeat(size)).into());
    let edge = to(&origin, "");
    let mut client = Client::plain(edge.port);
    let response = client.post("a.test", "/", &vec![b's'; size]);
    assert_eq!((response.status, response.body.len()), (200, size));
    assert_eq!(origin.requests()[0].body.len(), size);
}

#[test]
fn an_answer_that_comes_before_the_body_reaches_the_client() {
    let origin = Origin::script(|_| Answer::Early(Reply::new(413, "too much")));
    let edge = to(&origin, "");
    let mut client = Client::plain(edge.port);
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\nfirst bytes");
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (413, "too much"));
}

#[test]
fn a_client_that_leaves_frees_the_upstream() {
    let origin = Origin::script(|_| Answer::Stall);
    let edge = to(&origin, "");
    let mut client = Client::plain(edge.port);
    client.send("GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n");
    origin.wait_for("the request", |all| all.len() == 1);
    drop(client);
    origin.wait_for_close();
}

#[test]
fn a_websocket_passes_in_both_directions() {
    let origin = Origin::script(|_| Answer::Upgrade);
    let edge = to(&origin, "");
    let mut client = Client::plain(edge.port);
    client.send(
        "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let head = client.head();
    assert_eq!(
        (head.status, head.header("sec-websocket-accept")),
        (101, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
    );
    assert!(head.header("upgrade").is_some_and(|v| v.eq_ignore_ascii_case("websocket")));
    // A masked text frame "hi", and bytes that are no frame: nothing between looks into them.
    for bytes in
        [&[0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2][..], &[0; 100_000], b"HTTP/1.1 200 OK\r\n\r\n"]
    {
        assert_eq!(client.send(bytes).exactly(bytes.len()).unwrap(), bytes);
    }
    drop(client);
    origin.wait_for_close();
}

#[test]
fn a_websocket_whose_first_bytes_come_with_its_head_loses_none() {
    let origin = Origin::script(|_| Answer::Upgrade);
    let edge = to(&origin, "");
    let mut client = Client::plain(edge.port);
    client.send(
        "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nearly",
    );
    assert_eq!(client.head().status, 101);
    assert_eq!(client.exactly(5).unwrap(), b"early");
}

#[test]
fn a_silent_stream_ends_at_the_idle_timeout() {
    let (origin, sender) = fed();
    let edge = to(&origin, "timeouts: { idle: 300ms }");
    let mut client = Client::plain(edge.port);
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(client.head().status, 200);
    sender.send("one".into()).unwrap();
    assert_eq!(client.chunk().unwrap(), b"one");
    assert!(client.chunk().is_err(), "the stream went on or ended as if it were whole");
    assert_eq!(edge.gateway.log_of("/")["cause"], "upstream_timeout");
}

/// A layer-4 listener to an origin.
fn layer_4(origin: &Origin, tcp: &str) -> (Gateway, u16) {
    let port = ports::free();
    let gateway = Gateway::start(&format!(
        "version: 1\nlisteners: {{ l4: {{ address: \"127.0.0.1:{port}\", tcp: {{ upstream: origin, {tcp} }} }} }}\n\
         upstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}",
        origin.address()
    ));
    (gateway, port)
}

#[test]
fn layer_4_passes_bytes_untouched_and_half_closes() {
    let origin = Origin::script(|request| match request.target.as_str() {
        "/echo" => Answer::Upgrade,
        _ => Answer::AfterEnd(Reply::ok("late")),
    });
    let (_gateway, port) = layer_4(&origin, "");
    let mut client = Client::plain(port);
    client.send("GET /x HTTP/1.1\r\nX-Forwarded-For: 6.6.6.6\r\nno-host: \t odd\r\n\r\n");
    client.finish_sending();
    assert_eq!(client.response().text(), "late");
    assert_eq!(client.to_end().unwrap(), b"");
    let headers = &origin.requests()[0].headers;
    assert_eq!(headers[0], ("x-forwarded-for".to_owned(), "6.6.6.6".to_owned()));
    assert_eq!(headers.len(), 2, "{headers:?}");

    let mut echo = Client::plain(port);
    echo.send("GET /echo HTTP/1.1\r\nUpgrade: any\r\n\r\n");
    echo.head();
    let bytes: Vec<u8> = (0..1_000_000).map(|n| (n % 251) as u8).collect();
    for part in bytes.chunks(50_000) {
        assert!(echo.send(part).exactly(part.len()).unwrap() == part);
    }
}

#[test]
fn layer_4_ends_a_silent_connection() {
    let origin = Origin::script(|_| Answer::Stall);
    let (_gateway, port) = layer_4(&origin, "idle_timeout: 200ms");
    let mut client = Client::plain(port);
    client.send("GET / HTTP/1.1\r\n\r\n");
    assert!(
        !matches!(client.to_end(), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock),
        "it was not ended"
    );
    origin.wait_for_close();
}

#[test]
fn a_large_request_that_is_answered_early_gets_the_whole_answer() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let certificate = certs.server(&ca, &["a.test"]);
    let tls = format!("tls: {{ verify: {{ ca: {} }} }}", quoted(&ca.cert));
    // HAProxy answers when it has read the head, and resets the connection, or the stream, under what still comes.
    for (version, protocol, tls) in [
        (Version::Tls13, "http/1.1", ""),
        (Version::Tls12, "http/1.1", &*tls),
        (Version::Tls13, "http/1.1", &tls),
        (Version::Tls13, "h2", &tls),
    ] {
        let server = ServerTls { h2: protocol == "h2", ..ServerTls::new("a.test", &certificate, version) };
        let haproxy = Server::start(Program::HaProxy, &server);
        let port = if tls.is_empty() { haproxy.plain_port } else { haproxy.port };
        let edge = Edge::start(&format!(
            "upstreams: {{ origin: {{ endpoints: [\"127.0.0.1:{port}\"], protocol: {protocol}, {tls} }} }}\n\
             routes: [{{ upstream: origin }}]"
        ));
        for round in 0..20 {
            let case = format!("{version:?}, {protocol}, {tls}, round {round}");
            // So that some of them go by a connection that was kept.
            assert_eq!(edge.get("a.test", "/").status, 200, "{case}");
            let length = 4 << 20;
            let head = format!("POST /{round} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n");
            let mut client = Client::plain(edge.port);
            // The gateway may close before it has read all.
            let _ = client.try_send([head.as_bytes(), &vec![b'x'; length]].concat());
            let answer = client.try_response().unwrap_or_else(|e| panic!("{case}: {e}"));
            assert_eq!((answer.status, answer.text().as_str()), (200, "served"), "{case}");
        }
    }
}
