//! What a listener lets a client ask for, and what it makes of paths.

use vestibule_tests::client::Client;
use vestibule_tests::gateway::Gateway;
use vestibule_tests::origin::Origin;
use vestibule_tests::ports;

pub const KEYS: &[&str] = &[
    "listeners.limits.body_idle",
    "listeners.limits.body_rate",
    "listeners.limits.head_size",
    "listeners.limits.head_timeout",
    "listeners.limits.headers",
    "listeners.limits.requests_per_connection",
    "listeners.limits.url",
    "listeners.paths.dot_segments",
    "listeners.paths.encoded_slashes",
    "listeners.paths.merge_slashes",
];

fn gateway(listener: &str) -> (Gateway, u16) {
    let port = ports::free();
    let yaml = format!(
        "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\", {listener} }} }}\n\
         routes: [{{ respond: {{ body: hello }} }}]"
    );
    (Gateway::start(&yaml), port)
}

#[test]
fn a_head_may_be_as_large_as_its_limits_say() {
    let fields: String = (0..40).map(|n| format!("x-{n}: {}\r\n", "y".repeat(40))).collect();
    let request = format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n", "x".repeat(200));
    for (limits, status) in [
        ("headers: 41", 200),
        ("headers: 40", 431),
        ("head_size: 4KiB", 200),
        ("head_size: 1KiB", 431),
        ("url: 201B", 200),
        ("url: 200B", 414),
    ] {
        let (gateway, port) = gateway(&format!("limits: {{ {limits} }}"));
        let response = Client::plain(port).send(&request).response();
        assert_eq!(response.status, status, "{limits}");
        let cause = gateway.log_line(|line| line["status"] == status)["cause"].clone();
        let expected = match status {
            414 => "url_too_long".into(),
            431 => "head_too_large".into(),
            _ => serde_json::Value::Null,
        };
        assert_eq!(cause, expected, "{limits}");
    }
}

#[test]
fn a_head_and_a_body_may_take_as_long_as_their_limits_say() {
    // What ends them otherwise is a minute away.
    let origin = Origin::script(|_| vestibule_tests::origin::Reply::ok("served").into());
    for (limits, begun) in [
        ("head_timeout: 500ms", "GET / HTTP/1.1\r\nHost"),
        ("body_idle: 500ms", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nh"),
        ("body_idle: 500ms, body_rate: 1B", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nh"),
    ] {
        let port = ports::free();
        let yaml = format!(
            "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\", limits: {{ {limits} }} }} }}\n\
             upstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\nroutes: [{{ upstream: origin }}]",
            origin.address()
        );
        let _gateway = Gateway::start(&yaml);
        assert_eq!(Client::plain(port).send(begun).response().status, 408, "{limits}");
    }
}

#[test]
fn a_connection_has_as_many_requests_as_its_limit_says() {
    for limit in [1, 3] {
        let (_gateway, port) = gateway(&format!("limits: {{ requests_per_connection: {limit} }}"));
        let mut client = Client::plain(port);
        for request in 1..=limit {
            let response = client.get("a.test", "/");
            let expected = if request == limit { "close" } else { "keep-alive" };
            assert_eq!(response.header("connection"), Some(expected), "{request} of {limit}");
        }
        assert!(client.to_end().unwrap().is_empty());
    }
}

#[test]
fn paths_are_read_as_the_listener_says() {
    let origin = Origin::echo();
    for (paths, path, seen) in [
        ("encoded_slashes: reject", "/a%2Fb", None),
        ("encoded_slashes: keep", "/a%2Fb", Some("/a%2Fb")),
        ("encoded_slashes: decode", "/a%2Fb", Some("/a/b")),
        ("merge_slashes: true", "/a//b", Some("/a/b")),
        ("merge_slashes: false", "/a//b", Some("/a//b")),
        ("dot_segments: resolve", "/a/../b", Some("/b")),
        ("dot_segments: reject", "/a/../b", None),
    ] {
        let port = ports::free();
        let yaml = format!(
            "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\", paths: {{ {paths} }} }} }}\n\
             upstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\nroutes: [{{ upstream: origin }}]",
            origin.address()
        );
        let _gateway = Gateway::start(&yaml);
        let response = Client::plain(port).get("a.test", path);
        match seen {
            Some(target) => assert_eq!(response.json()["target"], target, "{paths}"),
            None => assert_eq!(response.status, 400, "{paths}"),
        }
    }
}
