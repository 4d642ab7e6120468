//! Making requests of rules: what each asks for, what two of them ask for together, and their parts put together anew.

use std::collections::HashSet;

use fastrand::Rng;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use regex::Regex;
use regex_syntax::hir::{Class, Hir, HirKind};

use super::{Half, Sample, Tables};
use crate::config::RouteConfig;
use crate::config::redact::is_redacted;
use crate::plan::routes::Pairs;
use crate::route::{HostPattern, ListenerId, PathPattern, Rule, Table, TextPattern};

/// So many requests are tried; of these, at most so many for rules by themselves, and so many more for two together.
const MOST: usize = 2000;
const MOST_OWN: usize = 1000;
const MOST_JOINT: usize = 1600;
/// So many pairs of rules are looked at.
const MOST_PAIRS: usize = 20_000;

/// A host that no rule names.
const OTHER_HOST: &str = "other.test";

/// Requests for both tables, those of routes that change first.
pub fn samples(old: &Half<'_>, new: &Half<'_>, tables: &Tables, pairs: &Pairs) -> Vec<Sample> {
    let mut made = Made { tables, seen: HashSet::new(), samples: Vec::new() };
    let is_changed = |route: Option<&RouteConfig>, other: Option<&RouteConfig>| match (route, other) {
        (Some(route), Some(other)) => route != other,
        _ => true,
    };
    let (before, after) = (&old.config.routes, &new.config.routes);
    let of_new = tables.new.rules().iter().enumerate().map(|(at, rule)| {
        (is_changed(after.get(at), pairs.old_of[at].and_then(|other| before.get(other))), rule)
    });
    let of_old = tables.old.rules().iter().enumerate().map(|(at, rule)| {
        (is_changed(before.get(at), pairs.new_of[at].and_then(|other| after.get(other))), rule)
    });
    let mut asked: Vec<(bool, Parts)> =
        of_new.chain(of_old).filter_map(|(changed, rule)| Some((changed, Parts::of(rule)?))).collect();
    asked.sort_by_key(|(changed, _)| !changed);
    let asked: Vec<Parts> = asked.into_iter().map(|(_, parts)| parts).collect();

    for parts in &asked {
        made.all_of(parts, MOST_OWN);
    }
    joint(&mut made, old, new, pairs);
    crossed(&mut made, &asked);
    made.samples
}

/// What a request needs to be taken by a rule.
struct Parts {
    hosts: Vec<String>,
    paths: Vec<String>,
    conditions: Conditions,
    listeners: Vec<ListenerId>,
}

#[derive(Clone, Default)]
struct Conditions {
    methods: Vec<Method>,
    headers: Vec<(HeaderName, String)>,
    query: Vec<(String, String)>,
}

impl Parts {
    /// Nothing where no such request could be typed.
    fn of(rule: &Rule) -> Option<Self> {
        let mut conditions = Conditions { methods: rule.methods.clone(), ..Conditions::default() };
        for (name, pattern) in &rule.headers {
            // The Host is told by the URL.
            let value = text_of(pattern).filter(|_| *name != http::header::HOST)?;
            conditions.headers.extend(value.map(|value| (name.clone(), value)));
        }
        for (name, pattern) in &rule.query {
            conditions.query.extend(text_of(pattern)?.map(|value| (name.clone(), value)));
        }
        let host = |pattern: &HostPattern| match pattern {
            HostPattern::Exact(name) => name.clone(),
            HostPattern::Suffix(suffix) => format!("any{suffix}"),
        };
        let hosts = or(rule.hosts.iter().map(host).collect(), OTHER_HOST);
        let paths = or(rule.paths.iter().flat_map(paths_of).collect(), "/");
        Some(Self { hosts, paths, conditions, listeners: rule.listeners.clone() })
    }
}

fn or(listed: Vec<String>, default: &str) -> Vec<String> {
    if listed.is_empty() { vec![default.to_owned()] } else { listed }
}

fn paths_of(pattern: &PathPattern) -> Vec<String> {
    match pattern {
        PathPattern::Exact(path) => vec![path.clone()],
        PathPattern::Prefix(prefix) if prefix.is_empty() => vec!["/".to_owned(), "/x".to_owned()],
        PathPattern::Prefix(prefix) => vec![prefix.clone(), format!("{prefix}/x")],
        PathPattern::Regex(regex) => {
            let text = found_by(regex).unwrap_or_default();
            let begun = format!("/{}", text.trim_start_matches('/'));
            [text, begun]
                .into_iter()
                .filter(|path| path.starts_with('/') && regex.is_match(path))
                .take(1)
                .collect()
        }
    }
}

