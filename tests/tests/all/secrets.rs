//! No secret leaves by a log, an error or a reply, not even at the level of debug.

use std::fs;
use std::path::Path;
use std::process::Command;

use openssl::pkey::PKey;
use openssl::symm::Cipher;
use vestibule_tests::certs::{Certs, Pair};
use vestibule_tests::client::{Client, ClientTls};
use vestibule_tests::gateway;
use vestibule_tests::origin::{Answer, Origin, OriginTls, Reply};
use vestibule_tests::ports;
use vestibule_tests::process::{Pipe, Process};

use crate::quoted;

const ENV: &str = "env-4f1c88d05be2";
const AUTHORIZATION: &str = "bearer-83bc0d6ef917";
const QUERY: &str = "query-5d2ea9903c41";
const COOKIE: &str = "cookie-0a77b1f3d86c";
/// Stands in the file, to be matched and to be sent.
const LITERAL: &str = "literal-6b20e4f9a157";
const ADMIN: &str = "admin-17c5e09d3b8a";

/// The lines of a key file that could give it away.
fn key_lines(key: &Path) -> Vec<String> {
    let text = fs::read_to_string(key).unwrap();
    text.lines().filter(|line| line.len() > 10 && !line.starts_with("---")).map(str::to_owned).collect()
}

/// No secret is in the text; a piece of one is as bad as the whole.
fn check(what: &str, text: &str, secrets: &[String]) {
    for secret in secrets {
        assert!(!secret.is_empty() && !text.contains(secret.as_str()), "{what}: a secret is in it:\n{text}");
    }
}

