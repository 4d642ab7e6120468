//! Keys of the TLS policy, each seen at a real nginx: in an upstream's `tls` block, in a route's over it, and where HTTP/2
//! is spoken.

use std::path::Path;

use serde_json::Value;
use vestibule_tests::certs::{Certs, Pair, pin};
use vestibule_tests::client::Client;
use vestibule_tests::gateway::Gateway;
use vestibule_tests::ports;
use vestibule_tests::real::{Clients, Nginx, NginxTls};

use crate::quoted;

pub const KEYS: &[&str] = &[
    "ciphers",
    "client_certificate.password_file",
    "curves",
    "key_log",
    "max_version",
    "min_version",
    "session_reuse",
    "verify.allow_common_name",
    "verify.crl",
    "verify.depth",
    "verify.pins",
];

/// What is looked at.
#[derive(Clone, Copy)]
enum See {
    /// What nginx reports of the request under this name.
    Report(&'static str),
    /// The same, of the second of two connections.
    Second(&'static str),
    /// The cause in the access log; `-` where there is none.
    Cause,
    /// Whether this file has something in it.
    File,
}

struct Case {
    key: &'static str,
    see: See,
    /// Which nginx is asked: the one whose certificate has names, or the one with a common name alone.
    nginx: usize,
    /// The keys of the `tls` block, and what is seen then.
    sides: [(String, &'static str); 2],
}

#[test]
fn each_key_of_a_tls_policy_makes_a_difference_in_an_upstream_in_a_route_and_over_http2() {
    let certs = Certs::new();
    let root = certs.authority("root");
    let ca = certs.intermediate("ca", &root);
    let named = certs.server(&ca, &["a.test"]);
    let common = certs.common_name_only(&ca, "a.test");
    let old = certs.server(&ca, &["a.test"]);
    let tls = |certificate| NginxTls { clients: Clients::Optional(&root.cert), ..NginxTls::new(certificate) };
    let servers = [
        Nginx::start(&tls(&named)),
        Nginx::start(&tls(&common)),
        Nginx::start(&NginxTls { version: Some("1.2"), ..tls(&old) }),
    ];
    let cases = cases(
        &certs,
        &quoted(&root.cert),
        &Files {
            good: certs.crls(&[certs.crl(&ca, &[]), certs.crl(&root, &[])]),
            revoked: certs.crls(&[certs.crl(&ca, &[&named]), certs.crl(&root, &[])]),
            key_logs: [certs.folder().join("one.log"), certs.folder().join("two.log")],
            pairs: [certs.client(&root, "one"), certs.client(&root, "two")],
            pin: pin(&named),
        },
    );
    let mut covered: Vec<&str> = cases.iter().map(|case| case.key).collect();
    covered.sort_unstable();
    assert_eq!(covered, KEYS, "the table and the list of its keys differ");

    let port = ports::free();
    let (mut upstreams, mut routes) = (String::new(), String::new());
    for (number, case) in cases.iter().enumerate() {
        let nginx = &servers[case.nginx];
        // Each request has a connection of its own.
        let at = |port: u16| {
            format!("endpoints: \"127.0.0.1:{port}\", host: a.test, keepalive: {{ idle_timeout: 0s }}")
        };
        let (http1, http2) = (at(nginx.port), format!("{}, protocol: h2", at(nginx.h2_port)));
        for (side, (tls, _)) in case.sides.iter().enumerate() {
            // The route's block says what the upstream's says in the other place, over the other side of the case.
            let other = &case.sides[1 - side].0;
            upstreams += &format!(
                "  own{number}-{side}: {{ {http1}, tls: {{ {tls} }} }}\n\
                 \x20 over{number}-{side}: {{ {http1}, tls: {{ {other} }} }}\n\
                 \x20 h2-{number}-{side}: {{ {http2}, tls: {{ {tls} }} }}\n"
            );
            routes += &format!(
                "  - {{ match: {{ hosts: own{number}-{side}.test }}, upstream: own{number}-{side} }}\n\
                 \x20 - {{ match: {{ hosts: h2-{number}-{side}.test }}, upstream: h2-{number}-{side} }}\n\
                 \x20 - {{ match: {{ hosts: over{number}-{side}.test }}, upstream: over{number}-{side}, tls: {{ {tls} }} }}\n"
            );
        }
    }
    let gateway = Gateway::start(&format!(
        "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\" }} }}\nupstreams:\n{upstreams}routes:\n{routes}"
    ));
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        for (side, (tls, expected)) in case.sides.iter().enumerate() {
            for place in ["own", "over", "h2-"] {
                let host = format!("{place}{number}-{side}.test");
                let seen = seen(case, tls, &host, port, &gateway);
                if seen != *expected {
                    wrong.push(format!("{} ({place}): expected {expected}, saw {seen}, by: {tls}", case.key));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

struct Files {
    good: std::path::PathBuf,
    revoked: std::path::PathBuf,
    key_logs: [std::path::PathBuf; 2],
    pairs: [Pair; 2],
    pin: String,
}

fn cases(certs: &Certs, root: &str, files: &Files) -> Vec<Case> {
    use See::*;
    let verify = format!("verify: {{ ca: {root} }}");
    let trusting = |keys: String| format!("verify: {{ ca: {root}, {keys} }}");
    let with = |keys: &str| format!("{verify}, {keys}");
    let case = |key, see, one: (String, &'static str), other: (String, &'static str)| Case {
        key,
        see,
        nginx: 0,
        sides: [one, other],
    };
    let [one, two] = &files.pairs;
    let shown = |pair: &Pair, password: &str| {
        let (pair, file) = certs.encrypted(pair, password);
        let (cert, key) = (quoted(&pair.cert), quoted(&pair.key));
        with(&format!("client_certificate: {{ cert: {cert}, key: {key}, password_file: {} }}", quoted(&file)))
    };
    let log = |path: &Path| with(&format!("key_log: {}", quoted(path)));
    let only12 = |ciphers: &str| with(&format!("max_version: 1.2, ciphers: {ciphers}"));
    vec![
        case(
            "ciphers",
            Report("cipher"),
            (only12("[ECDHE-ECDSA-AES128-GCM-SHA256]"), "ECDHE-ECDSA-AES128-GCM-SHA256"),
            (
                only12("\"ECDHE-ECDSA-AES256-GCM-SHA384:TLS_AES_128_GCM_SHA256\""),
                "ECDHE-ECDSA-AES256-GCM-SHA384",
            ),
        ),
        case(
            "client_certificate.password_file",
            Report("client"),
            (shown(one, "first"), "CN=one"),
            (shown(two, "second, with spaces "), "CN=two"),
        ),
        case(
            "curves",
            Report("curve"),
            (with("curves: X25519"), "X25519"),
            (with("curves: [P-256]"), "prime256v1"),
        ),
        case(
            "key_log",
            File,
            (log(&files.key_logs[0]), "written"),
            // Each side looks at the file that it names itself.
            (log(&files.key_logs[1]), "written"),
        ),
        case(
            "max_version",
            Report("tls"),
            (with("max_version: \"1.2\""), "TLSv1.2"),
            (with("max_version: 1.3"), "TLSv1.3"),
        ),
        Case {
            nginx: 2,
            ..case(
                "min_version",
                Cause,
                (with("min_version: 1.2"), "-"),
                (with("min_version: \"1.3\""), "tls_protocol_version"),
            )
        },
        case(
            "session_reuse",
            Second("resumed"),
            (with("session_reuse: true"), "r"),
            (with("session_reuse: false"), "."),
        ),
        Case {
            nginx: 1,
            ..case(
                "verify.allow_common_name",
                Cause,
                (trusting("allow_common_name: true".into()), "-"),
                (trusting("allow_common_name: false".into()), "tls_name_mismatch"),
            )
        },
        case(
            "verify.crl",
            Cause,
            (trusting(format!("crl: {}", quoted(&files.good))), "-"),
            (trusting(format!("crl: {}", quoted(&files.revoked))), "tls_revoked"),
        ),
        case(
            "verify.depth",
            Cause,
            (trusting("depth: 1".into()), "-"),
            (trusting("depth: 0".into()), "tls_chain_too_long"),
        ),
        case(
            "verify.pins",
            Cause,
            (trusting(format!("pins: [\"{}\"]", files.pin)), "-"),
            (
                trusting("pins: [\"sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"]".into()),
                "tls_pin_mismatch",
            ),
        ),
    ]
}

fn seen(case: &Case, tls: &str, host: &str, port: u16, gateway: &Gateway) -> String {
    let report = |path: &str| {
        let response = Client::plain(port).get(host, path);
        if response.status == 200 { response.json() } else { Value::Null }
    };
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    match case.see {
        See::Report(name) => text(&report("/")[name]),
        See::Second(name) => {
            report("/");
            text(&report("/")[name])
        }
        See::Cause => {
            report("/");
            text(&gateway.log_line(|line| line["host"] == host)["cause"])
        }
        See::File => {
            let path = tls.split('"').rfind(|part| part.ends_with(".log")).expect("no path in the case");
            let secrets = || {
                let log = std::fs::read_to_string(path).unwrap_or_default();
                log.matches("CLIENT_TRAFFIC_SECRET_0 ").count()
            };
            let before = secrets();
            report("/");
            if secrets() == before + 1 { "written" } else { "-" }.to_owned()
        }
    }
}
