//! What a web page elsewhere lets a browser send is refused, and what is too large or no JSON.

use std::fs;

use vestibule_tests::client::{self, Client, Response};
use vestibule_tests::gateway::Gateway;
use vestibule_tests::ports;

use super::Told;
use crate::quoted;

const FILE: &str = "reload: { watch: false }\nroutes: [{ respond: { body: hello } }]";

fn ask(told: &Told, request: &str, fields: &str, body: &str) -> Response {
    let length = body.len();
    let mut client = Client::plain(told.admin);
    client.send(format!("{request} HTTP/1.1\r\n{fields}Content-Length: {length}\r\n\r\n{body}")).response()
}

#[test]
fn a_name_that_may_be_anybodys_is_refused_and_addresses_are_not() {
    let told = Told::start(FILE);
    for host in
        ["127.0.0.1", "[::1]:9901", "localhost", "localhost:9901", "vestibule.localhost", "10.0.0.1:80"]
    {
        assert_eq!(ask(&told, "GET /reloads", &format!("Host: {host}\r\n"), "").status, 200, "{host}");
    }
    for host in ["rebound.example", "rebound.example:9901", "localhost.rebound.example", ""] {
        for request in ["GET /reloads", "GET /metrics", "POST /reload", "GET /nowhere"] {
            let answer = ask(&told, request, &format!("Host: {host}\r\n"), "");
            assert_eq!(answer.status, 403, "{host} {request}");
            let problem = answer.json();
            assert!(problem["detail"].as_str().unwrap().contains(&format!("the Host `{host}`")), "{problem}");
        }
        // A probe learns nothing of use.
        assert_eq!(ask(&told, "GET /healthz", &format!("Host: {host}\r\n"), "").status, 200);
    }
}

#[test]
fn a_page_of_another_origin_changes_nothing() {
    let told = Told::start(FILE);
    let host = format!("Host: 127.0.0.1:{}\r\n", told.admin);
    let changed = fs::read_to_string(told.edge.gateway.config()).unwrap().replace("hello", "changed");
    fs::write(told.edge.gateway.config(), changed).unwrap();
    for field in [
        "Origin: https://elsewhere.example",
        "Origin: http://127.0.0.1:8080",
        "Origin: null",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
    ] {
        for path in ["/reload", "/stage", "/stage/promote", "/stage/abort", "/rollback"] {
            let answer = ask(&told, &format!("POST {path}"), &format!("{host}{field}\r\n"), "");
            assert_eq!(answer.status, 403, "{field} {path}: {}", answer.text());
            assert!(answer.json()["detail"].as_str().unwrap().contains("of another origin"));
        }
    }
    assert_eq!(told.page("/reloads").json()["reloads"].as_array().unwrap().len(), 1);
    assert_eq!(told.edge.get("a.test", "/").text(), "hello");
    let own = format!("{host}Origin: http://127.0.0.1:{}\r\nSec-Fetch-Site: same-origin\r\n", told.admin);
    assert_eq!(ask(&told, "POST /reload", &own, "").json()["result"], "applied");
    assert_eq!(told.edge.get("a.test", "/").text(), "changed");
}

#[test]
fn a_connection_of_an_endpoint_that_needed_a_token_is_not_let_in_by_one_that_needs_none() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "secret").unwrap();
    let [admin, next, port] = [ports::free(), ports::free(), ports::free()];
    let file = |admin: &str| {
        format!(
            "version: 1\nadmin: {{ {admin} }}\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\" }} }}\n{FILE}\n"
        )
    };
    let with_token = format!("address: \"127.0.0.1:{admin}\", token_file: {}", quoted(&token));
    let gateway = Gateway::start(&file(&with_token));
    let mut waiting = Client::plain(admin);
    waiting.send("GET /config HTTP/1.1\r\n");
    fs::write(gateway.config(), file(&format!("address: \"127.0.0.1:{next}\""))).unwrap();
    let head = "POST /reload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(Client::plain(admin).send(head).response().json()["result"], "applied");
    assert_eq!(waiting.send("Host: localhost\r\n\r\n").response().status, 503);
    assert_eq!(client::get(next, "localhost", "/config").status, 200);
}

#[test]
fn a_body_is_refused_in_words_and_changes_nothing() {
    let told = Told::start(FILE);
    for (path, body, status, words) in [
        ("/reload", "{", 400, "the body is not JSON: EOF while parsing an object at line 1 column 1"),
        ("/reload", r#"{"at_onse": true}"#, 400, "unknown key `at_onse`; did you mean `at_once`?"),
        ("/reload", r#"{"stage": {"share": "200%"}}"#, 400, "stage.share: `200%` is not a share"),
        ("/stage", r#"{"guards": ["p98 < 1s"]}"#, 400, "guards[0]: "),
        ("/stage", r#"{"for": "25h"}"#, 400, "for: a stage lasts from `1s` to `24h`, got `25h`"),
        ("/rollback", r#"{"to": 3}"#, 400, "no key is allowed here"),
    ] {
        let answer = told.post(path, body);
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let problem = answer.json();
        assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
        assert_eq!((&problem["type"], &problem["title"]), (&"about:blank".into(), &"Bad Request".into()));
    }
    // Just as large as is allowed, and then larger.
    let padded = |length: usize| format!("{}{{}}", " ".repeat(length - 2));
    assert_eq!(told.post("/reload", &padded(64 * 1024)).status, 200);
    for length in [64 * 1024 + 1, 700 * 1024] {
        let answer = told.post("/reload", &padded(length));
        assert_eq!(answer.status, 413, "{length}");
        assert_eq!(answer.json()["detail"], "the body has more than the 65536 bytes allowed");
    }
    assert_eq!(told.page("/reloads").json()["reloads"].as_array().unwrap().len(), 2);
}
