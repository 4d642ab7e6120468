//! The admin endpoint: what it tells of requests and attempts, to whom, and what it bears.

mod changes;
mod described;
mod documented;
mod gate;
mod handshakes;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vestibule_tests::PATIENCE;
use vestibule_tests::certs::Certs;
use vestibule_tests::client::{self, Client, Response};
use vestibule_tests::gateway::{Gateway, binary};
use vestibule_tests::origin::{Answer, Origin, Reply};
use vestibule_tests::ports;
use vestibule_tests::real::{Clients, Nginx, NginxTls};

use crate::page::Page;
use crate::raw::{connected, is_closed};
use crate::{Edge, quoted};

/// A gateway with an admin endpoint on a port of its own.
struct Told {
    edge: Edge,
    admin: u16,
}

impl Told {
    fn start(rest: &str) -> Self {
        let admin = ports::free();
        let edge = Edge::start(&format!("admin: {{ address: \"127.0.0.1:{admin}\" }}\n{rest}"));
        Self { edge, admin }
    }

    /// With more listeners beside `web`.
    fn start_with(listeners: &str, rest: &str) -> Self {
        let (admin, port) = (ports::free(), ports::free());
        let gateway = Gateway::start(&format!(
            "version: 1\nadmin: {{ address: \"127.0.0.1:{admin}\" }}\nlisteners:\n  \
             web: {{ address: \"127.0.0.1:{port}\" }}\n  {listeners}\n{rest}\n"
        ));
        Self { edge: Edge { gateway, port }, admin }
    }

    fn page(&self, path: &str) -> Response {
        let page = client::get(self.admin, "localhost", path);
        assert_eq!(page.status, 200, "{}", page.text());
        page
    }

    /// What is answered to a POST.
    fn post(&self, path: &str, body: &str) -> Response {
        Client::plain(self.admin).post("localhost", path, body.as_bytes())
    }

    /// Every sample whose name and labels begin so, by the rest of them.
    fn samples(&self, begin: &str) -> BTreeMap<String, String> {
        let text = self.page("/metrics").text();
        let samples = text.lines().filter_map(|line| line.strip_prefix(begin)?.rsplit_once(' '));
        samples.map(|(rest, value)| (rest.to_owned(), value.to_owned())).collect()
    }

    /// How many attempts at an upstream there were by each cause, those without one left out.
    fn failed(&self, upstream: &str) -> BTreeMap<String, u64> {
        let rest = format!("\",upstream=\"{upstream}\"}}");
        let samples = self.samples("vestibule_upstream_attempts_total{cause=\"");
        let of_upstream = samples.iter().filter_map(|(labels, value)| {
            Some((labels.strip_suffix(&rest)?.to_owned(), value.parse().unwrap()))
        });
        of_upstream.filter(|(cause, _)| cause != "none").collect()
    }

    fn succeeded(&self, upstream: &str) -> String {
        let series = format!("vestibule_upstream_attempts_total{{cause=\"none\",upstream=\"{upstream}\"}}");
        self.samples(&series).remove("").unwrap()
    }

    /// What `/upstreams` tells of one.
    fn upstream(&self, name: &str) -> Value {
        let told = self.page("/upstreams").json();
        let upstreams = told["upstreams"].as_array().unwrap();
        upstreams.iter().find(|upstream| upstream["name"] == name).unwrap().clone()
    }
}

