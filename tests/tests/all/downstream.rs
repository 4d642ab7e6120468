//! Client certificates at a listener: who is asked by which name, who is let in, and which Host a connection may be used
//! for.

mod reload;
mod resumption;

use std::path::PathBuf;
use std::process::Stdio;

use http::Request;
use serde_json::Value;
use vestibule_tests::certs::{Authority, Certs, Pair};
use vestibule_tests::client::{Client, ClientTls, Response, curl};
use vestibule_tests::gateway::Gateway;
use vestibule_tests::http2::Http2Client;
use vestibule_tests::ports;
use vestibule_tests::real;

use crate::page::Page;
use crate::quoted;

/// A gateway whose one listener asks for another certificate at each of several names, and those whom it lets in.
struct House {
    certs: Certs,
    ca: Authority,
    other_ca: Authority,
    server: Pair,
    gateway: Gateway,
    port: u16,
    admin: u16,
    /// Where the revocation list of `revoking.test` is.
    crl: PathBuf,
    alice: Pair,
    stranger: Pair,
}

/// Answers with the subject of the client's certificate.
const ROUTES: &str = "routes: [{ respond: { body: hello }, plugins: [{ headers: { response: { set: { x-client: \"${client_cert.subject}\" } } } }] }]";

impl House {
    fn build() -> Self {
        let certs = Certs::new();
        let (ca, other_ca) = (certs.authority("ca"), certs.authority("other"));
        let server = certs.server(&ca, &["open.test", "*.test"]);
        let (alice, stranger) = (certs.client(&ca, "alice"), certs.client(&other_ca, "stranger"));
        let crl = certs.folder().join("clients.crl");
        std::fs::copy(certs.crl(&ca, &[]), &crl).unwrap();
        let (port, admin) = (ports::free(), ports::free());
        let gateway = Gateway::start(&yaml(port, admin, &server, &ca, &other_ca, &crl));
        Self { certs, ca, other_ca, server, gateway, port, admin, crl, alice, stranger }
    }

    fn connect(&self, sni: Option<&str>, certificate: Option<&Pair>) -> Option<Client> {
        Client::tls(self.port, &ClientTls { sni, ca: None, certificate }).ok()
    }

    /// One GET; nothing where the client is not let in. With TLS 1.3 it learns that only from the first answer.
    fn ask(&self, sni: Option<&str>, certificate: Option<&Pair>, host: &str) -> Option<Response> {
        let mut client = self.connect(sni, certificate)?;
        client.try_send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).ok()?;
        client.try_response().ok()
    }

    /// The value of one series.
    fn count(&self, series: &str) -> u64 {
        let text = vestibule_tests::client::get(self.admin, "localhost", "/metrics").text();
        let value = text.lines().find_map(|line| line.strip_prefix(series));
        value.map_or(0, |value| value.trim().parse().unwrap())
    }
}

fn yaml(
    port: u16,
    admin: u16,
    server: &Pair,
    ca: &Authority,
    other: &Authority,
    crl: &std::path::Path,
) -> String {
    let (cert, key) = (quoted(&server.cert), quoted(&server.key));
    let (ca, other, crl) = (quoted(&ca.cert), quoted(&other.cert), quoted(crl));
    format!(
        r#"version: 1
admin: {{ address: "127.0.0.1:{admin}" }}
listeners:
  web:
    address: "127.0.0.1:{port}"
    tls:
      certificates: [{{ cert: {cert}, key: {key} }}]
      by_sni:
        required.test: {{ client_certificate: {{ ca: {ca} }} }}
        same.test: {{ client_certificate: {{ ca: {ca} }} }}
        optional.test: {{ client_certificate: {{ ca: {ca}, require: false }} }}
        other.test: {{ client_certificate: {{ ca: {other} }} }}
        revoking.test: {{ client_certificate: {{ ca: {ca}, crl: {crl} }} }}
        "*.below.test": {{ client_certificate: {{ ca: {ca} }} }}
        open.below.test: {{ client_certificate: none }}
{ROUTES}
"#
    )
}