/// `None` where no value can be typed, `Some(None)` where there is to be none.
fn text_of(pattern: &TextPattern) -> Option<Option<String>> {
    match pattern {
        TextPattern::Exact(text) => (!is_redacted(text)).then(|| Some(text.clone())),
        TextPattern::Regex(regex) => match is_redacted(regex.as_str()) {
            true => None,
            false => found_by(regex).map(Some),
        },
        TextPattern::Present(true) => Some(Some("1".to_owned())),
        TextPattern::Present(false) => Some(None),
    }
}

/// A short text in which this regex is found.
fn found_by(regex: &Regex) -> Option<String> {
    fn write(hir: &Hir, text: &mut String) -> Option<()> {
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => {}
            HirKind::Literal(literal) => text.push_str(std::str::from_utf8(&literal.0).ok()?),
            HirKind::Class(Class::Unicode(class)) => {
                // A letter or digit, where it has one: `[^/]` begins at NUL.
                let has =
                    |c: &char| class.ranges().iter().any(|range| (range.start()..=range.end()).contains(c));
                let plain = "a0A-_/.".chars().find(has);
                text.push(plain.or_else(|| Some(class.ranges().first()?.start()))?);
            }
            HirKind::Class(Class::Bytes(class)) => text.push(char::from(class.ranges().first()?.start())),
            HirKind::Repetition(repetition) => {
                for _ in 0..repetition.min {
                    write(&repetition.sub, text)?;
                }
            }
            HirKind::Capture(capture) => write(&capture.sub, text)?,
            HirKind::Concat(parts) => parts.iter().try_for_each(|part| write(part, text))?,
            HirKind::Alternation(parts) => write(parts.first()?, text)?,
        }
        // A repetition of repetitions grows without end.
        (text.len() <= 256).then_some(())
    }
    let mut text = String::new();
    write(&regex_syntax::parse(regex.as_str()).ok()?, &mut text)?;
    regex.is_match(&text).then_some(text)
}

/// The requests that are made, each once.
struct Made<'a> {
    tables: &'a Tables,
    seen: HashSet<String>,
    samples: Vec<Sample>,
}

impl Made<'_> {
    /// Everything that a rule names, with one another.
    fn all_of(&mut self, parts: &Parts, most: usize) {
        for entry in self.entries(&parts.listeners) {
            for host in &parts.hosts {
                for path in &parts.paths {
                    self.add(host, path, &parts.conditions, entry, most);
                }
            }
        }
    }

    fn entries(&self, listeners: &[ListenerId]) -> Vec<usize> {
        match listeners {
            [] => (0..self.tables.entries.len()).take(1).collect(),
            listed => {
                (0..self.tables.entries.len()).filter(|at| listed.contains(&(*at as ListenerId))).collect()
            }
        }
    }

    fn add(&mut self, host: &str, path: &str, conditions: &Conditions, entry: usize, most: usize) {
        for method in conditions.methods.iter().chain(conditions.methods.is_empty().then_some(&Method::GET)) {
            if self.samples.len() >= most {
                return;
            }
            if let Some(sample) = sample(method, host, path, conditions, entry) {
                let Sample { method, host, path, query, headers, entry } = &sample;
                if self.seen.insert(format!("{method} {host} {path} {query:?} {headers:?} {entry}")) {
                    self.samples.push(sample);
                }
            }
        }
    }
}

/// What a person can type behind `vestibule explain`.
fn sample(method: &Method, host: &str, path: &str, conditions: &Conditions, entry: usize) -> Option<Sample> {
    let is_typed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
    if *method == Method::CONNECT
        || !path.starts_with('/')
        || !path.bytes().all(is_typed)
        || is_redacted(path)
    {
        return None;
    }
    let mut headers = HeaderMap::new();
    for (name, value) in &conditions.headers {
        let value = HeaderValue::from_str(value).ok().filter(|_| value.trim() == value)?;
        headers.append(name, value);
    }
    let pairs: Vec<_> = conditions
        .query
        .iter()
        .map(|(name, value)| format!("{}={}", escaped(name), escaped(value)))
        .collect();
    let query = (!pairs.is_empty()).then(|| pairs.join("&"));
    Some(Sample {
        method: method.clone(),
        host: host.to_owned(),
        path: path.to_owned(),
        query,
        headers,
        entry,
    })
}

