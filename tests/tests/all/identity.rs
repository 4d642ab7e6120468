//! The second seed scenario: which name is asked for, which is verified, what is shown, and that no two policies mix.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};
use vestibule_tests::certs::{Authority, Certs, Pair, pin};
use vestibule_tests::client::Client;
use vestibule_tests::real::{Clients, Nginx, NginxTls};

use crate::doctor::s_server;
use crate::{Edge, quoted};

fn shown(pair: &Pair) -> String {
    format!("client_certificate: {{ cert: {}, key: {} }}", quoted(&pair.cert), quoted(&pair.key))
}

#[test]
fn the_verified_name_is_independent_of_the_sni() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let certificate = certs.server(&ca, &["www.ssltest.com", "127.0.0.1"]);
    let nginx = Nginx::start(&NginxTls::new(&certificate));
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
    let nginx =
        Nginx::start(&NginxTls { clients: Clients::Required(&ca.cert), ..NginxTls::new(&certificate) });
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

/// A policy: the keys of its `tls` block, and what nginx then sees as SNI, client, and of a second connection.
struct Policy {
    tls: String,
    sni: &'static str,
    client: &'static str,
    resumed: &'static str,
}

/// Policies each of which differs in one key from the first, or from another that does.
fn policies(certs: &Certs, ca: &Authority, other: &Authority, leaf: &Pair) -> Vec<Policy> {
    let bundle = certs.folder().join("bundle.crt");
    fs::write(&bundle, [fs::read(&ca.cert).unwrap(), fs::read(&other.cert).unwrap()].concat()).unwrap();
    let (one, two) = (shown(&certs.client(ca, "one")), shown(&certs.client(ca, "two")));
    let crl = quoted(&certs.crl(ca, &[]));
    let (pin, unused) = (pin(leaf), pin(&certs.server(ca, &["c.test"])));
    let key_log = quoted(&certs.folder().join("key.log"));
    let (ca, bundle) = (quoted(&ca.cert), quoted(&bundle));
    let a = |rest: &str| Policy {
        tls: format!("sni: a.test, verify: {{ ca: {ca} }}{rest}"),
        sni: "a.test",
        client: "",
        resumed: "r",
    };
    let verified =
        |keys: &str| Policy { tls: format!("sni: a.test, verify: {{ ca: {ca}, {keys} }}"), ..a("") };
    vec![
        a(""),
        Policy { tls: format!("sni: a.test, verify: {{ ca: {bundle} }}"), ..a("") },
        verified("name: b.test"),
        verified("names: [a.test, b.test]"),
        verified(&format!("crl: {crl}")),
        verified("depth: 3"),
        verified("depth: 4"),
        verified(&format!("pins: [\"{pin}\"]")),
        verified(&format!("pins: [\"{pin}\", \"{unused}\"]")),
        verified("allow_common_name: true"),
        Policy { client: "CN=one", ..a(&format!(", {one}")) },
        Policy { client: "CN=two", ..a(&format!(", {two}")) },
        Policy { tls: "sni: a.test, verify: off".to_owned(), ..a("") },
        Policy { tls: format!("sni: b.test, verify: {{ ca: {ca}, name: a.test }}"), sni: "b.test", ..a("") },
        Policy { tls: format!("sni: none, verify: {{ ca: {ca}, name: a.test }}"), sni: "", ..a("") },
        a(", min_version: \"1.1\""),
        a(", ciphers: \"ECDHE+AESGCM\""),
        a(", ciphers: [ECDHE+AESGCM, TLS_AES_128_GCM_SHA256]"),
        a(", curves: P-256"),
        Policy { resumed: ".", ..a(", session_reuse: false") },
        a(&format!(", key_log: {key_log}")),
    ]
}

/// A gateway with two routes for each policy, all to one nginx: `/p0`, `/p1` … keep their connections, `/n0`, `/n1` …
/// make a new one for each request.
fn routed(policies: &[Policy], nginx: &Nginx, protocol: &str) -> Edge {
    let port = if protocol == "h2" { nginx.h2_port } else { nginx.port };
    let upstream = format!("endpoints: [\"127.0.0.1:{port}\"], protocol: {protocol}, tls: {{}}");
    let mut yaml = format!(
        "upstreams:\n  kept: {{ {upstream} }}\n  new: {{ {upstream}, keepalive: {{ idle_timeout: 0s }} }}\nroutes:\n"
    );
    for (number, Policy { tls, .. }) in policies.iter().enumerate() {
        for (prefix, upstream) in [("p", "kept"), ("n", "new")] {
            yaml += &format!(
                "  - {{ match: {{ paths: [/{prefix}{number}] }}, upstream: {upstream}, tls: {{ {tls} }}, \
                 plugins: [{{ path_rewrite: {{ strip_prefix: /{prefix}{number} }} }}] }}\n"
            );
        }
    }
    Edge::start(&yaml)
}

