//! What a proxy owes both sides: headers, statuses, timeouts, names.

use serde_json::{Value, json};
use vestibule_tests::certs::Certs;
use vestibule_tests::client::{Client, ClientTls, curl};
use vestibule_tests::gateway::Gateway;
use vestibule_tests::origin::{Answer, Opening, Origin};
use vestibule_tests::ports;

use crate::{Edge, quoted};

fn to(origin: &Origin, route: &str) -> Edge {
    Edge::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\nroutes: [{{ upstream: origin, {route} }}]",
        origin.address()
    ))
}

/// The headers that reach the upstream of a GET with these headers.
fn arrived(edge: &Edge, headers: &str) -> Value {
    let request = format!("GET / HTTP/1.1\r\nHost: shop.test:81\r\n{headers}\r\n");
    Client::plain(edge.port).send(request).response().json()["headers"].clone()
}

#[test]
fn forwarding_headers_are_the_gateways_own() {
    let origin = Origin::echo();
    let edge = to(&origin, "");
    let claims = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.test\r\n\
                  X-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /evil\r\n";
    for claims in ["", claims] {
        let headers = arrived(&edge, claims);
        assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "shop.test:81");
        assert_eq!(headers["host"], "shop.test:81");
        assert!(
            !headers.to_string().contains("evil") && !headers.to_string().contains("6.6.6.6"),
            "{headers}"
        );
    }
}

#[test]
fn identity_headers_pass_only_where_the_route_trusts_them() {
    let origin = Origin::echo();
    let claims = "X-Remote-User: root\r\nx-remote-extra-scopes: all\r\nImpersonate-User: root\r\n\
                  Impersonate-Extra-a: b\r\nX-Forwarded-For: 6.6.6.6\r\nX_Remote-User: root\r\nimpersonate_user: root\r\n";
    let headers = arrived(&to(&origin, ""), claims);
    for name in [
        "x-remote-user",
        "x-remote-extra-scopes",
        "impersonate-user",
        "impersonate-extra-a",
        "x_remote-user",
        "impersonate_user",
    ] {
        assert!(headers[name].is_null(), "{name} passed: {headers}");
    }
    let headers = arrived(&to(&origin, "trust_headers: [x-forwarded-*, impersonate-user]"), claims);
    assert_eq!(headers["impersonate-user"], "root");
    assert!(headers["impersonate-extra-a"].is_null() && headers["x-remote-user"].is_null(), "{headers}");
    assert_eq!(headers["x-forwarded-for"], "6.6.6.6, 127.0.0.1");
}

#[test]
fn a_client_whose_request_failed_at_the_upstream_can_go_on() {
    let edge = Edge::start(&format!(
        "upstreams: {{ gone: {{ endpoints: [\"127.0.0.1:{}\"] }} }}\nroutes: [{{ upstream: gone }}]",
        ports::free()
    ));
    let mut client = Client::plain(edge.port);
    let answer = client.get("a.test", "/");
    // Either it is told that the connection ends, or the next request is answered on it.
    if answer.header("connection") != Some("close") {
        assert_eq!(client.get("a.test", "/").status, 502, "the connection was said to stay");
    }
    assert_eq!(answer.status, 502);
}

#[test]
fn hop_by_hop_headers_end_here() {
    let origin = Origin::echo();
    let headers = arrived(
        &to(&origin, ""),
        "Connection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nProxy-Authorization: x\r\nProxy-Connection: close\r\nTE: gzip\r\nX-Stays: 1\r\n",
    );
    for name in ["x-mine", "keep-alive", "proxy-authorization", "proxy-connection", "te"] {
        assert!(headers[name].is_null(), "{name} passed: {headers}");
    }
    assert_eq!(headers["x-stays"], "1");
}

#[test]
fn upstreams_get_http_1_1_whatever_the_client_speaks() {
    let origin = Origin::echo();
    let edge = to(&origin, "");
    let mut old = Client::plain(edge.port);
    old.send("GET /old HTTP/1.0\r\nHost: a.test\r\n\r\n");
    assert_eq!(old.response().status, 200);
    assert_eq!(edge.get("a.test", "/new").json()["version"], "HTTP/1.1");
    assert!(origin.requests().iter().all(|request| request.version == "HTTP/1.1"));
}

