//! Changes of a configuration that leave it one that has to be refused.

use fastrand::Rng;

use super::change::{keys, one, routes};
use super::state::{CONFIG, State, Text, World, address, yaml};

/// The files with one thing wrong, and a part of what the refusal has to say; `None` where there is nothing to be broken so.
pub type Break = fn(&mut Rng, &World, &State) -> Option<(Text, String)>;

/// Every kind by its name.
pub const BREAKS: [(&str, Break); 14] = [
    ("a typo in a key", typo),
    ("a name of nothing", dangling),
    ("a bad value", bad_value),
    ("a truncated file", truncated),
    ("an empty file", |_, _, state| with(state, String::new(), "is empty")),
    ("a route's name given twice", name_twice),
    ("an address given twice", address_twice),
    ("a key of another certificate", wrong_key),
    ("a truncated certificate", damaged),
    ("a named file deleted", deleted),
    ("a port that is taken", port_taken),
    ("an address that covers one that is held", covering),
    ("the admin endpoint's port taken", admin_taken),
    ("the server's section changed", server_changed),
];

fn typo(rng: &mut Rng, _: &World, state: &State) -> Option<(Text, String)> {
    let keys =
        ["listeners:", "upstreams:", "routes:", "match:", "endpoints:", "address:", "upstream:", "paths:"];
    let text = rendered(state);
    let key = one(rng, &keys);
    let places: Vec<usize> = text.match_indices(&format!("{key}\n")).map(|(at, _)| at).collect();
    let places = if places.is_empty() { text.match_indices(key).map(|(at, _)| at).collect() } else { places };
    let at = one(rng, &places);
    let wrong = format!("{}{}:", &text[..at + key.len() - 2], one(rng, &["x", "_", "ss"]));
    with(state, wrong + &text[at + key.len()..], "")
}

fn dangling(rng: &mut Rng, _: &World, state: &State) -> Option<(Text, String)> {
    let mut state = state.clone();
    let route = match rng.u8(..3) {
        0 => "{ upstream: nobody }",
        1 => "{ split: [{ upstream: one }, { upstream: nobody }] }",
        _ => "{ match: { listeners: [nobody] }, upstream: one }",
    };
    let at = rng.usize(..=routes(&mut state).len());
    routes(&mut state).insert(at, yaml(route));
    with(&state, rendered(&state), "`nobody`")
}

fn bad_value(rng: &mut Rng, _: &World, state: &State) -> Option<(Text, String)> {
    let mut state = state.clone();
    let wrong = [
        "{ match: { paths: [{ regex: '(' }] }, upstream: one }",
        "{ match: { paths: [no-slash] }, upstream: one }",
        "{ respond: { status: 99 } }",
        "{ upstream: one, timeouts: { request: 5 parsecs } }",
        "{ upstream: one, redirect: { status: 301 } }",
        "{ upstream: one, plugins: [{ no_such_plugin: {} }] }",
        "{ upstream: one, plugins: [{ headers: { request: { set: { x: $nothing } } } }] }",
        "{ split: [{ upstream: one, weight: -1 }] }",
    ];
    routes(&mut state).push(yaml(one(rng, &wrong)));
    with(&state, rendered(&state), "routes[")
}

fn truncated(rng: &mut Rng, _: &World, state: &State) -> Option<(Text, String)> {
    let text = rendered(state);
    // In the middle of a word: what is cut between two entries is a good file.
    let word = one(
        rng,
        &["version:", "\nlisteners:", "\nupstreams:", "\nplugins:", "\nroutes:", "127.0.0.1:", "endpoints:"],
    );
    let places: Vec<usize> = text.match_indices(word).map(|(at, _)| at).collect();
    let end = one(rng, &places) + rng.usize(3..word.len() - 1);
    with(state, text[..end].to_owned(), "")
}

fn name_twice(_: &mut Rng, _: &World, state: &State) -> Option<(Text, String)> {
    let mut state = state.clone();
    routes(&mut state).push(yaml("{ name: pool, upstream: one }"));
    with(&state, rendered(&state), "is named `pool` already")
}

