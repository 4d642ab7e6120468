//! The second seed scenario: which name is asked for, which is verified, what is shown, and that no two policies mix.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};
use vestibule_tests::certs::{Certs, Pair};
use vestibule_tests::client::Client;
use vestibule_tests::real::{Clients, Nginx, NginxTls};

use crate::{Edge, quoted};

fn shown(pair: &Pair) -> String {
    format!("client_certificate: {{ cert: {}, key: {} }}", quoted(&pair.cert), quoted(&pair.key))
}

#[test]
fn the_verified_name_is_independent_of_the_sni() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let certificate = certs.server(&ca, &["www.ssltest.com", "127.0.0.1"]);
    let nginx = Nginx::start(&NginxTls { certificate: &certificate, clients: Clients::Unasked });
    let ca = quoted(&ca.cert);
    let check = |tls: &str, sni: &str, expected: (u16, Value)| {
        let edge = Edge::start(&format!(
            "upstreams: {{ origin: {{ endpoints: [\"127.0.0.1:{}\"], tls: {{ {tls} }} }} }}\n\
             routes: [{{ upstream: origin }}]",
            nginx.port
        ));
        assert_eq!(edge.outcome("ingress.internal", "/"), expected, "{tls}");
        if expected.0 == 200 {
            assert_eq!(edge.get("ingress.internal", "/").json()["sni"], sni, "{tls}");
        }
    };
    let good = || (200, Value::Null);
    let mismatch = || (502, json!("tls_name_mismatch"));
    check(&format!("verify: {{ ca: {ca}, name: www.ssltest.com }}"), "ingress.internal", good());
    check(&format!("verify: {{ ca: {ca}, names: [a.test, www.ssltest.com] }}"), "ingress.internal", good());
    check(&format!("verify: {{ ca: {ca}, names: [a.test, b.test] }}"), "", mismatch());
    check(&format!("verify: {{ ca: {ca} }}"), "", mismatch());
    check(&format!("sni: www.ssltest.com, verify: {{ ca: {ca} }}"), "www.ssltest.com", good());
    check(&format!("sni: other.test, verify: {{ ca: {ca}, name: www.ssltest.com }}"), "other.test", good());
    check(&format!("sni: none, verify: {{ ca: {ca}, name: www.ssltest.com }}"), "", good());
    check(&format!("sni: none, verify: {{ ca: {ca}, name: a.test }}"), "", mismatch());
    check(&format!("sni: none, verify: {{ ca: {ca}, name: 127.0.0.1 }}"), "", good());
    check(&format!("sni: none, verify: {{ ca: {ca}, name: 127.0.0.2 }}"), "", mismatch());
    check("sni: none, verify: off", "", good());
    check("verify: false", "ingress.internal", good());
}

#[test]
fn mutual_tls_shows_the_certificate_that_the_route_names() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let stranger = certs.authority("stranger");
    let certificate = certs.server(&ca, &["a.test"]);
    let nginx = Nginx::start(&NginxTls { certificate: &certificate, clients: Clients::Required(&ca.cert) });
    let (one, two) = (certs.client(&ca, "one"), certs.client(&ca, "two"));
    let edge = Edge::start(&format!(
        r#"
upstreams:
  origin: {{ endpoints: ["127.0.0.1:{port}"], tls: {{ verify: {{ ca: {ca} }}, {one} }} }}
routes:
  - {{ match: {{ paths: [/one] }}, upstream: origin }}
  - {{ match: {{ paths: [/two] }}, upstream: origin, tls: {{ {two} }} }}
  - {{ match: {{ paths: [/nobody] }}, upstream: origin, tls: {{ client_certificate: none }} }}
  - {{ match: {{ paths: [/stranger] }}, upstream: origin, tls: {{ {stranger} }} }}
"#,
        port = nginx.port,
        ca = quoted(&ca.cert),
        one = shown(&one),
        two = shown(&two),
        stranger = shown(&certs.client(&stranger, "stranger")),
    ));
    for _ in 0..2 {
        assert_eq!(edge.get("a.test", "/one").json()["client"], "CN=one");
        assert_eq!(edge.get("a.test", "/two").json()["client"], "CN=two");
        // nginx ends such handshakes in peace and answers 400: an answer like any other.
        assert_eq!(edge.get("a.test", "/nobody").status, 400);
        assert_eq!(edge.get("a.test", "/stranger").status, 400);
    }
}

