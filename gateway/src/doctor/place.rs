//! Where in the file a key would be changed: in the block at fault, else for all routes of the upstream, else for these.

use serde_yaml::{Mapping, Value};
use vestibule_plugins::{Path, Segment};

use super::target::{Subject, upstreams_of};
use crate::config::{Config, TlsConfig, TrustConfig, VerifyConfig};

/// A change of the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// The value stands there from now on.
    Set(Path, Value),
    /// Nothing does.
    Remove(Path),
}

/// The blocks that speak of an endpoint.
pub struct Places<'a> {
    config: &'a Config,
    subject: &'a Subject,
    written: usize,
    scope: Scope,
}

/// Whom a change may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Whoever shares the block at fault.
    Shared,
    /// Just the routes that fail: for where a change of the upstream's own block would break others.
    Routes,
}

impl<'a> Places<'a> {
    /// `written` is how many routes stand in the file itself.
    pub fn new(config: &'a Config, subject: &'a Subject, written: usize, scope: Scope) -> Self {
        Self { config, subject, written, scope }
    }

    /// The upstream.
    pub fn upstream(&self) -> Path {
        Path::root().key("upstreams").key(&self.subject.upstream)
    }

    /// The blocks of this upstream that hold a key: the routes' where any does, else the upstream's.
    pub fn holding(&self, has: impl Fn(&TlsConfig) -> bool) -> Vec<Path> {
        let routes = self.subject.routes.iter().filter(|index| {
            self.config.routes.get(**index).and_then(|route| route.tls.as_ref()).is_some_and(&has)
        });
        let routes: Vec<Path> = routes.map(|index| route_tls(*index)).collect();
        if !routes.is_empty() || self.scope == Scope::Routes {
            return routes;
        }
        let base = self.config.upstreams.get(&self.subject.upstream).and_then(|it| it.tls.as_ref());
        base.filter(|tls| has(tls)).map(|_| self.upstream().key("tls")).into_iter().collect()
    }

    /// The same for a key below `verify`.
    pub fn trusting(&self, has: impl Fn(&TrustConfig) -> bool) -> Vec<Path> {
        self.holding(|tls| matches!(&tls.verify, Some(VerifyConfig::On(trust)) if has(trust)))
    }

    /// The blocks that a key goes into which none of them holds.
    pub fn default(&self) -> Vec<Path> {
        let mut others = self.config.routes.iter().take(self.written).enumerate().filter(|(index, route)| {
            upstreams_of(route).any(|name| name == self.subject.upstream)
                && !self.subject.routes.contains(index)
        });
        match others.next() {
            _ if self.scope == Scope::Routes => {
                self.subject.routes.iter().map(|index| route_tls(*index)).collect()
            }
            Some(_) if !self.subject.routes.is_empty() => {
                self.subject.routes.iter().map(|index| route_tls(*index)).collect()
            }
            _ => vec![self.upstream().key("tls")],
        }
    }

    /// Sets a key where it stands, or where it would best.
    pub fn set(&self, key: &str, value: impl Into<Value>, has: impl Fn(&TlsConfig) -> bool) -> Vec<Edit> {
        let value = value.into();
        let blocks = self.holding(has);
        let blocks = if blocks.is_empty() { self.default() } else { blocks };
        blocks.into_iter().map(|block| Edit::Set(block.key(key), value.clone())).collect()
    }

    /// The same for a key below `verify`.
    pub fn set_trust(
        &self,
        key: &str,
        value: impl Into<Value>,
        has: impl Fn(&TrustConfig) -> bool,
    ) -> Vec<Edit> {
        let value = value.into();
        // What turns verification off is what is to hold its keys instead.
        let off = |tls: &TlsConfig| matches!(tls.verify, Some(VerifyConfig::Off));
        let blocks = [self.trusting(has), self.holding(off), self.default()];
        let blocks = blocks.into_iter().find(|blocks| !blocks.is_empty()).unwrap_or_default();
        blocks.into_iter().map(|block| Edit::Set(block.key("verify").key(key), value.clone())).collect()
    }

