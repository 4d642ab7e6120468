//! Why one route takes a request and each other does not, in words. What matches and what ranks higher is asked of
//! `route::Table` and never decided here.

use serde::Serialize;
use vestibule_plugins::Path;

use super::Place;
use crate::config::Document;
use crate::route::{
    HostRank, ListenerId, MethodRank, Miss, PathRank, Rank, RankPart, Request, Rule, Table, TextPattern,
};
use crate::snapshot::Snapshot;

/// A route, and how it stands towards one request.
#[derive(Debug, Serialize)]
pub struct Considered {
    /// Its name and where it stands in the file.
    #[serde(flatten)]
    pub place: Place,
    /// How it stands.
    pub result: Standing,
    /// The part of its `match` that decided: `host`, `path`, `header x-canary`…; `order` is the order of the file.
    /// Absent for the one that wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    /// In words.
    pub why: String,
}

/// How a route stands towards one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It takes the request.
    Wins,
    /// It matches, and another one ranks higher.
    Outranked,
    /// It does not match.
    Fails,
}

/// All routes in order of precedence: the one that wins, those that match as well by their rank, then those that do
/// not, the one that failed at the latest condition first.
pub fn considered(snapshot: &Snapshot, document: &Document, request: &Request) -> Vec<Considered> {
    let table: &Table = &snapshot.table;
    let verdicts = table.explain(request);
    let best = verdicts.iter().flatten().max().copied();
    let mut order: Vec<usize> = (0..verdicts.len()).collect();
    // Stable, so that what is alike stays in the order of the file.
    order.sort_by(|&a, &b| match (&verdicts[a], &verdicts[b]) {
        (Ok(a), Ok(b)) => b.cmp(a),
        (Ok(_), Err(_)) => std::cmp::Ordering::Less,
        (Err(_), Ok(_)) => std::cmp::Ordering::Greater,
        (Err(a), Err(b)) => step(b).cmp(&step(a)),
    });
    let told = order.into_iter().map(|index| {
        let rule = &table.rules()[index];
        let (result, decided_by, why) = match (&verdicts[index], &best) {
            (Ok(rank), Some(best)) if rank == best => (Standing::Wins, None, merits(rank)),
            (Ok(rank), Some(best)) => {
                let part = best.decided_by(rank);
                (Standing::Outranked, Some(name_of(part).to_owned()), outranked(rank, best, part))
            }
            // A rank without a best one there cannot be.
            (Ok(rank), None) => (Standing::Wins, None, merits(rank)),
            (Err(miss), _) => (Standing::Fails, Some(condition(miss)), failed(miss, rule, request, snapshot)),
        };
        let at = Path::root().key("routes").index(index);
        Considered { place: Place::of(&snapshot.routes[index].name, document, &at), result, decided_by, why }
    });
    told.collect()
}

/// How late a condition is looked at.
fn step(miss: &Miss<'_>) -> u8 {
    match miss {
        Miss::Listener => 0,
        Miss::Host => 1,
        Miss::Path => 2,
        Miss::Method => 3,
        Miss::Header(_) => 4,
        Miss::Query(_) => 5,
    }
}

fn condition(miss: &Miss<'_>) -> String {
    match miss {
        Miss::Listener => "listener".into(),
        Miss::Host => "host".into(),
        Miss::Path => "path".into(),
        Miss::Method => "method".into(),
        Miss::Header(name) => format!("header {name}"),
        Miss::Query(name) => format!("query {name}"),
    }
}

fn name_of(part: RankPart) -> &'static str {
    match part {
        RankPart::Host => "host",
        RankPart::Path => "path",
        RankPart::Method => "method",
        RankPart::Headers => "headers",
        RankPart::Query => "query",
        RankPart::Order => "order",
    }
}

fn merits(rank: &Rank) -> String {
    let mut merits = vec![host(rank), path(rank)];
    let more = [RankPart::Method, RankPart::Headers, RankPart::Query];
    let asked =
        [rank.conditions.method == MethodRank::Named, rank.conditions.headers > 0, rank.conditions.query > 0];
    merits.extend(more.iter().zip(asked).filter(|(_, asked)| *asked).map(|(part, _)| measure(rank, *part)));
    format!("matches by {}", merits.join(", "))
}

