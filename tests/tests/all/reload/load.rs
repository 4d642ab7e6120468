//! Two reloads a second for a minute, under load over TLS on both sides: nothing fails, nothing is answered by a mixture
//! of two files, and no connection goes back to an older one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use http::Request;
use serde_json::Value;
use vestibule_tests::certs::{Authority, Certs, Pair, pin};
use vestibule_tests::client::{Client, ClientTls, Response};
use vestibule_tests::gateway::Gateway;
use vestibule_tests::http2::Http2Client;
use vestibule_tests::real::{Clients, Nginx, NginxTls, wrk};
use vestibule_tests::{PATIENCE, ports};

use crate::quoted;

const SECONDS: u32 = 60;
const PERIOD: Duration = Duration::from_millis(500);
/// Connections of wrk.
const LOAD: usize = 64;
/// Connections of our own that stay open, each answer on which is looked at.
const KEPT: usize = 8;
/// Streams at once on the HTTP/2 connection.
const STREAMS: usize = 32;

const HOST: &str = "a.test";
const PATHS: [&str; 2] = ["/one", "/two"];

/// What stands in the file of each version, by its number: cycles of several lengths, so that each change meets each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(usize);

/// The listener that comes and goes, at one of two ports.
enum Other {
    Absent,
    Plain(usize),
    Tls(usize),
}

impl Version {
    /// The two paths have an upstream each, and change them with each version.
    fn upstream(self, path: &str) -> &'static str {
        let place = PATHS.iter().position(|known| *known == path).unwrap();
        ["blue", "green"][(self.0 + place) % 2]
    }

    /// How often the certificate that the listeners show was replaced.
    fn server_certificate(self) -> usize {
        self.0 / 3
    }

    /// How often the certificate that the gateway shows upstreams was replaced: not with each version, so that connections
    /// outlive reloads as well.
    fn client_certificate(self) -> usize {
        self.0 / 4
    }

    fn client(self) -> String {
        format!("gateway-{}", self.client_certificate())
    }

    fn other(self) -> Other {
        [Other::Absent, Other::Plain(0), Other::Tls(0), Other::Tls(1), Other::Plain(1)]
            .into_iter()
            .nth(self.0 % 5)
            .unwrap()
    }
}

/// The gateway, and what is known of the versions so far.
struct Scene {
    certs: Certs,
    ca: Authority,
    nginx: BTreeMap<&'static str, Nginx>,
    port: u16,
    other_ports: [u16; 2],
    /// The last version that was asked for: no answer can be of a later one.
    asked: AtomicUsize,
    /// The last version that the log tells of: no request from then on can be answered by an earlier one.
    in_force: AtomicUsize,
    /// The pin of each server certificate.
    pins: Mutex<Vec<String>>,
    /// The hash of each version, as answers have it.
    answered: Mutex<BTreeMap<Version, String>>,
    over: AtomicBool,
}

