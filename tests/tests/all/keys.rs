//! Nothing that the file may say is without effect: each key of the schema has a case that is seen from outside.

mod auth;
mod clients;
mod file;
mod limits;
mod reload;
mod route;
mod tls;

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;
use vestibule_tests::gateway;

/// Two values of one key, or of several that go together, and what each brings about.
struct Flip {
    keys: &'static [&'static str],
    /// What is written, and what is seen then.
    sides: [(String, &'static str); 2],
}

fn flip(
    keys: &'static [&'static str],
    one: impl Into<String>,
    seen: &'static str,
    other: impl Into<String>,
    seen_then: &'static str,
) -> Flip {
    assert_ne!(seen, seen_then, "{keys:?}: no difference");
    Flip { keys, sides: [(one.into(), seen), (other.into(), seen_then)] }
}

#[test]
fn each_key_of_the_file_has_a_case_that_sees_it() {
    let output = Command::new(gateway::binary()).arg("schema").output().unwrap();
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut keys = BTreeSet::new();
    collect(&schema, &schema, "", &mut keys);
    assert!(keys.len() > 70, "the schema was not understood: {keys:?}");

    let mut cases: BTreeSet<String> = route::KEYS
        .iter()
        .chain(auth::KEYS)
        .chain(file::KEYS)
        .chain(clients::KEYS)
        .chain(limits::KEYS)
        .chain(reload::KEYS)
        .map(|key| key.to_string())
        .collect();
    for place in ["upstreams", "routes"] {
        cases.extend(tls::KEYS.iter().map(|key| format!("{place}.tls.{key}")));
    }
    let forgotten: Vec<_> = keys.difference(&cases).collect();
    assert!(forgotten.is_empty(), "keys without a case: {forgotten:#?}");
    let gone: Vec<_> = cases.difference(&keys).collect();
    assert!(gone.is_empty(), "cases of keys that are gone: {gone:#?}");
}

/// Every key that holds a value of its own, by its path. Lists and names do not show in it, and what stands under
/// `plugins` is the same for a route and for all of them.
fn collect(schema: &Value, node: &Value, path: &str, keys: &mut BTreeSet<String>) -> bool {
    if let Some(name) = node["$ref"].as_str() {
        return collect(schema, &schema["$defs"][name.trim_start_matches("#/$defs/")], path, keys);
    }
    let mut is_map = false;
    for key in ["anyOf", "oneOf"] {
        for form in node[key].as_array().into_iter().flatten() {
            is_map |= collect(schema, form, path, keys);
        }
    }
    for (name, value) in node["properties"].as_object().into_iter().flatten() {
        is_map = true;
        let path = match path {
            "" => name.clone(),
            "plugins" | "routes.plugins" => format!("plugins.{name}"),
            _ => format!("{path}.{name}"),
        };
        if !collect(schema, value, &path, keys) || name == "plugins" {
            keys.insert(path);
        }
    }
    for key in ["items", "additionalProperties"] {
        if node[key].is_object() {
            is_map |= collect(schema, &node[key], path, keys);
        }
    }
    is_map
}
