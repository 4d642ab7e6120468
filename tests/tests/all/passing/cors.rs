//! `cors`: what a browser would see.

use http::Request;
use vestibule_tests::client::{Client, Response};
use vestibule_tests::http2::Http2Client;
use vestibule_tests::origin::{Origin, Reply};

use super::Doors;

const CORS: &str = "{ cors: { allow_origins: 'https://*.app.test', allow_methods: [PUT], allow_credentials: true, max_age: 1m } }";
const PREFLIGHT: [(&str, &str); 2] =
    [("origin", "https://one.app.test"), ("access-control-request-method", "PUT")];

fn origin() -> Origin {
    Origin::script(|_| {
        let reply = Reply::ok("served").header("Vary", "Accept").header("Access-Control-Allow-Origin", "*");
        reply.header("Access-Control-Allow-Headers", "x-theirs").into()
    })
}

fn over_http1(port: u16, method: &str, fields: &[(&str, &str)]) -> Response {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    Client::plain(port).send(format!("{method} / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")).response()
}

fn over_http2(port: u16, method: &str, fields: &[(&str, &str)]) -> Response {
    let mut request = Request::builder().method(method).uri("https://a.test/");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    Http2Client::tls(port, "a.test").send(request.body(()).unwrap(), true).response()
}

/// Every field of CORS, and `Vary`.
fn told(response: &Response) -> Vec<String> {
    let is_cors = |name: &str| name.starts_with("access-control-") || name == "vary";
    let fields = response.headers.iter().filter(|(name, _)| is_cors(name));
    let mut lines: Vec<String> = fields.map(|(name, value)| format!("{name}: {value}")).collect();
    lines.sort();
    lines
}

#[test]
fn a_preflight_is_answered_and_another_request_passes_in_both_protocols() {
    let origin = origin();
    let doors = Doors::start(&origin, CORS);
    for (port, ask) in [(doors.plain, over_http1 as fn(_, _, &[_]) -> _), (doors.tls, over_http2)] {
        let before = origin.requests().len();
        let response = ask(port, "OPTIONS", &PREFLIGHT);
        assert_eq!((response.status, &*response.body), (204, &b""[..]));
        assert_eq!(
            told(&response),
            [
                "access-control-allow-credentials: true",
                "access-control-allow-methods: PUT",
                "access-control-allow-origin: https://one.app.test",
                "access-control-max-age: 60",
                "vary: Origin",
            ]
        );
        assert_eq!(origin.requests().len(), before, "it reached the upstream");

        let response = ask(port, "PUT", &PREFLIGHT[..1]);
        assert_eq!((response.status, response.text().as_str()), (200, "served"));
        assert_eq!(
            told(&response),
            [
                "access-control-allow-credentials: true",
                "access-control-allow-origin: https://one.app.test",
                "vary: Accept, Origin",
            ]
        );
        let response = ask(port, "GET", &[("origin", "https://app.test")]);
        assert_eq!((response.status, told(&response)), (200, vec!["vary: Accept, Origin".to_owned()]));
    }
}

#[test]
fn what_a_plugin_behind_it_refuses_can_be_read_by_the_page() {
    let origin = origin();
    let doors = Doors::start(&origin, &format!("{CORS}, {{ ip_filter: {{ deny: 127.0.0.0/8 }} }}"));
    for (port, ask) in [(doors.plain, over_http1 as fn(_, _, &[_]) -> _), (doors.tls, over_http2)] {
        assert_eq!(ask(port, "OPTIONS", &PREFLIGHT).status, 204);
        let response = ask(port, "GET", &PREFLIGHT[..1]);
        assert_eq!(response.status, 403);
        assert_eq!(response.header("access-control-allow-origin"), Some("https://one.app.test"));
    }
    assert!(origin.requests().is_empty());
}
