//! A table of requests over all listeners, and what came of each: what two gateways have to have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use openssl::ssl::{Ssl, SslContext, SslFiletype, SslMethod, SslStream, SslVersion};
use serde_json::Value;
use vestibule_tests::PATIENCE;
use vestibule_tests::certs::Pair;
use vestibule_tests::client::{Client, Response};

use super::state::{Ports, State};

/// What came of each, by what was asked for. Ports are told by their number in `Ports`, and the configuration's hash by
/// the word for it.
pub type Answers = BTreeMap<String, String>;

/// Everything that is known of a gateway.
pub struct Table {
    pub answers: Answers,
    /// Every hash that an answer told.
    pub hashes: BTreeSet<String>,
}

/// What a configuration promises, as far as a client has to know it in order to ask.
pub struct Plan {
    /// By the port's number.
    listeners: BTreeMap<usize, Listener>,
    admin: Option<usize>,
    token: Option<String>,
}

struct Listener {
    speaks: Speaks,
    /// On what terms it takes connections.
    terms: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Http,
    Https,
    Tcp,
}

/// Connections that are open while the configuration changes, by their listener's terms.
#[derive(Default)]
pub struct Held(Vec<(usize, String, Client)>);

/// Method, host, target and more fields.
type Request = (&'static str, &'static str, &'static str, &'static str);

const REQUESTS: [Request; 18] = [
    ("GET", "a.test", "/api/v1/items?version=1", ""),
    ("GET", "b.test", "/", ""),
    ("GET", "x.a.test", "/", ""),
    ("GET", "c.test", "/api/v1/items?version=2", "x-tenant: red\r\n"),
    ("POST", "a.test", "/api/v1/items", ""),
    ("GET", "c.test", "/page", ""),
    ("GET", "a.test", "/", ""),
    ("GET", "c.test", "/", "x-tenant: red\r\n"),
    ("GET", "a.test", "/api", ""),
    ("DELETE", "c.test", "/api", ""),
    ("GET", "a.test", "/static/a.css", ""),
    ("GET", "d.c.test", "/static", "x-tenant: blue\r\n"),
    ("GET", "c.test", "/v12/api", ""),
    ("GET", "c.test", "/x", ""),
    ("GET", "other.org", "/page/2?version=2", ""),
    ("GET", "other.org", "/nowhere", ""),
    ("GET", "c.test", "/tls", ""),
    ("GET", "up.test", "/mtls", "x-forwarded-for: 192.0.2.1\r\n"),
];

/// How many of them are asked for at every listener; the others at the first two of HTTP.
const EVERYWHERE: usize = 6;
/// A whole number of rounds of every balance that there is.
const ROUNDS: usize = 12;
/// As ALPN spells them.
const HTTP_1: &[u8] = b"\x08http/1.1";
const EITHER: &[u8] = b"\x02h2\x08http/1.1";
const NAMES: [Option<&str>; 4] = [Some("a.test"), Some("x.a.test"), Some("c.test"), None];

impl Plan {
    pub fn of(state: &State, ports: &Ports) -> Self {
        let listeners = state.config["listeners"].as_mapping().unwrap().iter().map(|(name, listener)| {
            let tls = listener.get("tls");
            let speaks = match (tls, listener.get("tcp")) {
                (Some(_), _) => Speaks::Https,
                (_, Some(_)) => Speaks::Tcp,
                _ => Speaks::Http,
            };
            let clients = tls.and_then(|tls| tls.get("client_certificate"));
            let terms = (
                name.as_str().unwrap(),
                tls.and_then(|tls| tls.get("min_version")),
                clients.map(|clients| (clients, state.named.get("clients.crt"))),
                listener.get("keepalive"),
                speaks,
            );
            let listener = Listener { speaks, terms: format!("{terms:?}") };
            (ports.position(&address_of(state, name.as_str().unwrap())), listener)
        });
        let admin = state.config.get("admin");
        let token = admin.and_then(|admin| admin.get("token_file"));
        Self {
            listeners: listeners.collect(),
            admin: admin.map(|admin| ports.position(admin["address"].as_str().unwrap())),
            token: token.map(|_| String::from_utf8(state.named["token"].clone()).unwrap()),
        }
    }

