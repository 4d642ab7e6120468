//! Random route tables and random requests that meet often: both are made of the same few words. What is to become of
//! any of them is not known here.

use std::fmt::Write;

use fastrand::Rng;
use serde_json::{Value, json};

const HOSTS: [&str; 5] = ["a.test", "b.a.test", "c.b.a.test", "other.test", "[::1]"];
const PATTERNS: [&str; 7] =
    ["a.test", "b.a.test", "'*.a.test'", "'*.test'", "'*.b.a.test'", "other.test", "'[::1]'"];
const ELEMENTS: [&str; 6] = ["api", "v1", "x", "apix", "a%3Ab", ""];
/// The same as clients may spell them.
const SPELT: [&str; 10] = ["api", "v1", "x", "apix", "a%3Ab", "", "%61pi", "..", "x/%2e", "v%2fx"];
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "DELETE", "OPTIONS"];
const VALUES: [&str; 4] = ["always", "never", "1", "a b"];
const FIELDS: [&str; 3] = ["x-canary", "x-tenant", "x-remote-user"];
const PARAMETERS: [&str; 2] = ["version", "q"];

/// A configuration of random routes to upstreams `a`, `b` and `c` at these addresses. Every answer of a route has its
/// name in `x-route`.
pub fn table(rng: &mut Rng, listeners: &[(&str, u16)], addresses: &[String]) -> String {
    let mut yaml =
        "version: 1\naccess_log: { format: none }\nserver: { threads: 1 }\nlisteners:\n".to_owned();
    for (name, port) in listeners {
        let _ = writeln!(yaml, "  {name}: {{ address: '127.0.0.1:{port}' }}");
    }
    yaml += "upstreams:\n";
    for (name, address) in ["a", "b", "c"].iter().zip(addresses) {
        let host =
            pick(rng, &["preserve", "preserve", "endpoint", "up.test", "$route.${header.x-tenant}x.test"]);
        let _ = writeln!(yaml, "  {name}: {{ endpoints: ['{address}'], host: '{host}' }}");
    }
    yaml += "plugins:\n  - headers: { response: { set: { x-route: $route } } }\nroutes:\n";
    for number in 0..rng.usize(4..16) {
        let _ = write!(yaml, "  - name: r{number}\n{}", route(rng));
    }
    yaml
}

fn route(rng: &mut Rng) -> String {
    let (paths, by_prefix) = paths(rng);
    let mut keys: Vec<String> = Vec::new();
    if rng.u8(..3) == 0 {
        keys.push(format!("hosts: [{}]", some(rng, &PATTERNS)));
    }
    if !paths.is_empty() {
        keys.push(format!("paths: [{}]", paths.join(", ")));
    }
    if rng.u8(..4) == 0 {
        keys.push(format!("methods: [{}]", some(rng, &METHODS)));
    }
    if rng.u8(..4) == 0 {
        keys.push(format!("headers: {{ {}: {} }}", pick(rng, &FIELDS), text(rng)));
    }
    if rng.u8(..5) == 0 {
        keys.push(format!("query: {{ {}: {} }}", pick(rng, &PARAMETERS), text(rng)));
    }
    if rng.u8(..5) == 0 {
        keys.push(format!("listeners: [{}]", pick(rng, &["web", "other"])));
    }
    // Without this, half of the tables would have a route that takes everything.
    if keys.is_empty() {
        keys.push("paths: [/x]".into());
    }
    format!("    match: {{ {} }}\n{}", keys.join(", "), action(rng, by_prefix))
}

fn paths(rng: &mut Rng) -> (Vec<String>, bool) {
    let (mut paths, mut by_prefix) = (Vec::new(), true);
    for _ in 0..rng.usize(..3) {
        let mut path = path(rng);
        // Which no prefix may have.
        while path.contains("//") {
            path = path.replace("//", "/");
        }
        paths.push(match rng.u8(..4) {
            0 => format!("{{ exact: '{path}' }}"),
            1 => format!("{{ regex: '{}' }}", pick(rng, &["^/v1", "api", "x$", "^/[a-z]+/v1$"])),
            _ => format!("'{path}'"),
        });
        by_prefix &= paths.last().is_some_and(|path| !path.starts_with('{'));
    }
    (paths, by_prefix)
}

fn text(rng: &mut Rng) -> String {
    match rng.u8(..4) {
        0 => format!("{{ regex: '{}' }}", pick(rng, &["^a", "1", "e"])),
        1 => format!("{{ present: {} }}", rng.bool()),
        _ => format!("'{}'", pick(rng, &VALUES)),
    }
}

fn action(rng: &mut Rng, by_prefix: bool) -> String {
    match rng.u8(..10) {
        0 => "    respond: { status: 418, body: tea }\n".into(),
        1 => {
            "    respond: {}\n    plugins: [{ headers: { response: { set: { x-path: '$path?$query' } } } }]\n"
                .into()
        }
        2 => format!(
            "    redirect: {{ {} }}\n",
            pick(rng, &["scheme: https", "host: new.test, status: 308", "port: 8443", "path: /new"])
        ),
        3 if by_prefix => "    redirect: { replace_prefix: /new, status: 301 }\n".into(),
        4 | 5 => {
            let weights = (rng.u8(1..4), rng.u8(..3));
            let split =
                format!("{{ upstream: a, weight: {} }}, {{ upstream: b, weight: {} }}", weights.0, weights.1);
            format!("    split: [{split}]\n{}", plugins(rng))
        }
        _ => format!("    upstream: {}\n{}", pick(rng, &["a", "b", "c"]), plugins(rng)),
    }
}

