//! Changes of a configuration that leave it a good one.

use fastrand::Rng;
use serde_yaml::{Mapping, Value};

use super::random;
use super::state::{State, World, address, put, yaml};

/// Makes one change; false where there is nothing to be changed so.
pub type Change = fn(&mut Rng, &World, &mut State) -> bool;

/// Every kind by its name.
pub const CHANGES: [(&str, Change); 25] = [
    ("route added", route_added),
    ("route removed", route_removed),
    ("routes reordered", routes_reordered),
    ("route renamed", route_renamed),
    ("match changed", match_changed),
    ("action changed", action_changed),
    ("plugins changed", plugins_changed),
    ("timeouts changed", timeouts_changed),
    ("upstream added", upstream_added),
    ("upstream removed", upstream_removed),
    ("upstream renamed", upstream_renamed),
    ("upstream's address changed", address_changed),
    ("upstream's TLS changed", upstream_tls_changed),
    ("endpoints changed", endpoints_changed),
    ("authority replaced", authority_replaced),
    ("client certificate replaced", own_replaced),
    ("listener added", listener_added),
    ("listener removed", listener_removed),
    ("listener renamed", listener_renamed),
    ("listener moved", listener_moved),
    ("listener changed", listener_changed),
    ("listeners swapped", listeners_swapped),
    ("certificate replaced", certificate_replaced),
    ("page changed", page_changed),
    ("common plugins changed", common_changed),
];

/// Those of the admin endpoint and of what serves nobody: rarer than the others.
pub const RARE: [(&str, Change); 3] =
    [("admin changed", admin_changed), ("comment changed", comment_changed), WATCH];

/// Whether the files are watched.
pub const WATCH: (&str, Change) = ("watch changed", watch_changed);

/// Routes that the table of requests asks for by name: they stay, though their keys change.
const LASTING: [&str; 4] = ["slow", "pool", "tls", "mtls"];

fn route_added(rng: &mut Rng, _: &World, state: &mut State) -> bool {
    if routes(state).len() > 14 {
        return false;
    }
    let route = random::route(rng, state);
    let at = rng.usize(..=routes(state).len());
    routes(state).insert(at, route);
    true
}

fn route_removed(rng: &mut Rng, _: &World, state: &mut State) -> bool {
    let Some(at) = other_route(rng, state).filter(|_| routes(state).len() > 7) else { return false };
    routes(state).remove(at);
    true
}

fn routes_reordered(rng: &mut Rng, _: &World, state: &mut State) -> bool {
    let count = routes(state).len();
    let (from, to) = (rng.usize(..count), rng.usize(..count));
    let route = routes(state).remove(from);
    routes(state).insert(to, route);
    from != to
}

fn route_renamed(rng: &mut Rng, _: &World, state: &mut State) -> bool {
    let Some(at) = other_route(rng, state) else { return false };
    let name = fresh(state, "route");
    let route = map(&mut routes(state)[at]);
    match route.contains_key("name") && rng.u8(..3) == 0 {
        true => drop(route.shift_remove("name")),
        false => drop(route.insert("name".into(), name.into())),
    }
    true
}

fn match_changed(rng: &mut Rng, _: &World, state: &mut State) -> bool {
    let Some(at) = other_route(rng, state) else { return false };
    let matched = random::matched(rng, state);
    routes(state)[at]["match"] = matched;
    true
}

fn action_changed(rng: &mut Rng, _: &World, state: &mut State) -> bool {
    let Some(at) = other_route(rng, state) else { return false };
    let action = random::action(rng, state);
    let route = map(&mut routes(state)[at]);
    for key in ["upstream", "split", "respond", "redirect", "plugins"] {
        route.shift_remove(key);
    }
    route.extend(action);
    true
}

fn plugins_changed(rng: &mut Rng, _: &World, state: &mut State) -> bool {
    let targets: Vec<usize> = (0..routes(state).len())
        .filter(|at| {
            routes(state)[*at].get("upstream").is_some() || routes(state)[*at].get("split").is_some()
        })
        .collect();
    let at = one(rng, &targets);
    let is_pool = routes(state)[at].get("name").is_some_and(|name| name == "pool");
    let plugins = if is_pool { random::retries(rng) } else { random::plugins(rng) };
    routes(state)[at]["plugins"] = plugins;
    true
}