#[test]
fn each_failed_attempt_is_counted_once_by_its_cause_and_its_endpoint_says_what_mends_it() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let leaf = certs.server(&ca, &["a.test"]);
    let nginx = Nginx::start(&NginxTls { clients: Clients::Required(&ca.cert), ..NginxTls::new(&leaf) });
    let broken = Origin::script(|request| match request.target.as_str() {
        "/reset" => Answer::ResetAfterHead,
        _ => Answer::Stall,
    });
    let (tls, plain, gone, broken) = (nginx.port, nginx.plain_port, ports::free(), broken.port);
    let verify = format!("verify: {{ ca: {} }}", quoted(&ca.cert));
    let cases = [
        (
            "wrong-name",
            format!("127.0.0.1:{tls}"),
            format!("tls: {{ sni: b.test, {verify} }}"),
            "tls_name_mismatch",
        ),
        ("wrong-ca", format!("127.0.0.1:{tls}"), "tls: { sni: a.test }".into(), "tls_unknown_issuer"),
        (
            "not-tls",
            format!("127.0.0.1:{plain}"),
            format!("tls: {{ sni: a.test, {verify} }}"),
            "tls_plaintext_peer",
        ),
        ("gone", format!("127.0.0.1:{gone}"), String::new(), "connect_refused"),
        ("nowhere", "no-such-name.invalid:80".into(), String::new(), "dns_not_found"),
        ("reset", format!("127.0.0.1:{broken}"), String::new(), "upstream_reset"),
        ("stall", format!("127.0.0.1:{broken}"), String::new(), "upstream_timeout"),
    ];
    let mut yaml = "upstreams:\n".to_owned();
    for (name, endpoint, rest, _) in &cases {
        yaml += &format!("  {name}: {{ endpoints: [\"{endpoint}\"], {rest} }}\n");
    }
    yaml += "routes:\n";
    for (name, ..) in &cases {
        yaml += &format!(
            "  - {{ name: to-{name}, match: {{ paths: [/{name}] }}, upstream: {name}, timeouts: {{ attempt: 300ms }} }}\n"
        );
    }
    let told = Told::start(&yaml);
    for (name, endpoint, _, cause) in &cases {
        let path = format!("/{name}");
        let answer = told.edge.get("a.test", &path);
        assert_eq!(told.edge.gateway.log_of(&path)["cause"], *cause);

        assert_eq!(told.failed(name), BTreeMap::from([((*cause).to_owned(), 1)]), "{name}");
        assert_eq!(told.succeeded(name), "0", "{name}");
        let counted = format!(
            "vestibule_requests_total{{code=\"{}\",listener=\"web\",route=\"to-{name}\"}}",
            answer.status
        );
        assert_eq!(told.samples(&counted).get("").map(String::as_str), Some("1"), "{name}");
        let timed = format!("vestibule_request_duration_seconds_count{{route=\"to-{name}\"}}");
        assert_eq!(told.samples(&timed)[""], "1", "{name}");

        let upstream = told.upstream(name);
        let at = &upstream["endpoints"][0];
        assert_eq!(at["endpoint"], endpoint.as_str());
        // An endpoint that has no address was not to blame alone: the attempt got to none.
        let record = if *cause == "dns_not_found" { &upstream["no_endpoint"] } else { at };
        assert_eq!(
            (&record["failures"], &record["successes"]),
            (&json!({ *cause: 1 }), &json!(0)),
            "{upstream}"
        );
        let failure = &record["last_failure"];
        assert_eq!(failure["cause"], *cause);
        let causes = told.page("/causes").json();
        let row = causes["causes"].as_array().unwrap().iter().find(|row| row["code"] == *cause).unwrap();
        assert_eq!((&failure["what"], &failure["remedy"]), (&row["what"], &row["remedy"]));
        assert!(failure["time"].as_str().unwrap().ends_with('Z'), "{failure}");
        assert!(failure["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{failure}");

        // The client learns nothing of all this.
        let answer = format!("{answer:?}{}", answer.text());
        for secret in [cause, *name, endpoint, row["what"].as_str().unwrap(), row["remedy"].as_str().unwrap()]
        {
            assert!(!answer.contains(secret), "{secret}: {answer}");
        }
    }
}

#[test]
fn of_a_request_that_is_tried_again_each_attempt_is_counted_for_itself() {
    let busy = Origin::script(|_| Reply::new(503, "busy").into());
    let good = Origin::echo();
    let gone = ports::free();
    let told = Told::start(&format!(
        "upstreams:\n  some: {{ endpoints: [\"127.0.0.1:{gone}\", \"{}\", \"{}\"] }}\n  busy: {{ endpoints: [\"{}\"] }}\n\
         plugins: [{{ retry: {{ attempts: 3, retry_on: [connect_failure, 503], backoff: {{ base: 1ms, max: 2ms }} }} }}]\n\
         routes: [{{ match: {{ paths: [/busy] }}, upstream: busy }}, {{ upstream: some }}]",
        busy.address(),
        good.address(),
        busy.address(),
    ));
    assert_eq!(told.edge.get("a.test", "/").status, 200);
    told.edge.gateway.log_of("/");
    let each =
        [("connect_refused", 1), ("upstream_status", 1)].map(|(cause, count)| (cause.to_owned(), count));
    assert_eq!((told.failed("some"), told.succeeded("some").as_str()), (each.into(), "1"));
    let some = told.upstream("some");
    let failures: Vec<&Value> = (0..3).map(|place| &some["endpoints"][place]["failures"]).collect();
    assert_eq!(failures, [&json!({ "connect_refused": 1 }), &json!({ "upstream_status": 1 }), &json!({})]);
    assert!(
        some["endpoints"][2]["last_success"].is_string() && some["endpoints"][0]["last_success"].is_null()
    );

    // The last one fails as the others do, though its answer is passed on.
    assert_eq!(told.edge.get("a.test", "/busy").status, 503);
    told.edge.gateway.log_of("/busy");
    assert_eq!(told.failed("busy"), BTreeMap::from([("upstream_status".to_owned(), 3)]));
    assert_eq!(told.succeeded("busy"), "0");
}

