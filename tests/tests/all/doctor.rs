//! `doctor` at real servers: the cause, the fix, and that requests get through once the file is changed as it says.

mod ward;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use vestibule_tests::client;
use vestibule_tests::gateway::binary;
use vestibule_tests::origin::Origin;
use vestibule_tests::ports;
use vestibule_tests::process::Process;
use vestibule_tests::real::{Clients, Envoy, HaProxy, Nginx, NginxTls};

pub use ward::s_server;
use ward::{NAME, Patient, Ward, changed, words};

#[test]
fn a_healthy_endpoint_is_good_and_its_chain_is_read() {
    let ward = Ward::new();
    let nginx = ward.nginx(&ward.leaf);
    let patient = Patient::at(nginx.port, "tls: { verify: { ca: tls/ca.crt } }", &[ward.ca()]);
    let finding = patient.finding();
    assert_eq!((&finding["verdict"], &finding["code"]), (&"good".into(), &Value::Null), "{finding:#}");
    assert_eq!((&finding["route"], &finding["sni"]), (&"front".into(), &NAME.into()));
    let steps: Vec<&str> =
        finding["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["connect", "handshake", "request"]);
    let chain = finding["chain"].as_array().unwrap();
    assert_eq!(chain.len(), 2, "{finding:#}");
    assert_eq!((&chain[0]["names"][0], &chain[0]["sent"]), (&NAME.into(), &true.into()));
    assert_eq!((&chain[1]["trusted_by"], &chain[1]["sent"]), (&"tls/ca.crt".into(), &false.into()));
    assert_eq!(chain[0]["pin"], vestibule_tests::certs::pin(&ward.leaf));
    assert_eq!(finding["trials"], Value::Array(Vec::new()), "no needless trials");
}

#[test]
fn an_upstream_that_refuses_http_1_0_is_good_and_told_of() {
    let ward = Ward::new();
    let app = Origin::echo();
    let envoy = Envoy::ingress(NAME, &ward.leaf, Clients::Unasked, app.port);
    let nginx = ward.nginx(&ward.leaf);
    for (port, refuses) in [(envoy.port, true), (nginx.port, false)] {
        let patient = Patient::at(port, "tls: { verify: { ca: tls/ca.crt } }", &[ward.ca()]);
        let finding = patient.finding();
        assert_eq!(finding["verdict"], "good", "{finding:#}");
        let notes = finding["notes"].to_string();
        assert_eq!(notes.contains("it answers 426 to HTTP/1.0"), refuses, "{finding:#}");
    }
}

#[test]
fn a_missing_sni_is_found_and_asked_for() {
    let ward = Ward::new();
    let app = Origin::echo();
    let envoy = Envoy::ingress(NAME, &ward.leaf, Clients::Unasked, app.port);
    let tls = format!("tls: {{ sni: none, verify: {{ ca: tls/ca.crt, name: {NAME} }} }}");
    let finding = Patient::at(envoy.port, &tls, &[ward.ca()]).is_mended_of("tls_sni_missing");
    assert!(changed(&finding).contains("-    tls: { sni: none,"), "{finding:#}");
}

#[test]
fn an_unknown_sni_is_replaced_by_one_that_the_file_knows() {
    let ward = Ward::new();
    let haproxy = HaProxy::strict_sni(&ward.leaf, Clients::Unasked);
    let tls = "tls: { sni: other.test, verify: { ca: tls/ca.crt } }";
    Patient::at(haproxy.port, tls, &[ward.ca()]).is_mended_of("tls_sni_unrecognized");
}

#[test]
fn another_name_is_verified_if_the_certificate_has_it() {
    let ward = Ward::new();
    let nginx = ward.nginx(&ward.certs.server(&ward.ca, &["www.elsewhere.test"]));
    let patient = Patient::at(nginx.port, "tls: { verify: { ca: tls/ca.crt } }", &[ward.ca()]);
    let finding = patient.is_mended_of("tls_name_mismatch");
    assert!(changed(&finding).contains("name: www.elsewhere.test"), "{finding:#}");
}

#[test]
fn a_wildcard_gives_no_name_that_was_made_up() {
    let ward = Ward::new();
    let nginx = ward.nginx(&ward.certs.server(&ward.ca, &["*.elsewhere.test"]));
    let patient = Patient::at(nginx.port, "tls: { verify: { ca: tls/ca.crt } }", &[ward.ca()]);
    let finding = patient.finding();
    assert_eq!(finding["code"], "tls_name_mismatch");
    assert_eq!(
        (&finding["fix"]["tried"], finding["fix"]["changes"].as_array().unwrap().len()),
        (&false.into(), 0)
    );
    assert!(words(&finding).contains("*.elsewhere.test"), "{finding:#}");
}

#[test]
fn an_unknown_issuer_is_trusted_by_a_file_at_hand() {
    let ward = Ward::new();
    let stranger = ward.certs.authority("stranger");
    let nginx = ward.nginx(&ward.leaf);
    let files: [(&str, &Path); 2] = [("tls/stranger.crt", &stranger.cert), ("tls/mesh.pem", &ward.ca.cert)];
    let patient = Patient::at(nginx.port, "tls: { verify: { ca: tls/stranger.crt } }", &files);
    let finding = patient.is_mended_of("tls_unknown_issuer");
    assert!(changed(&finding).contains("ca: tls/mesh.pem"), "{finding:#}");
}

#[test]
fn an_unknown_issuer_that_was_sent_is_saved_and_its_fingerprint_told() {
    let ward = Ward::new();
    let between = ward.certs.intermediate("between", &ward.ca);
    let stranger = ward.certs.authority("stranger");
    let nginx = ward.nginx(&ward.certs.server(&between, &[NAME]));
    let files: [(&str, &Path); 1] = [("tls/stranger.crt", &stranger.cert)];
    let patient = Patient::at(nginx.port, "tls: { verify: { ca: tls/stranger.crt } }", &files);
    let finding = patient.is_mended_of("tls_unknown_issuer");
    let save = &finding["fix"]["save"][0];
    assert_eq!(save["file"], "tls/app-ca.crt");
    assert!(words(&finding).contains(save["sha256"].as_str().unwrap()), "{finding:#}");
    assert!(words(&finding).contains("compare its fingerprint"), "{finding:#}");
}

#[test]
fn the_roots_of_the_system_are_trusted_where_they_verify_it() {
    let ward = Ward::new();
    let stranger = ward.certs.authority("stranger");
    let nginx = ward.nginx(&ward.leaf);
    let files: [(&str, &Path); 1] = [("tls/stranger.crt", &stranger.cert)];
    let patient = Patient::at(nginx.port, "tls: { verify: { ca: tls/stranger.crt } }", &files);
    let mut command = Command::new(binary());
    command.args(["doctor", "--format", "json", "-c", "gateway.yaml"]).env("SSL_CERT_FILE", &ward.ca.cert);
    let out = command.current_dir(&patient.folder).output().unwrap();
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(changed(&report["targets"][0]).contains("ca: system"), "{report:#}");
}

#[test]
fn a_certificate_signed_by_itself_is_saved_and_trusted() {
    let ward = Ward::new();
    let nginx = ward.nginx(&ward.certs.self_signed(&[NAME]));
    let finding = Patient::at(nginx.port, "tls: {}", &[]).is_mended_of("tls_self_signed");
    assert_eq!(finding["fix"]["save"][0]["file"], "app-cert.crt");
}

#[test]
fn what_no_key_mends_gets_words_and_no_edit() {
    let ward = Ward::new();
    let nginx = ward.nginx(&ward.certs.expired(&ward.ca, &[NAME]));
    let finding = Patient::at(nginx.port, "tls: { verify: { ca: tls/ca.crt } }", &[ward.ca()]).finding();
    assert_eq!(finding["code"], "tls_expired");
    assert_eq!(finding["fix"]["changes"], Value::Array(Vec::new()), "{finding:#}");
    assert!(words(&finding).contains("no key of the file mends it"), "{finding:#}");
    assert!(!finding.to_string().contains("verify: off"), "{finding:#}");
}

#[test]
fn a_client_certificate_at_hand_is_shown_to_who_accepts_it() {
    let ward = Ward::new();
    let me = ward.certs.client(&ward.ca, "me");
    let stranger = ward.certs.client(&ward.certs.authority("stranger"), "stranger");
    let files: [(&str, &Path); 5] = [
        ward.ca(),
        ("tls/a.crt", &stranger.cert),
        ("tls/a.key", &stranger.key),
        ("tls/me.crt", &me.cert),
        ("tls/me.key", &me.key),
    ];
    // HAProxy refuses within TLS, nginx by an answer; TLS 1.3 tells only after the handshake.
    let haproxy = HaProxy::strict_sni(&ward.leaf, Clients::Required(&ward.ca.cert));
    let nginx =
        Nginx::start(&NginxTls { clients: Clients::Required(&ward.ca.cert), ..NginxTls::new(&ward.leaf) });
    for (port, version) in [(haproxy.port, "1.2"), (haproxy.port, "1.3"), (nginx.port, "1.3")] {
        let tls = format!("tls: {{ verify: {{ ca: tls/ca.crt }}, max_version: \"{version}\" }}");
        let finding = Patient::at(port, &tls, &files).is_mended_of("tls_client_certificate_required");
        assert!(changed(&finding).contains("cert: tls/me.crt, key: tls/me.key"), "{finding:#}");
        assert_eq!(finding["accepted_issuers"][0], "CN=ca");
    }
}

#[test]
fn without_a_client_certificate_at_hand_the_edit_is_told_with_names_to_fill_in() {
    let ward = Ward::new();
    let haproxy = HaProxy::strict_sni(&ward.leaf, Clients::Required(&ward.ca.cert));
    let patient = Patient::at(haproxy.port, "tls: { verify: { ca: tls/ca.crt } }", &[ward.ca()]);
    let finding = patient.finding();
    assert_eq!(finding["code"], "tls_client_certificate_required");
    assert_eq!(finding["fix"]["tried"], false);
    assert!(changed(&finding).contains("cert: CERT.crt, key: KEY.key"), "{finding:#}");
    assert!(words(&finding).contains("CN=ca"), "{finding:#}");
}

#[test]
fn tls_to_a_plain_port_is_dropped_and_plain_http_to_a_tls_port_becomes_tls() {
    let ward = Ward::new();
    let nginx = ward.nginx(&ward.leaf);
    Patient::at(nginx.plain_port, "tls: {}", &[]).is_mended_of("tls_plaintext_peer");

    // The block that it takes is found step by step: the CA, then whatever else is wrong.
    let patient = Patient::at(nginx.port, "connect_timeout: 5s", &[("ca.crt", &ward.ca.cert)]);
    let finding = patient.is_mended_of("plain_to_tls_port");
    assert!(changed(&finding).contains("ca: ca.crt"), "{finding:#}");
}

#[test]
fn versions_are_widened_as_far_as_the_upstream_needs() {
    let ward = Ward::new();
    for (server, tls, expected) in [
        ("-tls1_2", "min_version: \"1.3\"", "-    tls: { verify: { ca: tls/ca.crt }, min_version: \"1.3\" }"),
        ("-tls1_3", "max_version: \"1.2\"", "+    tls: { verify: { ca: tls/ca.crt } }"),
        ("-tls1_1", "session_reuse: true", "min_version: \"1.1\""),
    ] {
        let (port, _server) = s_server(&ward.leaf, &[server, "-cipher", "ALL:@SECLEVEL=0"]);
        let tls = format!("tls: {{ verify: {{ ca: tls/ca.crt }}, {tls} }}");
        let finding = Patient::at(port, &tls, &[ward.ca()]).is_mended_of("tls_protocol_version");
        assert!(changed(&finding).contains(expected), "{server}: {finding:#}");
    }
}

#[test]
fn a_route_s_own_key_is_changed_where_it_is_the_one_at_fault() {
    let ward = Ward::new();
    let haproxy = HaProxy::strict_sni(&ward.leaf, Clients::Unasked);
    let patient = Patient::new(
        &format!(
            "upstreams:\n  app: {{ endpoints: [\"127.0.0.1:{}\"], tls: {{ verify: {{ ca: tls/ca.crt }} }} }}\n\
             routes:\n  - {{ name: good, match: {{ hosts: [{NAME}], paths: [/good] }}, upstream: app }}\n  \
             - {{ name: bad, match: {{ hosts: [{NAME}] }}, upstream: app, tls: {{ sni: other.test }} }}\n",
            haproxy.port
        ),
        &[ward.ca()],
    );
    let (report, code) = patient.examined(&[]);
    assert_eq!((code, report["targets"].as_array().unwrap().len()), (2, 2), "{report:#}");
    assert_eq!(report["targets"][0]["verdict"], "good");
    let bad = &report["targets"][1];
    assert_eq!(bad["code"], "tls_sni_unrecognized");
    patient.follow(bad);
    assert_eq!(patient.asked().status, 200);
    assert!(changed(bad).contains("-  - { name: bad,"), "{bad:#}");

    let (report, code) = patient.examined(&["good"]);
    assert_eq!((code, report["targets"].as_array().unwrap().len()), (0, 1), "{report:#}");
}

#[test]
fn what_cannot_be_looked_at_is_refused_with_what_was_meant() {
    let patient = Patient::at(9, "tls: {}", &[]);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        let out = command.arg("doctor").args(arguments).current_dir(&patient.folder).output().unwrap();
        (out.status.code(), String::from_utf8(out.stderr).unwrap())
    };
    let (code, told) = run(&["fronf", "-c", "gateway.yaml"]);
    assert_eq!(
        (code, told.as_str()),
        (Some(3), "no route and no upstream is named `fronf`\nhint: did you mean `front`?\n")
    );
    assert_eq!(run(&["-c", "nothing.yaml"]).0, Some(3));
}