#[test]
fn each_name_has_its_own_demand() {
    let house = House::build();
    let (alice, stranger) = (Some(&house.alice), Some(&house.stranger));
    for (sni, certificate, expected) in [
        (Some("open.test"), None, Some("")),
        // It is not asked for, and so not shown.
        (Some("open.test"), alice, Some("")),
        (None, None, Some("")),
        (Some("unknown.test"), None, Some("")),
        (Some("required.test"), None, None),
        (Some("required.test"), alice, Some("CN=alice")),
        (Some("REQUIRED.test"), None, None),
        (Some("required.test"), stranger, None),
        (Some("optional.test"), None, Some("")),
        (Some("optional.test"), alice, Some("CN=alice")),
        (Some("optional.test"), stranger, None),
        (Some("other.test"), stranger, Some("CN=stranger")),
        (Some("other.test"), alice, None),
        (Some("revoking.test"), alice, Some("CN=alice")),
        (Some("a.below.test"), None, None),
        (Some("a.b.below.test"), alice, Some("CN=alice")),
        (Some("open.below.test"), None, Some("")),
        (Some("below.test"), None, Some("")),
    ] {
        let answer = house.ask(sni, certificate, sni.unwrap_or("127.0.0.1"));
        let shown = certificate.map(|pair| pair.cert.display());
        let told = answer.as_ref().map(|it| (it.status, it.header("x-client").unwrap_or_default()));
        assert_eq!(told, expected.map(|subject| (200, subject)), "{sni:?} {shown:?}");
    }
    let failures = |reason: &str| {
        house.count(&format!(
            "vestibule_listener_tls_handshake_failures_total{{listener=\"web\",reason=\"{reason}\"}}"
        ))
    };
    crate::admin::eventually("each refusal is counted", || {
        (failures("no_certificate"), failures("bad_certificate")) == (3, 3)
    });
}

#[test]
fn a_host_of_another_policy_than_the_sni_is_misdirected() {
    let house = House::build();
    let alice = Some(&house.alice);
    for (sni, certificate, host, expected) in [
        (Some("open.test"), None, "open.test", 200),
        (Some("open.test"), None, "elsewhere.test", 200),
        (Some("open.test"), None, "open.below.test", 200),
        (Some("open.test"), None, "required.test", 421),
        (Some("open.test"), None, "Required.Test.:443", 421),
        (Some("open.test"), None, "a.below.test", 421),
        (Some("open.test"), None, "optional.test", 421),
        (None, None, "anything.test", 200),
        (None, None, "required.test", 421),
        (Some("optional.test"), None, "required.test", 421),
        (Some("optional.test"), alice, "required.test", 421),
        (Some("required.test"), alice, "required.test", 200),
        (Some("required.test"), alice, "same.test", 200),
        (Some("required.test"), alice, "a.below.test", 200),
        (Some("required.test"), alice, "revoking.test", 421),
        (Some("required.test"), alice, "other.test", 421),
        (Some("required.test"), alice, "open.test", 421),
    ] {
        let answer = house.ask(sni, certificate, host).unwrap();
        assert_eq!(answer.status, expected, "{sni:?} {host}");
        assert!(expected == 200 || answer.header("x-client").is_none(), "no plugin has run");
    }
}

#[test]
fn each_request_of_a_connection_is_judged_by_its_own_host() {
    let house = House::build();
    let mut client = house.connect(Some("open.test"), None).unwrap();
    for _ in 0..2 {
        assert_eq!(client.get("open.test", "/").status, 200);
        assert_eq!(client.get("required.test", "/misdirected").status, 421);
        client.send("GET http://required.test/ HTTP/1.1\r\nHost: required.test\r\n\r\n");
        assert_eq!(client.response().status, 421, "the target's own host");
    }
    let line = house.gateway.log_of("/misdirected");
    assert_eq!((&line["status"], &line["cause"]), (&421.into(), &Value::from("misdirected_request")));

    let ask = |client: &Http2Client, host: &str| {
        let request = Request::get(format!("https://{host}/")).body(()).unwrap();
        client.send(request, true).response().status
    };
    let client = Http2Client::tls(house.port, "open.test");
    let seen =
        ["open.test", "required.test", "a.below.test", "open.below.test"].map(|host| ask(&client, host));
    assert_eq!(seen, [200, 421, 421, 200]);
    let client = Http2Client::tls_showing(house.port, "same.test", Some(&house.alice));
    let seen = ["same.test", "required.test", "open.test", "other.test"].map(|host| ask(&client, host));
    assert_eq!(seen, [200, 200, 421, 421]);
}

