//! The table: all rules, indexed so that a request looks only at those whose host and path it has.
//! Its only specification is `scan`; the index must never decide anything that `Rank` does not.
//!
//! Hosts, then paths, are looked up from the closest to the loosest, and the rules under one host and one
//! path are kept in order of rank. So the first rule that admits the request is the best of all, and the
//! search ends there.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::host::{HostPattern, comparable};
use super::path::PathPattern;
use super::rank::{PathRank, Rank};
use super::rule::{Match, Miss, Request, Rule};

type Map<T> = HashMap<Box<str>, T, ahash::RandomState>;

/// Finds the route of a request. Immutable, so that any number of requests read it at once.
#[derive(Debug, Default)]
pub struct Table {
    rules: Vec<Rule>,
    exact_hosts: Map<Paths>,
    suffixes: Map<Paths>,
    suffix_depths: Depths,
    any_host: Paths,
}

impl Table {
    /// Indexes the rules, which are in the order of the file.
    pub fn new(rules: Vec<Rule>) -> Self {
        let mut table = Self::default();
        for (index, rule) in rules.iter().enumerate() {
            if rule.hosts.is_empty() {
                table.any_host.insert(index, rule);
            }
            for host in &rule.hosts {
                table.paths_of(host).insert(index, rule);
            }
        }
        let hosts = table.exact_hosts.values_mut().chain(table.suffixes.values_mut());
        for paths in hosts.chain([&mut table.any_host]) {
            paths.sort(&rules);
        }
        table.rules = rules;
        table
    }

    /// The best rule for the request. Takes no lock of its own and compiles nothing; allocates only for a
    /// host in upper case, or where a regex looks at an escaped query value or runs on its thread for the
    /// first time.
    pub fn find(&self, request: &Request) -> Option<Match> {
        let host = comparable(request.host);
        let exact = self.exact_hosts.get(&*host).and_then(|paths| paths.find(&self.rules, request));
        exact
            .or_else(|| {
                let mut candidates =
                    suffixes(&host, &self.suffix_depths).filter_map(|suffix| self.suffixes.get(suffix));
                candidates.find_map(|paths| paths.find(&self.rules, request))
            })
            .or_else(|| self.any_host.find(&self.rules, request))
    }

    /// What `find` must answer, said plainly: of all rules that match, the one with the greatest rank.
    pub fn scan(&self, request: &Request) -> Option<Match> {
        let best = self.explain(request).into_iter().flatten().max()?;
        let prefix_len = match best.path {
            PathRank::Prefix(length) => Some(length),
            PathRank::Exact | PathRank::Regex => None,
        };
        Some(Match { rule: best.order.0, prefix_len })
    }

    /// For each rule, in the order of the file, its rank for this request or why it does not match.
    pub fn explain(&self, request: &Request) -> Vec<Result<Rank, Miss<'_>>> {
        let host = comparable(request.host);
        self.rules.iter().enumerate().map(|(order, rule)| rule.rank(order, &host, request)).collect()
    }

    /// The rules, in the order of the file.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    fn paths_of(&mut self, host: &HostPattern) -> &mut Paths {
        match host {
            HostPattern::Exact(name) => self.exact_hosts.entry(name.as_str().into()).or_default(),
            HostPattern::Suffix(suffix) => {
                self.suffix_depths.note(depth(suffix, b'.'), suffix.len());
                self.suffixes.entry(suffix.as_str().into()).or_default()
            }
        }
    }
}

/// The rules of one host by path. A rule stands here once for each of its paths, as its index.
#[derive(Debug, Default)]
struct Paths {
    exact: Map<Vec<usize>>,
    /// All prefixes but `/`.
    prefixes: Map<Vec<usize>>,
    prefix_depths: Depths,
    /// The prefix `/`, and the rules without paths.
    root: Vec<usize>,
    /// The index of the rule, and of the regex among its paths: a cloned `Regex` would have caches of its
    /// own.
    regexes: Vec<(usize, usize)>,
}

impl Paths {
    fn insert(&mut self, index: usize, rule: &Rule) {
        if rule.paths.is_empty() {
            insert_once(&mut self.root, index);
        }
        for (place, path) in rule.paths.iter().enumerate() {
            match path {
                PathPattern::Exact(path) => {
                    insert_once(self.exact.entry(path.as_str().into()).or_default(), index)
                }
                PathPattern::Prefix(prefix) if prefix.is_empty() => insert_once(&mut self.root, index),
                PathPattern::Prefix(prefix) => {
                    self.prefix_depths.note(depth(prefix, b'/'), prefix.len());
                    insert_once(self.prefixes.entry(prefix.as_str().into()).or_default(), index);
                }
                PathPattern::Regex(_) => self.regexes.push((index, place)),
            }
        }
    }