#[test]
fn requests_that_are_not_legal_are_refused_before_any_upstream_sees_them() {
    let origin = Origin::echo();
    let edge = to(&origin, "");
    let check = |request: &str, status: u16| {
        let response = Client::plain(edge.port).send(request).response();
        assert_eq!(response.status, status, "{request:?}");
        assert_eq!(response.header("server"), None, "{request:?}");
        let id =
            response.header("x-request-id").unwrap_or_else(|| panic!("{request:?} has no id")).to_owned();
        assert!(response.text().ends_with(&format!("request id: {id}\n")), "{request:?}");
        let line = edge.gateway.log_line(|line| line["request_id"] == id.as_str());
        assert_eq!((&line["status"], &line["cause"]), (&json!(status), &json!("request_invalid")), "{line}");
    };
    check("GET / HTTP/1.1\r\n\r\n", 400);
    check("nonsense\r\n\r\n", 400);
    check("GET / HTTP/1.1\r\nHost: a.test\r\nno colon\r\n\r\n", 400);
    check("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n", 405);
    check("GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n", 400);
    check("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400);
    assert!(origin.requests().is_empty(), "{:?}", origin.requests());
}

#[test]
fn each_failure_has_its_status_and_its_cause() {
    let stalled = Origin::opening(|_| Opening::Stall);
    let speaking = Origin::opening(|_| Opening::Speak(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    let resetting = Origin::script(|_| Answer::ResetAfterHead);
    let garbled = Origin::script(|_| Answer::Raw(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec()));
    let edge = Edge::start(&format!(
        r#"
upstreams:
  refused: {{ endpoints: ["127.0.0.1:{refused}"] }}
  nowhere: {{ endpoints: ["no-such-name.invalid:80"] }}
  stalled: {{ endpoints: ["{stalled}"] }}
  stalled-tls: {{ endpoints: ["{stalled}"], connect_timeout: 200ms, tls: {{ verify: off }} }}
  plain: {{ endpoints: ["{speaking}"], tls: {{ verify: off }} }}
  resetting: {{ endpoints: ["{resetting}"] }}
  garbled: {{ endpoints: ["{garbled}"] }}
routes:
  - {{ match: {{ paths: [/refused] }}, upstream: refused }}
  - {{ match: {{ paths: [/nowhere] }}, upstream: nowhere }}
  - {{ match: {{ paths: [/attempt] }}, upstream: stalled, timeouts: {{ attempt: 200ms }} }}
  - {{ match: {{ paths: [/idle] }}, upstream: stalled, timeouts: {{ idle: 200ms }} }}
  - match: {{ paths: [/request] }}
    upstream: stalled
    timeouts: {{ request: 300ms, attempt: 100ms }}
    plugins: [{{ retry: {{ attempts: 10, retry_on: timeout, backoff: {{ base: 50ms, max: 100ms }} }} }}]
  - {{ match: {{ paths: [/handshake] }}, upstream: stalled-tls }}
  - {{ match: {{ paths: [/plain] }}, upstream: plain }}
  - {{ match: {{ paths: [/resetting] }}, upstream: resetting }}
  - {{ match: {{ paths: [/garbled] }}, upstream: garbled }}
"#,
        refused = ports::free(),
        stalled = stalled.address(),
        speaking = speaking.address(),
        resetting = resetting.address(),
        garbled = garbled.address(),
    ));
    let check = |path: &str, status: u16, cause: &str| {
        assert_eq!(edge.outcome("a.test", path), (status, json!(cause)), "{path}");
    };
    check("/elsewhere", 404, "no_route");
    check("/refused", 502, "connect_refused");
    check("/nowhere", 502, "dns_not_found");
    check("/attempt", 504, "upstream_timeout");
    check("/idle", 504, "upstream_timeout");
    check("/request", 504, "upstream_timeout");
    check("/handshake", 504, "tls_handshake_timeout");
    check("/plain", 502, "tls_plaintext_peer");
    check("/resetting", 502, "upstream_reset");
    check("/garbled", 502, "upstream_invalid_response");
}

#[test]
fn error_replies_are_small_and_carry_the_request_id() {
    let edge = Edge::start(&format!(
        "upstreams: {{ gone: {{ endpoints: [\"127.0.0.1:{}\"] }} }}\n\
         routes: [{{ match: {{ paths: [/gone] }}, upstream: gone }}]",
        ports::free()
    ));
    for path in ["/gone", "/nothing"] {
        let response = edge.get("a.test", path);
        let line = edge.gateway.log_of(path);
        let id = line["request_id"].as_str().unwrap();
        assert!(response.text().contains(id), "{path}: {}", response.text());
        assert!(response.body.len() < 400, "{path}: {}", response.text());
        assert!(!response.text().contains("127.0.0.1"), "{path}: {}", response.text());
        assert!(response.header("server").is_none_or(|server| !server.to_lowercase().contains("pingora")));
    }
}

#[test]
fn the_access_log_has_the_keys_that_others_rely_on() {
    let origin = Origin::echo();
    let edge = Edge::start(&format!(
        "upstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\nroutes: [{{ name: all, upstream: origin }}]",
        origin.address()
    ));
    edge.get("a.test", "/x?y=1");
    let line = edge.gateway.log_line(|line| line["path"].as_str().is_some_and(|path| path.starts_with("/x")));
    let expected = json!({
        "listener": "web", "client_ip": "127.0.0.1", "method": "GET", "host": "a.test", "status": 200, "route": "all",
        "upstream": "origin", "endpoint": origin.address(), "attempts": 1, "upstream_status": 200,
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&line[key], value, "{key}: {line}");
    }
    for key in ["time", "request_id", "bytes_in", "bytes_out", "duration_ms", "upstream_ms", "config"] {
        assert!(!line[key].is_null(), "{key}: {line}");
    }
    for key in ["cause", "sni", "tls_version", "tls_resumed"] {
        assert!(line.get(key).is_none(), "{key}: {line}");
    }
}

#[test]
fn paths_and_queries_pass_byte_for_byte_and_prefixes_are_replaced_by_element() {
    let origin = Origin::echo();
    let check = |plugin: &str, matched: &str, path: &str, expected: &str| {
        let edge = Edge::start(&format!(
            "upstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\n\
             routes: [{{ match: {{ paths: [{matched}] }}, upstream: origin, plugins: [{plugin}] }}]",
            origin.address()
        ));
        let got = edge.get("a.test", path);
        assert_eq!((got.status, &got.json()["target"]), (200, &json!(expected)), "{plugin} {path}");
    };
    let replaced = |to: &str| format!("{{ path_rewrite: {{ replace_prefix: {to} }} }}");
    check("", "/", "/a%3Ab/%c3%A9?x=%26%41&y", "/a%3Ab/%c3%A9?x=%26%41&y");
    check(&replaced("/xyz"), "/foo", "/foo/bar", "/xyz/bar");
    check(&replaced("/xyz/"), "/foo", "/foo/bar", "/xyz/bar");
    check(&replaced("/xyz"), "/foo/", "/foo/bar", "/xyz/bar");
    check(&replaced("/xyz"), "/foo", "/foo", "/xyz");
    check(&replaced("/xyz"), "/foo", "/foo/", "/xyz/");
    check(&replaced("\"\""), "/foo", "/foo/bar", "/bar");
    check(&replaced("/"), "/foo", "/foo/bar", "/bar");
    check(&replaced("/"), "/foo", "/foo", "/");
    check(&replaced("\"\""), "/foo", "/foo/", "/");
    check(&replaced("/xyz"), "/foo", "/foo/a%3Ab?q=%2F", "/xyz/a%3Ab?q=%2F");
    check("{ path_rewrite: { strip_prefix: /api } }", "/api", "/api/v1?a=b", "/v1?a=b");
    check("{ path_rewrite: { regex: '^/v1(/.*)$', replace: '$1' } }", "/v1", "/v1/x?y", "/x?y");
}

#[test]
fn certificates_are_chosen_by_sni_and_http_2_by_alpn() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let first = certs.server(&ca, &["first.test"]);
    let wild = certs.server(&ca, &["wild.test", "*.wild.test"]);
    let origin = Origin::echo();
    let port = ports::free();
    let gateway = Gateway::start(&format!(
        r#"
version: 1
listeners:
  web-tls:
    address: "127.0.0.1:{port}"
    tls:
      certificates:
        - {{ cert: {}, key: {} }}
        - {{ cert: {}, key: {} }}
upstreams: {{ origin: {{ endpoints: ["{}"] }} }}
routes: [{{ upstream: origin }}]
"#,
        quoted(&first.cert),
        quoted(&first.key),
        quoted(&wild.cert),
        quoted(&wild.key),
        origin.address(),
    ));
    let shown = |sni| {
        Client::tls(port, &ClientTls { sni, ca: None, certificate: None }).unwrap().peer_name().unwrap()
    };
    assert_eq!(shown(Some("first.test")), "first.test");
    assert_eq!(shown(Some("wild.test")), "wild.test");
    assert_eq!(shown(Some("deep.wild.test")), "wild.test");
    assert_eq!(shown(Some("stranger.test")), "first.test");
    assert_eq!(shown(None), "first.test");

    let resolve = format!("wild.test:{port}:127.0.0.1");
    let ca = ca.cert.display().to_string();
    let url = format!("https://wild.test:{port}/h2");
    for (version, spoken) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let output =
            curl(&[version, "--resolve", &resolve, "--cacert", &ca, "-w", "\n%{http_version}", &url]);
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, version) = text.rsplit_once('\n').unwrap();
        let seen: Value = serde_json::from_str(body).unwrap();
        assert_eq!((version, &seen["version"]), (spoken, &json!("HTTP/1.1")));
        assert_eq!(seen["headers"]["host"], format!("wild.test:{port}"));
        assert_eq!(seen["headers"]["x-forwarded-proto"], "https");
    }
    assert_eq!(gateway.log_of("/h2")["host"], "wild.test");
}