fn plugins(rng: &mut Rng) -> String {
    const ALL: [&str; 7] = [
        "path_rewrite: { strip_prefix: /api }",
        "path_rewrite: { replace_prefix: { from: /v1, to: /v2/ } }",
        "path_rewrite: { regex: '^/([^/]+)/(.*)$', replace: '/$2/$1' }",
        "path_rewrite: { replace_path: /fixed, host: rewritten.test }",
        "headers: { request: { set: { x-path: $path, x-up: '$upstream at $listener' }, remove: [x-canary] } }",
        "headers: { request: { add: { x-tenant: '${query.q}', via: 1.1 v }, set: { Host: '${header.x-tenant}.test' } } }",
        "headers: { request: { remove: [x-*], set: { X-Forwarded-Proto: https } } }",
    ];
    let plugins: Vec<_> = (0..rng.usize(..3)).map(|_| format!("      - {}\n", pick(rng, &ALL))).collect();
    let trust =
        pick(rng, &["", "", "    trust_headers: [x-forwarded-*]\n", "    trust_headers: x-remote-user\n"]);
    match plugins.is_empty() {
        true => trust.to_owned(),
        false => format!("{trust}    plugins:\n{}", plugins.concat()),
    }
}

/// A random request.
pub struct Sent {
    method: &'static str,
    host: String,
    target: String,
    /// The listener that it goes to.
    pub listener: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    /// Whether the Host is a part of the URL or a header of its own.
    in_url: bool,
}

impl Sent {
    /// A new one.
    pub fn random(rng: &mut Rng) -> Self {
        const MORE: [(&str, &str); 11] = [
            ("x-forwarded-for", "192.0.2.9"),
            ("X-Forwarded-Proto", "https"),
            ("forwarded", "for=x"),
            ("te", "gzip"),
            ("Keep-Alive", "5"),
            ("Proxy-Authorization", "Basic eDp5"),
            ("connection", "x-tenant"),
            ("Connection", "keep-alive, x-canary"),
            ("connection", "host"),
            ("upgrade", "websocket"),
            ("upgrade", "spdy/3.1"),
        ];
        let method = pick(rng, &METHODS);
        let mut headers: Vec<_> =
            (0..rng.usize(..4)).map(|_| (pick(rng, &FIELDS), pick(rng, &VALUES))).collect();
        if rng.u8(..4) == 0 {
            headers.push(MORE[rng.usize(..MORE.len())]);
        }
        if headers.iter().any(|(name, _)| *name == "upgrade") {
            headers.push(("connection", "Upgrade"));
        }
        if matches!(method, "POST" | "PUT") {
            headers.push(("content-length", "0"));
        }
        // One of each name and no more where the order would tell, which a map of a file does not keep.
        headers.sort_by_key(|(name, _)| name.to_ascii_lowercase());
        let mut host = pick(rng, &HOSTS).to_owned();
        if rng.u8(..4) == 0 {
            host = host.to_ascii_uppercase();
        }
        host += pick(rng, &["", "", ":8080", "."]);
        if host.ends_with("].") {
            host.pop();
        }
        let mut target: String = (0..rng.usize(1..4)).map(|_| format!("/{}", pick(rng, &SPELT))).collect();
        for mark in ["?", "&"].iter().take(rng.usize(..3)) {
            let value = pick(rng, &["always", "1", "a%20b", "a+b", ""]);
            let _ = write!(target, "{mark}{}={value}", pick(rng, &PARAMETERS));
        }
        Self { method, host, target, listener: pick(rng, &["web", "other"]), headers, in_url: rng.bool() }
    }

    /// As it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.host);
        for (name, value) in &self.headers {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        format!("{text}\r\n").into_bytes()
    }

    /// As an item of a file of cases.
    pub fn case(&self) -> Value {
        let mut headers = serde_json::Map::new();
        for (name, value) in &self.headers {
            let values = headers.entry(*name).or_insert_with(|| json!([]));
            values.as_array_mut().unwrap().push(json!(value));
        }
        let authority = if self.in_url { format!("http://{}", self.host) } else { String::new() };
        if !self.in_url {
            headers.insert("Host".into(), json!(self.host));
        }
        json!({
            "request": format!("{} {authority}{}", self.method, self.target),
            "headers": headers,
            "listener": self.listener,
        })
    }

    /// Whether the connection may not outlive it.
    pub fn is_odd(&self) -> bool {
        self.headers.iter().any(|(name, _)| matches!(*name, "upgrade" | "connection" | "Connection"))
    }
}

fn path(rng: &mut Rng) -> String {
    (0..rng.usize(1..4)).map(|_| format!("/{}", pick(rng, &ELEMENTS))).collect()
}

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}

fn some(rng: &mut Rng, from: &[&str]) -> String {
    let count = rng.usize(1..3);
    let start = rng.usize(..from.len());
    from.iter().cycle().skip(start).take(count).copied().collect::<Vec<_>>().join(", ")
}
