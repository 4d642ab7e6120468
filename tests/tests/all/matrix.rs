//! Real servers times causes: each mistake, at each server that can be made to show it, under each version of TLS, and
//! the cause that the access log gives it. The tables are below, a file for each kind of mistake; this file has the one
//! check that every row goes through.

mod answers;
mod certificates;
mod clients;
mod connections;
mod handshakes;
mod protocols;
mod world;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use vestibule_tests::client::{Client, Response};
use vestibule_tests::gateway::{self, Gateway};
use vestibule_tests::ports;
use vestibule_tests::real::Version;

use world::{Fault, Http, NAME, Peer, Running, World};

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
    /// How many bytes it has.
    body: usize,
    /// The request's path.
    path: &'static str,
    /// The status that the client gets.
    status: u16,
    /// The cause in the access log; empty where there must be none.
    code: &'static str,
    /// The code that `doctor` gives, which can try more than the one request that the log is about.
    doctor: &'static str,
    /// Whether the change that `doctor` prints makes requests get through; else it prints none.
    mends: bool,
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
    Row {
        peers,
        versions,
        fault,
        upstream,
        route: "",
        method: "GET",
        body: 0,
        path: "/",
        status: 502,
        code,
        doctor: code,
        mends: !code.is_empty(),
    }
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

    /// A request of so many bytes.
    const fn posting(self, body: usize) -> Self {
        Self { method: "POST", body, ..self }
    }

    const fn path(self, path: &'static str) -> Self {
        Self { path, ..self }
    }

    const fn doctor(self, doctor: &'static str) -> Self {
        Self { doctor, ..self }
    }

    /// No file of the gateway's can mend it.
    const fn incurable(self) -> Self {
        Self { mends: false, ..self }
    }
}

/// What one server is like; it is started once for all rows that want it so.
type Like = (Peer, Version, Http, Fault);

/// Goes through every row and tells all that fail, not just the first.
fn check(table: &[Row]) {
    check_over(Http::One, table);
}

/// The same with `protocol: h2`, at the servers that speak it.
fn check_over_h2(table: &[Row]) {
    check_over(Http::Two, table);
}