#[test]
fn a_client_certificate_is_demanded_where_the_listener_says_so() {
    let certs = Certs::new();
    let (ca, clients) = (certs.authority("ca"), certs.authority("clients"));
    let leaf = certs.server(&ca, &["a.test"]);
    let port = ports::free();
    let _gateway = Gateway::start(&format!(
        r#"
version: 1
listeners:
  web-tls:
    address: "127.0.0.1:{port}"
    tls: {{ certificates: [{{ cert: {}, key: {} }}], client_certificate: {{ ca: {} }} }}
routes: [{{ respond: {{ body: in }} }}]
"#,
        quoted(&leaf.cert),
        quoted(&leaf.key),
        quoted(&clients.cert),
    ));
    let ask = |certificate| {
        let mut client =
            Client::tls(port, &ClientTls { sni: Some("a.test"), ca: Some(&ca.cert), certificate }).ok()?;
        client.try_send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").ok()?;
        client.try_response().ok().map(|response| response.text())
    };
    assert_eq!(ask(None), None);
    let (stranger, friend) = (certs.client(&ca, "stranger"), certs.client(&clients, "friend"));
    assert_eq!(ask(Some(&stranger)), None);
    assert_eq!(ask(Some(&friend)).as_deref(), Some("in"));
}

#[test]
fn redirects_and_own_answers_need_no_upstream() {
    let edge = Edge::start(
        r#"
routes:
  - { match: { paths: [/old] }, redirect: { scheme: https, host: new.test, replace_prefix: /new } }
  - { match: { paths: [/gone] }, respond: { status: 410, body: "it went", content_type: text/plain } }
"#,
    );
    let moved = edge.get("a.test", "/old/x?y=1");
    assert_eq!((moved.status, moved.header("location")), (302, Some("https://new.test/new/x?y=1")));
    let gone = edge.get("a.test", "/gone");
    assert_eq!(
        (gone.status, gone.text().as_str(), gone.header("content-type")),
        (410, "it went", Some("text/plain"))
    );
}
