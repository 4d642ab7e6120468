//! Which keys of two pieces of a configuration differ in what they mean.
//!
//! Meaning is the typed value's: a difference between the trees counts where the typed value differs by it alone. So a
//! default that is written out, or one value in place of a list of one, is none.

use serde::Serialize;
use serde_json::{Map, Value};
use vestibule_plugins::{Path, Segment};

use crate::config::redact::unmarked;

/// A key whose value is another one now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeyChange {
    /// Its path, such as `match.paths` or `plugins[1].headers.request.set.x-a`; empty where the whole differs.
    pub key: String,
    /// Its value; absent where it did not stand there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    /// Likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<Value>,
}

/// The keys by which two trees differ, as `read` understands them. `None` is a piece that does not stand there.
pub fn changes<T: PartialEq>(
    old: Option<&Value>,
    new: Option<&Value>,
    read: &dyn Fn(Option<&Value>) -> Option<T>,
) -> Vec<KeyChange> {
    let before = read(old);
    if before.is_some() && before == read(new) {
        return Vec::new();
    }
    let mut walk = Walk { base: old, before, read, found: Vec::new() };
    walk.walk(&Path::root(), old, new);
    if walk.found.is_empty() {
        walk.note(&Path::root(), old, new);
    }
    walk.found
}

/// The value without its marks, as it may be told.
pub fn plain(value: &Value) -> Value {
    match value {
        Value::String(text) => unmarked(text).into(),
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), plain(value))).collect(),
        other => other.clone(),
    }
}

struct Walk<'a, T> {
    base: Option<&'a Value>,
    before: Option<T>,
    read: &'a dyn Fn(Option<&Value>) -> Option<T>,
    found: Vec<KeyChange>,
}

impl<T: PartialEq> Walk<'_, T> {
    fn walk(&mut self, at: &Path, old: Option<&Value>, new: Option<&Value>) {
        let empty = Map::new();
        match (old, new) {
            (old, new) if old == new => {}
            (Some(Value::Object(old)), Some(Value::Object(new))) => self.entries(at, old, new),
            // Where an absent map is the same as an empty one, its keys are told and not the map.
            (None, Some(Value::Object(new))) if self.may_be_empty(at) => self.entries(at, &empty, new),
            (Some(Value::Object(old)), None) if self.may_be_empty(at) => self.entries(at, old, &empty),
            (Some(Value::Array(old)), Some(Value::Array(new))) if old.len() == new.len() => {
                for (index, (old, new)) in old.iter().zip(new).enumerate() {
                    self.walk(&at.index(index), Some(old), Some(new));
                }
            }
            (_, new) if !self.matters(at, new) => {}
            (Some(Value::Array(old)), Some(Value::Array(new))) if holds_maps(old) || holds_maps(new) => {
                self.items(at, old, new);
            }
            (old, new) => self.note(at, old, new),
        }
    }

    fn entries(&mut self, at: &Path, old: &Map<String, Value>, new: &Map<String, Value>) {
        let added = new.keys().filter(|key| !old.contains_key(*key));
        for key in old.keys().chain(added) {
            self.walk(&at.key(key.as_str()), old.get(key), new.get(key));
        }
    }

    /// What went out of a list and what came into it; what stands before and behind is the same. Plugins of one name
    /// are compared with each other.
    fn items(&mut self, at: &Path, old: &[Value], new: &[Value]) {
        let begin = old.iter().zip(new).take_while(|(old, new)| old == new).count();
        let (old, new) = (&old[begin..], &new[begin..]);
        let end = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
        let (old, new) = (&old[..old.len() - end], &new[..new.len() - end]);
        let mut gone: Vec<(usize, &Value)> = old.iter().enumerate().collect();
        let mut come: Vec<(usize, &Value, Option<&Value>)> = Vec::new();
        for (index, item) in new.iter().enumerate() {
            let like =
                gone.iter().position(|(_, old)| only_key(old).is_some() && only_key(old) == only_key(item));
            come.push((index, item, like.map(|like| gone.remove(like).1)));
        }
        for (index, item) in gone {
            self.note(&at.index(begin + index), Some(item), None);
        }
        for (index, item, like) in come {
            self.inside(&at.index(begin + index), like, item);
        }
    }

    /// Each difference inside an item that has moved, so that its meaning cannot be asked for alone.
    fn inside(&mut self, at: &Path, old: Option<&Value>, new: &Value) {
        match (old, new) {
            (Some(old), new) if old == new => {}
            (Some(Value::Object(old)), Value::Object(new)) => {
                for (key, old) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
                    self.note(&at.key(key.as_str()), Some(old), None);
                }
                for (key, new) in new {
                    self.inside(&at.key(key.as_str()), old.get(key), new);
                }
            }
            (old, new) => self.note(at, old, Some(new)),
        }
    }

    fn note(&mut self, at: &Path, old: Option<&Value>, new: Option<&Value>) {
        self.found.push(KeyChange { key: at.to_string(), old: old.map(plain), new: new.map(plain) });
    }

    /// Whether the old piece with just this one value changed means something else.
    fn matters(&self, at: &Path, new: Option<&Value>) -> bool {
        // What cannot be read is not the same.
        let after = self.with(at, new);
        after.is_none() || after != self.before
    }

    fn may_be_empty(&self, at: &Path) -> bool {
        let (absent, empty) = (self.with(at, None), self.with(at, Some(&Value::Object(Map::new()))));
        absent.is_some() && absent == empty
    }

    fn with(&self, at: &Path, value: Option<&Value>) -> Option<T> {
        if at.0.is_empty() {
            return (self.read)(value);
        }
        let mut whole = self.base.cloned().unwrap_or_else(|| Value::Object(Map::new()));
        put(&mut whole, &at.0, value);
        (self.read)(Some(&whole))
    }
}