#[test]
fn curl_and_openssl_are_served_by_the_same_rules() {
    let house = House::build();
    let url = |host: &str| format!("https://{host}:{}/", house.port);
    let to = |host: &str| format!("{host}:{}:127.0.0.1", house.port);
    let status = |host: &str, more: &[&str]| {
        let (resolve, url) = (to(host), url(host));
        let args =
            [&["-k", "-o", "/dev/null", "-w", "%{http_code}", "--resolve", &resolve, &url], more].concat();
        String::from_utf8(curl(&args).stdout).unwrap()
    };
    let (cert, key) = (house.alice.cert.display().to_string(), house.alice.key.display().to_string());
    let shown = ["--cert", &cert, "--key", &key];
    assert_eq!(status("open.test", &[]), "200");
    assert_eq!(status("required.test", &[]), "000");
    assert_eq!(status("required.test", &shown), "200");
    assert_eq!(status("open.test", &["-H", "Host: required.test"]), "421");

    // What `openssl s_client` says of whose certificates are wanted.
    let wanted = |sni: &str| {
        let address = format!("127.0.0.1:{}", house.port);
        let mut command = std::process::Command::new(real::program("openssl"));
        command.args(["s_client", "-connect", &address, "-servername", sni, "-tls1_2"]);
        let out = command.stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let names = text.split_once("Acceptable client certificate CA names\n").map(|(_, rest)| rest);
        names.map(|rest| rest.lines().next().unwrap_or_default().replace(' ', ""))
    };
    assert_eq!(wanted("open.test"), None);
    assert_eq!(wanted("required.test").as_deref(), Some("CN=ca"));
    assert_eq!(wanted("other.test").as_deref(), Some("CN=other"));
}