    fn is_open(&self, position: usize) -> bool {
        self.listeners.contains_key(&position) || self.admin == Some(position)
    }

    /// The lowest listener of HTTP, which is asked for what takes long.
    fn first(&self) -> Option<usize> {
        self.listeners.iter().find(|(_, it)| it.speaks != Speaks::Tcp).map(|(position, _)| *position)
    }
}

fn address_of(state: &State, listener: &str) -> String {
    state.config["listeners"][listener]["address"].as_str().unwrap().to_owned()
}

impl Table {
    /// Asks for everything. `client` is what clients show where they are asked for a certificate.
    pub fn of(plan: &Plan, ports: &Ports, client: &Pair) -> Self {
        let mut table = Self { answers: Answers::new(), hashes: BTreeSet::new() };
        table.addresses(plan, ports);
        let clients = Clients::new(client);
        thread::scope(|scope| {
            // It waits most of the time.
            let slow = scope.spawn(|| {
                let mut table = Self { answers: Answers::new(), hashes: BTreeSet::new() };
                if let Some(first) = plan.first().filter(|it| accepts(ports.0[*it])) {
                    let mut line = Line::new(ports.0[first], plan.listeners[&first].speaks, &clients, true);
                    table.ask(first, "slow", &mut line, ("GET", "c.test", "/slow", ""));
                }
                table
            });
            for (position, listener) in &plan.listeners {
                if table.answers[&format!("{position}: is open")] == "true" {
                    let is_full =
                        plan.listeners.range(..position).filter(|(_, it)| it.speaks != Speaks::Tcp).count()
                            < 2;
                    let requests = if is_full { &REQUESTS[..] } else { &REQUESTS[..EVERYWHERE] };
                    table.listener(*position, ports.0[*position], listener.speaks, &clients, requests);
                }
            }
            if let Some(first) = plan.first().filter(|it| accepts(ports.0[*it])) {
                table.balance(first, ports.0[first], plan.listeners[&first].speaks, &clients);
            }
            if let Some(admin) = plan.admin {
                table.admin(ports.0[admin], plan.token.as_deref());
            }
            let slow = slow.join().unwrap();
            table.answers.extend(slow.answers);
            table.hashes.extend(slow.hashes);
        });
        table
    }

    /// What differs, for a person.
    pub fn difference(&self, other: &Self) -> String {
        let labels: BTreeSet<&String> = self.answers.keys().chain(other.answers.keys()).collect();
        let mut told = String::new();
        for label in labels {
            let (one, other) = (self.answers.get(label), other.answers.get(label));
            if one != other {
                let [one, other] = [one, other].map(|it| it.map_or("(not asked)", String::as_str));
                let _ = write!(told, "--- {label}\nrunning: {one}\nexpected: {other}\n");
            }
        }
        told
    }

    /// All but what the admin endpoint tells.
    pub fn for_clients(&self) -> impl Iterator<Item = (&String, &String)> {
        self.answers.iter().filter(|(label, _)| !label.starts_with("admin"))
    }