    /// Puts the rules of each path in order of rank. They came in the file's order, which a stable sort
    /// keeps; the regexes stay in it.
    fn sort(&mut self, rules: &[Rule]) {
        let lists = self.exact.values_mut().chain(self.prefixes.values_mut());
        for list in lists.chain([&mut self.root]) {
            list.sort_by_key(|&index| Reverse(rules[index].condition_rank()));
        }
    }

    fn find(&self, rules: &[Rule], request: &Request) -> Option<Match> {
        let admits = |index: usize| {
            #[cfg(test)]
            work::count();
            rules[index].admits(request)
        };
        let first = |list: &[usize]| list.iter().copied().find(|&index| admits(index));
        if let Some(rule) = self.exact.get(request.path).and_then(|list| first(list)) {
            return Some(Match { rule, prefix_len: None });
        }
        for prefix in prefixes(request.path, &self.prefix_depths) {
            if let Some(rule) = self.prefixes.get(prefix).and_then(|list| first(list)) {
                return Some(Match { rule, prefix_len: Some(prefix.len()) });
            }
        }
        if let Some(rule) = first(&self.root) {
            return Some(Match { rule, prefix_len: Some(0) });
        }
        // The conditions come first: they cost less than most regexes.
        let found = self
            .regexes
            .iter()
            .find(|&&(index, place)| admits(index) && rules[index].paths[place].rank(request.path).is_some());
        found.map(|&(rule, _)| Match { rule, prefix_len: None })
    }
}

/// The same path (or host) twice in one rule adds nothing. A rule's entries are made one after the other.
fn insert_once(list: &mut Vec<usize>, index: usize) {
    if list.last() != Some(&index) {
        list.push(index);
    }
}

/// How long the longest key with so many separators is; 0 where there is none. It bounds what a request can
/// make the table hash: all probes together are no longer than the keys of the file, however many
/// separators the client sends.
#[derive(Debug, Default)]
struct Depths(Vec<usize>);

impl Depths {
    fn note(&mut self, depth: usize, length: usize) {
        if self.0.len() <= depth {
            self.0.resize(depth + 1, 0);
        }
        self.0[depth] = self.0[depth].max(length);
    }

    fn deepest(&self) -> usize {
        self.0.len().saturating_sub(1)
    }

    fn may_hold(&self, depth: usize, length: usize) -> bool {
        let may = self.0.get(depth).is_some_and(|&longest| length <= longest);
        #[cfg(test)]
        if may {
            work::count();
        }
        may
    }
}

fn depth(key: &str, separator: u8) -> usize {
    key.bytes().filter(|&byte| byte == separator).count()
}

/// The element-wise prefixes of a path that may be keys, the longest first and without `/`.
fn prefixes<'p>(path: &'p str, depths: &Depths) -> impl Iterator<Item = &'p str> {
    // To begin: the longest part of the path that has no more slashes than the deepest key.
    let deepest = depths.deepest();
    let next = path.bytes().enumerate().filter(|&(_, byte)| byte == b'/').map(|(at, _)| at).nth(deepest);
    let mut prefix = &path[..next.unwrap_or(path.len())];
    let mut depth = if next.is_some() { deepest } else { depth(prefix, b'/') };
    std::iter::from_fn(move || {
        while depth > 0 {
            let (candidate, its_depth) = (prefix, depth);
            // One more slash is there, as the depth counts them.
            prefix = &prefix[..prefix.rfind('/')?];
            depth -= 1;
            if depths.may_hold(its_depth, candidate.len()) {
                return Some(candidate);
            }
        }
        None
    })
}

/// The suffixes of a host that may be keys, each from a dot on, the longest first.
fn suffixes<'h>(host: &'h str, depths: &Depths) -> impl Iterator<Item = &'h str> {
    // A leading dot begins no suffix: it has no label in front of it.
    let dots = |&(at, byte): &(usize, u8)| at > 0 && byte == b'.';
    let deepest = depths.deepest();
    let start = host.bytes().enumerate().rev().filter(dots).take(deepest).last();
    let mut rest = start.map(|(at, _)| &host[at..]);
    let mut depth = rest.map_or(0, |rest| depth(rest, b'.'));
    std::iter::from_fn(move || {
        while let Some(suffix) = rest {
            let its_depth = depth;
            rest = suffix[1..].find('.').map(|at| &suffix[at + 1..]);
            depth -= 1;
            if depths.may_hold(its_depth, suffix.len()) {
                return Some(suffix);
            }
        }
        None
    })
}

/// Counts what a search does, so that a test can bound it without a clock.
#[cfg(test)]
mod work {
    use std::cell::Cell;

    thread_local!(static DONE: Cell<usize> = const { Cell::new(0) });

    pub(super) fn count() {
        DONE.set(DONE.get() + 1);
    }

    pub(super) fn of(run: impl FnOnce()) -> usize {
        DONE.set(0);
        run();
        DONE.get()
    }
}

#[cfg(test)]
mod tests;
