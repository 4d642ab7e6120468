//! Keys that say which client certificates are asked for and who may pass with one.

use vestibule_tests::certs::{Certs, Pair};
use vestibule_tests::client::{Client, ClientTls};
use vestibule_tests::gateway::Gateway;
use vestibule_tests::ports;

use crate::quoted;

pub const KEYS: &[&str] = &[
    "listeners.tls.by_sni.client_certificate.ca",
    "listeners.tls.by_sni.client_certificate.crl",
    "listeners.tls.by_sni.client_certificate.depth",
    "listeners.tls.by_sni.client_certificate.require",
    "listeners.tls.client_certificate.crl",
    "listeners.tls.client_certificate.depth",
    "plugins.client_certificate.common_names",
    "plugins.client_certificate.dns",
    "plugins.client_certificate.fingerprints",
    "plugins.client_certificate.organizations",
    "plugins.client_certificate.subjects",
    "plugins.client_certificate.uris",
];

/// The status that a client gets by a name; nothing where it is not let in.
fn ask(port: u16, sni: &str, certificate: Option<&Pair>, path: &str) -> Option<u16> {
    let mut client = Client::tls(port, &ClientTls { sni: Some(sni), ca: None, certificate }).ok()?;
    client.try_send(format!("GET {path} HTTP/1.1\r\nHost: {sni}\r\n\r\n")).ok()?;
    client.try_response().ok().map(|response| response.status)
}

#[test]
fn each_key_of_a_client_certificate_makes_a_difference_by_default_and_by_name() {
    let certs = Certs::new();
    let (ca, other) = (certs.authority("ca"), certs.authority("other"));
    let between = certs.intermediate("between", &ca);
    let server = certs.server(&ca, &["a.test", "b.test"]);
    let (near, far) = (certs.client(&ca, "near"), certs.client(&between, "far"));
    let (none, revoked) = (certs.crl(&ca, &[]), certs.crl(&ca, &[&near]));
    let (cert, key) = (quoted(&server.cert), quoted(&server.key));
    let (ca, other) = (quoted(&ca.cert), quoted(&other.cert));
    let (none, revoked) = (quoted(&none), quoted(&revoked));
    for (keys, shown, expected) in [
        (format!("ca: {ca}"), Some(&near), Some(200)),
        (format!("ca: {other}"), Some(&near), None),
        (format!("ca: {ca}, require: true"), None, None),
        (format!("ca: {ca}, require: false"), None, Some(200)),
        (format!("ca: {ca}, crl: {none}"), Some(&near), Some(200)),
        (format!("ca: {ca}, crl: {revoked}"), Some(&near), None),
        (format!("ca: {ca}, depth: 1"), Some(&far), Some(200)),
        (format!("ca: {ca}, depth: 0"), Some(&far), None),
    ] {
        let port = ports::free();
        let pair = format!("certificates: [{{ cert: {cert}, key: {key} }}]");
        let listener = |tls: &str| {
            Gateway::start(&format!(
                "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\", tls: {{ {pair}, {tls} }} }} }}\n\
                 routes: [{{ respond: {{}} }}]\n"
            ))
        };
        let gateway = listener(&format!("client_certificate: {{ {keys} }}"));
        assert_eq!(ask(port, "a.test", shown, "/"), expected, "{keys}");
        gateway.stop();
        let _gateway = listener(&format!("by_sni: {{ b.test: {{ client_certificate: {{ {keys} }} }} }}"));
        assert_eq!(ask(port, "a.test", None, "/"), Some(200), "{keys}");
        assert_eq!(ask(port, "b.test", shown, "/"), expected, "{keys} by name");
    }
}

#[test]
fn each_rule_on_client_certificates_lets_one_pass_and_not_the_other() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let server = certs.server(&ca, &["a.test"]);
    let alice = certs.identified(&ca, "alice", "devs", &["alice.a.test", "spiffe://a.test/alice"]);
    let bob = certs.identified(&ca, "bob", "ops", &["bob.b.test", "spiffe://b.test/bob"]);
    let fingerprint = |pair: &Pair| {
        let leaf = openssl::x509::X509::from_pem(&std::fs::read(&pair.cert).unwrap()).unwrap();
        let digest = leaf.digest(openssl::hash::MessageDigest::sha256()).unwrap();
        digest.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    };
    let rules = [
        "subjects: \"O=devs,CN=alice\"".to_owned(),
        "common_names: alice".to_owned(),
        "organizations: devs".to_owned(),
        "dns: \"*.a.test\"".to_owned(),
        "uris: \"spiffe://a.test/*\"".to_owned(),
        format!("fingerprints: {:?}", fingerprint(&alice)),
    ];
    let routes = rules.iter().enumerate().map(|(number, rule)| {
        format!(
            "  - {{ match: {{ paths: /{number} }}, respond: {{}}, plugins: [{{ client_certificate: {{ {rule} }} }}] }}\n"
        )
    });
    let port = ports::free();
    let (cert, key, root) = (quoted(&server.cert), quoted(&server.key), quoted(&ca.cert));
    let gateway = Gateway::start(&format!(
        "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\", tls: {{ certificates: [{{ cert: {cert}, key: {key} }}], \
         client_certificate: {{ ca: {root}, require: false }} }} }} }}\nroutes:\n{}",
        routes.collect::<String>()
    ));
    for (number, rule) in rules.iter().enumerate() {
        let of = |shown| ask(port, "a.test", shown, &format!("/{number}"));
        assert_eq!([of(Some(&alice)), of(Some(&bob)), of(None)], [Some(200), Some(403), Some(403)], "{rule}");
    }
    assert_eq!(gateway.log_line(|line| line["status"] == 403)["cause"], "not_allowed");
}