#[test]
fn who_is_not_there_is_told_from_who_has_no_address() {
    let refused = Patient::at(ports::free(), "tls: {}", &[]).finding();
    assert_eq!((&refused["code"], &refused["chain"]), (&"connect_refused".into(), &Value::Array(Vec::new())));
    let rest = "upstreams: { app: { endpoints: [\"nobody.invalid:443\"] } }\nroutes: [{ upstream: app }]";
    let nowhere = Patient::new(rest, &[]).finding();
    assert_eq!(
        (&nowhere["code"], &nowhere["steps"][0]["step"]),
        (&"dns_not_found".into(), &"resolve".into())
    );
}

#[test]
fn a_new_key_s_pin_is_added_to_the_old_one() {
    let ward = Ward::new();
    let nginx = ward.nginx(&ward.leaf);
    let old = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let tls = format!("tls: {{ verify: {{ ca: tls/ca.crt, pins: [\"{old}\"] }} }}");
    let finding = Patient::at(nginx.port, &tls, &[ward.ca()]).is_mended_of("tls_pin_mismatch");
    let pin = vestibule_tests::certs::pin(&ward.leaf);
    assert!(changed(&finding).contains(old) && changed(&finding).contains(&pin), "{finding:#}");
}

#[test]
fn a_chain_that_is_too_long_gets_just_the_depth_that_it_needs() {
    let ward = Ward::new();
    let low = ward.certs.intermediate("low", &ward.certs.intermediate("high", &ward.ca));
    let nginx = ward.nginx(&ward.certs.server(&low, &[NAME]));
    let tls = "tls: { verify: { ca: tls/ca.crt, depth: 0 } }";
    let finding = Patient::at(nginx.port, tls, &[ward.ca()]).is_mended_of("tls_chain_too_long");
    assert!(changed(&finding).contains("depth: 2"), "{finding:#}");
}