#[test]
fn no_two_policies_share_a_connection_or_a_session() {
    let certs = Certs::new();
    let (ca, other) = (certs.authority("ca"), certs.authority("other"));
    let certificate = certs.server(&ca, &["a.test", "b.test"]);
    let policies = policies(&certs, &ca, &other, &certificate);
    for (version, protocol) in
        [("1.2", "http/1.1"), ("1.3", "http/1.1"), ("1.2", "h2"), ("1.3", "h2"), ("1.3", "auto")]
    {
        let clients = Clients::Optional(&ca.cert);
        let tls = NginxTls { certificate: &certificate, clients, version: Some(version) };
        let nginx = Nginx::start(&tls);
        let edge = routed(&policies, &nginx, protocol);
        let case = format!("TLS {version}, {protocol}");

        // Each round shakes hands anew: in full at first, resumed from then on. Were a session of another policy
        // offered, the first round would resume it.
        for round in 0..3 {
            for (number, policy) in policies.iter().enumerate() {
                let tls = &policy.tls;
                let path = format!("/n{number}/{round}");
                let report = edge.get("x.test", &path).json();
                let resumed = if round == 0 { "." } else { policy.resumed };
                assert_eq!(report["resumed"], resumed, "{case}, round {round}: {tls}: {report}");
                assert_eq!(report["tls"], format!("TLSv{version}"));
                assert_eq!(
                    (&report["sni"], &report["client"]),
                    (&json!(policy.sni), &json!(policy.client)),
                    "{case}: {tls}"
                );
                let line = edge.gateway.log_of(&path);
                assert_eq!(line["tls_resumed"].as_bool(), Some(resumed == "r"), "{case}: {line}");
            }
        }

        // Connections that stay open: each policy has its own, and keeps it.
        let mut client = Client::plain(edge.port);
        let mut connections: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        for _ in 0..3 {
            for number in 0..policies.len() {
                let report = client.get("x.test", &format!("/p{number}/")).json();
                connections.entry(number).or_default().insert(report["connection"].to_string());
            }
        }
        for (number, mine) in &connections {
            assert_eq!(mine.len(), 1, "{case}: {} did not keep its connection", policies[*number].tls);
        }
        let all: BTreeSet<&String> = connections.values().flatten().collect();
        assert_eq!(all.len(), policies.len(), "{case}: policies share a connection: {connections:#?}");
    }
}

#[test]
fn a_thousand_new_connections_of_one_policy_resume_the_session_of_the_first() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let certificate = certs.server(&ca, &["a.test"]);
    for (version, protocol) in [("1.2", "http/1.1"), ("1.3", "http/1.1"), ("1.3", "h2")] {
        let nginx = Nginx::start(&NginxTls { version: Some(version), ..NginxTls::new(&certificate) });
        let edge = Edge::start(&format!(
            "upstreams: {{ origin: {{ endpoints: [\"127.0.0.1:{}\"], protocol: {protocol}, \
             keepalive: {{ idle_timeout: 0s }}, tls: {{ verify: {{ ca: {} }} }} }} }}\n\
             routes: [{{ upstream: origin }}]",
            if protocol == "h2" { nginx.h2_port } else { nginx.port },
            quoted(&ca.cert)
        ));
        let mut client = Client::plain(edge.port);
        for _ in 0..1000 {
            assert_eq!(client.get("a.test", "/").status, 200);
        }
        drop(edge);
        let log = nginx.into_log();
        // By connection: a request may find that of the one before it not yet put away. And a few more in full than the
        // first: a session's age is taken from the machine's clock, and one that is set in between makes it too old.
        let full: BTreeSet<String> = (log.iter().filter(|line| line["resumed"] == "."))
            .map(|line| line["connection"].to_string())
            .collect();
        let connections: BTreeSet<String> = log.iter().map(|line| line["connection"].to_string()).collect();
        assert_eq!(log.len(), 1000, "{version}, {protocol}");
        assert!(connections.len() > 990, "{version}, {protocol}: {} connections", connections.len());
        assert!((1..=3).contains(&full.len()), "TLS {version}, {protocol}: {} in full", full.len());
    }
}

#[test]
fn a_verified_session_is_not_resumed_past_a_verification_that_must_fail() {
    let certs = Certs::new();
    let (ca, stranger) = (certs.authority("ca"), certs.authority("stranger"));
    let certificate = certs.server(&ca, &["a.test"]);
    let nginx = Nginx::start(&NginxTls::new(&certificate));
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

#[test]
fn versions_out_of_use_are_spoken_where_the_file_offers_them_and_nowhere_else() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let certificate = certs.server(&ca, &["a.test"]);
    for (server, version, name) in [("-tls1", "1.0", "TLSv1"), ("-tls1_1", "1.1", "TLSv1.1")] {
        let (port, _server) = s_server(&certificate, &[server, "-cipher", "ALL:@SECLEVEL=0"]);
        let edge = Edge::start(&format!(
            "upstreams: {{ origin: {{ endpoints: [\"127.0.0.1:{port}\"], tls: {{ verify: {{ ca: {} }} }} }} }}\n\
             routes:\n  - {{ match: {{ paths: [/old] }}, upstream: origin, tls: {{ min_version: \"{version}\" }} }}\n  \
             - {{ upstream: origin }}",
            quoted(&ca.cert)
        ));
        assert_eq!(edge.outcome("a.test", "/new"), (502, json!("tls_protocol_version")));
        assert_eq!(edge.outcome("a.test", "/old"), (200, Value::Null));
        assert_eq!(edge.gateway.log_of("/old")["tls_version"], name);
    }
}
