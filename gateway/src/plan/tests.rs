//! Plans of random changes against the configurations themselves, and the form in which a configuration is described.

use std::path::Path;
use std::sync::Arc;

use fastrand::Rng;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use serde_json::{Value, json};
use vestibule_plugins::Registry;

use super::*;
use crate::config::{Loaded, parse};
use crate::route::Request;
use crate::snapshot::{Snapshot, Workshop, compile};

struct Side {
    loaded: Loaded,
    snapshot: Arc<Snapshot>,
    described: Described,
}

fn side(text: &str) -> Side {
    let loaded = parse("gateway.yaml", text, Path::new("")).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let snapshot =
        compile(&loaded, &Workshop::new(Registry::builtin())).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let described = Described::of(&loaded, &snapshot);
    Side { loaded, snapshot: Arc::new(snapshot), described }
}

fn planned(old: &Described, new: &Described) -> Plan {
    plan(old, new, Timestamp::UNIX_EPOCH).unwrap()
}

/// As the admin endpoint tells it, and a client reads it.
fn told(described: &Described) -> Described {
    serde_json::from_str(&serde_json::to_string(described).unwrap()).unwrap()
}

const BASE: &str = r#"
version: 1
server: { threads: 2 }
listeners:
  web: { address: "127.0.0.1:80" }
  other: { address: "127.0.0.1:81" }
upstreams:
  a: { endpoints: "a.test:80" }
  b: { endpoints: ["b.test:80"] }
plugins: [{ request_id: {} }]
routes:
  - { name: one, match: { paths: /api }, upstream: a }
  - { name: two, match: { paths: [/api], headers: { x-a: "1" } }, upstream: b }
  - { name: three, match: { paths: /api, headers: { x-b: { regex: "^[0-9]+$" } } }, upstream: a }
  - { match: { hosts: ["*.a.test"], methods: GET }, respond: {} }
  - { match: { listeners: other, query: { v: { present: true } } }, redirect: { path: /new } }
  - { name: pages, match: { paths: [{ regex: "^/p/[a-z]+$" }, { exact: /q }] }, split: [{ upstream: a }, { upstream: b }] }
"#;