#[test]
fn a_minute_of_reloads_under_load_loses_nothing_and_mixes_nothing() {
    let scene = Scene::new();
    scene.renew(Version(0));
    let gateway = Gateway::start(&scene.file(Version(0)));
    let mut hashes = vec![after(&gateway.stderr(), "(config ").unwrap().to_owned()];

    let (load, seen) = thread::scope(|scope| {
        let _over = Over(&scene.over);
        let scene = &scene;
        let (ended, end) = mpsc::channel();
        let load = scope.spawn(move || {
            let load = wrk(&format!("https://127.0.0.1:{}{}", scene.port, PATHS[0]), LOAD, SECONDS);
            ended.send(()).unwrap();
            load
        });
        let mut clients: Vec<_> = (0..KEPT).map(|_| scope.spawn(|| scene.stay())).collect();
        clients.push(scope.spawn(|| scene.come_and_go()));
        clients.push(scope.spawn(|| scene.stream()));

        let mut next = Instant::now() + PERIOD;
        let until = |next: Instant| end.recv_timeout(next.saturating_duration_since(Instant::now()));
        // A client that fails ends it at once.
        while !scene.over.load(Ordering::Relaxed) && until(next) == Err(RecvTimeoutError::Timeout) {
            hashes.push(scene.reload(Version(hashes.len()), &gateway));
            next = Instant::now().max(next + PERIOD);
        }
        scene.over.store(true, Ordering::Relaxed);
        let seen: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        (load.join().unwrap(), seen)
    });

    assert_eq!((load.bad_statuses, load.socket_errors), (0, 0), "{load:?}");
    // A machine that is busy otherwise is not what is tested here.
    assert!(hashes.len() > SECONDS as usize && load.requests > 1000, "{} reloads, {load:?}", hashes.len());
    for (version, hash) in scene.answered.lock().unwrap().iter() {
        assert_eq!(*hash, hashes[version.0], "{version:?}");
    }
    assert!(gateway.stop().success());
    let told = gateway.stderr();
    // But for what each load says of this file: that everybody acts by the gateway's certificate.
    let complaints: Vec<&str> = told
        .lines()
        .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "))
        .filter(|line| !line.contains("client_certificate"))
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    let connections = scene.look_at_upstreams(load.requests as usize + seen);
    eprintln!(
        "{} reloads, {} requests of wrk, {seen} looked at, {connections} connections to upstreams",
        hashes.len() - 1,
        load.requests
    );
}

impl Scene {
    fn new() -> Self {
        let certs = Certs::new();
        let ca = certs.authority("ca");
        let certificate = certs.server(&ca, &[HOST]);
        let start = |name| {
            let tls = NginxTls { clients: Clients::Required(&ca.cert), ..NginxTls::new(&certificate) };
            (name, Nginx::start(&tls))
        };
        let nginx = ["blue", "green"].map(start).into();
        Self {
            certs,
            ca,
            nginx,
            port: ports::free(),
            other_ports: [ports::free(), ports::free()],
            asked: AtomicUsize::new(0),
            in_force: AtomicUsize::new(0),
            pins: Mutex::default(),
            answered: Mutex::default(),
            over: AtomicBool::new(false),
        }
    }

    fn file(&self, version: Version) -> String {
        let folder = self.certs.folder();
        let [server, client] = ["server", "client"].map(|stem| {
            let [cert, key] = ["crt", "key"].map(|ending| quoted(&folder.join(format!("{stem}.{ending}"))));
            format!("{{ cert: {cert}, key: {key} }}")
        });
        let address = |port: u16| format!("address: \"127.0.0.1:{port}\"");
        let tls = format!("tls: {{ certificates: [{server}] }}");
        let other = match version.other() {
            Other::Absent => String::new(),
            Other::Plain(at) => format!("other: {{ {} }}", address(self.other_ports[at])),
            Other::Tls(at) => format!("other: {{ {}, {tls} }}", address(self.other_ports[at])),
        };
        let [one, two] = PATHS;
        let upstream = |name: &str| {
            format!(
                "{{ endpoints: [\"127.0.0.1:{}\"], host: {HOST}, tls: {{ verify: {{ ca: {} }}, client_certificate: {client} }} }}",
                self.nginx[name].port,
                quoted(&self.ca.cert)
            )
        };
        format!(
            r#"
version: 1
reload: {{ watch: false }}
access_log: {{ format: none }}
listeners:
  web: {{ {web}, limits: {{ requests_per_connection: 10000000 }}, {tls} }}
  {other}
upstreams:
  blue: {blue}
  green: {green}
plugins:
  - headers:
      request: {{ set: {{ x-version: "{number}" }} }}
      response: {{ set: {{ x-version: "{number}", x-config: $config, x-upstream: $upstream }} }}
routes:
  - {{ match: {{ paths: [{one}] }}, upstream: {by_one} }}
  - {{ match: {{ paths: [{two}] }}, upstream: {by_two} }}
"#,
            web = address(self.port),
            blue = upstream("blue"),
            green = upstream("green"),
            by_one = version.upstream(one),
            by_two = version.upstream(two),
            number = version.0,
        )
    }