#[test]
fn ciphers_that_the_upstream_does_not_have_are_dropped() {
    let ward = Ward::new();
    let (port, _server) = s_server(&ward.leaf, &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"]);
    let tls = "tls: { verify: { ca: tls/ca.crt }, ciphers: ECDHE-ECDSA-CHACHA20-POLY1305 }";
    let finding = Patient::at(port, tls, &[ward.ca()]).is_mended_of("tls_no_shared_cipher");
    assert!(changed(&finding).contains("+    tls: { verify: { ca: tls/ca.crt } }"), "{finding:#}");
}

#[test]
fn a_rejected_client_certificate_is_shown_with_the_chain_that_it_lacked() {
    let ward = Ward::new();
    let between = ward.certs.intermediate("between", &ward.ca);
    let me = ward.certs.client(&between, "me");
    let alone = fs::read_to_string(&me.cert).unwrap();
    let alone = alone.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
    let haproxy = HaProxy::strict_sni(&ward.leaf, Clients::Required(&ward.ca.cert));
    let tls =
        "tls: { verify: { ca: tls/ca.crt }, client_certificate: { cert: tls/me.crt, key: tls/me.key } }";
    let files: [(&str, &Path); 3] = [ward.ca(), ("tls/me.key", &me.key), ("tls/between.crt", &between.cert)];
    let patient = Patient::at(haproxy.port, tls, &files);
    patient.put("tls/me.crt", alone.as_bytes());
    let finding = patient.is_mended_of("tls_client_certificate_rejected");
    assert_eq!(finding["fix"]["save"][0]["file"], "tls/me-chain.crt");
    assert!(!finding.to_string().contains("PRIVATE KEY"), "a key was told");
}

#[test]
fn several_things_that_are_wrong_are_mended_one_after_the_other() {
    let ward = Ward::new();
    let stranger = ward.certs.authority("stranger");
    let me = ward.certs.client(&ward.ca, "me");
    let haproxy = HaProxy::strict_sni(&ward.leaf, Clients::Required(&ward.ca.cert));
    let tls = "tls: { sni: other.test, verify: { ca: tls/stranger.crt, name: third.test } }";
    let files: [(&str, &Path); 4] =
        [ward.ca(), ("tls/stranger.crt", &stranger.cert), ("tls/me.crt", &me.cert), ("tls/me.key", &me.key)];
    let finding = Patient::at(haproxy.port, tls, &files).is_mended_of("tls_sni_unrecognized");
    assert_eq!(finding["fix"]["words"].as_array().unwrap().len(), 4, "{finding:#}");
}

#[test]
fn what_was_mended_on_the_way_to_what_no_key_mends_is_told_in_words() {
    let ward = Ward::new();
    let haproxy = HaProxy::strict_sni(&ward.certs.expired(&ward.ca, &[NAME]), Clients::Unasked);
    let tls = "tls: { sni: other.test, verify: { ca: tls/ca.crt } }";
    let finding = Patient::at(haproxy.port, tls, &[ward.ca()]).finding();
    assert_eq!(finding["fix"]["changes"], Value::Array(Vec::new()));
    assert!(words(&finding).contains("and then tls_expired"), "{finding:#}");
}

#[test]
fn a_change_that_would_break_another_route_is_made_in_the_route_that_fails() {
    let ward = Ward::new();
    let one = ward.certs.server(&ward.ca, &["one.test"]);
    let (cert, key) = (ward.leaf.cert.to_str().unwrap(), ward.leaf.key.to_str().unwrap());
    let (port, _server) = s_server(&one, &["-servername", NAME, "-cert2", cert, "-key2", key]);
    // What the upstream's own key names is right for the one route alone.
    let patient = Patient::new(
        &format!(
            "upstreams:\n  app:\n    endpoints: [\"127.0.0.1:{port}\"]\n    tls: {{ verify: {{ ca: tls/ca.crt, name: one.test }} }}\n\
             routes:\n  - {{ name: good, match: {{ hosts: [www.test] }}, upstream: app }}\n  \
             - {{ name: bad, match: {{ hosts: [{NAME}] }}, upstream: app }}\n",
        ),
        &[ward.ca()],
    );
    let (report, _) = patient.examined(&[]);
    let (good, bad) = (&report["targets"][0], &report["targets"][1]);
    assert_eq!((&good["verdict"], &bad["code"]), (&"good".into(), &"tls_name_mismatch".into()), "{report:#}");
    patient.follow(bad);
    assert!(changed(bad).contains("-  - { name: bad,"), "{report:#}");
    assert_eq!((patient.examined(&[]).1, patient.asked().status), (0, 200), "{report:#}");
}

#[test]
fn a_ca_that_one_endpoint_needs_joins_those_that_the_others_need() {
    let ward = Ward::new();
    let other = ward.certs.authority("other");
    let (one, two) = (ward.nginx(&ward.leaf), ward.nginx(&ward.certs.server(&other, &[NAME])));
    let rest = format!(
        "upstreams:\n  app:\n    endpoints: [\"127.0.0.1:{}\", \"127.0.0.1:{}\"]\n    tls: {{ verify: {{ ca: tls/ca.crt }} }}\n\
         routes:\n  - {{ match: {{ hosts: [{NAME}] }}, upstream: app }}\n",
        one.port, two.port
    );
    let patient = Patient::new(&rest, &[ward.ca(), ("tls/other.crt", &other.cert)]);
    let (report, _) = patient.examined(&[]);
    let (good, bad) = (&report["targets"][0], &report["targets"][1]);
    assert_eq!(
        (&good["verdict"], &bad["code"]),
        (&"good".into(), &"tls_unknown_issuer".into()),
        "{report:#}"
    );
    patient.follow(bad);
    assert!(changed(bad).contains("ca: tls/app-cas.crt"), "{bad:#}");
    assert_eq!(patient.examined(&[]).1, 0);
}

#[test]
fn with_several_endpoints_a_name_is_added_and_none_is_lost() {
    let ward = Ward::new();
    let (one, two) = (ward.nginx(&ward.leaf), ward.nginx(&ward.certs.server(&ward.ca, &["two.test"])));
    let rest = format!(
        "upstreams:\n  app:\n    endpoints: [\"127.0.0.1:{}\", \"127.0.0.1:{}\"]\n    tls: {{ verify: {{ ca: tls/ca.crt }} }}\n\
         routes:\n  - {{ match: {{ hosts: [{NAME}] }}, upstream: app }}\n",
        one.port, two.port
    );
    let patient = Patient::new(&rest, &[ward.ca()]);
    let (report, _) = patient.examined(&[]);
    assert_eq!(
        (&report["targets"][0]["verdict"], &report["targets"][1]["code"]),
        (&"good".into(), &"tls_name_mismatch".into())
    );
    patient.follow(&report["targets"][1]);
    assert!(changed(&report["targets"][1]).contains("names: [app.test, two.test]"), "{report:#}");
    assert_eq!(patient.examined(&[]).1, 0);
}

#[test]
fn verification_that_is_off_is_a_warning_with_what_it_takes_to_turn_it_on() {
    let ward = Ward::new();
    let nginx = ward.nginx(&ward.leaf);
    let patient = Patient::at(nginx.port, "tls: { verify: off }", &[("ca.crt", &ward.ca.cert)]);
    let finding = patient.finding();
    assert_eq!((&finding["verdict"], &finding["code"]), (&"warning".into(), &Value::Null), "{finding:#}");
    assert!(changed(&finding).contains("+    tls: { verify: { ca: ca.crt } }"), "{finding:#}");
    patient.follow(&finding);
    assert_eq!(patient.finding()["verdict"], "good");
}

#[test]
fn a_host_that_is_not_the_sni_is_told_where_the_upstream_minds() {
    let ward = Ward::new();
    let app = Origin::echo();
    let envoy = Envoy::ingress(NAME, &ward.leaf, Clients::Unasked, app.port);
    let tls = format!("host: other.test\n    tls: {{ sni: {NAME}, verify: {{ ca: tls/ca.crt }} }}");
    let patient = Patient::at(envoy.port, &tls, &[ward.ca()]);
    let finding = patient.is_mended_of("host_sni_mismatch");
    assert!(changed(&finding).contains("+    host: app.test"), "{finding:#}");
}

#[test]
fn a_protocol_that_the_upstream_does_not_speak_gives_way_to_one_that_it_does() {
    let ward = Ward::new();
    let (nginx, haproxy) = (ward.nginx(&ward.leaf), HaProxy::strict_sni(&ward.leaf, Clients::Unasked));
    let tls = "protocol: h2\n    tls: { verify: { ca: tls/ca.crt } }";
    let finding = Patient::at(nginx.port, tls, &[ward.ca()]).is_mended_of("alpn_mismatch");
    assert!(changed(&finding).contains("+    protocol: http/1.1"), "{finding:#}");
    let finding = Patient::at(nginx.plain_port, "protocol: h2c", &[]).is_mended_of("alpn_mismatch");
    assert!(changed(&finding).contains("+    protocol: http/1.1"), "{finding:#}");
    for protocol in ["h2", "auto"] {
        let tls = format!("protocol: {protocol}\n    tls: {{ verify: {{ ca: tls/ca.crt }} }}");
        let finding = Patient::at(haproxy.port, &tls, &[ward.ca()]).finding();
        assert_eq!(
            (&finding["verdict"], &finding["tls"]["alpn"]),
            (&"good".into(), &"h2".into()),
            "{finding:#}"
        );
    }
}

#[test]
fn a_silent_upstream_is_told_with_the_times_that_were_measured() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let patient = Patient::at(port, "connect_timeout: 200ms\n    tls: {}", &[]);
    let (report, _) = patient.examined(&["--timeout", "400ms"]);
    let finding = &report["targets"][0];
    assert_eq!(finding["code"], "tls_handshake_timeout", "{finding:#}");
    assert!(words(finding).contains("nothing ended the handshake within "), "{finding:#}");
}