/// One random edit, which may or may not mean anything.
fn mutate(rng: &mut Rng, tree: &mut Value) {
    let routes = tree["routes"].as_array_mut().unwrap();
    let at = rng.usize(..routes.len());
    let pick = |rng: &mut Rng, values: &[Value]| values[rng.usize(..values.len())].clone();
    match rng.u8(..18) {
        0 => {
            let other = rng.usize(..routes.len());
            routes.swap(at, other);
        }
        1 if routes.len() > 2 => drop(routes.remove(at)),
        2 => routes.push(
            json!({ "name": format!("n{}", rng.u16(..)), "match": { "paths": "/n" }, "upstream": "a" }),
        ),
        3 => routes[at]["name"] = format!("r{}", rng.u16(..)).into(),
        4 => {
            routes[at]["match"]["paths"] = pick(
                rng,
                &[
                    json!("/api"),
                    json!(["/api"]),
                    json!(["/api", "/x"]),
                    json!([{ "prefix": "/api" }]),
                    json!([]),
                ],
            )
        }
        5 => {
            routes[at]["match"]["hosts"] =
                pick(rng, &[json!("a.test"), json!(["a.test"]), json!(["*.a.test"]), json!([])])
        }
        6 => {
            routes[at]["match"]["headers"] = pick(
                rng,
                &[
                    json!({ "x-a": "1" }),
                    json!({ "x-a": { "exact": "1" } }),
                    json!({}),
                    json!({ "x-c": { "present": false } }),
                ],
            )
        }
        7 => {
            routes[at]["match"]["methods"] =
                pick(rng, &[json!("GET"), json!(["GET"]), json!(["GET", "POST"])])
        }
        8 => routes[at]["match"]["query"] = pick(rng, &[json!({ "v": 1 }), json!({ "v": "1" }), json!({})]),
        9 if routes[at].get("upstream").is_some() => {
            routes[at]["upstream"] = pick(rng, &[json!("a"), json!("b")])
        }
        10 => {
            routes[at]["timeouts"] = pick(
                rng,
                &[json!({ "idle": "60s" }), json!({}), json!({ "attempt": "1s" }), json!({ "idle": "1m" })],
            )
        }
        11 => {
            routes[at]["plugins"] = pick(
                rng,
                &[
                    json!([]),
                    json!([{ "request_id": null }]),
                    json!([{ "request_id": {} }]),
                    json!([{ "headers": { "request": { "set": { "x": "1" } } } }]),
                ],
            )
        }
        12 => {
            routes[at]["match"]["listeners"] =
                pick(rng, &[json!([]), json!("web"), json!(["web"]), json!(["web", "other"])])
        }
        13 => {
            tree["upstreams"]["a"] = pick(
                rng,
                &[
                    json!({ "endpoints": ["a.test:80"] }),
                    json!({ "endpoints": ["a.test:80", "c.test:80"] }),
                    json!({ "endpoints": "a.test:80", "connect_timeout": "5s" }),
                    json!({ "endpoints": "a.test:80", "tls": {} }),
                ],
            )
        }
        14 => {
            tree["listeners"]["web"] = pick(
                rng,
                &[
                    json!({ "address": "127.0.0.1:80", "max_connections": 10000 }),
                    json!({ "address": "127.0.0.1:82" }),
                    json!({ "address": "127.0.0.1:80", "keepalive": { "idle_timeout": "60s" } }),
                ],
            )
        }
        15 => {
            tree["access_log"] =
                pick(rng, &[json!({}), json!({ "format": "json" }), json!({ "format": "none" })])
        }
        16 => {
            tree["server"] = pick(
                rng,
                &[
                    json!({ "threads": 2 }),
                    json!({ "threads": "2", "drain_timeout": "30s" }),
                    json!({ "threads": 3 }),
                ],
            )
        }
        _ => {
            tree["plugins"] =
                pick(rng, &[json!([]), json!([{ "request_id": {} }]), json!([{ "request_id": null }])])
        }
    }
}

#[test]
fn a_plan_lists_a_change_just_where_the_typed_configurations_differ_and_each_request_it_names_does_go_elsewhere()
 {
    let seed = std::env::var("VESTIBULE_SEED").ok().and_then(|seed| seed.parse().ok());
    let first: u64 = seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let (mut same, mut moved, mut overtaken) = (0, 0, 0);
    for seed in first..first + 300 {
        let mut rng = Rng::with_seed(seed);
        let mut tree: Value = serde_yaml::from_str(BASE).unwrap();
        let before = side(&tree.to_string());
        for _ in 0..rng.usize(1..4) {
            mutate(&mut rng, &mut tree);
        }
        let after = side(&tree.to_string());
        let context = format!("VESTIBULE_SEED={seed}\n{}", serde_yaml::to_string(&tree).unwrap());
        let plan = planned(&before.described, &after.described);
        let differ = before.loaded.config != after.loaded.config;
        let is_any = !plan.refused.is_empty()
            || !plan.listeners.is_empty()
            || !plan.upstreams.is_empty()
            || !plan.routes.is_empty()
            || !plan.settings.is_empty()
            || plan.notes.iter().any(|note| note.contains("another order"));
        assert_eq!((plan.changes, is_any), (differ, differ), "{context}\n{}", render(&plan));
        same += usize::from(!differ);
        for detour in &plan.requests.moved {
            let (was, is) = (went(&before, &detour.request), went(&after, &detour.request));
            assert_ne!(was, is, "{context}\n{}", detour.request);
            assert_eq!(
                (&detour.old.route, &detour.new.route),
                (&was.0, &is.0),
                "{context}\n{}",
                detour.request
            );
            moved += 1;
        }
        overtaken += plan.precedence.len();
        // The same is told of what runs, which holds no secret here.
        let of_running = planned(&told(&before.described), &after.described);
        assert_eq!(json!(plan), json!(of_running), "{context}");
    }
    assert!(same > 10 && moved > 100 && overtaken > 5, "{same} {moved} {overtaken}");
}

