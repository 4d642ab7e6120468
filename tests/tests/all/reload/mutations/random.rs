//! Pieces of a configuration at random, of the same few words as the table of requests.

use fastrand::Rng;
use serde_yaml::{Mapping, Value};

use super::change::{fresh, http_listeners, keys, one};
use super::state::{State, yaml};

/// What a listener speaks, by its keys.
pub fn spoken(rng: &mut Rng) -> Mapping {
    const BOTH: &str = "[{ cert: a.crt, key: a.key }, { cert: b.crt, key: b.key }]";
    const REVERSED: &str = "[{ cert: b.crt, key: b.key }, { cert: a.crt, key: a.key }]";
    let keys = match rng.u8(..9) {
        0 | 1 => "{}".to_owned(),
        2 => "{ keepalive: { idle_timeout: 0s } }".to_owned(),
        3 => format!("{{ tcp: {{ upstream: {} }} }}", one(rng, &["one", "two"])),
        4 => format!("{{ tls: {{ certificates: {BOTH}, min_version: \"1.3\" }} }}"),
        5 => format!("{{ tls: {{ certificates: {BOTH}, client_certificate: {{ ca: clients.crt }} }} }}"),
        6 => format!(
            "{{ tls: {{ certificates: {REVERSED}, client_certificate: {{ ca: clients.crt, require: false }} }} }}"
        ),
        7 => format!("{{ tls: {{ certificates: {REVERSED} }} }}"),
        _ => "{ tls: { certificates: [{ cert: b.crt, key: b.key }] } }".to_owned(),
    };
    match yaml(&keys) {
        Value::Mapping(keys) => keys,
        other => panic!("{other:?}"),
    }
}

/// A route of the words of the table of requests.
pub fn route(rng: &mut Rng, state: &mut State) -> Value {
    let mut route = Mapping::new();
    if rng.u8(..4) > 0 {
        route.insert("name".into(), fresh(state, "route").into());
    }
    route.insert("match".into(), matched(rng, state));
    route.extend(action(rng, state));
    Value::Mapping(route)
}

/// What it matches.
pub fn matched(rng: &mut Rng, state: &State) -> Value {
    const HOSTS: [&str; 6] = ["a.test", "b.test", "'*.a.test'", "c.test", "'*.test'", "a.test, c.test"];
    const PATHS: [&str; 9] = [
        "/",
        "/api",
        "/api/v1",
        "/api, /static",
        "/static",
        "/page",
        "{ exact: /api }",
        "{ regex: '^/v\\d+/' }",
        "{ exact: /static/a.css }",
    ];
    let mut keys = vec![match rng.bool() {
        true => format!("hosts: [{}]", one(rng, &HOSTS)),
        false => format!("paths: [{}]", one(rng, &PATHS)),
    }];
    match rng.u8(..8) {
        0 => keys.push(format!("methods: [{}]", one(rng, &["GET", "POST", "DELETE", "GET, POST"]))),
        1 => keys.push(format!("headers: {{ x-tenant: {} }}", one(rng, &["red", "{ present: false }"]))),
        2 => keys.push(format!("query: {{ version: '{}' }}", rng.u8(1..3))),
        3 => keys.push(format!("listeners: [{}]", one(rng, &http_listeners(state)))),
        _ => {}
    }
    yaml(&format!("{{ {} }}", keys.join(", ")))
}

/// What becomes of a request, by the route's keys.
pub fn action(rng: &mut Rng, state: &State) -> Mapping {
    let names: Vec<String> = keys(&state.config["upstreams"]);
    let names: Vec<&String> =
        names.iter().filter(|name| !["slow", "pool"].contains(&name.as_str())).collect();
    let (first, second) = (one(rng, &names), one(rng, &names));
    let keys = match rng.u8(..9) {
        0 => format!("{{ respond: {{ body: '{}' }} }}", rng.u32(..)),
        1 => format!("{{ respond: {{ status: {}, file: page.html }} }}", one(rng, &[200, 203, 404])),
        2 => "{ redirect: { scheme: https, status: 301 } }".to_owned(),
        3 => format!("{{ redirect: {{ host: new.test, path: /{} }} }}", rng.u8(..)),
        // One side has it all: whose turn it is cannot be told by a few requests.
        4 if first != second => {
            format!("{{ split: [{{ upstream: {first}, weight: 0 }}, {{ upstream: {second} }}] }}")
        }
        _ => format!("{{ upstream: {first} }}"),
    };
    match yaml(&keys) {
        Value::Mapping(mut keys) => {
            if keys.contains_key("upstream") || keys.contains_key("split") {
                keys.insert("plugins".into(), plugins(rng));
            }
            keys
        }
        other => panic!("{other:?}"),
    }
}

/// A route's own chain.
pub fn plugins(rng: &mut Rng) -> Value {
    const ALL: [&str; 6] = [
        "path_rewrite: { strip_prefix: /api }",
        "path_rewrite: { replace_path: /fixed, host: rewritten.test }",
        "path_rewrite: { regex: '^/([^/]+)/(.*)$', replace: '/$2/$1' }",
        "headers: { request: { set: { x-path: '$path by $route' }, remove: [x-tenant] } }",
        "headers: { response: { set: { x-path: '$path by $upstream' }, remove: [server] } }",
        "headers: { response: { add: { x-tenant: '${header.x-tenant} ${query.version}' } } }",
    ];
    let plugins = (0..rng.usize(..3)).map(|_| yaml(&format!("{{ {} }}", one(rng, &ALL))));
    Value::Sequence(plugins.collect())
}

/// That of a route to several endpoints.
pub fn retries(rng: &mut Rng) -> Value {
    yaml(one(
        rng,
        &[
            "[]",
            "[{ retry: { attempts: 2, retry_on: connect_failure, backoff: { base: 1ms } } }]",
            "[{ path_rewrite: { replace_path: /pooled } }]",
        ],
    ))
}
