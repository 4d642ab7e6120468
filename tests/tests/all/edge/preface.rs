//! HTTP/2 without TLS, which no listener speaks: whoever tries is answered, and never waited for.

use std::io::{Read, Write};

use vestibule_tests::client::Client;
use vestibule_tests::origin::{Origin, Reply};

use crate::Edge;
use crate::raw::connected;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn edge() -> (Edge, Origin) {
    let origin = Origin::script(|_| Reply::ok("served").into());
    let edge = Edge::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\nroutes: [{{ upstream: origin }}]",
        origin.address()
    ));
    (edge, origin)
}

#[test]
fn the_preface_of_http2_is_answered_and_the_connection_closed() {
    let (edge, origin) = edge();
    // Alone, with the SETTINGS that follow, and only as far as a request of HTTP/1.1 would go.
    let with_settings = [PREFACE, b"\0\0\0\x04\0\0\0\0\0"].concat();
    for bytes in [PREFACE, &with_settings, &PREFACE[..18]] {
        let mut client = connected(edge.port);
        client.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        // What it had not read, it answers by a reset behind its answer.
        let _ = client.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 505 "), "{answer:?}");
        assert!(answer.contains("request id: "), "{answer:?}");
    }
    assert!(origin.requests().is_empty());
}

#[test]
fn an_upgrade_to_h2c_is_not_made_and_not_passed_on() {
    let (edge, origin) = edge();
    let mut client = Client::plain(edge.port);
    client.send(
        "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    );
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (200, "served"));
    let request = &origin.requests()[0];
    assert_eq!((request.header("upgrade"), request.header("http2-settings")), (None, None));
}