#[test]
fn a_slow_upstream_is_given_the_time_that_it_takes() {
    let ward = Ward::new();
    let nginx = ward.nginx(&ward.leaf);
    let slow = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, behind) = (slow.local_addr().unwrap().port(), nginx.port);
    std::thread::spawn(move || {
        for client in slow.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                std::thread::sleep(std::time::Duration::from_millis(500));
                let server = std::net::TcpStream::connect(("127.0.0.1", behind)).unwrap();
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                let _ = std::io::copy(&mut &server, &mut &client);
            });
        }
    });
    let tls = "connect_timeout: 200ms\n    tls: { verify: { ca: tls/ca.crt } }";
    let finding = Patient::at(port, tls, &[ward.ca()]).is_mended_of("tls_handshake_timeout");
    assert!(changed(&finding).contains("+    connect_timeout: \"5s\""), "{finding:#}");
}

#[test]
fn check_probe_fails_at_the_line_of_the_endpoint_that_cannot_be_reached() {
    let ward = Ward::new();
    let haproxy = HaProxy::strict_sni(&ward.leaf, Clients::Required(&ward.ca.cert));
    let (open, closed) = (ward.nginx(&ward.leaf), ports::free());
    let check = |rest: &str| {
        let patient = Patient::new(rest, &[ward.ca()]);
        let mut command = Command::new(binary());
        command.args(["check", "--probe", "--deadline", "2s", "-c", "gateway.yaml"]);
        let out = command.current_dir(&patient.folder).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (out.status.code(), text(out.stdout), text(out.stderr))
    };
    let rest = |port: u16| {
        format!(
            "upstreams:\n  app:\n    endpoints:\n      - 127.0.0.1:{}\n      - 127.0.0.1:{port}\n    tls: {{ verify: {{ ca: tls/ca.crt }} }}\n\
             routes:\n  - {{ name: front, match: {{ hosts: [{NAME}] }}, upstream: app }}\n",
            open.port
        )
    };
    let (code, out, err) =
        check(&rest(open.port).replacen(&format!("      - 127.0.0.1:{}\n", open.port), "", 1));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("gateway.yaml: reached: 1 endpoint\n"), "{out}");

    let (code, _, err) = check(&rest(closed));
    assert_eq!(code, Some(1));
    let expected = format!(
        "gateway.yaml:7:9  upstreams.app.endpoints[1]\nroute `front`, 127.0.0.1:{closed}: connect_refused: "
    );
    assert!(err.starts_with(&expected), "{err}");
    assert!(err.contains("hint: start the upstream"), "{err}");
    assert!(err.ends_with("gateway.yaml: 1 of 2 endpoints failed\n"), "{err}");

    // Nobody accepts what the kernel has connected.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (code, _, err) = check(&rest(silent.local_addr().unwrap().port()));
    assert_eq!(code, Some(1));
    assert!(err.contains("tls_handshake_timeout: ") && err.contains(": after 1."), "{err}");

    // It is told only after the handshake, with TLS 1.3.
    let (code, _, err) = check(&rest(haproxy.port));
    assert_eq!(code, Some(1));
    assert!(err.contains("tls_client_certificate_required: "), "{err}");
}

