//! Start and stop.

use std::net::{TcpListener, TcpStream};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use vestibule_tests::client::Client;
use vestibule_tests::gateway::Gateway;
use vestibule_tests::origin::{Answer, Origin};
use vestibule_tests::ports;

use crate::Edge;

#[test]
fn sigterm_ends_an_idle_gateway_at_once() {
    let edge = Edge::start("routes: [{ respond: { body: hello } }]");
    let mut kept = Client::plain(edge.port);
    assert_eq!(kept.get("a.test", "/").text(), "hello");
    let begun = Instant::now();
    assert!(edge.gateway.stop().success());
    assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
    assert!(TcpStream::connect(("127.0.0.1", edge.port)).is_err(), "somebody still listens");
}

#[test]
fn sigterm_lets_a_request_in_flight_finish() {
    let (sender, receiver) = mpsc::channel();
    let receiver = Mutex::new(Some(receiver));
    let origin =
        Origin::script(move |_| Answer::Stream(receiver.lock().unwrap().take().expect("one request")));
    let edge = Edge::start(&format!(
        "server: {{ drain_timeout: 15s }}\nupstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\nroutes: [{{ upstream: origin }}]",
        origin.address()
    ));
    let mut client = Client::plain(edge.port);
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(client.head().status, 200);
    sender.send("before".into()).unwrap();
    assert_eq!(client.chunk().unwrap(), b"before");

    edge.gateway.signal(libc::SIGTERM);
    assert!(edge.gateway.stays_for(Duration::from_millis(300)), "it left a request alone");
    sender.send("after".into()).unwrap();
    assert_eq!(client.chunk().unwrap(), b"after");
    drop(sender);
    assert!(client.chunk().unwrap().is_empty());
    let ended = Instant::now();
    assert!(edge.gateway.wait().success());
    assert!(ended.elapsed() < Duration::from_secs(1), "it took {:?} after the last request", ended.elapsed());
}

#[test]
fn a_request_that_never_ends_is_cut_at_the_drain_timeout() {
    let origin = Origin::script(|_| Answer::Stall);
    let edge = Edge::start(&format!(
        "server: {{ drain_timeout: 500ms }}\nupstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\nroutes: [{{ upstream: origin }}]",
        origin.address()
    ));
    let mut client = Client::plain(edge.port);
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    origin.wait_for("the request", |all| all.len() == 1);
    let begun = Instant::now();
    edge.gateway.stop();
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(400) && took < Duration::from_secs(3), "it took {took:?}");
}

#[test]
fn an_address_that_is_taken_ends_the_gateway_and_is_named() {
    let port = ports::free();
    let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    for tcp in ["", ", tcp: { upstream: u }"] {
        let (status, stderr) = Gateway::run_to_exit(&format!(
            "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\"{tcp} }} }}\n\
             upstreams: {{ u: {{ endpoints: [\"127.0.0.1:1\"] }} }}\nroutes: [{{ respond: {{ body: hello }} }}]"
        ));
        assert!(!status.success() && status.code().is_some(), "{status}: {stderr}");
        assert!(stderr.contains(&format!("127.0.0.1:{port}")), "{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
}

#[test]
fn a_file_with_mistakes_ends_the_gateway_with_each_of_them_and_its_place() {
    let (status, stderr) = Gateway::run_to_exit(
        "version: 1\nlisteners: { web: { address: \"127.0.0.1:1\" } }\nroutes:\n  - upstream: nobody\n  - { respond: { statsu: 200 } }\n",
    );
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("gateway.yaml:4:") && stderr.contains("`nobody`"), "{stderr}");
    assert!(stderr.contains("gateway.yaml:5:") && stderr.contains("`statsu`"), "{stderr}");
}
