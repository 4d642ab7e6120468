//! Real servers times causes: each mistake, at each server that can be made to show it, under each version of TLS, and
//! the cause that the access log gives it. The tables are below, a file for each kind of mistake; this file has the one
//! check that every row goes through.

mod answers;
mod certificates;
mod clients;
mod connections;
mod handshakes;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use vestibule_tests::client::{Client, Response};
use vestibule_tests::gateway::Gateway;
use vestibule_tests::ports;
use vestibule_tests::real::Version;

use world::{Fault, NAME, Peer, Running, World};

/// One mistake, as many cases as it has servers and versions.
#[derive(Clone, Copy)]
struct Row {
    /// At each of these.
    peers: &'static [Peer],
    /// Limited to each of these versions in turn.
    versions: &'static [Version],
    /// What the server is like.
    fault: Fault,
    /// What the upstream's YAML says besides `endpoints`; `<ca>` and its like are files of the world.
    upstream: &'static str,
    /// What the route's says besides `upstream`.
    route: &'static str,
    /// The request's method.
    method: &'static str,
    /// The request's path.
    path: &'static str,
    /// The status that the client gets.
    status: u16,
    /// The cause in the access log; empty where there must be none.
    code: &'static str,
}

const TLS12: &[Version] = &[Version::Tls12];
const TLS13: &[Version] = &[Version::Tls13];
const BOTH: &[Version] = &[Version::Tls12, Version::Tls13];
/// Where TLS plays no part, or the server is no real one: once.
const ONCE: &[Version] = TLS13;

const EVERY: &[Peer] = &[Peer::Nginx, Peer::HaProxy, Peer::Envoy, Peer::OpenSsl];
const NGINX: &[Peer] = &[Peer::Nginx];
const ENVOY: &[Peer] = &[Peer::Envoy];
const OPENSSL: &[Peer] = &[Peer::OpenSsl];
const SCRIPTED: &[Peer] = &[Peer::Scripted];

const fn row(
    peers: &'static [Peer],
    versions: &'static [Version],
    fault: Fault,
    upstream: &'static str,
    code: &'static str,
) -> Row {
    Row { peers, versions, fault, upstream, route: "", method: "GET", path: "/", status: 502, code }
}

impl Row {
    const fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    const fn route(self, route: &'static str) -> Self {
        Self { route, ..self }
    }

    const fn method(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    const fn path(self, path: &'static str) -> Self {
        Self { path, ..self }
    }
}

/// What one server is like; it is started once for all rows that want it so.
type Like = (Peer, Version, Fault);

/// Goes through every row and tells all that fail, not just the first.
fn check(table: &[Row]) {
    let world = World::new();
    let mut groups: Vec<(Like, Vec<&Row>)> = Vec::new();
    for row in table {
        for (&peer, &version) in
            row.peers.iter().flat_map(|peer| row.versions.iter().map(move |version| (peer, version)))
        {
            let like = (peer, version, row.fault);
            match groups.iter_mut().find(|(other, _)| *other == like) {
                Some((_, rows)) => rows.push(row),
                None => groups.push((like, vec![row])),
            }
        }
    }
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((like, rows)) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let checked =
                        catch_unwind(AssertUnwindSafe(|| Bench::start(&world, *like, rows).check()));
                    let wrong = checked.unwrap_or_else(|_| vec!["a panic, which stands above".to_owned()]);
                    failed
                        .lock()
                        .unwrap()
                        .extend(wrong.into_iter().map(|wrong| format!("{like:?}: {wrong}")));
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} cases:\n{}", failed.len(), failed.join("\n"));
}

/// A server, and a gateway that has a listener, an upstream and a route for each row.
struct Bench<'a> {
    rows: &'a [&'a Row],
    server: Running,
    ports: Vec<u16>,
    gateway: Gateway,
}

impl<'a> Bench<'a> {
    fn start(world: &World, (peer, version, fault): Like, rows: &'a [&'a Row]) -> Self {
        let server = world.start(peer, version, fault);
        let ports: Vec<u16> = rows.iter().map(|_| ports::free()).collect();
        let (mut listeners, mut upstreams, mut routes) = (String::new(), String::new(), String::new());
        for (number, (row, port)) in rows.iter().zip(&ports).enumerate() {
            let endpoint = &server.endpoint;
            let upstream = row.upstream.replace('\n', "\n    ");
            listeners += &format!("  at-{number}: {{ address: \"127.0.0.1:{port}\" }}\n");
            upstreams += &format!("  it-{number}:\n    endpoints: [\"{endpoint}\"]\n    {upstream}\n");
            routes += &format!(
                "  - name: to-{number}\n    match: {{ listeners: [at-{number}] }}\n    upstream: it-{number}\n    {}\n",
                row.route
            );
        }
        let yaml = format!("version: 1\nlisteners:\n{listeners}upstreams:\n{upstreams}routes:\n{routes}");
        let gateway = Gateway::start(&world.fill(&yaml));
        Self { rows, server, ports, gateway }
    }

    /// What is not as the rows say.
    fn check(&self) -> Vec<String> {
        (0..self.rows.len()).filter_map(|number| self.wrong(number)).collect()
    }

    fn wrong(&self, number: usize) -> Option<String> {
        let row = self.rows[number];
        let mut client = Client::plain(self.ports[number]);
        let mut ask = |path: &str| {
            let request = format!("{} {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n", row.method);
            let response = client.send(request).response();
            let listener = format!("at-{number}");
            (response, self.gateway.log_line(|line| line["listener"] == listener && line["path"] == path))
        };
        if row.fault == Fault::ClosesIdle {
            // Its line is written once its connection is back in the pool, where the next request finds it.
            assert_eq!(ask("/first").0.status, 200);
        }
        let (response, line) = ask(row.path);
        let expected = if row.code.is_empty() { Value::Null } else { json!(row.code) };
        if (&line["cause"], response.status) != (&expected, row.status) {
            let got = format!("{} with status {}", line["cause"], response.status);
            return Some(format!("`{}`: {expected} with status {}, not {got}", row.upstream, row.status));
        }
        if !row.code.is_empty() {
            let endpoint = line["endpoint"].as_str().unwrap_or("no endpoint");
            self.gateway.wait_for(&format!(
                "route `to-{number}`, upstream `it-{number}`, {endpoint}: {}: ",
                row.code
            ));
        }
        let is_ours = line["upstream_status"].is_null();
        is_ours.then(|| told(&response, row.code, &self.server.endpoint)).flatten()
    }
}

/// What the gateway's own answer tells the client of what lies behind.
fn told(response: &Response, code: &str, endpoint: &str) -> Option<String> {
    let text = format!("{:?} {}", response.headers, response.text()).to_lowercase();
    let untold = [code, endpoint, "127.0.0.1", "tls", "ssl", "certificate", "upstream"];
    let told = untold.into_iter().find(|word| text.contains(word))?;
    Some(format!("`{told}` is in the answer: {text}"))
}