#[test]
fn no_secret_of_a_request_or_of_the_file_is_in_a_log_or_a_reply() {
    let certs = Certs::new();
    let (ca, other) = (certs.authority("ca"), certs.authority("other"));
    let (leaf, me) = (certs.server(&ca, &["a.test"]), certs.client(&ca, "me"));
    let mut secrets: Vec<String> =
        [ENV, AUTHORIZATION, QUERY, COOKIE, LITERAL, ADMIN].map(str::to_owned).into();
    secrets.extend([&leaf, &me].iter().flat_map(|pair| key_lines(&pair.key)));

    let tls = OriginTls { certificate: &leaf, clients: Some(ca.cert.clone()), insist_on_sni: false };
    let secure = Origin::tls(&tls, |_| Reply::ok("in").into());
    let faulty = Origin::script(|request| match request.target.split('?').next().unwrap_or_default() {
        "/reset" => Answer::ResetAfterHead,
        "/garbled" => Answer::Raw(format!("nothing like HTTP, {COOKIE}\r\n\r\n").into_bytes()),
        "/busy" => Reply::new(503, "busy").into(),
        _ => Answer::Stall,
    });
    let (port, tls_port, admin) = (ports::free(), ports::free(), ports::free());
    let token = certs.folder().join("admin.token");
    fs::write(&token, ADMIN).unwrap();
    let pair = |pair: &Pair| format!("cert: {}, key: {}", quoted(&pair.cert), quoted(&pair.key));
    let yaml = format!(
        r#"
version: 1
admin: {{ address: "127.0.0.1:{admin}", token_file: {token} }}
listeners:
  web: {{ address: "127.0.0.1:{port}" }}
  web-tls: {{ address: "127.0.0.1:{tls_port}", tls: {{ certificates: [{{ {server} }}] }} }}
upstreams:
  secure: {{ endpoints: ["{secure}"], host: a.test, tls: {{ verify: {{ ca: {ca} }}, client_certificate: {{ {client} }} }} }}
  distrusted: {{ endpoints: ["{secure}"], tls: {{ verify: {{ ca: {other} }}, client_certificate: {{ {client} }} }} }}
  faulty: {{ endpoints: ["{faulty}"] }}
  gone: {{ endpoints: ["127.0.0.1:{gone}"] }}
plugins:
  - headers: {{ request: {{ set: {{ x-token: "${{env.VESTIBULE_TEST_SECRET}}" }} }} }}
  - retry: {{ attempts: 2, retry_on: [503, reset, connect_failure] }}
routes:
  - match: {{ paths: [/guarded], headers: {{ x-api-key: "{LITERAL}" }}, query: {{ access_token: {{ regex: "^{LITERAL}$" }} }} }}
    respond: {{ body: guarded }}
    plugins: [{{ headers: {{ response: {{ set: {{ set-cookie: "id={LITERAL}", authorization: "Bearer {LITERAL}" }} }} }} }}]
  - {{ match: {{ paths: [/secure] }}, upstream: secure }}
  - {{ match: {{ paths: [/distrusted] }}, upstream: distrusted }}
  - {{ match: {{ paths: [/gone] }}, upstream: gone }}
  - {{ match: {{ paths: [/reset, /garbled, /busy, /stall] }}, upstream: faulty, timeouts: {{ attempt: 200ms }} }}
"#,
        server = pair(&leaf),
        client = pair(&me),
        secure = secure.address(),
        faulty = faulty.address(),
        gone = ports::free(),
        ca = quoted(&ca.cert),
        other = quoted(&other.cert),
        token = quoted(&token),
    );
    for format in ["json", "text"] {
        let config = certs.folder().join("gateway.yaml");
        fs::write(&config, format!("{yaml}access_log: {{ format: {format} }}\n")).unwrap();
        let mut command = Command::new(gateway::binary());
        command.args(["run", "-c"]).arg(&config);
        command.env("RUST_LOG", "warn,vestibule=debug").env("VESTIBULE_TEST_SECRET", ENV);
        let process = Process::spawn("vestibule", &mut command);
        process.wait_for("ready: listening on");

        let request = |path: &str, extra: &str| {
            format!(
                "GET {path}?token={QUERY} HTTP/1.1\r\nHost: a.test\r\nAuthorization: Bearer {AUTHORIZATION}\r\n\
                 Cookie: session={COOKIE}\r\n{extra}\r\n"
            )
        };
        let mut replies = String::new();
        let paths = [
            ("/secure", 200),
            ("/distrusted", 502),
            ("/gone", 502),
            ("/reset", 502),
            ("/garbled", 502),
            ("/busy", 503),
            ("/stall", 504),
            ("/nowhere", 404),
        ];
        for (path, status) in paths {
            let response = Client::plain(port).send(request(path, "")).response();
            assert_eq!(response.status, status, "{path}");
            replies += &format!("{response:?} {}\n", response.text());
        }
        // Illegal: a second Host, and a line that is no header.
        for extra in ["Host: b.test\r\n", "no header\r\n"] {
            let response = Client::plain(port).send(request("/illegal", extra)).response();
            assert_eq!(response.status, 400, "{extra}");
            replies += &format!("{response:?} {}\n", response.text());
        }
        let mut client = Client::tls(tls_port, &ClientTls::default()).unwrap();
        assert_eq!(client.send(request("/secure", "")).response().status, 200);
        // Plain text to a TLS listener: what OpenSSL says of it goes to the log.
        let mut plain = Client::plain(tls_port);
        plain.send(request("/secure", ""));
        let _ = plain.to_end();
        assert!(secure.requests().iter().any(|request| request.header("x-token") == Some(ENV)));

        let shown = format!("Host: a.test\r\nAuthorization: Bearer {ADMIN}\r\n\r\n");
        let tell =
            |path: &str| Client::plain(admin).send(format!("GET {path} HTTP/1.1\r\n{shown}")).response();
        let description = tell("/openapi.json").json();
        let mut pages =
            Client::plain(admin).send("GET /config HTTP/1.1\r\nHost: a.test\r\n\r\n").response().text();
        for (path, _) in description["paths"].as_object().unwrap() {
            pages += &tell(path).text();
        }
        assert!(
            pages.contains("/guarded") && pages.contains("x-api-key") && pages.contains("<redacted>"),
            "{pages}"
        );
        process.stop();
        let (log, access) = (process.lines(Pipe::Err).join("\n"), process.lines(Pipe::Out).join("\n"));
        assert!(log.contains("DEBUG"), "nothing was said at the level of debug:\n{log}");
        assert!(access.contains("/stall") && access.contains("tls_unknown_issuer"), "{access}");
        check("pages", &pages, &secrets);
        check("log", &log, &secrets);
        check("access log", &access, &secrets);
        check("replies", &replies, &secrets);
    }
}