/// The route that the compiled table takes, and its definition but for the name.
fn went(side: &Side, spelled: &Spelled) -> (Option<String>, String) {
    let Spelled { method, url, headers, listener } = spelled;
    let (host, target) = url.split_once("://").unwrap().1.split_once('/').unwrap();
    let target = format!("/{target}");
    let (path, query) = target.split_once('?').map_or((&*target, None), |(path, query)| (path, Some(query)));
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let name = listener.as_deref().unwrap_or("web");
    let listener = side.snapshot.listeners.iter().find(|it| it.name == name).unwrap().id;
    let method: Method = method.parse().unwrap();
    let request = Request { host, path, query, method: &method, headers: &map, listener };
    let Some(found) = side.snapshot.table.find(&request) else { return (None, String::new()) };
    let route = crate::config::RouteConfig { name: None, ..side.loaded.config.routes[found.rule].clone() };
    (Some(side.snapshot.routes[found.rule].name.clone()), format!("{route:?}"))
}

#[test]
fn a_configuration_is_described_in_just_this_form() {
    let text = "version: 1\nlisteners: { web: { address: '127.0.0.1:80' } }\nupstreams: { a: { endpoints: 'a.test:443', tls: {} } }\n\
                plugins: [{ headers: { request: { set: { authorization: 'Bearer x7d1f' } } } }]\nroutes: [{ upstream: a }]\n";
    let described = side(text).described;
    let json = json!(described);
    let keys: Vec<_> = json.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["bodies", "certificates", "clients", "files", "hash", "policies", "tree"]);
    assert_eq!(json["tree"]["plugins"][0]["headers"]["request"]["set"]["authorization"], "<redacted>");
    assert_eq!(json["files"], json!(["gateway.yaml"]));
    assert_eq!(json["policies"]["a"].as_array().unwrap().len(), 1);
    assert!(!json.to_string().contains("7d1f") && !format!("{described:?}").contains("7d1f"));
    assert_eq!(json!(told(&described)), json);
}

#[test]
fn a_secret_that_changes_is_told_without_its_value_and_of_a_running_gateway_as_far_as_it_can_be() {
    let with = |secret: &str| {
        side(&format!(
            "version: 1\nlisteners: {{ web: {{ address: '127.0.0.1:80' }} }}\nroutes:\n- name: in\n  respond: {{}}\n  plugins: \
             [{{ headers: {{ request: {{ set: {{ authorization: 'Bearer {secret}' }} }} }} }}]\n"
        ))
        .described
    };
    let (old, new) = (with("one7d1f"), with("two7d1f"));
    let here = planned(&old, &new);
    let (text, json) = (render(&here), json!(here).to_string());
    assert!(
        here.changes && !text.contains("7d1f") && !json.contains("7d1f") && !json.contains("<redacted:"),
        "{text}{json}"
    );
    let key = "plugins[0].headers.request.set.authorization";
    assert_eq!((here.routes.len(), here.routes[0].keys[0].key.as_str()), (1, key));

    let there = planned(&told(&old), &new);
    assert!(!there.changes);
    let expected = "the files differ in values that are not told, comments, spelling, the order of keys, or what stands in \
                    a key or another file that they name";
    assert_eq!(there.notes, [expected]);
}

#[test]
fn a_description_of_another_version_is_refused_in_words() {
    let good = side("version: 1\nlisteners: { web: { address: '127.0.0.1:80' } }\n").described;
    let mut other = told(&good);
    other.tree["future"] = json!({});
    let refused = plan(&other, &good, Timestamp::UNIX_EPOCH).unwrap_err();
    assert!(refused.problem.starts_with("future: unknown key"), "{refused}");
}