#[test]
fn the_demo_does_what_it_says_and_the_doctor_mends_what_fails_in_it() {
    let port = ports::free();
    let mut command = Command::new(binary());
    command.args(["demo", "--port", &port.to_string()]).env("RUST_LOG", "info");
    let demo = Process::spawn("demo", &mut command);
    demo.wait_for("Ctrl-C ends it.");
    let ask = |path: &str| client::get(port, "shop.internal", path).status;
    assert_eq!((ask("/hello"), ask("/no-sni"), ask("/api/v1/x")), (200, 502, 200));
    let line = demo.find("the line about doctor", |_, line| {
        line.split_once(" doctor -c ").map(|(_, file)| file.trim().to_owned())
    });
    let out = Command::new(binary()).args(["doctor", "-c", &line]).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(2), "{text}");
    assert!(text.contains("tls_sni_missing"), "{text}");
    assert!(text.contains("\n    -    tls: { sni: none, verify: { name: shop.internal } }\n"), "{text}");
}

/// Without what differs from run to run: ports, times, dates, keys.
fn normal(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        for at in 0..words.len() {
            let is_number = |word: &str| word.trim_start_matches('(').parse::<u64>().is_ok();
            let before_time =
                at + 1 < words.len() && (words[at + 1].starts_with("ms") || words[at + 1] == "days");
            if let Some(rest) = words[at].split_once("127.0.0.1:").map(|(_, rest)| rest.to_owned()) {
                let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
                words[at] = words[at].replace(&port, "PORT");
            } else if is_number(&words[at]) && before_time {
                words[at] = "N".to_owned();
            } else if words[at].starts_with("sha256/") {
                words[at] = "PIN".to_owned();
            } else if at > 0 && words[at - 1] == "until" {
                words[at] = "DATE".to_owned();
            }
        }
        lines.push(words.join(" "));
    }
    lines.join("\n") + "\n"
}