    /// Which addresses take connections. One that was let go of may do so for a moment more.
    fn addresses(&mut self, plan: &Plan, ports: &Ports) {
        let deadline = Instant::now() + PATIENCE / 4;
        for (position, port) in ports.0.iter().enumerate() {
            let mut is_open = accepts(*port);
            while is_open != plan.is_open(position) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(2));
                is_open = accepts(*port);
            }
            self.answers.insert(format!("{position}: is open"), is_open.to_string());
        }
    }

    fn listener(
        &mut self,
        position: usize,
        port: u16,
        speaks: Speaks,
        clients: &Clients,
        requests: &[Request],
    ) {
        if speaks == Speaks::Tcp {
            let mut line = Line::new(port, speaks, clients, false);
            return self.ask(position, "through", &mut line, REQUESTS[0]);
        }
        if speaks == Speaks::Https {
            for name in NAMES {
                let told = clients.handshake(port, name, EITHER, SslVersion::TLS1_3, true);
                self.answers.insert(format!("{position}: handshake for {name:?}"), told.1);
            }
            let told = clients.handshake(port, NAMES[0], EITHER, SslVersion::TLS1_2, true);
            self.answers.insert(format!("{position}: handshake of TLS 1.2"), told.1);
            let mut line = Line::new(port, speaks, clients, false);
            self.ask(position, "without a certificate", &mut line, REQUESTS[0]);
        }
        let mut line = Line::new(port, speaks, clients, true);
        for (number, request) in requests.iter().enumerate() {
            self.ask(position, &number.to_string(), &mut line, *request);
        }
    }

    fn ask(&mut self, position: usize, label: &str, line: &mut Line, request: Request) {
        let told = self.told(line.ask(request));
        let (method, host, target, _) = request;
        self.answers.insert(format!("{position}: {label}: {method} {host} {target}"), told);
    }

    /// Whose turn it is depends on what was before; how often it is anybody's does not.
    fn balance(&mut self, position: usize, port: u16, speaks: Speaks, clients: &Clients) {
        let mut line = Line::new(port, speaks, clients, true);
        let asked = (0..ROUNDS).map(|_| line.ask(("GET", "c.test", "/pool", "")));
        let mut told: Vec<String> = asked.collect::<Vec<_>>().into_iter().map(|it| self.told(it)).collect();
        told.sort();
        self.answers.insert(format!("{position}: {ROUNDS} requests for /pool"), told.join("\n"));
    }

    fn admin(&mut self, port: u16, token: Option<&str>) {
        let token = token.unwrap_or("none").trim();
        for shown in ["", &format!("authorization: Bearer {token}\r\n"), "authorization: Bearer wrong\r\n"] {
            for path in ["/healthz", "/readyz", "/upstreams", "/routes", "/certificates", "/nowhere"] {
                let mut client = Client::plain(port);
                client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{shown}\r\n"));
                let mut response = client.try_response();
                if let Ok(response) = &mut response
                    && response.header("content-type") == Some("application/json")
                {
                    let mut told = response.json();
                    keep_lasting(&mut told);
                    response.body = told.to_string().into_bytes();
                    response.headers.retain(|(name, _)| name != "content-length");
                }
                let shown = shown.replace(token, "right");
                let told = self.told(response.ok());
                self.answers.insert(format!("admin: {path} {}", shown.trim()), told);
            }
        }
    }

    fn told(&mut self, response: Option<Response>) -> String {
        let Some(response) = response else { return "no answer".to_owned() };
        let mut told = format!("{}\n", response.status);
        for (name, value) in &response.headers {
            let value = match name.as_str() {
                "date" => continue,
                "x-request-id" => "(an id)",
                "x-config" => {
                    self.hashes.insert(value.clone());
                    "(the hash)"
                }
                _ => value,
            };
            let _ = writeln!(told, "{name}: {value}");
        }
        for line in response.text().lines() {
            let line = if line.starts_with("request id: ") { "request id: (an id)" } else { line };
            let _ = writeln!(told, "{line}");
        }
        told
    }
}