/// The name of a plugin.
fn only_key(item: &Value) -> Option<&String> {
    item.as_object().filter(|map| map.len() == 1)?.keys().next()
}

fn holds_maps(items: &[Value]) -> bool {
    items.iter().any(Value::is_object)
}

/// Puts a value at a path, or takes away what is there. Maps on the way are made where there are none.
fn put(whole: &mut Value, at: &[Segment], value: Option<&Value>) {
    let Some((first, rest)) = at.split_first() else {
        *whole = value.cloned().unwrap_or_default();
        return;
    };
    match (first, whole) {
        (Segment::Index(index), Value::Array(items)) => {
            if let Some(item) = items.get_mut(*index) {
                put(item, rest, value);
            }
        }
        (Segment::Key(key), whole) => {
            if !whole.is_object() {
                *whole = Value::Object(Map::new());
            }
            if let Value::Object(map) = whole {
                match (rest, value) {
                    ([], None) => drop(map.remove(key)),
                    _ => put(map.entry(key.as_str()).or_insert(Value::Null), rest, value),
                }
            }
        }
        (Segment::Index(_), _) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::json;

    use super::*;
    use crate::config::{ListenerConfig, RouteConfig, UpstreamConfig};
    use crate::plan::described::yaml;

    fn told<T: DeserializeOwned + PartialEq>(old: &str, new: &str) -> String {
        let value = |text: &str| serde_yaml::from_str::<Value>(text).unwrap();
        let read = |value: Option<&Value>| serde_yaml::from_value::<T>(yaml(value?)).ok();
        let (old, new) = (value(old), value(new));
        let found = changes(Some(&old), Some(&new), &read);
        let one = |value: &Option<Value>| value.as_ref().map_or("-".into(), Value::to_string);
        let lines: Vec<_> =
            found.iter().map(|it| format!("{}: {} > {}", it.key, one(&it.old), one(&it.new))).collect();
        lines.join("; ")
    }

    #[test]
    fn what_means_the_same_is_no_change_and_what_differs_is_told_by_its_key() {
        let route = told::<RouteConfig>;
        for (old, new, expected) in [
            ("{ match: { paths: /a } }", "{ match: { paths: [/a] } }", ""),
            ("{ match: { paths: /a } }", "{ match: { paths: [{ prefix: /a }], hosts: [] } }", ""),
            ("{ match: { query: { v: 2 } } }", "{ match: { query: { v: '2' } } }", ""),
            ("{ upstream: a, timeouts: { idle: 60s } }", "{ upstream: a }", ""),
            ("{ upstream: a, timeouts: { idle: 1m } }", "{ timeouts: { idle: 60s }, upstream: a }", ""),
            ("{ respond: { status: 200 } }", "{ respond: {} }", ""),
            ("{ plugins: [{ request_id: {} }] }", "{ plugins: [request_id: ] }", ""),
            (
                "{ match: { paths: /a } }",
                "{ match: { paths: [/a, /b] } }",
                r#"match.paths: "/a" > ["/a","/b"]"#,
            ),
            ("{ upstream: a }", "{ upstream: b }", r#"upstream: "a" > "b""#),
            (
                "{ upstream: a }",
                "{ upstream: a, timeouts: { idle: 60s, attempt: 2s } }",
                r#"timeouts.attempt: - > "2s""#,
            ),
            ("{ upstream: a }", "{ upstream: a, tls: {} }", "tls: - > {}"),
            (
                "{ upstream: a, tls: { verify: { name: a, depth: 1 } } }",
                "{ upstream: a, tls: { verify: { names: [a], depth: 2 } } }",
                r#"tls.verify.depth: 1 > 2; tls.verify.name: "a" > -; tls.verify.names: - > ["a"]"#,
            ),
            (
                "{ plugins: [{ request_id: {} }, { headers: { request: { set: { x-a: '1' } } } }] }",
                "{ plugins: [{ request_id: {} }, { headers: { request: { set: { x-a: '2' } } } }] }",
                r#"plugins[1].headers.request.set.x-a: "1" > "2""#,
            ),
            (
                "{ plugins: [{ request_id: {} }, { retry: {} }] }",
                "{ plugins: [{ request_id: {} }, { headers: {} }, { retry: {} }] }",
                r#"plugins[1]: - > {"headers":{}}"#,
            ),
            (
                "{ plugins: [{ headers: { request: { set: { x-a: '1', x-b: b } } } }] }",
                "{ plugins: [{ request_id: {} }, { headers: { request: { set: { x-a: '2', x-b: b } } } }] }",
                r#"plugins[0]: - > {"request_id":{}}; plugins[1].headers.request.set.x-a: "1" > "2""#,
            ),
        ] {
            assert_eq!(route(old, new), expected, "{old} {new}");
        }
        assert_eq!(
            told::<ListenerConfig>(
                "{ address: '127.0.0.1:80' }",
                "{ address: '127.0.0.1:80', max_connections: 10000, keepalive: { idle_timeout: 60s } }"
            ),
            ""
        );
        assert_eq!(
            told::<UpstreamConfig>("{ endpoints: 'a:1' }", "{ endpoints: [{ address: 'a:1', weight: 1 }] }"),
            ""
        );
        assert_eq!(
            told::<UpstreamConfig>("{ endpoints: 'a:1' }", "{ endpoints: [{ address: 'a:1', weight: 2 }] }"),
            r#"endpoints: "a:1" > [{"address":"a:1","weight":2}]"#
        );
    }

    #[test]
    fn marks_are_never_told() {
        assert_eq!(
            plain(&json!({ "a": ["x <redacted:0123456789abcdef>"] })),
            json!({ "a": ["x <redacted>"] })
        );
    }
}