fn timeouts_changed(rng: &mut Rng, _: &World, state: &mut State) -> bool {
    let slow = routes(state).iter_mut().find(|route| route.get("name").is_some_and(|it| it == "slow"));
    let slow = slow.unwrap();
    let present = &slow["timeouts"];
    // Most of the time it is cut off: an answer is waited for.
    let next = match present.get("idle").is_some() || present.get("attempt").is_some() {
        true => one(rng, &["{ request: 30ms }", "{ attempt: 31ms }"]),
        false => one(rng, &["{ idle: 5s }", "{ attempt: 30ms, idle: 9s }"]),
    };
    slow["timeouts"] = yaml(next);
    true
}

fn upstream_added(rng: &mut Rng, world: &World, state: &mut State) -> bool {
    let name = fresh(state, "upstream");
    let endpoint = address(one(rng, &world.plain));
    let host = one(rng, &["preserve", "endpoint", "up.$host"]);
    let upstream = yaml(&format!("{{ endpoints: [\"{endpoint}\"], host: \"{host}\" }}"));
    map(&mut state.config["upstreams"]).insert(name.as_str().into(), upstream);
    let mut route = random::route(rng, state);
    for key in ["split", "respond", "redirect"] {
        map(&mut route).shift_remove(key);
    }
    route["upstream"] = name.into();
    routes(state).insert(0, route);
    true
}

fn upstream_removed(rng: &mut Rng, _: &World, state: &mut State) -> bool {
    let Some(name) = added_upstream(rng, state) else { return false };
    map(&mut state.config["upstreams"]).shift_remove(name.as_str());
    replace(&mut state.config, &name, "one");
    true
}

fn upstream_renamed(rng: &mut Rng, _: &World, state: &mut State) -> bool {
    let Some(name) = added_upstream(rng, state) else { return false };
    let next = fresh(state, "upstream");
    let upstream = map(&mut state.config["upstreams"]).shift_remove(name.as_str()).unwrap();
    map(&mut state.config["upstreams"]).insert(next.as_str().into(), upstream);
    replace(&mut state.config, &name, &next);
    true
}

fn address_changed(rng: &mut Rng, world: &World, state: &mut State) -> bool {
    let names: Vec<String> = keys(&state.config["upstreams"]);
    let names: Vec<&String> = names.iter().filter(|name| *name == "one" || name.starts_with("up")).collect();
    let name = one(rng, &names);
    let [first, second] = world.plain;
    let endpoint = address(one(rng, &[first, second, first, second, world.closed]));
    state.config["upstreams"][name.as_str()]["endpoints"] = yaml(&format!("[\"{endpoint}\"]"));
    true
}

fn upstream_tls_changed(rng: &mut Rng, _: &World, state: &mut State) -> bool {
    // What is verified, what is asked for and what is shown: most of it fails at one of the two origins.
    const KEYS: [&str; 8] = [
        "verify: { ca: up.crt }",
        "verify: { ca: up.crt, name: other.test }",
        "verify: { ca: up.crt, names: [other.test, up.test] }, sni: other.test",
        "verify: false",
        "verify: { ca: clients.crt }",
        "verify: { ca: up.crt }, max_version: \"1.2\"",
        "verify: { ca: up.crt, name: up.test }, sni: another.test",
        "verify: { ca: up.crt }, sni: $host",
    ];
    let shown = one(rng, &["", ", client_certificate: { cert: own.crt, key: own.key }"]);
    let tls = yaml(&format!("{{ {}{shown} }}", one(rng, &KEYS)));
    let name = one(rng, &["tls", "mtls"]);
    match rng.bool() {
        true => state.config["upstreams"][name]["tls"] = tls,
        // A route's own keys over it.
        false => {
            let route = routes(state).iter_mut().find(|route| route.get("name").is_some_and(|it| it == name));
            route.unwrap()["tls"] = tls;
        }
    }
    true
}

fn endpoints_changed(rng: &mut Rng, world: &World, state: &mut State) -> bool {
    let [first, second] = world.plain.map(address);
    let closed = address(world.closed);
    // The sum of the weights divides the number of requests that the table makes.
    let endpoints = match rng.u8(..6) {
        0 => format!("[\"{first}\"]"),
        1 => format!("[\"{first}\", \"{second}\"]"),
        2 => format!("[{{ address: \"{first}\", weight: 3 }}, \"{second}\"]"),
        3 => format!("[\"{first}\", {{ address: \"{second}\", weight: 2 }}]"),
        4 => format!("[\"{second}\", \"{closed}\"]"),
        _ => format!("[\"{second}\", \"{closed}\", {{ address: \"{first}\", weight: 2 }}]"),
    };
    state.config["upstreams"]["pool"]["endpoints"] = yaml(&endpoints);
    true
}