fn outranked(rank: &Rank, best: &Rank, part: RankPart) -> String {
    match part {
        RankPart::Order => "matches as closely, but stands later in the file".into(),
        part => format!("matches, but {} ranks below {}", measure(rank, part), measure(best, part)),
    }
}

fn measure(rank: &Rank, part: RankPart) -> String {
    let count = |number: usize, one: &str, many: &str| match number {
        0 => format!("no {one}"),
        1 => format!("1 {one}"),
        number => format!("{number} {many}"),
    };
    match part {
        RankPart::Host => host(rank),
        RankPart::Path => path(rank),
        RankPart::Method if rank.conditions.method == MethodRank::Named => "named methods".into(),
        RankPart::Method => "any method".into(),
        RankPart::Headers => count(rank.conditions.headers, "header", "headers"),
        RankPart::Query => count(rank.conditions.query, "query parameter", "query parameters"),
        RankPart::Order => format!("place {}", rank.order.0),
    }
}

fn host(rank: &Rank) -> String {
    match rank.host {
        HostRank::Exact => "the exact host".into(),
        HostRank::Suffix(length) => format!("a host suffix of {length} letters"),
        HostRank::Any => "any host".into(),
    }
}

fn path(rank: &Rank) -> String {
    match rank.path {
        PathRank::Exact => "the exact path".into(),
        PathRank::Prefix(0) => "the path prefix `/`".into(),
        PathRank::Prefix(length) => format!("a path prefix of {length} letters"),
        PathRank::Regex => "a path regex".into(),
    }
}

fn failed(miss: &Miss<'_>, rule: &Rule, request: &Request, snapshot: &Snapshot) -> String {
    let listener = |id: &ListenerId| {
        let known = snapshot.listeners.iter().find(|listener| listener.id == *id);
        known.map_or("", |listener| listener.name.as_str())
    };
    match miss {
        Miss::Listener => {
            let wanted: Vec<_> = rule.listeners.iter().map(listener).collect();
            format!("the listener `{}` is not {}", listener(&request.listener), any_of(&wanted))
        }
        Miss::Host => format!("the host `{}` does not match {}", request.host, any_of(&rule.hosts)),
        Miss::Path => format!("the path `{}` does not match {}", request.path, any_of(&rule.paths)),
        Miss::Method => format!("the method {} is not {}", request.method, any_of(&rule.methods)),
        Miss::Header(name) => {
            let pattern = rule
                .headers
                .iter()
                .find(|(known, pattern)| known == *name && !pattern.matches_header(known, request.headers));
            let given = request.headers.get(*name).map(|value| String::from_utf8_lossy(value.as_bytes()));
            wanted(&format!("the header `{name}`"), given.as_deref(), pattern.map(|(_, pattern)| pattern))
        }
        Miss::Query(name) => {
            let pattern = rule
                .query
                .iter()
                .find(|(known, pattern)| known == name && !pattern.matches_query(known, request.query));
            wanted(&format!("the query parameter `{name}`"), None, pattern.map(|(_, pattern)| pattern))
        }
    }
}

fn wanted(what: &str, given: Option<&str>, pattern: Option<&TextPattern>) -> String {
    let given = given.map(|given| format!(", but `{given}`")).unwrap_or_default();
    match pattern {
        Some(TextPattern::Exact(text)) => format!("{what} is not `{text}`{given}"),
        Some(TextPattern::Regex(regex)) => format!("{what} does not match `{regex}`{given}"),
        Some(TextPattern::Present(false)) => format!("{what} is there"),
        Some(TextPattern::Present(true)) | None => format!("{what} is missing"),
    }
}

fn any_of<T: std::fmt::Display>(patterns: &[T]) -> String {
    const MOST: usize = 3;
    let mut told: Vec<_> = patterns.iter().take(MOST).map(|pattern| format!("`{pattern}`")).collect();
    if patterns.len() > MOST {
        told.push(format!("{} more", patterns.len() - MOST));
    }
    told.join(" or ")
}
