//! Routes that change places: each pair that both match some request, where the other one would win now.

use std::collections::BTreeSet;

use serde::Serialize;

use super::routes::Pairs;
use super::samples::{Sample, Spelled, Tables};
use crate::route::Rank;

/// So many pairs are told.
const MOST: usize = 100;
/// So many rules are asked in all: a table of many is tried with fewer requests.
const MOST_ASKED: usize = 4_000_000;
/// So many routes that match one request are compared with each other.
const MOST_ALIKE: usize = 32;

/// A route that now comes before another one.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Overtaking {
    /// The one that comes first now.
    pub route: String,
    /// The one that came first before.
    pub before: String,
    /// A request that both match.
    pub request: Spelled,
}

/// The routes that change places, as far as a sample shows it.
pub fn overtakings(tables: &Tables, names: &[String], pairs: &Pairs, samples: &[Sample]) -> Vec<Overtaking> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let rules = (tables.old.rules().len() + tables.new.rules().len()).max(1);
    for sample in samples.iter().take(MOST_ASKED / rules) {
        let request = sample.request();
        let before = tables.old.explain(&request);
        let after = tables.new.explain(&request);
        let rank_before =
            |at: usize| -> Option<Rank> { before.get(pairs.old_of[at]?)?.as_ref().ok().copied() };
        let both = after.iter().enumerate().filter_map(|(at, is)| {
            let is = *is.as_ref().ok()?;
            Some((at, rank_before(at)?, is))
        });
        let both: Vec<(usize, Rank, Rank)> = both.take(MOST_ALIKE).collect();
        for (index, (one, one_was, one_is)) in both.iter().enumerate() {
            for (other, other_was, other_is) in &both[index + 1..] {
                let (first, second) = match (one_was > other_was, one_is > other_is) {
                    (false, true) => (one, other),
                    (true, false) => (other, one),
                    _ => continue,
                };
                if seen.insert((*first, *second)) {
                    let name = |at: usize| names.get(at).cloned().unwrap_or_default();
                    let request = Spelled::of(sample, tables);
                    found.push(Overtaking { route: name(*first), before: name(*second), request });
                }
                if found.len() == MOST {
                    return found;
                }
            }
        }
    }
    found
}