    /// Replaces the certificates that are new in this version, in the files that every version names.
    fn renew(&self, version: Version) {
        let is_new = |of: fn(Version) -> usize| version.0 == 0 || of(version) != of(Version(version.0 - 1));
        if is_new(Version::server_certificate) {
            let pair = self.certs.server(&self.ca, &[HOST]);
            self.pins.lock().unwrap().push(pin(&pair));
            self.put(&pair, "server");
        }
        if is_new(Version::client_certificate) {
            self.put(&self.certs.client(&self.ca, &version.client()), "client");
        }
    }

    fn put(&self, pair: &Pair, stem: &str) {
        for (from, ending) in [(&pair.cert, "crt"), (&pair.key, "key")] {
            fs::rename(from, self.certs.folder().join(format!("{stem}.{ending}"))).unwrap();
        }
    }

    /// Has the next version put in force; gives its hash.
    fn reload(&self, version: Version, gateway: &Gateway) -> String {
        self.renew(version);
        let file = self.file(version);
        self.asked.store(version.0, Ordering::SeqCst);
        let told = gateway.reload(&file);
        let hash = after(&told, "signal: applied: config ").unwrap_or_else(|| panic!("{told}"));
        self.in_force.store(version.0, Ordering::SeqCst);

        let mut refusing = self.other_ports.to_vec();
        if let Other::Plain(at) | Other::Tls(at) = version.other() {
            let mut client = match version.other() {
                Other::Tls(_) => self.connected(refusing[at]),
                _ => Client::plain(refusing[at]),
            };
            refusing.remove(at);
            assert_eq!(self.look_at(PATHS[0], &client.get(HOST, PATHS[0])), version);
        }
        for port in refusing {
            self.wait_until_refused(port);
        }
        hash.to_owned()
    }

    /// One request after the other on one connection; gives how many.
    fn stay(&self) -> usize {
        let _over = Over(&self.over);
        let mut client = self.connected(self.port);
        let (mut last, mut count) = (Version(0), 0);
        while !self.over.load(Ordering::Relaxed) {
            let version = self.ask(&mut client, PATHS[count % 2]);
            assert!(version >= last, "{version:?} after {last:?} on the same connection");
            (last, count) = (version, count + 1);
        }
        count
    }

    /// One connection after the other, each with a full handshake and a request; gives how many.
    fn come_and_go(&self) -> usize {
        let _over = Over(&self.over);
        let mut count = 0;
        while !self.over.load(Ordering::Relaxed) {
            let earliest = Version(self.in_force.load(Ordering::SeqCst));
            let mut client = self.connected(self.port);
            let latest = Version(self.asked.load(Ordering::SeqCst));
            let shown = client.peer_pin().unwrap();
            let pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
            assert!(
                pins[earliest.server_certificate()..=latest.server_certificate()].contains(&shown),
                "between {earliest:?} and {latest:?}, certificate {:?} was shown",
                pins.iter().position(|pin| *pin == shown)
            );
            drop(pins);
            self.ask(&mut client, PATHS[count % 2]);
            count += 1;
        }
        count
    }

    /// Many streams at once on one HTTP/2 connection; gives how many.
    fn stream(&self) -> usize {
        let _over = Over(&self.over);
        let client = Http2Client::tls(self.port, HOST);
        let (mut last, mut count) = (Version(0), 0);
        while !self.over.load(Ordering::Relaxed) {
            let earliest = self.in_force.load(Ordering::SeqCst);
            let begin = |number| {
                let path = PATHS[number % 2];
                let request = Request::get(format!("https://{HOST}{path}")).body(()).unwrap();
                (path, client.send(request, true))
            };
            // In the order in which they begin.
            let exchanges: Vec<_> = (0..STREAMS).map(begin).collect();
            for (path, mut exchange) in exchanges {
                let version = self.look_at(path, &exchange.response());
                let latest = self.asked.load(Ordering::SeqCst);
                assert!((earliest..=latest).contains(&version.0), "{version:?}: {earliest} to {latest}");
                assert!(
                    version >= last,
                    "{version:?} after {last:?}: a stream that began later has an older one"
                );
                (last, count) = (version, count + 1);
            }
        }
        count
    }