#[test]
fn no_client_may_negotiate_anew() {
    let house = House::build();
    let mut command = std::process::Command::new(real::program("openssl"));
    let address = format!("127.0.0.1:{}", house.port);
    command.args(["s_client", "-connect", &address, "-servername", "open.test", "-tls1_2"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A line of `R` alone asks s_client to negotiate anew; a server that has none of it ends that client.
    // What it reads from stays open, or it would leave before it has heard.
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"R\n").unwrap();
    let out = child.wait_with_output().unwrap();
    drop(stdin);
    let told = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(told.contains("RENEGOTIATING"), "{told}");
    assert!(told.contains("no renegotiation"), "{told}");
}

#[test]
fn a_chain_may_be_as_long_as_its_depth_and_no_longer() {
    let certs = Certs::new();
    let root = certs.authority("root");
    let between = certs.intermediate("between", &root);
    let server = certs.server(&root, &["a.test"]);
    let (near, far) = (certs.client(&root, "near"), certs.client(&between, "far"));
    let (cert, key, ca) = (quoted(&server.cert), quoted(&server.key), quoted(&root.cert));
    let port = ports::free();
    let _gateway = Gateway::start(&format!(
        "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\", tls: {{ certificates: [{{ cert: {cert}, key: {key} }}], \
         client_certificate: {{ ca: {ca} }}, by_sni: {{ \
         zero.test: {{ client_certificate: {{ ca: {ca}, depth: 0 }} }}, \
         one.test: {{ client_certificate: {{ ca: {ca}, depth: 1 }} }} }} }} }} }}\n{ROUTES}\n"
    ));
    let passes = |sni: &str, pair: &Pair| {
        let tls = ClientTls { sni: Some(sni), ca: None, certificate: Some(pair) };
        let Ok(mut client) = Client::tls(port, &tls) else { return false };
        client.try_send(format!("GET / HTTP/1.1\r\nHost: {sni}\r\n\r\n")).is_ok()
            && client.try_response().is_ok_and(|answer| answer.status == 200)
    };
    for (sni, expected) in
        [("a.test", [true, true]), ("zero.test", [true, false]), ("one.test", [true, true])]
    {
        assert_eq!([passes(sni, &near), passes(sni, &far)], expected, "{sni}");
    }
}

#[test]
fn templates_tell_all_of_a_certificate() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let server = certs.server(&ca, &["a.test"]);
    let names =
        ["alice.a.test", "192.0.2.1", "spiffe://a.test/ns/prod/sa/alice", "alice@a.test", "al@a.test"];
    let alice = certs.identified(&ca, "alice", "devs", &names);
    let (cert, key, root) = (quoted(&server.cert), quoted(&server.key), quoted(&ca.cert));
    let parts = [
        "subject",
        "common_name",
        "organization",
        "dns",
        "uri",
        "email",
        "ip",
        "issuer",
        "serial",
        "not_after",
        "fingerprint",
        "pem",
    ];
    let set: String =
        parts.iter().map(|it| format!("x-{}: \"${{client_cert.{it}}}\", ", it.replace('_', "-"))).collect();
    let port = ports::free();
    let _gateway = Gateway::start(&format!(
        "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\", tls: {{ certificates: [{{ cert: {cert}, key: {key} }}], client_certificate: {{ ca: {root} }} }} }} }}\n\
         routes: [{{ respond: {{ body: hello }}, plugins: [{{ headers: {{ response: {{ set: {{ {set} }} }} }} }}] }}]\n"
    ));
    let tls = ClientTls { sni: Some("a.test"), ca: None, certificate: Some(&alice) };
    let answer = Client::tls(port, &tls).unwrap().get("a.test", "/");
    let of = |part: &str| answer.header(&format!("x-{part}")).unwrap();
    for (part, expected) in [
        ("subject", "O=devs,CN=alice"),
        ("common-name", "alice"),
        ("organization", "devs"),
        ("dns", "alice.a.test"),
        ("uri", "spiffe://a.test/ns/prod/sa/alice"),
        ("email", "alice@a.test,al@a.test"),
        ("ip", "192.0.2.1"),
        ("issuer", "CN=ca"),
    ] {
        assert_eq!(of(part), expected, "{part}");
    }
    // As `openssl x509` reads the same file.
    let told = |arguments: &[&str]| {
        let mut command = std::process::Command::new(real::program("openssl"));
        let out = command.args(["x509", "-noout", "-in"]).arg(&alice.cert).args(arguments).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().rsplit_once('=').unwrap().1.to_lowercase()
    };
    assert_eq!(of("serial"), told(&["-serial"]));
    assert_eq!(of("fingerprint"), told(&["-fingerprint", "-sha256"]).replace(':', ""));
    let ends = told(&["-enddate", "-dateopt", "iso_8601"]);
    assert_eq!(of("not-after").to_lowercase(), ends.replace(' ', "t"));
    let pem = std::fs::read_to_string(&alice.cert).unwrap().replace("\r\n", "\n");
    let escaped: String = pem
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect();
    assert_eq!(of("pem"), escaped);
}

#[test]
fn the_page_tells_what_its_example_does() {
    let page = Page::read("docs/downstream-tls.md");
    let mut example = page.configuration();
    let certs = Certs::new();
    let (clients, staff) = (certs.authority("clients"), certs.authority("staff"));
    example.file("tls/clients-ca.crt", &clients.cert).file("tls/staff-ca.crt", &staff.cert);
    example.file("tls/clients.crl", &certs.crl(&clients, &[]));
    let (client, employee) = (certs.client(&clients, "client"), certs.client(&staff, "employee"));
    let port = example.port("web-tls");
    let _gateway = example.start();
    let rows = page.table("| client certificate | SNI | Host | answer |");
    assert!(rows.len() >= 10);
    for row in rows {
        let certificate = match row[0].as_str() {
            "none" => None,
            "of the clients' CA" => Some(&client),
            "of the staff's CA" => Some(&employee),
            other => panic!("{other}"),
        };
        let tls = ClientTls { sni: Some(&row[1]), ca: None, certificate };
        let answer = Client::tls(port, &tls).ok().and_then(|mut client| {
            client.try_send(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", row[2])).ok()?;
            client.try_response().ok()
        });
        let told = answer.map_or("refused".to_owned(), |answer| answer.status.to_string());
        assert_eq!(told, row[3], "{row:?}");
    }
}