fn authority_replaced(rng: &mut Rng, world: &World, state: &mut State) -> bool {
    let [ours, stranger] = &world.authorities;
    let (name, bytes) = match rng.u8(..4) {
        0 => ("up.crt", stranger.clone()),
        1 => ("up.crt", [ours.clone(), stranger.clone()].concat()),
        2 => ("up.crt", ours.clone()),
        _ => ("clients.crt", one(rng, &[&world.clients, stranger]).clone()),
    };
    state.named.insert(name.to_owned(), bytes);
    true
}

fn own_replaced(rng: &mut Rng, world: &World, state: &mut State) -> bool {
    put(&mut state.named, "own", &world.own[rng.usize(..2)]);
    true
}

fn listener_added(rng: &mut Rng, world: &World, state: &mut State) -> bool {
    let Some(port) = unused(rng, world.ports.listeners(), state) else { return false };
    let name = fresh(state, "listener");
    let mut listener = yaml(&format!("{{ address: \"{}\" }}", address(port)));
    map(&mut listener).extend(random::spoken(rng));
    map(&mut state.config["listeners"]).insert(name.into(), listener);
    true
}

fn listener_removed(rng: &mut Rng, _: &World, state: &mut State) -> bool {
    let names = keys(&state.config["listeners"]);
    if names.len() < 3 {
        return false;
    }
    map(&mut state.config["listeners"]).shift_remove(one(rng, &names).as_str());
    true
}

fn listener_renamed(rng: &mut Rng, _: &World, state: &mut State) -> bool {
    let names = keys(&state.config["listeners"]);
    let name = one(rng, &names.iter().collect::<Vec<_>>());
    let next = fresh(state, "listener");
    let listener = map(&mut state.config["listeners"]).shift_remove(name.as_str()).unwrap();
    map(&mut state.config["listeners"]).insert(next.as_str().into(), listener);
    for route in routes(state) {
        if let Some(listeners) = route.get_mut("match").and_then(|it| it.get_mut("listeners")) {
            replace(listeners, name, &next);
        }
    }
    true
}

fn listener_moved(rng: &mut Rng, world: &World, state: &mut State) -> bool {
    let Some(port) = unused(rng, world.ports.listeners(), state) else { return false };
    let names = keys(&state.config["listeners"]);
    let name = &names[rng.usize(..names.len())];
    state.config["listeners"][name.as_str()]["address"] = address(port).into();
    true
}

fn listener_changed(rng: &mut Rng, _: &World, state: &mut State) -> bool {
    let names = keys(&state.config["listeners"]);
    let listener = &mut state.config["listeners"][names[rng.usize(..names.len())].as_str()];
    let at = listener["address"].clone();
    let mut next = Mapping::from_iter([("address".into(), at)]);
    next.extend(random::spoken(rng));
    *listener = Value::Mapping(next);
    true
}

fn listeners_swapped(rng: &mut Rng, _: &World, state: &mut State) -> bool {
    let names = keys(&state.config["listeners"]);
    let listeners = &mut state.config["listeners"];
    let (one, other) = (rng.usize(..names.len()), rng.usize(..names.len()));
    let [one, other] = [&names[one], &names[other]].map(|name| name.as_str());
    let (first, second) = (listeners[one]["address"].clone(), listeners[other]["address"].clone());
    listeners[one]["address"] = second;
    listeners[other]["address"] = first;
    one != other
}

fn certificate_replaced(rng: &mut Rng, world: &World, state: &mut State) -> bool {
    let which = rng.usize(..2);
    put(&mut state.named, ["a", "b"][which], &world.shown[which][rng.usize(..2)]);
    true
}

fn page_changed(rng: &mut Rng, _: &World, state: &mut State) -> bool {
    state.named.insert("page.html".to_owned(), format!("<p>{}</p>\n", rng.u32(..)).into());
    true
}

fn common_changed(rng: &mut Rng, _: &World, state: &mut State) -> bool {
    const ALL: [&str; 4] = [
        "request_id: {}",
        "headers: { request: { set: { x-common: '$method at $listener' } } }",
        "headers: { response: { set: { x-common: $path }, remove: [server] } }",
        "headers: { request: { remove: [x-tenant] }, response: { add: { vary: x-tenant } } }",
    ];
    let plugins = state.config["plugins"].as_sequence_mut().unwrap();
    // The first one tells which route answered.
    plugins.truncate(1);
    plugins.extend((0..rng.usize(..3)).map(|_| yaml(&format!("{{ {} }}", one(rng, &ALL)))));
    true
}

