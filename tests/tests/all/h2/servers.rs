//! Envoy, nginx and HAProxy as HTTP/2 upstreams.

use std::collections::BTreeSet;
use std::io::{self, Write};

use serde_json::{Value, json};
use vestibule_tests::certs::{Authority, Certs, Pair};
use vestibule_tests::client::{Client, Response};
use vestibule_tests::origin::{Answer, Origin, Reply, Request};
use vestibule_tests::real::{Clients, Envoy, HaProxy, Nginx, NginxTls};

use crate::{Edge, quoted, raw};

const NAME: &str = "app.mesh.test";
const SIZE: usize = 3 * 1024 * 1024 + 7;

/// A gateway to one upstream over TLS that speaks this protocol.
fn edge(port: u16, protocol: &str, ca: &Authority) -> Edge {
    Edge::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"127.0.0.1:{port}\"], protocol: {protocol}, \
         tls: {{ verify: {{ ca: {} }} }} }} }}\nroutes: [{{ upstream: origin }}]",
        quoted(&ca.cert)
    ))
}

fn mesh() -> (Certs, Authority, Pair) {
    let certs = Certs::new();
    let ca = certs.authority("mesh");
    let leaf = certs.server(&ca, &[NAME]);
    (certs, ca, leaf)
}

fn pattern() -> Vec<u8> {
    (0..SIZE).map(|at| (at * 31 % 251) as u8).collect()
}

fn app(request: &Request) -> Answer {
    match (request.method.as_str(), request.target.as_str()) {
        (_, "/large") => Reply::new(200, pattern()).into(),
        (_, "/none") => Answer::Raw(b"HTTP/1.1 204 No Content\r\nx-none: 1\r\n\r\n".to_vec()),
        (_, "/missing") => Reply::new(404, "not here").into(),
        ("HEAD", _) => Answer::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n".to_vec()),
        ("POST", _) => Reply::ok("taken").into(),
        _ => Reply::json(
            &json!({ "host": request.header("host"), "scheme": request.header("x-forwarded-proto") }),
        )
        .into(),
    }
}

/// What every HTTP server has to do the same through every protocol.
fn exercise(edge: &Edge, app: &Origin) {
    let mut client = Client::plain(edge.port);
    assert_eq!(client.get(NAME, "/").json()["host"], NAME);
    let large = client.get(NAME, "/large");
    assert_eq!((large.status, large.body == pattern()), (200, true));
    assert_eq!(client.post(NAME, "/post", &pattern()).text(), "taken");
    let came = app.requests().into_iter().rfind(|request| request.method == "POST").unwrap();
    assert!(came.body == pattern(), "{} bytes came", came.body.len());
    let none = client.get(NAME, "/none");
    assert_eq!(
        (none.status, none.header("x-none"), none.header("transfer-encoding")),
        (204, Some("1"), None)
    );
    assert_eq!(client.get(NAME, "/missing").text(), "not here");
    client.send(format!("HEAD /head HTTP/1.1\r\nHost: {NAME}\r\n\r\n"));
    let head = client.head();
    assert_eq!((head.status, head.header("content-length")), (200, Some("1234")));
    // The connection has nothing left over from the HEAD.
    assert_eq!(client.get(NAME, "/again").status, 200);
    let line = edge.gateway.log_of("/post");
    assert_eq!(
        (&line["bytes_in"], &line["bytes_out"], &line["upstream_status"]),
        (&json!(SIZE), &json!(5), &json!(200))
    );
    assert_eq!(edge.gateway.log_of("/large")["bytes_out"], SIZE);
}

#[test]
fn envoy_is_spoken_to_in_http2_over_tls_and_without() {
    let (_certs, ca, leaf) = mesh();
    let app = Origin::script(app);
    let envoy = Envoy::ingress(NAME, &leaf, Clients::Unasked, app.port);
    for protocol in ["h2", "auto"] {
        let edge = edge(envoy.port, protocol, &ca);
        exercise(&edge, &app);
        assert_eq!(edge.gateway.log_of("/post")["tls_version"], "TLSv1.3");
    }
    envoy.wait_for_log(&format!("access HTTP/2 sni={NAME} POST /post 200"));
    let edge = super::h2c(envoy.plain_port, "", "");
    exercise(&edge, &app);
    assert_eq!(edge.gateway.log_of("/post")["tls_version"], Value::Null);
    envoy.wait_for_log("access HTTP/2 sni=- POST /post 200");
}

#[test]
fn a_hundred_requests_at_once_share_a_connection_to_nginx() {
    let (_certs, ca, leaf) = mesh();
    let nginx = Nginx::start(&NginxTls::new(&leaf));
    let edge = edge(nginx.h2_port, "h2", &ca);
    let answers = super::at_once(edge.port, NAME, "/", 100);
    assert!(answers.iter().all(|answer| answer.json()["protocol"] == "HTTP/2.0"));
    super::at_once(edge.port, NAME, "/", 100);
    let mut connections: Vec<_> =
        nginx.into_log().iter().map(|line| line["connection"].as_str().unwrap().to_owned()).collect();
    assert_eq!(connections.len(), 200);
    connections.sort();
    connections.dedup();
    // One, and another where a stream of the first hundred had not quite ended as the second hundred came.
    assert!(connections.len() <= 2, "{connections:?}");
}