#[test]
fn no_two_policies_share_a_connection_or_a_session() {
    let certs = Certs::new();
    let (ca, other) = (certs.authority("ca"), certs.authority("other"));
    let bundle = certs.folder().join("bundle.crt");
    fs::write(&bundle, [fs::read(&ca.cert).unwrap(), fs::read(&other.cert).unwrap()].concat()).unwrap();
    let certificate = certs.server(&ca, &["a.test", "b.test"]);
    let nginx = Nginx::start(&NginxTls { certificate: &certificate, clients: Clients::Optional(&ca.cert) });
    let (one, two) = (shown(&certs.client(&ca, "one")), shown(&certs.client(&ca, "two")));
    let (ca, bundle) = (quoted(&ca.cert), quoted(&bundle));
    let policies = [
        format!("sni: a.test, verify: {{ ca: {ca} }}"),
        format!("sni: a.test, verify: {{ ca: {bundle} }}"),
        format!("sni: a.test, verify: {{ ca: {ca}, name: b.test }}"),
        format!("sni: a.test, verify: {{ ca: {ca}, names: [a.test, b.test] }}"),
        format!("sni: a.test, verify: {{ ca: {ca} }}, {one}"),
        format!("sni: a.test, verify: {{ ca: {ca} }}, {two}"),
        "sni: a.test, verify: off".to_owned(),
        format!("sni: b.test, verify: {{ ca: {ca}, name: a.test }}"),
        format!("sni: none, verify: {{ ca: {ca}, name: a.test }}"),
    ];
    let mut yaml = format!(
        "upstreams: {{ origin: {{ endpoints: [\"127.0.0.1:{}\"], tls: {{}} }} }}\nroutes:\n",
        nginx.port
    );
    for (number, tls) in policies.iter().enumerate() {
        yaml += &format!(
            "  - {{ match: {{ paths: [/p{number}] }}, upstream: origin, tls: {{ {tls} }}, \
             plugins: [{{ path_rewrite: {{ strip_prefix: /p{number} }} }}] }}\n"
        );
    }
    let edge = Edge::start(&yaml);
    let mut client = Client::plain(edge.port);

    // Connections that stay open: each policy has its own, and keeps it.
    let mut connections: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for _ in 0..3 {
        for number in 0..policies.len() {
            let report = client.get("x.test", &format!("/p{number}/")).json();
            connections.entry(number).or_default().insert(report["connection"].to_string());
        }
    }
    for (number, mine) in &connections {
        assert_eq!(mine.len(), 1, "{} did not keep its connection: {mine:?}", policies[*number]);
    }
    let all: BTreeSet<&String> = connections.values().flatten().collect();
    assert_eq!(all.len(), policies.len(), "policies share a connection: {connections:#?}");
}

#[test]
fn a_session_is_resumed_by_its_own_policy_alone() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let certificate = certs.server(&ca, &["a.test", "b.test"]);
    let nginx = Nginx::start(&NginxTls { certificate: &certificate, clients: Clients::Optional(&ca.cert) });
    let (one, two) = (certs.client(&ca, "one"), certs.client(&ca, "two"));
    let ca = quoted(&ca.cert);
    let policies = [
        (format!("sni: a.test, verify: {{ ca: {ca} }}"), "a.test", ""),
        (format!("sni: b.test, verify: {{ ca: {ca} }}"), "b.test", ""),
        (format!("sni: a.test, verify: {{ ca: {ca}, name: b.test }}"), "a.test", ""),
        (format!("sni: a.test, verify: {{ ca: {ca} }}, {}", shown(&one)), "a.test", "CN=one"),
        (format!("sni: a.test, verify: {{ ca: {ca} }}, {}", shown(&two)), "a.test", "CN=two"),
        (format!("sni: none, verify: {{ ca: {ca}, name: a.test }}"), "", ""),
    ];
    let mut yaml = format!(
        "upstreams: {{ origin: {{ endpoints: [\"127.0.0.1:{}\"], tls: {{}} }} }}\nroutes:\n",
        nginx.port
    );
    for (number, (tls, ..)) in policies.iter().enumerate() {
        yaml += &format!(
            "  - {{ match: {{ paths: [/p{number}] }}, upstream: origin, tls: {{ {tls} }}, \
             plugins: [{{ path_rewrite: {{ strip_prefix: /p{number} }} }}] }}\n"
        );
    }
    let edge = Edge::start(&yaml);
    // Every connection is closed after its answer, so each round shakes hands anew: in full at first, resumed from then on.
    for (round, resumed) in [".", "r", "r"].into_iter().enumerate() {
        for (number, (tls, sni, client)) in policies.iter().enumerate() {
            let report = edge.get("x.test", &format!("/p{number}/close?{round}")).json();
            assert_eq!(report["resumed"], resumed, "round {round}: {tls}: {report}");
            assert_eq!(
                (&report["sni"], &report["client"]),
                (&json!(sni), &json!(client)),
                "round {round}: {tls}"
            );
            let line = edge.gateway.log_line(|line| {
                line["path"].as_str().is_some_and(|path| path.starts_with(&format!("/p{number}/close")))
                    && line["tls_resumed"].as_bool() == Some(resumed == "r")
            });
            assert_eq!(line["status"], 200);
        }
    }
}

#[test]
fn a_verified_session_is_not_resumed_past_a_verification_that_must_fail() {
    let certs = Certs::new();
    let (ca, stranger) = (certs.authority("ca"), certs.authority("stranger"));
    let certificate = certs.server(&ca, &["a.test"]);
    let nginx = Nginx::start(&NginxTls { certificate: &certificate, clients: Clients::Unasked });
    let edge = Edge::start(&format!(
        r#"
upstreams:
  origin: {{ endpoints: ["127.0.0.1:{port}"], tls: {{ verify: {{ ca: {ca} }} }} }}
routes:
  - {{ match: {{ paths: [/close] }}, upstream: origin }}
  - {{ match: {{ paths: [/off] }}, upstream: origin, tls: {{ verify: off }} }}
  - {{ match: {{ paths: [/ca] }}, upstream: origin, tls: {{ verify: {{ ca: {stranger} }} }} }}
  - {{ match: {{ paths: [/name] }}, upstream: origin, tls: {{ verify: {{ ca: {ca}, name: b.test }} }} }}
"#,
        port = nginx.port,
        ca = quoted(&ca.cert),
        stranger = quoted(&stranger.cert),
    ));
    for _ in 0..3 {
        assert_eq!(edge.get("a.test", "/off").status, 200);
        assert_eq!(edge.get("a.test", "/close").status, 200);
        assert_eq!(edge.outcome("a.test", "/ca"), (502, json!("tls_unknown_issuer")));
        assert_eq!(edge.outcome("a.test", "/name"), (502, json!("tls_name_mismatch")));
    }
}
