//! Which rules never win, because others take every request that they match. Sound and not complete: a rule
//! that is named here never wins, but not every rule that never wins is named.
//!
//! Each host, path and method of a rule is looked at by itself. A rule of the same host takes all of such a
//! part if it asks for nothing that the part does not, and its rank is always the higher one: as the host
//! comes first in a rank, and then the path, it has the same host, and the same path or, above a regex, a
//! prefix of all that the regex can match.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};

use http::Method;

use super::host::HostPattern;
use super::path::PathPattern;
use super::rule::{ListenerId, Rule};
use super::text::TextPattern;

/// How many rules of one host and path each rule is compared with, and how many parts of a rule are looked
/// at: what bounds the work for a table of thousands under one host and path.
const MOST: usize = 64;

/// The rules of a table by host and path, to ask which of them take all requests of another.
pub struct Shadows<'a> {
    rules: &'a [Rule],
    /// Those with the fewest conditions first: they are the likeliest to take all of another's requests.
    places: HashMap<Place<'a>, Vec<usize>>,
    /// The first rule of each place with these very conditions, found however many others there are.
    twins: HashMap<(Place<'a>, u64), usize>,
    conditions: Vec<u64>,
}

/// One host and one path; no host is any host.
type Place<'a> = (Option<&'a HostPattern>, PathKey<'a>);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum PathKey<'a> {
    Exact(&'a str),
    /// Without its trailing slash; empty for `/` and for a rule without paths.
    Prefix(&'a str),
    Regex(&'a str),
}

impl<'a> Shadows<'a> {
    /// Indexes the rules, which are in the order of the file.
    pub fn new(rules: &'a [Rule]) -> Self {
        let hasher = RandomState::new();
        let conditions: Vec<u64> = rules
            .iter()
            .map(|it| {
                hasher
                    .hash_one(format!("{:?} {:?} {:?} {:?}", it.methods, it.headers, it.query, it.listeners))
            })
            .collect();
        let mut places: HashMap<Place<'a>, Vec<usize>> = HashMap::new();
        let mut twins = HashMap::new();
        for (index, rule) in rules.iter().enumerate() {
            for place in places_of(rule) {
                let list = places.entry(place).or_default();
                if list.last() != Some(&index) {
                    list.push(index);
                }
                twins.entry((place, conditions[index])).or_insert(index);
            }
        }
        for list in places.values_mut() {
            list.sort_by_key(|&index| rules[index].condition_rank());
        }
        Self { rules, places, twins, conditions }
    }

    /// The rules that between them take every request for this rule that comes in by this listener, which is one
    /// of the rule's own; none where some request may be left for it.
    pub fn takers(&self, rule: usize, listener: ListenerId) -> Option<BTreeSet<usize>> {
        let this = self.rules.get(rule)?;
        let methods: Vec<_> = or_any(&this.methods).collect();
        let parts = this.hosts.len().max(1) * this.paths.len().max(1) * methods.len();
        if parts > MOST {
            return None;
        }
        let mut takers = BTreeSet::new();
        for place in places_of(this) {
            for method in &methods {
                takers.insert(self.taker(rule, place, *method, listener)?);
            }
        }
        Some(takers)
    }

    fn taker(
        &self,
        index: usize,
        place: Place<'a>,
        method: Option<&Method>,
        listener: ListenerId,
    ) -> Option<usize> {
        let this = &self.rules[index];
        let takes = |other: &usize| self.rules[*other].takes_all_of(this, method, listener);
        let (host, path) = place;
        if let PathKey::Regex(regex) = path {
            let above =
                prefixes_of(regex).filter_map(|prefix| self.places.get(&(host, PathKey::Prefix(prefix))));
            if let Some(taker) = above.flat_map(|list| list.iter().take(MOST)).copied().find(takes) {
                return Some(taker);
            }
        }
        // Regexes are ordered by the file alone, all else by conditions first.
        let outranks = |other: &usize| match path {
            PathKey::Regex(_) => *other < index,
            _ => {
                let rank = |of: usize| (self.rules[of].condition_rank(), Reverse(of));
                rank(*other) > rank(index)
            }
        };
        let twin = self.twins.get(&(place, self.conditions[index]));
        let list = self.places.get(&place)?;
        let start = match path {
            PathKey::Regex(_) => 0,
            _ => list.partition_point(|&other| self.rules[other].condition_rank() < this.condition_rank()),
        };
        let near = list[start..].iter().take(MOST);
        twin.into_iter().chain(near).copied().find(|other| outranks(other) && takes(other))
    }
}

impl Rule {
    /// Whether this rule's conditions besides host and path admit every request that `other`'s do, of this
    /// method (none is any) and this listener.
    fn takes_all_of(&self, other: &Rule, method: Option<&Method>, listener: ListenerId) -> bool {
        let is_asked_of = |theirs: &TextPattern, ours: &TextPattern| theirs.implies(ours);
        (self.listeners.is_empty() || self.listeners.contains(&listener))
            && (self.methods.is_empty() || method.is_some_and(|method| self.methods.contains(method)))
            && self.headers.iter().all(|(name, ours)| {
                other.headers.iter().any(|(known, theirs)| known == name && is_asked_of(theirs, ours))
            })
            && self.query.iter().all(|(name, ours)| {
                other.query.iter().any(|(known, theirs)| known == name && is_asked_of(theirs, ours))
            })
    }
}

impl TextPattern {
    /// Whether whatever matches this pattern matches the other one too.
    fn implies(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(this), Self::Exact(other)) => this == other,
            (Self::Exact(this), Self::Regex(other)) => other.is_match(this),
            (Self::Regex(this), Self::Regex(other)) => this.as_str() == other.as_str(),
            (Self::Exact(_) | Self::Regex(_), Self::Present(present)) => *present,
            (Self::Present(this), Self::Present(other)) => this == other,
            (Self::Regex(_) | Self::Present(_), _) => false,
        }
    }
}

fn places_of(rule: &Rule) -> impl Iterator<Item = Place<'_>> {
    let paths = || {
        or_any(&rule.paths).map(|path| match path {
            None => PathKey::Prefix(""),
            Some(PathPattern::Exact(path)) => PathKey::Exact(path),
            Some(PathPattern::Prefix(prefix)) => PathKey::Prefix(prefix),
            Some(PathPattern::Regex(regex)) => PathKey::Regex(regex.as_str()),
        })
    };
    or_any(&rule.hosts).flat_map(move |host| paths().map(move |path| (host, path)))
}

/// Each item of a list; once none for an empty one, which asks for nothing.
fn or_any<T>(list: &[T]) -> impl Iterator<Item = Option<&T>> {
    list.iter().map(Some).chain(list.is_empty().then_some(None))
}

/// Prefixes that have every path in which this regex is found: `/`, as the empty text, and those that the text
/// behind its `^` begins with.
fn prefixes_of(regex: &str) -> impl Iterator<Item = &str> {
    let literal = literal_start(regex);
    let slashes = literal.bytes().enumerate().filter(|&(at, byte)| at > 0 && byte == b'/');
    slashes.map(move |(at, _)| &literal[..at]).chain([""])
}

/// The text that every match begins with at the start of the path; empty where that is not plain to see.
fn literal_start(regex: &str) -> &str {
    let Some(text) = regex.strip_prefix('^').filter(|text| !text.contains('|')) else { return "" };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_');
    let end = text.find(|c| !is_plain(c)).unwrap_or(text.len());
    // What stands behind the last letter may say that it need not be there.
    match text[end..].starts_with(['?', '*', '{']) {
        true => &text[..end.saturating_sub(1)],
        false => &text[..end],
    }
}