#[test]
fn two_policies_share_no_connection_and_a_new_one_resumes_the_session() {
    let (_certs, ca, leaf) = mesh();
    let nginx = Nginx::start(&NginxTls::new(&leaf));
    let yaml = format!(
        "upstreams: {{ origin: {{ endpoints: [\"127.0.0.1:{}\"], protocol: h2, keepalive: {{ idle_timeout: 0s }}, \
         tls: {{ verify: {{ ca: {ca}, names: [{NAME}, other.test] }} }} }}, kept: {{ endpoints: [\"127.0.0.1:{}\"], protocol: h2, \
         tls: {{ verify: {{ ca: {ca} }} }} }} }}\n\
         routes:\n  - {{ match: {{ paths: [/once] }}, upstream: origin, plugins: [{{ path_rewrite: {{ replace_path: / }} }}] }}\n  \
         - {{ match: {{ paths: [/one] }}, upstream: kept, plugins: [{{ path_rewrite: {{ replace_path: / }} }}] }}\n  \
         - {{ match: {{ paths: [/two] }}, upstream: kept, tls: {{ verify: off }}, plugins: [{{ path_rewrite: {{ replace_path: / }} }}] }}\n  \
         - {{ match: {{ paths: [/three] }}, upstream: kept, tls: {{ verify: {{ name: {NAME} }} }}, plugins: [{{ path_rewrite: {{ replace_path: / }} }}] }}",
        nginx.h2_port,
        nginx.h2_port,
        ca = quoted(&ca.cert),
    );
    let edge = Edge::start(&yaml);
    let connection = |path: &str| edge.get(NAME, path).json()["connection"].as_str().unwrap().to_owned();
    let kept = ["/one", "/two", "/three"].map(&connection);
    assert!(kept[0] != kept[1] && kept[1] != kept[2] && kept[0] != kept[2], "{kept:?}");
    assert_eq!(["/one", "/two", "/three"].map(&connection), kept);
    // An idle timeout of 0 keeps none.
    edge.get(NAME, "/once");
    edge.gateway.log_of("/once");
    edge.get(NAME, "/once/again");
    assert_eq!(edge.gateway.log_of("/once/again")["tls_resumed"], true);
}

#[test]
fn under_auto_a_server_without_http2_is_spoken_to_in_http1() {
    let (_certs, ca, leaf) = mesh();
    let nginx = Nginx::start(&NginxTls::new(&leaf));
    let edge = edge(nginx.port, "auto", &ca);
    let answers = super::at_once(edge.port, NAME, "/", 50);
    assert!(answers.iter().all(|answer| answer.json()["protocol"] == "HTTP/1.1"), "{answers:?}");
    // The engine's own pool keeps them.
    let of = |answer: &Response| answer.json()["connection"].as_str().unwrap().to_owned();
    let made: BTreeSet<_> = answers.iter().map(of).collect();
    assert!(made.contains(&of(&edge.get(NAME, "/"))), "{made:?}");
}

#[test]
fn haproxy_gets_a_client_certificate_and_says_where_one_is_missing() {
    let (certs, ca, leaf) = mesh();
    let haproxy = HaProxy::strict_sni(&leaf, Clients::Required(&ca.cert));
    let me = certs.client(&ca, "me");
    let edge = Edge::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"127.0.0.1:{}\"], protocol: h2, tls: {{ verify: {{ ca: {} }} }} }} }}\n\
         routes:\n  - {{ match: {{ paths: [/me] }}, upstream: origin, tls: {{ client_certificate: {{ cert: {}, key: {} }} }} }}\n  \
         - {{ upstream: origin }}",
        haproxy.port,
        quoted(&ca.cert),
        quoted(&me.cert),
        quoted(&me.key),
    ));
    let answer = edge.get(NAME, "/me");
    assert!(answer.text().contains("client=me "), "{}", answer.text());
    // TLS 1.3 tells of it after the handshake: where HTTP/2 has begun already.
    assert_eq!(edge.outcome(NAME, "/nobody"), (502, json!("tls_client_certificate_required")));
}

#[test]
fn a_server_of_another_protocol_is_named_as_such() {
    let (_certs, ca, leaf) = mesh();
    let nginx = Nginx::start(&NginxTls::new(&leaf));
    let mismatch = (502, json!("alpn_mismatch"));
    assert_eq!(edge(nginx.port, "h2", &ca).outcome(NAME, "/alpn"), mismatch);
    assert_eq!(super::h2c(nginx.plain_port, "", "").outcome(NAME, "/h2c"), mismatch);
    let frames = raw::server(|_, mut socket| {
        // SETTINGS, as a server of HTTP/2 may say at once.
        socket.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])?;
        io::copy(&mut socket, &mut io::sink()).map(|_| ())
    });
    let edge = Edge::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"127.0.0.1:{frames}\"] }} }}\nroutes: [{{ upstream: origin }}]"
    ));
    assert_eq!(edge.outcome(NAME, "/frames"), mismatch);
}

#[test]
fn a_request_to_upgrade_goes_by_http1_under_auto_and_as_a_plain_one_under_h2() {
    let (_certs, ca, leaf) = mesh();
    let app = Origin::script(|request| match request.header("upgrade") {
        Some(_) => Answer::Upgrade,
        None => Reply::ok("plain").into(),
    });
    let envoy = Envoy::ingress(NAME, &leaf, Clients::Unasked, app.port);
    let upgrade = format!(
        "GET /chat HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let auto = edge(envoy.port, "auto", &ca);
    assert_eq!(auto.get(NAME, "/before").text(), "plain");
    envoy.wait_for_log(&format!("access HTTP/2 sni={NAME} GET /before 200"));
    let mut client = Client::plain(auto.port);
    assert_eq!(client.send(&upgrade).head().status, 101);
    assert_eq!(client.send("ping").exactly(4).unwrap(), b"ping");

    let h2 = edge(envoy.port, "h2", &ca);
    assert_eq!(Client::plain(h2.port).send(&upgrade).response().text(), "plain");
}