fn check_over(http: Http, table: &[Row]) {
    let world = World::new();
    let mut groups: Vec<(Like, Vec<&Row>)> = Vec::new();
    for row in table {
        let speaks =
            |peer: &&Peer| http == Http::One || matches!(peer, Peer::Nginx | Peer::HaProxy | Peer::Envoy);
        for (&peer, &version) in row
            .peers
            .iter()
            .filter(speaks)
            .flat_map(|peer| row.versions.iter().map(move |version| (peer, version)))
        {
            let like = (peer, version, http, row.fault);
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
    fn start(world: &World, (peer, version, http, fault): Like, rows: &'a [&'a Row]) -> Self {
        let server = world.start(peer, version, http, fault);
        let ports: Vec<u16> = rows.iter().map(|_| ports::free()).collect();
        let (mut listeners, mut upstreams, mut routes) = (String::new(), String::new(), String::new());
        for (number, (row, port)) in rows.iter().zip(&ports).enumerate() {
            let endpoint = &server.endpoint;
            let upstream = row.upstream.replace('\n', "\n    ");
            let protocol = if http == Http::Two { "protocol: h2\n    " } else { "" };
            listeners += &format!("  at-{number}: {{ address: \"127.0.0.1:{port}\" }}\n");
            upstreams +=
                &format!("  it-{number}:\n    endpoints: [\"{endpoint}\"]\n    {protocol}{upstream}\n");
            routes += &format!(
                "  - name: to-{number}\n    match: {{ listeners: [at-{number}], paths: [{}] }}\n    upstream: it-{number}\n    {}\n",
                row.path, row.route
            );
        }
        let yaml = format!("version: 1\nlisteners:\n{listeners}upstreams:\n{upstreams}routes:\n{routes}");
        let gateway = Gateway::start(&world.fill(&yaml));
        Self { rows, server, ports, gateway }
    }

    /// What is not as the rows say: of the requests, of what `doctor` says, and of the requests once the file is as it
    /// says.
    fn check(mut self) -> Vec<String> {
        let each = || 0..self.rows.len();
        let mut wrong: Vec<String> = each().filter_map(|number| self.misjudged(number)).collect();
        wrong.extend(each().filter_map(|number| self.mistreated(number)));
        self.gateway = self.gateway.restart();
        wrong.extend((0..self.rows.len()).filter_map(|number| self.unmended(number)));
        wrong
    }

    /// One request at the listener of a row, and its line in the access log.
    fn ask(&self, number: usize, client: &mut Client, path: &str, body: usize) -> (Response, Value) {
        let method = self.rows[number].method;
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {body}\r\n\r\n"));
        // A gateway that has answered already does not read it to its end.
        let _ = client.try_send(vec![b'x'; body]);
        let (response, listener) = (client.response(), format!("at-{number}"));
        (response, self.gateway.log_line(|line| line["listener"] == listener && line["path"] == path))
    }

    /// The answer and the access log.
    fn misjudged(&self, number: usize) -> Option<String> {
        let row = self.rows[number];
        let mut client = Client::plain(self.ports[number]);
        if row.fault == Fault::ClosesIdle {
            // Its line is written once its connection is back in the pool, where the next request finds it.
            assert_eq!(self.ask(number, &mut client, "/again/first", 0).0.status, 200);
        }
        let (response, line) = self.ask(number, &mut client, row.path, row.body);
        let expected = if row.code.is_empty() { Value::Null } else { json!(row.code) };
        if (&line["cause"], response.status) != (&expected, row.status) {
            let log = self.gateway.stderr();
            let log: Vec<_> =
                log.lines().filter(|line| line.contains(&format!("route `to-{number}`"))).collect();
            let (expected, got) = ((expected, row.status), (&line["cause"], response.status));
            return Some(format!("`{}`: {expected:?}, not {got:?}: {log:?}", row.upstream));
        }
        if !row.code.is_empty() {
            let endpoint = line["endpoint"].as_str().unwrap_or("no endpoint");
            let told = format!("route `to-{number}`, upstream `it-{number}`, {endpoint}: {}: ", row.code);
            self.gateway.wait_for(&told);
        }
        let is_ours = line["upstream_status"].is_null();
        is_ours.then(|| told(&response, row.code, &self.server.endpoint)).flatten()
    }

    /// What `doctor` says; where it knows a cure, the file is changed so.
    fn mistreated(&self, number: usize) -> Option<String> {
        let row = self.rows[number];
        let config = self.gateway.config();
        let folder = config.parent().unwrap();
        let mut command = Command::new(gateway::binary());
        command.args([
            "doctor",
            &format!("to-{number}"),
            "--host",
            NAME,
            "--timeout",
            "1s",
            "--format",
            "json",
        ]);
        let out = command.arg("-c").arg(&config).current_dir(folder).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        let report: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text} {out:?}"));
        let finding = &report["targets"][0];
        let expected = if row.doctor.is_empty() { Value::Null } else { json!(row.doctor) };
        if finding["code"] != expected {
            return Some(format!("`{}`: doctor should say {expected}: {finding:#}", row.upstream));
        }
        let fix = &finding["fix"];
        let changes = fix["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
        if row.mends == changes.is_empty() {
            let should = if row.mends { "should" } else { "cannot" };
            return Some(format!("`{}`: doctor {should} mend it: {finding:#}", row.upstream));
        }
        for save in fix["save"].as_array().into_iter().flatten() {
            fs::write(folder.join(save["file"].as_str().unwrap()), save["pem"].as_str().unwrap()).unwrap();
        }
        for change in changes {
            fs::write(folder.join(change["file"].as_str().unwrap()), change["after"].as_str().unwrap())
                .unwrap();
        }
        None
    }

    /// The answer once the file is as `doctor` says.
    fn unmended(&self, number: usize) -> Option<String> {
        let row = self.rows[number];
        if !row.mends {
            return None;
        }
        let mut client = Client::plain(self.ports[number]);
        let (response, line) = self.ask(number, &mut client, row.path, 0);
        let is_good = line["cause"].is_null() && response.status < 500;
        let text = fs::read_to_string(self.gateway.config()).unwrap();
        (!is_good).then(|| format!("`{}`: not mended: {line}\n{text}", row.upstream))
    }
}

/// What the gateway's own answer tells the client of what lies behind.
fn told(response: &Response, code: &str, endpoint: &str) -> Option<String> {
    let text = format!("{:?} {}", response.headers, response.text()).to_lowercase();
    let untold = [code, endpoint, "127.0.0.1", "tls", "ssl", "certificate", "upstream"];
    let told = untold.into_iter().find(|word| text.contains(word))?;
    Some(format!("`{told}` is in the answer to {code}: {text}"))
}