fn admin_changed(rng: &mut Rng, world: &World, state: &mut State) -> bool {
    let Some(port) = unused(rng, world.ports.admins(), state) else { return false };
    let present = state.config.get("admin").cloned();
    let admin = match (present, rng.u8(..4)) {
        (Some(_), 0) => {
            map(&mut state.config).shift_remove("admin");
            return true;
        }
        (Some(mut admin), 1) => {
            admin["address"] = address(port).into();
            admin
        }
        (Some(mut admin), 2) if admin.get("token_file").is_some() => {
            map(&mut admin).shift_remove("token_file");
            admin
        }
        (Some(admin), _) if admin.get("token_file").is_some() => {
            state.named.insert("token".to_owned(), format!("token-{}\n", rng.u32(..)).into());
            admin
        }
        (Some(mut admin), _) => {
            admin["token_file"] = "token".into();
            admin
        }
        (None, _) => yaml(&format!("{{ address: \"{}\" }}", address(port))),
    };
    map(&mut state.config).insert("admin".into(), admin);
    true
}

/// The hash is another one, and nothing else: for the rest, what the gateway does stays.
fn comment_changed(rng: &mut Rng, _: &World, state: &mut State) -> bool {
    state.comment = format!("# {}\n", rng.u32(..));
    true
}

fn watch_changed(_: &mut Rng, _: &World, state: &mut State) -> bool {
    state.config["reload"]["watch"] = (!state.is_watched()).into();
    true
}

/// Lets routes name listeners of HTTP alone, as they must; false where there is none left.
pub fn tidy(state: &mut State) -> bool {
    let names = http_listeners(state);
    let Some(first) = names.first() else { return false };
    for route in routes(state) {
        if let Some(listeners) = route.get_mut("match").and_then(|it| it.get_mut("listeners")) {
            let is_legal = |listener: &Value| names.iter().any(|name| listener == name.as_str());
            if !listeners.as_sequence().unwrap().iter().all(is_legal) {
                *listeners = Value::Sequence(vec![first.as_str().into()]);
            }
        }
    }
    true
}

/// A route that may go.
fn other_route(rng: &mut Rng, state: &mut State) -> Option<usize> {
    let others: Vec<usize> = (0..routes(state).len())
        .filter(|at| {
            let name = routes(state)[*at].get("name").and_then(Value::as_str);
            !name.is_some_and(|name| LASTING.contains(&name))
        })
        .collect();
    (!others.is_empty()).then(|| one(rng, &others))
}

fn added_upstream(rng: &mut Rng, state: &State) -> Option<String> {
    let names = keys(&state.config["upstreams"]);
    let names: Vec<_> = names.into_iter().filter(|name| name.starts_with("upstream")).collect();
    (!names.is_empty()).then(|| names[rng.usize(..names.len())].clone())
}

/// A port that no address of the configuration has.
fn unused(rng: &mut Rng, among: &[u16], state: &State) -> Option<u16> {
    let config = serde_yaml::to_string(&state.config).unwrap();
    let unused: Vec<u16> = among.iter().copied().filter(|port| !config.contains(&address(*port))).collect();
    (!unused.is_empty()).then(|| one(rng, &unused))
}

/// A name that nothing has had.
pub fn fresh(state: &mut State, what: &str) -> String {
    state.added += 1;
    format!("{what}-{}", state.added)
}

/// Wherever this text stands as a whole value, another one.
fn replace(value: &mut Value, from: &str, to: &str) {
    match value {
        Value::String(text) if text == from => *text = to.to_owned(),
        Value::Sequence(items) => items.iter_mut().for_each(|item| replace(item, from, to)),
        Value::Mapping(entries) => entries.iter_mut().for_each(|(_, item)| replace(item, from, to)),
        _ => {}
    }
}

/// The names of a map.
pub fn keys(value: &Value) -> Vec<String> {
    value.as_mapping().unwrap().keys().map(|key| key.as_str().unwrap().to_owned()).collect()
}

/// The names of the listeners that routes apply to.
pub fn http_listeners(state: &State) -> Vec<String> {
    let mut names = keys(&state.config["listeners"]);
    names.retain(|name| state.config["listeners"][name.as_str()].get("tcp").is_none());
    names
}

/// The list of routes.
pub fn routes(state: &mut State) -> &mut Vec<Value> {
    state.config["routes"].as_sequence_mut().unwrap()
}

/// As the map that it is.
pub fn map(value: &mut Value) -> &mut Mapping {
    value.as_mapping_mut().unwrap()
}

/// One of these.
pub fn one<T: Clone>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())].clone()
}