    fn connected(&self, port: u16) -> Client {
        let tls = ClientTls { sni: Some(HOST), ca: Some(&self.ca.cert), certificate: None };
        Client::tls(port, &tls).unwrap_or_else(|e| panic!("no handshake with port {port}: {e:?}"))
    }

    /// The version that answers, which is one that was in force meanwhile.
    fn ask(&self, client: &mut Client, path: &str) -> Version {
        let earliest = self.in_force.load(Ordering::SeqCst);
        let version = self.look_at(path, &client.get(HOST, path));
        let latest = self.asked.load(Ordering::SeqCst);
        assert!(
            (earliest..=latest).contains(&version.0),
            "{version:?} answers between {earliest} and {latest}"
        );
        version
    }

    /// The one version that all parts of an answer belong to: what the route says, what the upstream was told, which
    /// upstream it was, and the certificate that it was shown.
    fn look_at(&self, path: &str, answer: &Response) -> Version {
        let (headers, body) = (&answer.headers, answer.text());
        assert_eq!(answer.status, 200, "{headers:?}: {body}");
        assert_ne!(answer.header("connection"), Some("close"), "{headers:?}: {body}");
        let header = |name| answer.header(name).unwrap_or_else(|| panic!("no {name}: {headers:?}: {body}"));
        let version = Version(header("x-version").parse().unwrap());
        let report = answer.json();
        assert_eq!(
            (header("x-upstream"), told(&report)),
            (version.upstream(path), expected(version, self.nginx[version.upstream(path)].port)),
            "{headers:?}: {body}"
        );
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let hash = answered.entry(version).or_insert_with(|| header("x-config").to_owned());
        assert_eq!(header("x-config"), hash, "{version:?}");
        version
    }

    /// A socket that is let go of may take connections for a moment still.
    fn wait_until_refused(&self, port: u16) {
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_ok() {
            assert!(begun.elapsed() < PATIENCE, "port {port} takes connections still");
        }
    }

    /// What the upstreams saw of every request, wrk's included; gives how many connections they saw.
    fn look_at_upstreams(mut self, requests: usize) -> usize {
        let (mut count, mut connections) = (0, 0);
        for (name, nginx) in std::mem::take(&mut self.nginx) {
            // What wrk had asked for when it ended broke off, which nginx tells of too.
            let is_fault = |line: &String| line.contains("handshak") || line.contains("certificate");
            let faults: Vec<String> = nginx.told().into_iter().filter(is_fault).collect();
            assert!(faults.is_empty(), "{name}: {faults:#?}");
            let port = nginx.port;
            let mut versions: BTreeMap<String, BTreeSet<Version>> = BTreeMap::new();
            for line in nginx.into_log() {
                let version = Version(line["version"].as_str().unwrap().parse().unwrap());
                let path = line["uri"].as_str().unwrap();
                assert_eq!((told(&line), version.upstream(path)), (expected(version, port), name), "{line}");
                assert_eq!(line["status"], "200", "{line}");
                versions.entry(line["connection"].to_string()).or_default().insert(version);
                count += 1;
            }
            assert!(
                versions.values().any(|versions| versions.len() > 1),
                "{name}: no connection outlived a reload"
            );
            connections += versions.len();
        }
        assert!(count >= requests, "{count} of {requests} requests arrived");
        connections
    }
}

/// Ends the clients, even where the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn expected(version: Version, port: u16) -> [String; 3] {
    [version.0.to_string(), port.to_string(), format!("CN={}", version.client())]
}

/// The version that an upstream was told, its port, and what it was shown.
fn told(report: &Value) -> [String; 3] {
    ["version", "port", "client"].map(|key| report[key].as_str().unwrap_or_default().to_owned())
}

/// The word behind this text.
fn after<'a>(line: &'a str, text: &str) -> Option<&'a str> {
    line.split_once(text)?.1.split([' ', ')']).next()
}
