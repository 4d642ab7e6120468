//! A real kube-apiserver behind the gateway: kubectl through each of the example configurations, and what bare requests
//! find at layer 7.

mod journey;
mod through;
mod websocket;

use std::process::Output;

use vestibule_tests::client::Client;
use vestibule_tests::real::Kube;

pub use through::{l4, l7_impersonate, l7_mtls, l7_token};

use crate::{Edge, quoted};

const HOST: &str = "myapi.myk8s.test";

fn layer_7(kube: &Kube) -> Edge {
    Edge::start(&format!(
        r#"
upstreams:
  kube:
    endpoints: ["127.0.0.1:{port}"]
    host: kubernetes.default.svc
    tls: {{ verify: {{ ca: {ca} }}, client_certificate: {{ cert: {cert}, key: {key} }} }}
routes:
  - {{ match: {{ paths: [{{ exact: / }}] }}, respond: {{ body: "<h1>the cluster</h1>", content_type: text/html }} }}
  - {{ match: {{ paths: [/api] }}, upstream: kube, plugins: [{{ path_rewrite: {{ strip_prefix: /api }} }}] }}
  - match: {{ paths: [/token] }}
    upstream: kube
    tls: {{ client_certificate: none }}
    plugins: [{{ path_rewrite: {{ strip_prefix: /token }} }}]
  - match: {{ paths: [/impersonate] }}
    upstream: kube
    trust_headers: [impersonate-user]
    plugins: [{{ path_rewrite: {{ strip_prefix: /impersonate }} }}]
"#,
        port = kube.port,
        ca = quoted(&kube.file("ca.crt")),
        cert = quoted(&kube.file("admin.crt")),
        key = quoted(&kube.file("admin.key")),
    ))
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_gateways_certificate_opens_the_api_under_a_prefix() {
    let kube = Kube::shared();
    let edge = layer_7(&kube);
    let landing = edge.get(HOST, "/");
    assert_eq!((landing.status, landing.header("content-type")), (200, Some("text/html")));
    assert!(landing.text().contains("the cluster"));

    assert_eq!(edge.get(HOST, "/api/version").json()["gitVersion"], "v1.20.2");
    let spaces = edge.get(HOST, "/api/api/v1/namespaces?limit=500").json();
    assert!(
        spaces["items"].as_array().unwrap().iter().any(|s| s["metadata"]["name"] == "kube-system"),
        "{spaces}"
    );
    assert_eq!(edge.get(HOST, "/api/healthz").text(), "ok");
    assert_eq!(edge.get(HOST, "/apix/version").status, 404);

    let body =
        br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"made-"},"data":{"a":"b"}}"#;
    let head = format!(
        "POST /api/api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let made = Client::plain(edge.port).send(head).send(body).response();
    assert_eq!((made.status, &made.json()["data"]["a"]), (201, &"b".into()));
}

#[test]
fn a_bearer_token_passes_and_decides_who_one_is() {
    let kube = Kube::shared();
    let edge = layer_7(&kube);
    let ask = |token: Option<&str>| {
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let request = format!("GET /token/api/v1/namespaces HTTP/1.1\r\nHost: {HOST}\r\n{token}\r\n");
        let response = Client::plain(edge.port).send(request).response();
        (response.status, response.json()["message"].as_str().unwrap_or_default().to_owned())
    };
    let (status, message) = ask(Some(&kube.token()));
    assert!(status == 403 && message.contains("\"alice\""), "{status} {message}");
    let (status, message) = ask(None);
    assert!(status == 403 && message.contains("system:anonymous"), "{status} {message}");
    assert_eq!(ask(Some("made-up")).0, 401);
    assert!(!edge.gateway.stderr().contains(&kube.token()), "the token is in the log");
}

#[test]
fn a_client_cannot_borrow_the_gateways_rights_by_headers() {
    let kube = Kube::shared();
    let edge = layer_7(&kube);
    let ask = |prefix: &str| {
        let request = format!(
            "GET {prefix}/api/v1/secrets HTTP/1.1\r\nHost: {HOST}\r\nImpersonate-User: alice\r\nX-Remote-User: alice\r\n\r\n"
        );
        Client::plain(edge.port).send(request).response().status
    };
    // The admin may impersonate, so a header that passed would have made the answer 403.
    assert_eq!(ask("/api"), 200);
    assert_eq!(ask("/impersonate"), 403);
}

#[test]
fn a_watch_streams_through_layer_7() {
    let kube = Kube::shared();
    let edge = layer_7(&kube);
    let mut watch = Client::plain(edge.port);
    let path = "/api/api/v1/namespaces/default/configmaps?watch=1&fieldSelector=metadata.name%3Dwatched-l7";
    watch.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert_eq!(watch.head().status, 200);
    let made = kube.kubectl(&["create", "configmap", "watched-l7"]);
    assert!(made.status.success(), "{}", text(&made));
    let event = String::from_utf8(watch.chunk().unwrap()).unwrap();
    assert!(event.contains("ADDED") && event.contains("watched-l7"), "{event}");
}
