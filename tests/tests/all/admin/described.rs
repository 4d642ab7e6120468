//! `/openapi.json`: what is described is what is answered.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use vestibule_tests::certs::Certs;
use vestibule_tests::client::{self, Client, Response};
use vestibule_tests::ports;

use super::Told;
use crate::page::Page;
use crate::quoted;

/// Each operation of a description: its method and its path.
pub fn operations(description: &Value) -> Vec<(String, String)> {
    let paths = description["paths"].as_object().unwrap();
    let all = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().keys();
        methods.map(move |method| (method.to_uppercase(), path.clone()))
    });
    all.collect()
}

/// Whether this is an answer that the description knows, of this media type and by its schema.
fn check(description: &Value, (method, path): (&str, &str), answer: &Response) {
    let place = format!("{method} {path}: {} {}", answer.status, answer.text());
    let responses = &description["paths"][path][method.to_lowercase()]["responses"];
    let response = responses.get(answer.status.to_string()).unwrap_or(&responses["default"]);
    let (media, content) = response["content"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(answer.header("content-type"), Some(media.as_str()), "{place}");
    if media.starts_with("text/") {
        return assert_eq!(content["schema"], json!({ "type": "string" }), "{place}");
    }
    let schema = json!({ "components": description["components"], "allOf": [content["schema"]] });
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    if let Err(error) = validator.validate(&answer.json()) {
        panic!("{place}: {error} at {}", error.instance_path());
    }
    // A schema that takes anything would show nothing.
    assert!(path == "/openapi.json" || !validator.is_valid(&json!({ "nonsense": true })), "{place}");
}

#[test]
fn the_page_the_index_and_the_description_name_the_same_operations() {
    let told = Told::start("routes: [{ respond: { body: hello } }]");
    let described: BTreeSet<_> = operations(&told.page("/openapi.json").json()).into_iter().collect();
    assert!(described.len() > 15, "{described:?}");
    let index = told.page("/").text();
    let place = |text: &str| {
        let mut words = text.split_whitespace().map(str::to_owned);
        (words.next().unwrap(), words.next().unwrap())
    };
    assert_eq!(index.lines().map(place).collect::<BTreeSet<_>>(), described);
    let rows = Page::read("docs/admin.md").table("| request | what it does |");
    assert_eq!(rows.iter().map(|row| place(&row[0])).collect::<BTreeSet<_>>(), described);
    for (row, line) in rows.iter().zip(index.lines()) {
        assert!(line.ends_with(&row[1]), "{row:?}: {line}");
    }
}

#[test]
fn every_answer_is_as_it_is_described() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let leaf = certs.server(&ca, &["a.test"]);
    let (tls, gone) = (ports::free(), ports::free());
    let told = Told::start_with(
        &format!(
            "web-tls: {{ address: \"127.0.0.1:{tls}\", tls: {{ certificates: [{{ cert: {}, key: {} }}] }} }}",
            quoted(&leaf.cert),
            quoted(&leaf.key)
        ),
        &format!(
            "reload: {{ watch: false }}\n\
             upstreams: {{ u: {{ endpoints: [\"127.0.0.1:{gone}\", \"no-such-name.invalid:80\"] }} }}\n\
             plugins: [{{ request_id: {{}} }}]\n\
             routes:\n  \
             - {{ name: hello, match: {{ hosts: [a.test, \"*.b.test\"], paths: [/hello, {{ exact: /x }}, {{ regex: \"^/y\" }}], \
                methods: GET, headers: {{ x-a: b, x-c: {{ regex: d }}, x-e: {{ present: true }} }}, query: {{ f: g }}, \
                listeners: web }}, respond: {{ body: hello }} }}\n  \
             - {{ match: {{ paths: /old }}, redirect: {{ host: c.test, path: /new }} }}\n  \
             - {{ upstream: u, timeouts: {{ request: 1m30s }} }}"
        ),
    );
    assert_eq!(told.edge.get("a.test", "/").status, 502);
    told.edge.gateway.log_of("/");
    let description = told.page("/openapi.json").json();
    assert_eq!(description["openapi"], "3.1.0");
    let mut seen: BTreeSet<(String, String, u16)> = BTreeSet::new();
    let mut ask = |method: &str, path: &str, body: &str| {
        let answer = match method {
            "GET" => client::get(told.admin, "localhost", path),
            _ => Client::plain(told.admin).post("localhost", path, body.as_bytes()),
        };
        check(&description, (method, path), &answer);
        seen.insert((method.to_owned(), path.to_owned(), answer.status));
        answer
    };
    let change = |from: &str, to: &str| {
        let file = told.edge.gateway.config();
        fs::write(&file, fs::read_to_string(&file).unwrap().replace(from, to)).unwrap();
    };
    for (method, path) in operations(&description) {
        if method == "GET" {
            ask(&method, &path, "");
        }
    }
    let is =
        |answer: Response, result: &str| assert_eq!(answer.json()["result"], result, "{}", answer.text());
    is(ask("POST", "/reload", ""), "unchanged");
    change("body: hello", "body: other");
    is(ask("POST", "/reload", "{}"), "applied");
    is(ask("POST", "/rollback", ""), "rolled_back");
    assert_eq!(ask("POST", "/rollback", "").status, 409);
    change("upstream: u", "upstream: uu");
    assert_eq!(ask("POST", "/reload", "").json()["problems"][0]["path"], "routes[2].upstream");
    assert_eq!(ask("POST", "/stage", "").status, 422);
    change("upstream: uu", "upstream: u");
    let stage =
        r#"{"share": "100%", "for": "1h", "header": "x-side", "guards": ["p99 < 2x", "error_rate < 1%"]}"#;
    is(ask("POST", "/stage", stage), "staged");
    assert_eq!(ask("GET", "/stage", "").json()["header"], "x-side");
    is(ask("POST", "/stage/abort", ""), "aborted");
    assert_eq!(ask("POST", "/stage/abort", "").status, 409);
    assert_eq!(ask("POST", "/stage/promote", "").status, 409);
    assert_eq!(ask("POST", "/stage/promote", "[]").status, 400);
    is(ask("POST", "/reload", &format!("{{\"stage\": {stage}}}")), "staged");
    is(ask("POST", "/stage/promote", ""), "promoted");
    ask("GET", "/reloads", "");
    ask("GET", "/config", "");

    // Each success and each refusal that is described has been seen, but for those of a gateway that starts or ends.
    for (method, path) in operations(&description) {
        let responses = description["paths"][&path][method.to_lowercase()]["responses"].as_object().unwrap();
        for status in responses.keys().filter_map(|status| status.parse().ok()) {
            let place = (method.clone(), path.clone(), status);
            assert!(status == 503 || seen.contains(&place), "{place:?} was not seen");
        }
        let body = &description["paths"][&path][method.to_lowercase()]["requestBody"];
        assert_eq!(body.is_object(), method == "POST", "{path}");
    }
}
