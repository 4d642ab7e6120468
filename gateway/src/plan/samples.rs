//! Requests that the rules of both configurations speak of, and which of them would go elsewhere.
//!
//! They are tried on both route tables by `Table::find`. Nothing is claimed of requests that were not tried.

mod make;
mod spell;

use std::collections::BTreeMap;

use http::{HeaderMap, Method};
use serde::Serialize;
use vestibule_plugins::Path;

use super::routes::{self, Pairs};
use super::{Half, Requests};
use crate::config::{Config, ListenerConfig};
use crate::route::{HostPattern, ListenerId, Match, Request, Rule, Table};
use crate::snapshot::rule;

pub use make::samples;
pub use spell::Spelled;

/// As many ways are told.
const MOST_TOLD: usize = 20;

/// The route tables of both, and the listeners that requests may come in by.
pub struct Tables {
    pub old: Table,
    pub new: Table,
    pub entries: Vec<Entry>,
}

/// A listener for HTTP that both have; its number in both tables is its place.
pub struct Entry {
    /// Its name now.
    pub name: String,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Whether `explain` needs to be told which one.
    pub is_one_of_many: bool,
}

/// A request to be tried.
#[derive(Clone)]
pub struct Sample {
    pub method: Method,
    pub host: String,
    pub path: String,
    pub query: Option<String>,
    pub headers: HeaderMap,
    /// Its place among the entries.
    pub entry: usize,
}

/// Requests that go one way now and would go another.
#[derive(Debug, Serialize)]
pub struct Detour {
    /// One of them.
    pub request: Spelled,
    /// Where it goes.
    pub old: Outcome,
    /// Where it would go.
    pub new: Outcome,
    /// How many others of those tried change alike.
    pub alike: usize,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Outcome {
    /// The route's name; none takes it where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// What becomes of it: `upstream blue`, `respond 200`, `404`.
    pub what: String,
}

impl Sample {
    pub fn request(&self) -> Request<'_> {
        Request {
            host: &self.host,
            path: &self.path,
            query: self.query.as_deref(),
            method: &self.method,
            headers: &self.headers,
            listener: self.entry as ListenerId,
        }
    }
}

/// Both tables, and what is to be known of them.
pub fn tables(old: &Half<'_>, new: &Half<'_>) -> (Tables, Vec<String>) {
    let mut notes = Vec::new();
    let (before, after) = (&old.config.listeners, &new.config.listeners);
    let (mut old_ids, mut new_ids) = (BTreeMap::new(), BTreeMap::new());
    let mut entries = Vec::new();
    for (name, listener) in after.iter().filter(|(_, it)| it.serves_http()) {
        let named = before.get_key_value(name);
        let same = named.or_else(|| {
            before.iter().find(|(other, it)| it.address == listener.address && !after.contains_key(*other))
        });
        let Some((old_name, _)) = same.filter(|(_, it)| it.serves_http()) else { continue };
        let id = entries.len() as ListenerId;
        old_ids.insert(old_name.clone(), id);
        new_ids.insert(name.clone(), id);
        let scheme = scheme(listener);
        let is_one_of_many = of_scheme(before, scheme) > 1 || of_scheme(after, scheme) > 1;
        entries.push(Entry { name: name.clone(), scheme, is_one_of_many });
    }
    if entries.is_empty() && !(before.is_empty() || after.is_empty()) {
        notes.push("no listener for HTTP is the same in both, so no requests were tried".to_owned());
    }
    let tables = Tables { old: table(&old.config, &old_ids), new: table(&new.config, &new_ids), entries };
    (tables, notes)
}

fn scheme(listener: &ListenerConfig) -> &'static str {
    if listener.tls.is_some() { "https" } else { "http" }
}

fn of_scheme(listeners: &BTreeMap<String, ListenerConfig>, scheme: &str) -> usize {
    listeners.values().filter(|it| it.serves_http() && self::scheme(it) == scheme).count()
}

fn table(config: &Config, ids: &BTreeMap<String, ListenerId>) -> Table {
    let names: Vec<String> = config.listeners.keys().cloned().collect();
    // What is not in both is no sample's listener.
    let id = |name: &str| ids.get(name).copied().unwrap_or(ListenerId::MAX);
    let rules = config.routes.iter().map(|route| {
        let mut problems = Vec::new();
        let rule = rule(&route.r#match, &config.listeners, &names, &id, &Path::root(), &mut problems);
        match problems.is_empty() {
            true => rule,
            // What was redacted may not compile; no request that could be told here matches it.
            false => Rule { hosts: vec![HostPattern::Exact(String::new())], ..Rule::default() },
        }
    });
    Table::new(rules.collect())
}

/// The samples that would go elsewhere, those that change alike told once.
pub fn detours(
    old: &Half<'_>,
    new: &Half<'_>,
    tables: &Tables,
    pairs: &Pairs,
    samples: &[Sample],
) -> Requests {
    let mut ways: BTreeMap<(Outcome, Outcome), usize> = BTreeMap::new();
    let mut moved: Vec<Detour> = Vec::new();
    for sample in samples {
        let request = sample.request();
        let (before, after) = (tables.old.find(&request), tables.new.find(&request));
        let rule = |found: Option<Match>| found.map(|found| found.rule);
        let (was, is) = (outcome(&old.config, before), outcome(&new.config, after));
        // A route is the same under another name.
        let is_same_route = rule(before).map(|at| pairs.new_of[at]) == rule(after).map(Some);
        if is_same_route && was.what == is.what {
            continue;
        }
        let at = *ways.entry((was.clone(), is.clone())).or_insert(moved.len());
        match moved.get_mut(at) {
            Some(known) => known.alike += 1,
            None => {
                let request = Spelled::of(sample, tables);
                moved.push(Detour { request, old: was, new: is, alike: 0 });
            }
        }
    }
    let more = moved.len().saturating_sub(MOST_TOLD);
    moved.truncate(MOST_TOLD);
    Requests { tried: samples.len(), moved, more }
}

fn outcome(config: &Config, found: Option<Match>) -> Outcome {
    let route = found.and_then(|found| Some((found.rule, config.routes.get(found.rule)?)));
    match route {
        Some((at, route)) => Outcome { route: Some(routes::name(route, at)), what: routes::what(route) },
        None => Outcome { route: None, what: "404".to_owned() },
    }
}