    /// Removes a key wherever it stands.
    pub fn remove(&self, key: &str, has: impl Fn(&TlsConfig) -> bool) -> Vec<Edit> {
        self.holding(has).into_iter().map(|block| Edit::Remove(block.key(key))).collect()
    }

    /// The same for a key below `verify`.
    pub fn remove_trust(&self, key: &str, has: impl Fn(&TrustConfig) -> bool) -> Vec<Edit> {
        self.trusting(has).into_iter().map(|block| Edit::Remove(block.key("verify").key(key))).collect()
    }

    /// Turns verification on where it is off.
    pub fn verify(&self) -> Vec<Edit> {
        let off = |tls: &TlsConfig| matches!(tls.verify, Some(VerifyConfig::Off));
        let blocks = self.holding(off).into_iter();
        blocks.map(|block| Edit::Set(block.key("verify"), Mapping::new().into())).collect()
    }

    /// Removes every `tls` block that speaks of this upstream: a route's cannot stand without its upstream's.
    pub fn remove_tls(&self) -> Vec<Edit> {
        let routes = self.config.routes.iter().take(self.written).enumerate().filter(|(_, route)| {
            route.tls.is_some() && upstreams_of(route).any(|name| name == self.subject.upstream)
        });
        let routes = routes.map(|(index, _)| Edit::Remove(route_tls(index)));
        std::iter::once(Edit::Remove(self.upstream().key("tls"))).chain(routes).collect()
    }
}

fn route_tls(index: usize) -> Path {
    Path::root().key("routes").index(index).key("tls")
}

/// One edit for each place: of several of the same place the last, and what goes into a value that is itself set goes
/// into it at once.
pub fn joined(edits: &[Edit]) -> Vec<Edit> {
    let mut joined: Vec<Edit> = Vec::new();
    for edit in edits {
        let path = edit.path();
        let holder = joined.iter_mut().find_map(|known| match known {
            Edit::Set(at, Value::Mapping(map)) if *at != *path && at.leads_to(path) => {
                Some((at.clone(), map))
            }
            _ => None,
        });
        if let Some((at, map)) = holder {
            let rest: Vec<String> = path.0.iter().skip(at.0.len()).filter_map(key_of).collect();
            put(map, &rest, edit);
            continue;
        }
        joined.retain(|known| known.path() != path);
        joined.push(edit.clone());
    }
    joined
}

fn put(map: &mut Mapping, keys: &[String], edit: &Edit) {
    match (keys, edit) {
        ([key], Edit::Set(_, value)) => {
            map.insert(key.as_str().into(), value.clone());
        }
        ([key], Edit::Remove(_)) => {
            map.remove(key.as_str());
        }
        ([key, rest @ ..], _) => {
            let inner = map.entry(key.as_str().into()).or_insert_with(|| Value::Mapping(Mapping::new()));
            if let Value::Mapping(inner) = inner {
                put(inner, rest, edit);
            }
        }
        ([], _) => {}
    }
}

fn key_of(segment: &Segment) -> Option<String> {
    match segment {
        Segment::Key(key) => Some(key.clone()),
        Segment::Index(_) => None,
    }
}

impl Edit {
    /// Where.
    pub fn path(&self) -> &Path {
        match self {
            Self::Set(path, _) | Self::Remove(path) => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(path: &[&str], value: impl Into<Value>) -> Edit {
        Edit::Set(path.iter().fold(Path::root(), |path, key| path.key(*key)), value.into())
    }

    #[test]
    fn what_goes_into_a_block_that_is_set_goes_into_it_at_once() {
        let edits = [
            set(&["tls"], Mapping::new()),
            set(&["tls", "verify", "ca"], "a.crt"),
            set(&["tls", "verify", "ca"], "b.crt"),
            set(&["host"], "a.test"),
            set(&["host"], "b.test"),
        ];
        let expected: Value = serde_yaml::from_str("verify: { ca: b.crt }").unwrap();
        assert_eq!(joined(&edits), [set(&["tls"], expected), set(&["host"], "b.test")]);
    }
}
