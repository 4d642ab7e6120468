//! The first seed scenario: a TLS ingress that is found by SNI alone, behind routes with and without one.

use serde_json::{Value, json};
use vestibule_tests::certs::{Authority, Certs, Pair};
use vestibule_tests::origin::Origin;
use vestibule_tests::real::{Clients, Envoy, HaProxy};

use crate::{Edge, quoted};

const NAME: &str = "app.mesh.test";

struct Mesh {
    certs: Certs,
    ca: Authority,
    stranger: Authority,
    leaf: Pair,
}

impl Mesh {
    fn new() -> Self {
        let certs = Certs::new();
        let (ca, stranger) = (certs.authority("mesh"), certs.authority("stranger"));
        let leaf = certs.server(&ca, &[NAME]);
        Self { certs, ca, stranger, leaf }
    }

    /// Routes to one ingress that differ in nothing but TLS.
    fn edge(&self, port: u16) -> Edge {
        let (ca, stranger) = (quoted(&self.ca.cert), quoted(&self.stranger.cert));
        let me = self.certs.client(&self.ca, "gateway");
        let (cert, key) = (quoted(&me.cert), quoted(&me.key));
        Edge::start(&format!(
            r#"
upstreams:
  ingress: {{ endpoints: ["127.0.0.1:{port}"], tls: {{ verify: {{ ca: {ca} }} }} }}
routes:
  - {{ match: {{ paths: [/default] }}, upstream: ingress }}
  - {{ match: {{ paths: [/again] }}, upstream: ingress }}
  - {{ match: {{ paths: [/none] }}, upstream: ingress, tls: {{ sni: none, verify: {{ ca: {ca}, name: {NAME} }} }} }}
  - {{ match: {{ paths: [/none-off] }}, upstream: ingress, tls: {{ sni: none, verify: off }} }}
  - {{ match: {{ paths: [/wrong-sni] }}, upstream: ingress, tls: {{ sni: other.mesh.test }} }}
  - {{ match: {{ paths: [/wrong-ca] }}, upstream: ingress, tls: {{ verify: {{ ca: {stranger} }} }} }}
  - {{ match: {{ paths: [/system-ca] }}, upstream: ingress, tls: {{ verify: {{ ca: system }} }} }}
  - {{ match: {{ paths: [/wrong-name] }}, upstream: ingress, tls: {{ verify: {{ ca: {ca}, name: other.mesh.test }} }} }}
  - {{ match: {{ paths: [/mtls] }}, upstream: ingress, tls: {{ client_certificate: {{ cert: {cert}, key: {key} }} }} }}
"#
        ))
    }
}

/// Each path once, in this order: those that must fail come after one that has left a pooled connection and a session.
fn check(edge: &Edge, table: &[(&str, u16, Value)]) {
    for (path, status, cause) in table {
        assert_eq!(edge.outcome(NAME, path), (*status, cause.clone()), "{path}");
    }
}

#[test]
fn envoy_ingress_answers_by_sni_and_each_failure_has_its_cause() {
    let mesh = Mesh::new();
    let app = Origin::echo();
    let envoy = Envoy::ingress(NAME, &mesh.leaf, Clients::Unasked, app.port);
    let edge = mesh.edge(envoy.port);
    check(
        &edge,
        &[
            ("/default", 200, Value::Null),
            ("/none", 502, json!("tls_sni_missing")),
            ("/none-off", 502, json!("tls_sni_missing")),
            ("/wrong-sni", 502, json!("tls_peer_reset")),
            ("/wrong-ca", 502, json!("tls_unknown_issuer")),
            ("/system-ca", 502, json!("tls_unknown_issuer")),
            ("/wrong-name", 502, json!("tls_name_mismatch")),
            ("/again", 200, Value::Null),
        ],
    );
    // HTTP/1.0 would have been answered 426.
    envoy.wait_for_log("access HTTP/1.1 sni=app.mesh.test GET /default 200");
}

#[test]
fn haproxy_strict_sni_answers_by_sni_and_each_failure_has_its_cause() {
    let mesh = Mesh::new();
    let haproxy = HaProxy::strict_sni(&mesh.leaf, Clients::Unasked);
    let edge = mesh.edge(haproxy.port);
    check(
        &edge,
        &[
            ("/default", 200, Value::Null),
            ("/none", 502, json!("tls_sni_missing")),
            ("/none-off", 502, json!("tls_sni_missing")),
            ("/wrong-sni", 502, json!("tls_sni_unrecognized")),
            ("/wrong-ca", 502, json!("tls_unknown_issuer")),
            ("/wrong-name", 502, json!("tls_name_mismatch")),
            ("/again", 200, Value::Null),
        ],
    );
}

#[test]
fn an_ingress_that_wants_a_client_certificate_is_told_from_one_that_wants_sni() {
    let mesh = Mesh::new();
    let app = Origin::echo();
    let envoy = Envoy::ingress(NAME, &mesh.leaf, Clients::Required(&mesh.ca.cert), app.port);
    let haproxy = HaProxy::strict_sni(&mesh.leaf, Clients::Required(&mesh.ca.cert));
    for port in [envoy.port, haproxy.port] {
        check(
            &mesh.edge(port),
            &[
                ("/mtls", 200, Value::Null),
                ("/default", 502, json!("tls_client_certificate_required")),
                ("/none", 502, json!("tls_sni_missing")),
                ("/again", 502, json!("tls_client_certificate_required")),
            ],
        );
    }
}

#[test]
fn the_log_names_the_sni_that_was_sent_and_the_client_learns_nothing_of_the_cause() {
    let mesh = Mesh::new();
    let haproxy = HaProxy::strict_sni(&mesh.leaf, Clients::Unasked);
    let edge = mesh.edge(haproxy.port);
    assert_eq!(edge.get(NAME, "/default").status, 200);
    assert_eq!(edge.gateway.log_of("/default")["sni"], NAME);

    let refused = edge.get(NAME, "/wrong-name");
    let line = edge.gateway.log_of("/wrong-name");
    assert!(refused.text().contains(line["request_id"].as_str().unwrap()), "{}", refused.text());
    for secret in ["tls", "mesh", "certificate", "127.0.0.1"] {
        assert!(!refused.text().contains(secret), "{}", refused.text());
    }
}

#[test]
fn bad_certificates_have_causes_of_their_own() {
    let mesh = Mesh::new();
    let deep = mesh.certs.intermediate("between", &mesh.ca);
    let cases = [
        ("a chain through an intermediate", mesh.certs.server(&deep, &[NAME]), (200, Value::Null)),
        ("an expired one", mesh.certs.expired(&mesh.ca, &[NAME]), (502, json!("tls_expired"))),
        ("one signed by itself", mesh.certs.self_signed(&[NAME]), (502, json!("tls_self_signed"))),
        ("a wildcard", mesh.certs.server(&mesh.ca, &["*.mesh.test"]), (200, Value::Null)),
    ];
    for (what, leaf, expected) in cases {
        let haproxy = HaProxy::strict_sni(&leaf, Clients::Unasked);
        assert_eq!(mesh.edge(haproxy.port).outcome(NAME, "/default"), expected, "{what}");
    }
}
