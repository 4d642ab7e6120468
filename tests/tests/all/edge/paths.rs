//! What a path is matched by is what the upstream gets.

use serde_json::json;
use vestibule_tests::client::{self, Client};
use vestibule_tests::gateway::Gateway;
use vestibule_tests::origin::Origin;
use vestibule_tests::ports;

use crate::page::Page;

/// A gateway with a route of its own for `/admin`, by which an answer tells which was found.
fn gateway(paths: &str, origin: &Origin) -> (Gateway, u16) {
    let port = ports::free();
    let route = |name: &str, rest: &str| {
        format!(
            "  - {{ {rest}upstream: origin, plugins: [{{ headers: {{ response: {{ set: {{ x-route: {name} }} }} }} }}] }}\n"
        )
    };
    let yaml = format!(
        "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\"{paths} }} }}\n\
         upstreams: {{ origin: {{ endpoints: [\"{}\"] }} }}\nroutes:\n{}{}",
        origin.address(),
        route("admin", "match: { paths: [/admin] }, "),
        route("rest", "")
    );
    (Gateway::start(&yaml), port)
}

/// The route and what the upstream got, or the status.
fn outcome(port: u16, target: &str) -> Result<(String, String), u16> {
    let response = client::get(port, "a.test", target);
    if response.status != 200 {
        return Err(response.status);
    }
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    Ok((response.header("x-route").unwrap().to_owned(), text(&response.json()["target"])))
}

#[test]
fn the_page_tells_how_each_path_is_read() {
    let origin = Origin::echo();
    for (paths, head) in [
        ("", "| path | is matched and sent as |"),
        (
            ", paths: { encoded_slashes: keep }",
            "| path, with `encoded_slashes: keep` | is matched and sent as |",
        ),
        (
            ", paths: { encoded_slashes: decode }",
            "| path, with `encoded_slashes: decode` | is matched and sent as |",
        ),
        (
            ", paths: { merge_slashes: false }",
            "| path, with `merge_slashes: false` | is matched and sent as |",
        ),
        (
            ", paths: { dot_segments: reject }",
            "| path, with `dot_segments: reject` | is matched and sent as |",
        ),
    ] {
        let (_gateway, port) = gateway(paths, &origin);
        let rows = Page::read("docs/edge.md").table(head);
        assert!(!rows.is_empty(), "{head}");
        for row in rows {
            let got = outcome(port, &row[0]).map_or_else(|status| status.to_string(), |(_, target)| target);
            assert_eq!(got, row[1], "{} {paths}", row[0]);
        }
    }
}

#[test]
fn no_spelling_of_a_path_goes_round_its_route() {
    let origin = Origin::echo();
    let (gateway, port) = gateway("", &origin);
    for target in [
        "/admin",
        "/admin/",
        "//admin",
        "/./admin",
        "/x/../admin",
        "/%61dmin",
        "/%61%64%6d%69%6e/x",
        "/x/%2e%2e/admin",
        "/admin/./x",
        "///admin//x?y=/../z",
        "/x/.%2E//admin;v=1/x",
    ] {
        let expected = if target.contains(";v=1") { "rest" } else { "admin" };
        let (route, seen) = outcome(port, target).unwrap_or_else(|status| panic!("{target}: {status}"));
        assert_eq!(route, expected, "{target} was sent as {seen}");
        assert_eq!(outcome(port, &seen), Ok((route, seen.clone())), "{target}");
    }
    let before = origin.requests().len();
    for target in [
        "/../admin",
        "/x%2f..%2fadmin",
        "/x/..;/admin",
        "/x\\..\\admin",
        "/%c0%ae%c0%ae/admin",
        "/admin%00",
        "/%2561dmin%zz",
    ] {
        assert_eq!(outcome(port, target), Err(400), "{target}");
    }
    assert_eq!(origin.requests().len(), before);
    let line = gateway.log_line(|line| line["path"] == "/../admin");
    assert_eq!((&line["status"], &line["cause"]), (&json!(400), &json!("request_invalid")));
}

#[test]
fn the_query_is_never_touched() {
    let origin = Origin::echo();
    let (_gateway, port) = gateway("", &origin);
    for query in ["?", "?a=/../b//c", "?a=%2e%2E%2f%61%zz", "?x=\\&y=%00", "??"] {
        let (_, seen) = outcome(port, &format!("/x/./y{query}")).unwrap();
        assert_eq!(seen, format!("/x/y{query}"));
    }
    let absolute = "GET http://a.test?x=1 HTTP/1.1\r\nHost: a.test\r\n\r\n";
    assert_eq!(Client::plain(port).send(absolute).response().json()["target"], "/?x=1");
}
