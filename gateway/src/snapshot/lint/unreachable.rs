//! Routes that never get a request, because others take every one that they match. `route::Shadows` knows which.

use std::collections::BTreeSet;

use vestibule_plugins::Problem;

use super::{Subject, route_at};
use crate::route::PathPattern;

/// A route that never gets a request, with the name of those that take them.
pub fn unreachable(subject: &Subject<'_>, warnings: &mut Vec<Problem>) {
    for (index, route) in subject.routes.iter().enumerate() {
        let mut takers = BTreeSet::new();
        let listeners = subject.listeners_of(index);
        let is_taken = listeners.iter().all(|&listener| match subject.shadows.takers(index, listener) {
            Some(found) => {
                takers.extend(found);
                true
            }
            None => false,
        });
        if !is_taken || takers.is_empty() {
            continue;
        }
        let named: Vec<String> = takers
            .iter()
            .filter_map(|&taker| {
                let line = subject.document.position(&route_at(taker)).line;
                Some(format!("`{}` (line {line})", subject.routes.get(taker)?.name))
            })
            .collect();
        let (rank, take) = if named.len() == 1 { ("ranks", "takes") } else { ("rank", "take") };
        let is_regex = |path: &PathPattern| matches!(path, PathPattern::Regex(_));
        let rule = subject.rules.get(index);
        let hint = if rule.is_some_and(|rule| !rule.paths.is_empty() && rule.paths.iter().all(is_regex)) {
            "remove it, or let it match by a prefix, such as `paths: [/v1]`: a regex ranks below every prefix"
        } else {
            "remove it, or let it ask for more, such as `match: { headers: { x-canary: always } }`"
        };
        warnings.push(
            Problem::new(
                route_at(index),
                format!(
                    "the route `{}` never gets a request: {} {rank} before it and {take} all that it matches",
                    route.name,
                    named.join(" and ")
                ),
            )
            .hint(hint),
        );
    }
}