fn escaped(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

/// Requests for two routes at once, whose order may have changed.
fn joint(made: &mut Made<'_>, old: &Half<'_>, new: &Half<'_>, pairs: &Pairs) {
    let rules = made.tables.new.rules();
    let parts: Vec<Option<Parts>> = rules.iter().map(Parts::of).collect();
    let alone: Vec<Table> = rules.iter().map(|rule| Table::new(vec![rule.clone()])).collect();
    let stays = (0..rules.len()).filter_map(|at| Some((at, pairs.old_of[at]?)));
    let stays: Vec<(usize, usize)> = stays.collect();
    let is_changed =
        |&(is, was): &(usize, usize)| new.config.routes[is].r#match != old.config.routes[was].r#match;
    let mut looked_at = 0;
    for (index, one) in stays.iter().enumerate() {
        for other in &stays[index + 1..] {
            if one.1 < other.1 && !is_changed(one) && !is_changed(other) {
                continue;
            }
            looked_at += 1;
            if looked_at > MOST_PAIRS || made.samples.len() >= MOST_JOINT {
                return;
            }
            let (Some(a), Some(b)) = (&parts[one.0], &parts[other.0]) else { continue };
            let mut conditions = a.conditions.clone();
            conditions.headers.extend(b.conditions.headers.iter().cloned());
            conditions.query.extend(b.conditions.query.iter().cloned());
            let methods = &mut conditions.methods;
            match methods.is_empty() {
                true => methods.clone_from(&b.conditions.methods),
                false => {
                    methods.retain(|it| b.conditions.methods.is_empty() || b.conditions.methods.contains(it))
                }
            }
            let entries = made.entries(if a.listeners.is_empty() { &b.listeners } else { &a.listeners });
            for host in a.hosts.iter().chain(&b.hosts) {
                for path in a.paths.iter().chain(&b.paths) {
                    for &entry in &entries {
                        let takes =
                            |rule: usize, sample: &Sample| alone[rule].find(&sample.request()).is_some();
                        let method = conditions.methods.first().unwrap_or(&Method::GET);
                        let sample = sample(method, host, path, &conditions, entry);
                        if sample.is_some_and(|it| takes(one.0, &it) && takes(other.0, &it)) {
                            made.add(host, path, &conditions, entry, MOST_JOINT);
                        }
                    }
                }
            }
        }
    }
}

/// Hosts, paths and conditions of different rules with one another: all of them, or some that are always the same.
fn crossed(made: &mut Made<'_>, asked: &[Parts]) {
    let mut hosts: Vec<&str> = vec![OTHER_HOST];
    let mut paths: Vec<&str> = vec!["/", "/other"];
    hosts.extend(asked.iter().flat_map(|parts| parts.hosts.iter().map(String::as_str)));
    paths.extend(asked.iter().flat_map(|parts| parts.paths.iter().map(String::as_str)));
    for list in [&mut hosts, &mut paths] {
        let mut seen = HashSet::new();
        list.retain(|it| seen.insert(*it));
    }
    let any = Conditions::default();
    let mut conditions = vec![&any];
    let mut seen = HashSet::new();
    conditions.extend(
        asked
            .iter()
            .map(|parts| &parts.conditions)
            .filter(|it| seen.insert(format!("{:?} {:?} {:?}", it.methods, it.headers, it.query))),
    );
    let entries = match asked.iter().any(|parts| !parts.listeners.is_empty()) {
        true => made.tables.entries.len(),
        false => made.tables.entries.len().min(1),
    };
    let all = hosts.len() * paths.len() * conditions.len() * entries;
    let place = |at: usize| {
        let (host, rest) = (at % hosts.len(), at / hosts.len());
        let (path, rest) = (rest % paths.len(), rest / paths.len());
        (hosts[host], paths[path], conditions[rest % conditions.len()], rest / conditions.len())
    };
    let mut rng = Rng::with_seed(0);
    for at in 0..all.min(2 * MOST) {
        let at = if all <= 2 * MOST { at } else { rng.usize(..all) };
        let (host, path, conditions, entry) = place(at);
        made.add(host, path, conditions, entry, MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_for_most_regexes() {
        for (regex, expected) in [
            ("^/v\\d+/", Some("/v0/")),
            ("^/([^/]+)/(.*)$", Some("/a/")),
            ("x$", Some("x")),
            ("^(a|b){2}[0-9]*$", Some("aa")),
            ("(?i)^ABC", Some("Abc")),
            ("^/[é]$", Some("/é")),
            ("a\\bb", None),
        ] {
            let text = found_by(&Regex::new(regex).unwrap());
            match expected {
                Some(expected) => assert_eq!(
                    text.as_deref().map(str::to_ascii_lowercase),
                    Some(expected.to_lowercase()),
                    "{regex}"
                ),
                None => assert_eq!(text, None, "{regex}"),
            }
        }
    }
}