#[test]
fn an_attempt_that_the_client_gave_up_says_nothing_of_its_endpoint() {
    let silent = Origin::script(|_| Answer::Stall);
    let told = Told::start(&format!(
        "upstreams: {{ u: {{ endpoints: [\"{}\"] }} }}\nroutes: [{{ upstream: u }}]",
        silent.address()
    ));
    let mut client = Client::plain(told.edge.port);
    client.send("GET /left HTTP/1.1\r\nHost: a.test\r\n\r\n");
    silent.wait_for("the request", |all| all.len() == 1);
    drop(client);
    assert_eq!(told.edge.gateway.log_of("/left")["cause"], "client_closed");
    assert_eq!(told.failed("u"), BTreeMap::from([("client_closed".to_owned(), 1)]));
    assert_eq!(told.upstream("u")["endpoints"][0]["failures"], json!({}));
    let none = "vestibule_requests_total{code=\"none\",listener=\"web\",route=\"routes[0]\"}";
    assert_eq!(told.samples(none)[""], "1");
}

#[test]
fn handshakes_are_told_apart_by_whether_they_resumed() {
    let certs = Certs::new();
    let ca = certs.authority("ca");
    let leaf = certs.server(&ca, &["a.test"]);
    let nginx = Nginx::start(&NginxTls::new(&leaf));
    let told = Told::start(&format!(
        "upstreams: {{ u: {{ endpoints: [\"127.0.0.1:{}\"], tls: {{ verify: {{ ca: {} }} }}, keepalive: {{ idle_timeout: 0s }} }} }}\n\
         routes: [{{ upstream: u }}]",
        nginx.port,
        quoted(&ca.cert)
    ));
    for path in ["/1", "/2", "/3"] {
        assert_eq!(told.edge.get("a.test", path).status, 200);
        told.edge.gateway.log_of(path);
    }
    let counts = told.samples("vestibule_tls_handshakes_total");
    let count = |resumed: &str| counts[&format!("{{resumed=\"{resumed}\",upstream=\"u\"}}")].clone();
    assert_eq!((count("false"), count("true")), ("1".into(), "2".into()));
}

#[test]
fn connections_and_requests_of_every_kind_are_counted() {
    let gone = ports::free();
    let layer_4 = ports::free();
    let admin = ports::free();
    let port = ports::free();
    let gateway = Gateway::start(&format!(
        "version: 1\nadmin: {{ address: \"127.0.0.1:{admin}\" }}\n\
         listeners: {{ web: {{ address: \"127.0.0.1:{port}\" }}, raw: {{ address: \"127.0.0.1:{layer_4}\", tcp: {{ upstream: gone }} }} }}\n\
         upstreams: {{ gone: {{ endpoints: [\"127.0.0.1:{gone}\"] }} }}\n\
         routes: [{{ name: hello, match: {{ paths: [/hello] }}, respond: {{ body: hello }} }}]"
    ));
    let told = Told { edge: Edge { gateway, port }, admin };
    let open = || told.samples("vestibule_open_connections{listener=\"web\"}")[""].clone();
    assert_eq!(open(), "0");
    let mut client = Client::plain(port);
    assert_eq!(client.get("a.test", "/hello").status, 200);
    assert_eq!(client.get("a.test", "/nowhere").status, 404);
    assert_eq!(open(), "1");
    drop(client);
    eventually("the connection is counted no more", || open() == "0");
    // The engine refuses it before any of our hooks.
    let mut illegal = Client::plain(port);
    assert_eq!(illegal.send("GET / HTTP/1.1\r\nno header\r\n\r\n").response().status, 400);
    let _ = illegal.to_end();
    eventually("every request is counted", || {
        let counts = told.samples("vestibule_requests_total");
        [("200", "hello"), ("404", ""), ("400", "")].iter().all(|(code, route)| {
            let labels = format!("{{code=\"{code}\",listener=\"web\",route=\"{route}\"}}");
            counts.get(&labels).is_some_and(|count| count == "1")
        })
    });
    let mut raw = connected(layer_4);
    assert!(is_closed(&mut raw));
    eventually("the attempt at layer 4 is counted", || {
        told.failed("gone") == BTreeMap::from([("connect_refused".to_owned(), 1)])
    });
    assert_eq!(told.upstream("gone")["endpoints"][0]["last_failure"]["cause"], "connect_refused");
}

pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn causes_are_those_of_the_documentation() {
    let told = Told::start("routes: [{ respond: { body: hello } }]");
    let causes = told.page("/causes").json();
    let rows = Page::read("docs/upstream-tls.md").table("| code | what happened | what mends it |");
    let expected: Vec<[String; 3]> =
        rows.iter().map(|row| [0, 1, 2].map(|cell| row[cell].replace('`', ""))).collect();
    let rows: Vec<[String; 3]> = causes["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| ["code", "what", "remedy"].map(|key| row[key].as_str().unwrap().replace('`', "")))
        .collect();
    assert_eq!(rows, expected);
}

#[test]
fn what_is_no_page_is_a_problem_and_pages_are_only_read() {
    let told = Told::start("routes: [{ respond: { body: hello } }]");
    assert_eq!(told.page("/healthz").text(), "ok\n");
    assert_eq!(told.page("/readyz").text(), "ready\n");
    let head =
        Client::plain(told.admin).send("HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").to_end().unwrap();
    assert!(head.starts_with(b"HTTP/1.1 200") && head.ends_with(b"\r\n\r\n"), "HEAD has a body");
    let type_of = |path: &str| told.page(path).header("content-type").unwrap().to_owned();
    assert!(type_of("/metrics").starts_with("text/plain; version=0.0.4"));
    assert_eq!(
        (type_of("/upstreams").as_str(), type_of("/causes").as_str()),
        ("application/json", "application/json")
    );
    for (request, status, allowed) in [
        ("GET /metrics/ ", 404, None),
        ("POST /nowhere ", 404, None),
        ("POST /metrics ", 405, Some("GET, HEAD")),
        ("DELETE /healthz ", 405, Some("GET, HEAD")),
        ("GET /reload ", 405, Some("POST")),
        ("PUT /stage ", 405, Some("GET, HEAD, POST")),
    ] {
        let request = format!("{request}HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        let answer = Client::plain(told.admin).send(&request).response();
        assert_eq!(answer.status, status, "{request}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{request}");
        let problem = answer.json();
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
        assert_eq!(answer.header("allow"), allowed, "{request}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
}

#[test]
fn without_its_token_nothing_is_told() {
    const TOKEN: &str = "b64-5f0c1d.7e~92_a/+==";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let (admin, port) = (ports::free(), ports::free());
    let gateway = Gateway::start(&format!(
        "version: 1\nadmin: {{ address: \"0.0.0.0:{admin}\", token_file: {} }}\n\
         listeners: {{ web: {{ address: \"127.0.0.1:{port}\" }} }}\nroutes: [{{ respond: {{ body: hello }} }}]",
        quoted(&file)
    ));
    let ask = |method: &str, path: &str, fields: &str| {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: a.test\r\n{fields}Content-Length: 0\r\n\r\n");
        Client::plain(admin).send(head).response()
    };
    let shown = format!("Authorization: Bearer {TOKEN}\r\n");
    let description = ask("GET", "/openapi.json", &shown).json();
    let mut operations = described::operations(&description);
    operations.push(("GET".to_owned(), "/nowhere".to_owned()));
    let mut answers = String::new();
    for (method, path) in &operations {
        let is_public = ["/healthz", "/readyz"].contains(&path.as_str());
        for wrong in [
            String::new(),
            "Authorization: Bearer \r\n".into(),
            format!("Authorization: Bearer {}\r\n", &TOKEN[1..]),
            format!("Authorization: Bearer {TOKEN}x\r\n"),
            format!("Authorization: Basic {TOKEN}\r\n"),
            format!("Authorization: {TOKEN}\r\n"),
        ] {
            let answer = ask(method, path, &wrong);
            answers += &format!("{answer:?}{}", answer.text());
            // A probe needs no secret, and learns none.
            if is_public {
                assert_eq!(answer.status, 200, "{path} {wrong}");
                continue;
            }
            assert_eq!(answer.status, 401, "{path} {wrong}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"vestibule\""));
        }
        for scheme in ["Bearer", "bearer"] {
            let answer = ask(method, path, &format!("Authorization: {scheme} {TOKEN}\r\n"));
            let expected = match path.as_str() {
                "/nowhere" => 404,
                "/stage" if method == "GET" => 404,
                "/stage/promote" | "/stage/abort" | "/rollback" => 409,
                _ => 200,
            };
            assert_eq!(answer.status, expected, "{method} {path}: {}", answer.text());
            answers += &format!("{answer:?}{}", answer.text());
        }
    }
    gateway.stop();
    assert!(!answers.contains(TOKEN) && !gateway.stderr().contains(TOKEN), "the token is told");
}

#[test]
fn a_token_file_that_is_wrong_is_refused_and_not_shown() {
    const SECRET: &str = "half-7c1e90d2ab";
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("gateway.yaml");
    let yaml = "version: 1\nadmin: { token_file: token }\nlisteners: { web: { address: \"127.0.0.1:1\" } }\n";
    fs::write(&config, yaml).unwrap();
    for (text, told) in [
        (format!("{SECRET} {SECRET}\n"), "holds what no bearer token may have"),
        (format!("{SECRET}\n{SECRET}\n"), "holds what no bearer token may have"),
        ("\n".to_owned(), "is empty"),
    ] {
        fs::write(folder.path().join("token"), text).unwrap();
        let mut command = Command::new(binary());
        let output = command.args(["check", "-c"]).arg(&config).env("RUST_LOG", "debug").output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("gateway.yaml:2:10  admin.token_file\n`token` {told}")), "{said}");
        assert!(!said.contains(SECRET), "{said}");
    }
}

#[test]
fn slow_clients_and_large_heads_are_bounded_and_keep_nobody_waiting() {
    let told = Told::start("routes: [{ respond: { body: hello } }]");
    let begun = Instant::now();
    let mut slow: Vec<_> = (0..10).map(|_| connected(told.admin)).collect();
    for (number, client) in slow.iter_mut().enumerate() {
        client.write_all(&b"GET /metrics HTTP/1.1\r\nHost: a\r\n"[..number * 3]).unwrap();
    }
    let mut body = connected(told.admin);
    body.write_all(b"POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{").unwrap();
    slow.push(body);
    assert_eq!(told.page("/healthz").text(), "ok\n");
    assert_eq!(told.edge.get("a.test", "/").text(), "hello");
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    let head = format!("GET /healthz HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    let mut large = Client::plain(told.admin);
    // It may close before all of it is sent.
    let _ = large.try_send(head);
    assert!(large.try_response().map_or(true, |answer| answer.status == 431));
    for client in &mut slow {
        assert!(is_closed(client));
    }
    let took = begun.elapsed();
    assert!((9..15).contains(&took.as_secs()), "{took:?}");
}

#[test]
fn an_admin_address_that_is_taken_ends_the_gateway() {
    let (admin, port) = (ports::free(), ports::free());
    let _taken = TcpListener::bind(("127.0.0.1", admin)).unwrap();
    let (status, stderr) = Gateway::run_to_exit(&format!(
        "version: 1\nadmin: {{ address: \"127.0.0.1:{admin}\" }}\n\
         listeners: {{ web: {{ address: \"127.0.0.1:{port}\" }} }}\nroutes: [{{ respond: {{ body: hello }} }}]"
    ));
    assert_eq!(status.code(), Some(1), "{stderr}");
    let told = format!("the admin endpoint cannot listen on 127.0.0.1:{admin}");
    assert!(stderr.contains(&told) && stderr.contains("hint: "), "{stderr}");
}

#[test]
fn it_answers_until_the_last_request_has_ended() {
    let (sender, receiver) = mpsc::channel::<Vec<u8>>();
    let receiver = Mutex::new(Some(receiver));
    let origin =
        Origin::script(move |_| Answer::Stream(receiver.lock().unwrap().take().expect("one request")));
    let told = Told::start(&format!(
        "server: {{ drain_timeout: 15s }}\nupstreams: {{ u: {{ endpoints: [\"{}\"] }} }}\nroutes: [{{ upstream: u }}]",
        origin.address()
    ));
    let mut client = Client::plain(told.edge.port);
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(client.head().status, 200);
    told.edge.gateway.signal(libc::SIGTERM);
    told.edge.gateway.wait_for("stopping: ");
    assert_eq!(told.page("/healthz").text(), "ok\n");
    assert_eq!(told.samples("vestibule_open_connections{listener=\"web\"}")[""], "1");
    // Nobody is to send new clients here.
    let ready = client::get(told.admin, "localhost", "/readyz");
    assert_eq!((ready.status, ready.text().as_str()), (503, "draining\n"));
    // An idle client of the endpoint is nothing to wait for.
    let _idle = connected(told.admin);
    drop(sender);
    assert!(client.chunk().unwrap().is_empty());
    let ended = Instant::now();
    assert!(told.edge.gateway.wait().success());
    assert!(ended.elapsed() < Duration::from_secs(1), "it took {:?} after the last request", ended.elapsed());
}