#[test]
fn what_the_documentation_prints_is_what_is_printed() {
    let ward = Ward::new();
    let page = crate::page::Page::read("docs/doctor.md");
    let blocks = page.blocks();
    let of_kind = |kind: &str| blocks.iter().filter(|block| block.kind == kind).collect::<Vec<_>>();
    let leaf = ward.certs.server(&ward.ca, &["shop.test"]);
    let haproxy = HaProxy::strict_sni(&leaf, Clients::Unasked);
    let patient = Patient::new("", &[ward.ca()]);
    let yaml = of_kind("yaml")[0].text.replace("127.0.0.1:8443", &format!("127.0.0.1:{}", haproxy.port));
    patient.put("gateway.yaml", yaml.as_bytes());
    let run = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.args(arguments).args(["-c", "gateway.yaml"]).current_dir(&patient.folder).output().unwrap()
    };
    let out = run(&["doctor"]);
    assert_eq!(out.status.code(), Some(2));
    let (told, texts) = (String::from_utf8(out.stdout).unwrap(), of_kind("text"));
    assert!(!told.contains('\u{1b}'), "colours without a terminal");
    assert_eq!(normal(&told), normal(&texts[0].text), "{told}");

    let out = run(&["check", "--probe"]);
    let told = String::from_utf8(out.stderr).unwrap();
    assert_eq!(normal(&told), normal(&texts[1].text), "{told}");

    // Every key that a report has is explained, and no other.
    let (report, _) = patient.examined(&[]);
    let mut told = std::collections::BTreeSet::new();
    for row in page.table("| key | meaning |") {
        told.extend(row[0].split(", ").map(|key| key.replace('`', "")));
    }
    let keys = report["targets"][0].as_object().unwrap().keys().cloned().collect();
    assert_eq!(told, keys);
}
