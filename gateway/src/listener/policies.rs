//! Which client certificates a listener asks for, by the name that its clients ask for. Pure: the handshake is in `tls`,
//! and what a request for another name comes to in `proxy::misdirected`.

use std::collections::HashMap;

use super::terms::ClientTerms;
use crate::route::{HostPattern, comparable};

/// One of them serves each connection: that of the name that the client sent as SNI, or else the default.
#[derive(Debug)]
pub struct Policies {
    /// The default first.
    all: Vec<Policy>,
    exact: HashMap<String, usize>,
    /// By `.example.com`.
    suffixes: HashMap<String, usize>,
}

/// What is asked of clients that come by certain names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Those names; `None` is the default, for all others and for none at all.
    pub names: Option<HostPattern>,
    /// Which client certificates are accepted; `None` asks for none.
    pub clients: Option<ClientTerms>,
}

impl Policies {
    /// The default and those by name, of which no two have the same.
    pub fn new(default: Option<ClientTerms>, by_name: Vec<(HostPattern, Option<ClientTerms>)>) -> Self {
        let mut policies = Self {
            all: vec![Policy { names: None, clients: default }],
            exact: HashMap::new(),
            suffixes: HashMap::new(),
        };
        for (names, clients) in by_name {
            let index = match &names {
                HostPattern::Exact(name) => policies.exact.entry(name.clone()),
                HostPattern::Suffix(suffix) => policies.suffixes.entry(suffix.clone()),
            };
            index.or_insert(policies.all.len());
            policies.all.push(Policy { names: Some(names), clients });
        }
        policies
    }

    /// All of them, the default first.
    pub fn all(&self) -> &[Policy] {
        &self.all
    }

    /// Whether names differ at all.
    pub fn are_several(&self) -> bool {
        self.all.len() > 1
    }

    /// The index of the policy for this name: the exact one, else that of the longest suffix, else the default.
    pub fn find(&self, name: &str) -> usize {
        if !self.are_several() {
            return 0;
        }
        let name = comparable(name);
        let suffixes = name.match_indices('.').filter(|(at, _)| *at > 0).map(|(at, _)| &name[at..]);
        let by_suffix = || suffixes.filter_map(|suffix| self.suffixes.get(suffix)).next();
        self.exact.get(&*name).or_else(by_suffix).copied().unwrap_or(0)
    }

    /// What is asked of clients that come by this name.
    pub fn clients(&self, name: &str) -> Option<&ClientTerms> {
        self.all[self.find(name)].clients.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exact_name_comes_first_then_the_longest_suffix_then_the_default() {
        let patterns = ["api.a.test", "*.a.test", "*.b.a.test", "*.api.a.test"];
        let policies =
            Policies::new(None, patterns.map(|it| (HostPattern::parse(it).unwrap(), None)).to_vec());
        for (name, expected) in [
            ("api.a.test", 1),
            ("API.a.test.", 1),
            ("x.a.test", 2),
            ("x.y.a.test", 2),
            ("b.a.test", 2),
            ("x.b.a.test", 3),
            ("x.api.a.test", 4),
            ("a.test", 0),
            (".a.test", 0),
            ("xa.test", 0),
            ("", 0),
        ] {
            assert_eq!(policies.find(name), expected, "{name}");
        }
    }
}