fn accepts(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// What a page tells, but for the hash, the counts and the times.
fn keep_lasting(told: &mut Value) {
    const PASSING: [&str; 8] = [
        "config",
        "requests",
        "unrouted_requests",
        "successes",
        "last_success",
        "failures",
        "last_failure",
        "no_endpoint",
    ];
    match told {
        Value::Array(items) => items.iter_mut().for_each(keep_lasting),
        Value::Object(entries) => {
            entries.retain(|key, _| !PASSING.contains(&key.as_str()));
            entries.values_mut().for_each(keep_lasting);
        }
        _ => {}
    }
}

impl Held {
    /// Leaves one connection open at each listener, and has asked once on it.
    pub fn open(plan: &Plan, ports: &Ports, client: &Pair) -> Self {
        let clients = Clients::new(client);
        let mut held = Vec::new();
        for (position, listener) in &plan.listeners {
            if listener.speaks == Speaks::Tcp {
                continue;
            }
            let mut line = Line::new(ports.0[*position], listener.speaks, &clients, true);
            if line.ask(REQUESTS[0]).is_some()
                && let Some(client) = line.client
            {
                held.push((*position, listener.terms.clone(), client));
            }
        }
        Self(held)
    }

    /// Asks again on those whose terms are the same: each has to be answered as a new connection was.
    pub fn ask_again(self, plan: &Plan, table: &mut Table) -> Result<usize, String> {
        let mut asked = 0;
        for (position, terms, client) in self.0 {
            if plan.listeners.get(&position).is_none_or(|listener| listener.terms != terms) {
                continue;
            }
            let mut line = Line { client: Some(client), again: None };
            let told = table.told(line.ask(REQUESTS[0]));
            let (method, host, target, _) = REQUESTS[0];
            let expected = &table.answers[&format!("{position}: 0: {method} {host} {target}")];
            if told != *expected {
                return Err(format!(
                    "--- {position}: a connection that was open\nrunning: {told}\nexpected: {expected}"
                ));
            }
            asked += 1;
        }
        Ok(asked)
    }
}

/// One connection after the other to one listener.
struct Line<'a> {
    client: Option<Client>,
    again: Option<(u16, Speaks, &'a Clients, bool)>,
}

impl<'a> Line<'a> {
    fn new(port: u16, speaks: Speaks, clients: &'a Clients, shows: bool) -> Self {
        Self { client: None, again: Some((port, speaks, clients, shows)) }
    }

    fn ask(&mut self, (method, host, target, fields): Request) -> Option<Response> {
        let mut client = self.client.take().or_else(|| self.connected())?;
        let body = if method == "POST" { "content-length: 4\r\n\r\nbody" } else { "\r\n" };
        client.try_send(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}{body}")).ok()?;
        let response = client.try_response().ok()?;
        if response.header("connection") != Some("close") {
            self.client = Some(client);
        }
        Some(response)
    }

    fn connected(&self) -> Option<Client> {
        let (port, speaks, clients, shows) = self.again?;
        match speaks {
            Speaks::Http | Speaks::Tcp => Some(Client::plain(port)),
            Speaks::Https => {
                let made = clients.handshake(port, NAMES[0], HTTP_1, SslVersion::TLS1_3, shows);
                made.0.map(Client::over)
            }
        }
    }
}

/// Clients with and without a certificate.
struct Clients {
    shows: SslContext,
    bare: SslContext,
}

impl Clients {
    fn new(shown: &Pair) -> Self {
        let context = |shows: bool| {
            let mut builder = SslContext::builder(SslMethod::tls_client()).unwrap();
            if shows {
                builder.set_certificate_chain_file(&shown.cert).unwrap();
                builder.set_private_key_file(&shown.key, SslFiletype::PEM).unwrap();
            }
            builder.build()
        };
        Self { shows: context(true), bare: context(false) }
    }

    /// A connection, and what the other side has shown.
    fn handshake(
        &self,
        port: u16,
        name: Option<&str>,
        protocols: &[u8],
        highest: SslVersion,
        shows: bool,
    ) -> (Option<SslStream<TcpStream>>, String) {
        let made = || -> Result<_, Box<dyn std::error::Error>> {
            let mut ssl = Ssl::new(if shows { &self.shows } else { &self.bare })?;
            if let Some(name) = name {
                ssl.set_hostname(name)?;
            }
            ssl.set_alpn_protos(protocols)?;
            ssl.set_max_proto_version(Some(highest))?;
            let socket = TcpStream::connect(("127.0.0.1", port))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.set_nodelay(true)?;
            let mut stream = SslStream::new(ssl, socket)?;
            stream.connect()?;
            Ok(stream)
        };
        let Ok(stream) = made() else { return (None, "no handshake".to_owned()) };
        let ssl = stream.ssl();
        let shown = ssl.peer_certificate().unwrap().to_der().unwrap();
        let protocol = String::from_utf8_lossy(ssl.selected_alpn_protocol().unwrap_or_default()).into_owned();
        let shown = openssl::base64::encode_block(&openssl::sha::sha256(&shown));
        let told = format!("{} {protocol} {shown}", ssl.version_str());
        (Some(stream), told)
    }
}
