//! A stop lets go of each kind of connection in its own way.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use vestibule_tests::certs::Certs;
use vestibule_tests::client::{Client, curl};
use vestibule_tests::gateway::Gateway;
use vestibule_tests::origin::{Answer, Origin};
use vestibule_tests::{PATIENCE, ports};

use crate::raw::{connected, is_closed, is_silent};
use crate::{Edge, quoted};

/// An origin whose one answer is fed by the test.
fn fed() -> (Origin, mpsc::Sender<Vec<u8>>) {
    let (sender, receiver) = mpsc::channel();
    let receiver = Mutex::new(Some(receiver));
    (Origin::script(move |_| Answer::Stream(receiver.lock().unwrap().take().expect("one request"))), sender)
}

/// SIGTERM; returns once nobody is let in any more.
fn terminate(gateway: &Gateway, port: u16) {
    gateway.signal(libc::SIGTERM);
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_ok() {
        assert!(Instant::now() < deadline, "it still listens");
        std::thread::yield_now();
    }
}

#[test]
fn an_http_2_request_in_flight_completes() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let leaf = certs.server(&ca, &["a.test"]);
    let (origin, sender) = fed();
    let port = ports::free();
    let gateway = Gateway::start(&format!(
        "version: 1\nserver: {{ drain_timeout: 15s }}\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\", \
         tls: {{ certificates: [{{ cert: {}, key: {} }}] }} }} }}\n\
         upstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\nroutes: [{{ upstream: origin }}]",
        quoted(&leaf.cert),
        quoted(&leaf.key),
        origin.address()
    ));
    let ca = ca.cert.display().to_string();
    let asked = std::thread::spawn(move || {
        let (resolve, url) = (format!("a.test:{port}:127.0.0.1"), format!("https://a.test:{port}/"));
        curl(&["--http2", "--resolve", &resolve, "--cacert", &ca, "-w", " %{http_version}", &url])
    });
    origin.wait_for("the request", |all| all.len() == 1);
    sender.send("before and ".into()).unwrap();
    terminate(&gateway, port);
    sender.send("after".into()).unwrap();
    drop(sender);
    let output = asked.join().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "before and after 2");
    let ended = Instant::now();
    assert!(gateway.wait().success());
    assert!(ended.elapsed() < Duration::from_secs(2), "it took {:?} after the last request", ended.elapsed());
}

#[test]
fn an_answer_in_flight_tells_a_kept_connection_to_close() {
    let (sender, receiver) = mpsc::channel::<()>();
    let receiver = Mutex::new(receiver);
    let origin = Origin::script(move |request| {
        if request.target == "/waits" {
            let _ = receiver.lock().unwrap().recv_timeout(PATIENCE);
        }
        vestibule_tests::origin::Reply::ok("done").into()
    });
    let edge = Edge::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\nroutes: [{{ upstream: origin }}]",
        origin.address()
    ));
    let mut client = Client::plain(edge.port);
    let before = client.get("a.test", "/");
    assert!(!before.header("connection").is_some_and(|it| it.eq_ignore_ascii_case("close")), "{before:?}");
    client.send("GET /waits HTTP/1.1\r\nHost: a.test\r\n\r\n");
    origin.wait_for("the request", |all| all.len() == 2);
    terminate(&edge.gateway, edge.port);
    sender.send(()).unwrap();
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (200, "done"));
    assert!(response.header("connection").is_some_and(|it| it.eq_ignore_ascii_case("close")), "{response:?}");
    assert_eq!(client.to_end().unwrap(), b"");
    assert!(edge.gateway.wait().success());
}

#[test]
fn a_websocket_holds_a_stop_until_the_drain_timeout() {
    let origin = Origin::script(|_| Answer::Upgrade);
    let edge = Edge::start(&format!(
        "server: {{ drain_timeout: 1s }}\nupstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\nroutes: [{{ upstream: origin }}]",
        origin.address()
    ));
    let mut client = connected(edge.port);
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        .unwrap();
    crate::raw::head(&mut client).unwrap();
    let begun = Instant::now();
    terminate(&edge.gateway, edge.port);
    client.write_all(b"ping").unwrap();
    let mut back = [0; 4];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"ping");
    assert!(is_silent(&client, Duration::from_millis(500)), "cut after {:?}", begun.elapsed());
    assert!(is_closed(&mut client));
    edge.gateway.wait();
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(3), "it took {took:?}");
}