fn address_twice(rng: &mut Rng, _: &World, state: &State) -> Option<(Text, String)> {
    let mut state = state.clone();
    let names = keys(&state.config["listeners"]);
    let at = state.config["listeners"][one(rng, &names).as_str()]["address"].clone();
    state.config["listeners"]["another"] = yaml("{}");
    state.config["listeners"]["another"]["address"] = at;
    with(&state, rendered(&state), "already")
}

fn wrong_key(rng: &mut Rng, world: &World, state: &State) -> Option<(Text, String)> {
    let mut text = state.text();
    let (name, which) = one(rng, &[("a.key", 0), ("b.key", 1)]);
    let present = text.get(name)?;
    let other = world.shown[which].iter().find(|files| files.key != *present)?;
    text.insert(name.to_owned(), other.key.clone());
    Some((text, "the key does not belong to the first certificate of".to_owned()))
}

fn damaged(rng: &mut Rng, _: &World, state: &State) -> Option<(Text, String)> {
    let mut text = state.text();
    let name = one(rng, &["a.crt", "b.crt", "up.crt", "clients.crt"]);
    let bytes = text.get_mut(name)?;
    // In the first one: what is cut off between two is a good file.
    let end = String::from_utf8_lossy(bytes).find("-----END").unwrap();
    bytes.truncate(rng.usize(..end));
    Some((text, name.to_owned()))
}

fn deleted(rng: &mut Rng, _: &World, state: &State) -> Option<(Text, String)> {
    let mut text = state.text();
    let named: Vec<String> = text.keys().filter(|name| *name != CONFIG).cloned().collect();
    let name = one(rng, &named);
    text.remove(&name);
    Some((text, format!("`{name}` cannot be read")))
}

fn port_taken(rng: &mut Rng, world: &World, state: &State) -> Option<(Text, String)> {
    let mut state = state.clone();
    let taken = address(world.taken);
    match rng.bool() {
        true => state.config["listeners"]["another"] = yaml(&format!("{{ address: \"{taken}\" }}")),
        false => {
            let names = keys(&state.config["listeners"]);
            state.config["listeners"][one(rng, &names).as_str()]["address"] = taken.into();
        }
    }
    // Whatever else changes has to wait with it.
    routes(&mut state).insert(0, yaml("{ match: { paths: [/api] }, respond: { body: half } }"));
    routes(&mut state).retain(|route| route.get("name").is_none_or(|name| name != "page"));
    with(&state, rendered(&state), "cannot listen on")
}

fn covering(rng: &mut Rng, _: &World, state: &State) -> Option<(Text, String)> {
    let mut state = state.clone();
    let names = keys(&state.config["listeners"]);
    let at = &mut state.config["listeners"][one(rng, &names).as_str()]["address"];
    *at = at.as_str().unwrap().replace("127.0.0.1", "0.0.0.0").into();
    with(&state, rendered(&state), "cannot listen on 0.0.0.0")
}

fn admin_taken(_: &mut Rng, world: &World, state: &State) -> Option<(Text, String)> {
    let mut state = state.clone();
    state.config["admin"] = yaml(&format!("{{ address: \"{}\" }}", address(world.taken)));
    // New sockets are let go of again.
    let unused: Vec<u16> = world.ports.listeners().to_vec();
    let config = rendered(&state);
    if let Some(port) = unused.iter().find(|port| !config.contains(&address(**port))) {
        state.config["listeners"]["another"] = yaml(&format!("{{ address: \"{}\" }}", address(*port)));
    }
    with(&state, rendered(&state), "the admin endpoint cannot listen on")
}

fn server_changed(rng: &mut Rng, _: &World, state: &State) -> Option<(Text, String)> {
    let mut state = state.clone();
    state.config["server"] = yaml(one(
        rng,
        &["{ threads: 2 }", "{ threads: 1, drain_timeout: 7s }", "{ threads: 1, upstream_pool_size: 9 }"],
    ));
    routes(&mut state).insert(0, yaml("{ match: { paths: [/] }, respond: { body: half } }"));
    with(&state, rendered(&state), "is read at start only")
}

fn rendered(state: &State) -> String {
    String::from_utf8(state.text().remove(CONFIG).unwrap()).unwrap()
}

/// The files that the state names, and this one as the configuration's own.
fn with(state: &State, config: String, told: &str) -> Option<(Text, String)> {
    let mut text = state.text();
    text.insert(CONFIG.to_owned(), config.into_bytes());
    Some((text, told.to_owned()))
}
