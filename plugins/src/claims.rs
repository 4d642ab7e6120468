//! Finds a claim of a verified token by the name that the file has for it, and says it as text.
//!
//! Whether a token is to be believed is not known here.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// The claim of this name; a dot leads into a claim that is a map, as in `realm_access.roles`. A claim whose own name has
/// dots, as that of a URL, is found by it.
pub fn find<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    name.match_indices('.').find_map(|(dot, _)| match claims.get(&name[..dot])? {
        Value::Object(inner) => find(inner, &name[dot + 1..]),
        _ => None,
    })
}

/// The claim as text: a list as its items, joined with commas. `None` for what has no text: a map, a list with one in it,
/// or nothing.
pub fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(text.into()),
        Value::Bool(truth) => Some(truth.to_string().into()),
        Value::Number(number) => Some(number.to_string().into()),
        Value::Array(_) => Some(texts(value)?.join(",").into()),
        Value::Object(_) | Value::Null => None,
    }
}

/// The claim as a list of texts: what is not a list is a list of one.
pub fn texts(value: &Value) -> Option<Vec<Cow<'_, str>>> {
    match value {
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::Array(_) => None,
                item => text(item),
            })
            .collect(),
        value => text(value).map(|text| vec![text]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims() -> Map<String, Value> {
        let Value::Object(claims) = json!({
            "sub": "alice", "n": 7, "ok": true, "none": null, "groups": ["a", 1, false], "deep": [["a"]],
            "realm_access": { "roles": ["dev", "ops"], "a.b": { "c": "d" } }, "https://a.test/roles": "own",
        }) else {
            panic!()
        };
        claims
    }

    #[test]
    fn a_claim_is_found_by_its_name_or_by_the_way_to_it() {
        let claims = claims();
        for (name, expected) in [
            ("sub", Some("alice")),
            ("n", Some("7")),
            ("ok", Some("true")),
            ("groups", Some("a,1,false")),
            ("realm_access.roles", Some("dev,ops")),
            ("realm_access.a.b.c", Some("d")),
            ("https://a.test/roles", Some("own")),
            ("realm_access", None),
            ("realm_access.absent", None),
            ("sub.x", None),
            ("none", None),
            ("deep", None),
            ("", None),
        ] {
            let found = find(&claims, name).and_then(text);
            assert_eq!(found.as_deref(), expected, "{name}");
        }
    }
}
