//! A listener with its defaults, under the test that people hold their servers against.

use std::fs;
use std::process::Command;

use serde_json::Value;
use vestibule_tests::certs::Certs;
use vestibule_tests::gateway::Gateway;
use vestibule_tests::ports;
use vestibule_tests::real::program;

use crate::quoted;

#[test]
fn testssl_finds_nothing_above_low_at_a_listener_with_its_defaults() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let certificate = certs.published(&ca, "web.test");
    let port = ports::free();
    // What a page may load and do is for whoever writes the pages to say, so these are no defaults of a gateway's.
    let _gateway = Gateway::start(&format!(
        r#"
version: 1
listeners:
  web: {{ address: "127.0.0.1:{port}", tls: {{ certificates: [{{ cert: {cert}, key: {key} }}] }} }}
plugins:
  - headers:
      response:
        set:
          strict-transport-security: max-age=31536000; includeSubDomains
          content-security-policy: default-src 'self'
          x-content-type-options: nosniff
          x-frame-options: DENY
          referrer-policy: no-referrer
routes: [{{ respond: {{ body: hello }} }}]
"#,
        cert = quoted(&certificate.cert),
        key = quoted(&certificate.key),
    ));
    let report = certs.folder().join("report.json");
    // Protocols, ciphers, the server's preference, forward secrecy, the certificate, headers, and the attacks with names.
    let output = Command::new(program("testssl"))
        .args(["--ip", "127.0.0.1", "--nodns", "min", "--quiet", "--color", "0", "--warnings", "off"])
        .arg("--add-ca")
        .arg(&ca.cert)
        .arg("--jsonfile")
        .arg(&report)
        .args(["-p", "-s", "-P", "-f", "-S", "-h", "-U"])
        .arg(format!("web.test:{port}"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let findings: Vec<Value> = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    // Each group has been looked at.
    for id in [
        "TLS1_3",
        "cipherlist_NULL",
        "cipher_order",
        "PFS",
        "cert_chain_of_trust",
        "HSTS_time",
        "heartbleed",
        "ROBOT",
    ] {
        assert!(findings.iter().any(|finding| finding["id"] == id), "no `{id}`:\n{told}");
    }
    let grave: Vec<&Value> = findings
        .iter()
        .filter(|finding| !["OK", "INFO", "LOW"].contains(&finding["severity"].as_str().unwrap_or_default()))
        .collect();
    assert!(grave.is_empty(), "{grave:#?}\n{told}");
}