#[test]
fn check_tells_what_is_wrong_with_a_key_and_nothing_of_it() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let (one, two) = (certs.server(&ca, &["one.test"]), certs.server(&ca, &["two.test"]));
    let write = |name: &str, bytes: &[u8]| {
        let path = certs.folder().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let key = PKey::private_key_from_pem(&fs::read(&two.key).unwrap()).unwrap();
    let encrypted =
        key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"passphrase-91ab04d7").unwrap();
    let damaged: String = fs::read_to_string(&two.key)
        .unwrap()
        .lines()
        .map(|line| line.trim_end_matches('=').to_owned() + "\n")
        .take(2)
        .collect();
    let files = [
        ("of another certificate", two.key.clone(), "does not belong"),
        ("encrypted", write("encrypted.key", &encrypted), "encrypted"),
        ("cut short", write("damaged.key", damaged.as_bytes()), "no PEM private key"),
        ("garbage", write("garbage.key", b"garbage-7e55a01b of a secret kind\n"), "no PEM private key"),
        ("not there", certs.folder().join("missing.key"), "cannot be read"),
    ];
    let mut secrets: Vec<String> = ["passphrase-91ab04d7", "garbage-7e55a01b"].map(str::to_owned).into();
    secrets.extend([&one.key, &two.key, &files[1].1].iter().flat_map(|key| key_lines(key)));
    let cert = quoted(&one.cert);
    for (what, file, told) in files {
        let key = quoted(&file);
        for yaml in [
            format!(
                "listeners: {{ web: {{ address: \"127.0.0.1:1\", tls: {{ certificates: [{{ cert: {cert}, key: {key} }}] }} }} }}"
            ),
            format!(
                "listeners: {{ web: {{ address: \"127.0.0.1:1\" }} }}\nupstreams: {{ u: {{ endpoints: [\"127.0.0.1:1\"], \
                 tls: {{ client_certificate: {{ cert: {cert}, key: {key} }} }} }} }}"
            ),
            // A key where a certificate belongs, and one where CAs do.
            format!(
                "listeners: {{ web: {{ address: \"127.0.0.1:1\", tls: {{ certificates: [{{ cert: {key}, key: {key} }}], \
                 client_certificate: {{ ca: {key} }} }} }} }}"
            ),
        ] {
            let config = write("gateway.yaml", format!("version: 1\n{yaml}\n").as_bytes());
            let mut command = Command::new(gateway::binary());
            command.args(["check", "-c"]).arg(config).env("RUST_LOG", "debug");
            let output = command.output().unwrap();
            let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert_eq!(output.status.code(), Some(1), "{what}: {text}");
            assert!(yaml.contains("ca:") || text.contains(told), "{what}: {text}");
            check(what, &text, &secrets);
        }
    }
}

#[test]
fn a_mistake_beside_a_secret_does_not_show_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("gateway.yaml");
    for set in [
        "x-token: \"${env.VESTIBULE_TEST_SECRET} ${nonsense}\"",
        "\"x token\": \"${env.VESTIBULE_TEST_SECRET}\"",
    ] {
        let yaml = format!(
            "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:1\" }} }}\n\
             routes: [{{ respond: {{ body: x }}, plugins: [{{ headers: {{ request: {{ set: {{ {set} }} }} }} }}] }}]\n"
        );
        fs::write(&config, yaml).unwrap();
        let mut command = Command::new(gateway::binary());
        command.args(["check", "-c"]).arg(&config).env("VESTIBULE_TEST_SECRET", ENV).env("RUST_LOG", "debug");
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        check(set, &text, &[ENV.to_owned()]);
    }
}
