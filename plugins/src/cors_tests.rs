use super::*;
use crate::testing::{INFO, get, plugin, plugins_of_doc, refusal};

const FULL: &str = "{ allow_origins: ['https://a.test', 'https://*.b.test'], allow_methods: [PUT, DELETE], allow_headers: \
                    [x-a, x-b], expose_headers: [x-c], allow_credentials: true, max_age: 1m }";

fn request(method: &str, fields: &[(&'static str, &'static str)]) -> RequestHeader {
    let mut head = get("/");
    head.set_method(Method::from_bytes(method.as_bytes()).unwrap());
    for (name, value) in fields {
        head.append_header(*name, *value).unwrap();
    }
    head
}

/// The status of the answer that the plugin gives itself, and what it leaves of an answer with these fields.
fn answered(
    config: &str,
    mut head: RequestHeader,
    fields: &[(&'static str, &'static str)],
) -> (u16, Vec<String>) {
    let plugin = plugin("cors", config).unwrap();
    let status = match plugin.request(&mut head, &INFO) {
        Verdict::Continue => 0,
        Verdict::Respond(reply) => {
            assert!(reply.headers.is_empty() && reply.body.is_empty());
            reply.status
        }
        Verdict::Refuse(refusal) => panic!("{refusal:?}"),
    };
    let mut response = ResponseHeader::build(200, None).unwrap();
    for (name, value) in fields {
        response.append_header(*name, *value).unwrap();
    }
    plugin.response(&mut response, &head, &INFO);
    let line = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
    let mut lines: Vec<String> = response.headers.iter().map(line).collect();
    lines.sort();
    (status, lines)
}

fn preflight(config: &str, origin: &'static str) -> (u16, Vec<String>) {
    let asked = [
        ("origin", origin),
        ("access-control-request-method", "PATCH"),
        ("access-control-request-headers", "x-z, authorization"),
    ];
    answered(config, request("OPTIONS", &asked), &[])
}

#[test]
fn the_yaml_of_the_module_doc_loads() {
    assert_eq!(plugins_of_doc(include_str!("cors.rs")).len(), 2);
}

#[test]
fn a_preflight_is_answered_by_the_lists() {
    for origin in ["https://a.test", "https://x.b.test"] {
        assert_eq!(
            preflight(FULL, origin),
            (
                204,
                vec![
                    "access-control-allow-credentials: true".to_owned(),
                    "access-control-allow-headers: x-a, x-b".to_owned(),
                    "access-control-allow-methods: PUT, DELETE".to_owned(),
                    format!("access-control-allow-origin: {origin}"),
                    "access-control-max-age: 60".to_owned(),
                    "vary: Origin".to_owned(),
                ]
            )
        );
    }
    let any = "{ allow_origins: '*' }";
    assert_eq!(
        preflight(any, "https://c.test"),
        (204, vec!["access-control-allow-origin: *".to_owned(), "access-control-max-age: 5".to_owned()])
    );
}

#[test]
fn a_star_is_everything_and_beside_credentials_what_is_asked_for() {
    let lists = "allow_origins: 'https://a.test', allow_methods: '*', allow_headers: '*'";
    let told = |more: &str| {
        let (_, lines) = preflight(&format!("{{ {lists}{more} }}"), "https://a.test");
        lines
            .into_iter()
            .filter(|line| line.contains("-methods") || line.contains("-headers"))
            .collect::<Vec<_>>()
    };
    assert_eq!(told(""), ["access-control-allow-headers: *", "access-control-allow-methods: *"]);
    assert_eq!(
        told(", allow_credentials: true"),
        ["access-control-allow-headers: x-z, authorization", "access-control-allow-methods: PATCH"]
    );
}

#[test]
fn another_origin_is_told_nothing() {
    for origin in ["https://c.test", "https://b.test", "http://a.test", "null", ""] {
        assert_eq!(preflight(FULL, origin), (204, vec!["vary: Origin".to_owned()]), "{origin}");
        let (status, lines) = answered(FULL, request("GET", &[("origin", origin)]), &[]);
        assert_eq!((status, lines), (0, vec!["vary: Origin".to_owned()]), "{origin}");
    }
}

#[test]
fn other_requests_pass_and_their_answers_are_marked() {
    let told = [
        "access-control-allow-credentials: true",
        "access-control-allow-origin: https://a.test",
        "access-control-expose-headers: x-c",
        "vary: Origin",
    ];
    for head in [
        request("GET", &[("origin", "https://a.test")]),
        request("OPTIONS", &[("origin", "https://a.test")]),
        request("GET", &[("origin", "https://a.test"), ("access-control-request-method", "GET")]),
    ] {
        assert_eq!(answered(FULL, head, &[]), (0, told.map(str::to_owned).to_vec()));
    }
    for head in [request("GET", &[]), request("OPTIONS", &[("access-control-request-method", "PUT")])] {
        assert_eq!(answered(FULL, head, &[]), (0, vec!["vary: Origin".to_owned()]));
    }
}

#[test]
fn what_the_upstream_says_of_cors_is_replaced_and_its_vary_kept() {
    let theirs = [
        ("Access-Control-Allow-Origin", "https://evil.test"),
        ("Access-Control-Allow-Private-Network", "true"),
        ("X-Kept", "1"),
    ];
    let (_, lines) = answered(FULL, request("GET", &[("origin", "https://c.test")]), &theirs);
    assert_eq!(lines, ["vary: Origin", "x-kept: 1"]);
    for (vary, expected) in [
        (&[("Vary", "Accept-Encoding")][..], "vary: Accept-Encoding, Origin"),
        (&[("Vary", "A"), ("Vary", "B")], "vary: A, B, Origin"),
        (&[("Vary", "accept, origin")], "vary: accept, origin"),
        (&[("Vary", "*")], "vary: *"),
        (&[("Vary", "")], "vary: Origin"),
    ] {
        assert_eq!(answered(FULL, request("GET", &[]), vary).1, [expected], "{vary:?}");
    }
}

#[test]
fn every_bad_value_is_told() {
    assert_eq!(
        refusal(
            "cors",
            "{ allow_origins: ['https://a.test', '*', a.test], allow_methods: [get, '*', 'a b'], allow_headers: ['x y'], \
             expose_headers: '*', allow_credentials: true, max_age: 1500ms }"
        ),
        "allow_origins[1]: `*` is everything, so nothing can stand beside it (write `*` alone)\n\
         allow_origins[2]: `a.test` is not an origin; it has no scheme (write `https://a.test`)\n\
         allow_methods[0]: `get` is no method that is in use; case counts in a method (write `GET`)\n\
         allow_methods[1]: `*` is everything, so nothing can stand beside it (write `*` alone)\n\
         allow_methods[2]: `a b` is not a method, such as `GET`\n\
         allow_headers[0]: `x y` is not a header name, such as `x-tenant`\n\
         expose_headers: `*` beside `allow_credentials` is taken by browsers for a header of that name (name the \
         headers that pages may read)\n\
         max_age: `1s500ms` is not in whole seconds, which are all that can be sent"
    );
    for (config, told) in [
        ("{ allow_origins: '*', allow_credentials: true }", "would let every page act as its user"),
        ("{ allow_origins: [] }", "allow_origins: the list is empty"),
        ("{}", "`allow_origins` is missing"),
    ] {
        assert!(refusal("cors", config).contains(told), "{}", refusal("cors", config));
    }
}
