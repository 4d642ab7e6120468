//! Precedence as an `Ord`: of all the rules that match a request, the one with the greatest rank wins.
//! Data only. What matches is asked of the patterns, and no code elsewhere may compare rules another way.

use std::cmp::Reverse;

/// How closely a rule matches one request, the weightiest part first. No two rules of a table have the same
/// rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// How the host was matched.
    pub host: HostRank,
    /// How the path was matched.
    pub path: PathRank,
    /// How much else the rule asks for.
    pub conditions: ConditionRank,
    /// The rule's place in the file: the earlier wins.
    pub order: Reverse<usize>,
}

impl Rank {
    pub(super) fn new(host: HostRank, path: PathRank, conditions: ConditionRank, order: usize) -> Self {
        // No measure says which of two regexes is the closer one, so among themselves the file alone decides.
        let conditions = if path == PathRank::Regex { ConditionRank::default() } else { conditions };
        Self { host, path, conditions, order: Reverse(order) }
    }

    /// The part that decides between two ranks: the first in which they differ.
    pub fn decided_by(&self, other: &Self) -> RankPart {
        let (ours, theirs) = (&self.conditions, &other.conditions);
        let parts = [
            (RankPart::Host, self.host == other.host),
            (RankPart::Path, self.path == other.path),
            (RankPart::Method, ours.method == theirs.method),
            (RankPart::Headers, ours.headers == theirs.headers),
            (RankPart::Query, ours.query == theirs.query),
        ];
        parts.into_iter().find(|(_, same)| !same).map_or(RankPart::Order, |(part, _)| part)
    }
}

/// A part of a rank, the weightiest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RankPart {
    /// How the host was matched.
    Host,
    /// How the path was matched.
    Path,
    /// Whether methods are named.
    Method,
    /// How many headers are asked for.
    Headers,
    /// How many query parameters are asked for.
    Query,
    /// The place in the file.
    Order,
}

/// How a rule's hosts matched, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostRank {
    /// The rule names no host.
    Any,
    /// A `*.suffix`, with the suffix's length in bytes: the longer is the closer.
    Suffix(usize),
    /// The very name. Only one name equals the request's, so a length would add nothing.
    Exact,
}

/// How a rule's paths matched, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathRank {
    /// A regex: below every prefix, `/` included.
    Regex,
    /// A prefix, with its length in bytes, the trailing slash not counted. A rule without paths is
    /// `Prefix(0)`.
    Prefix(usize),
    /// The very path.
    Exact,
}

/// What a rule asks for besides host and path, the weightiest part first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConditionRank {
    /// Whether the rule names methods.
    pub method: MethodRank,
    /// How many headers it asks for.
    pub headers: usize,
    /// How many query parameters it asks for.
    pub query: usize,
}

/// Whether a rule names methods, the weaker first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum MethodRank {
    /// Every method will do.
    #[default]
    Any,
    /// The rule lists the methods that it takes.
    Named,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(method: MethodRank, headers: usize, query: usize) -> ConditionRank {
        ConditionRank { method, headers, query }
    }

    #[test]
    fn each_step_outweighs_all_that_follow_it() {
        let most = conditions(MethodRank::Named, 9, 9);
        let none = ConditionRank::default();
        let any = MethodRank::Any;
        let check = |greater: Rank, lesser: Rank, part: RankPart| {
            assert!(greater > lesser, "{greater:?} > {lesser:?}");
            assert_eq!((greater.decided_by(&lesser), lesser.decided_by(&greater)), (part, part));
        };
        let rank = Rank::new;
        use HostRank as H;
        use PathRank as P;

        check(rank(H::Exact, P::Regex, none, 9), rank(H::Suffix(99), P::Exact, most, 0), RankPart::Host);
        check(rank(H::Suffix(9), P::Regex, none, 9), rank(H::Suffix(8), P::Exact, most, 0), RankPart::Host);
        check(rank(H::Suffix(1), P::Regex, none, 9), rank(H::Any, P::Exact, most, 0), RankPart::Host);
        check(rank(H::Any, P::Exact, none, 9), rank(H::Any, P::Prefix(99), most, 0), RankPart::Path);
        check(rank(H::Any, P::Prefix(9), none, 9), rank(H::Any, P::Prefix(8), most, 0), RankPart::Path);
        check(rank(H::Any, P::Prefix(0), none, 9), rank(H::Any, P::Regex, most, 0), RankPart::Path);
        let named = conditions(MethodRank::Named, 0, 0);
        check(
            rank(H::Any, P::Exact, named, 9),
            rank(H::Any, P::Exact, conditions(any, 9, 9), 0),
            RankPart::Method,
        );
        check(
            rank(H::Any, P::Exact, conditions(any, 2, 0), 9),
            rank(H::Any, P::Exact, conditions(any, 1, 9), 0),
            RankPart::Headers,
        );
        check(
            rank(H::Any, P::Exact, conditions(any, 0, 1), 9),
            rank(H::Any, P::Exact, none, 0),
            RankPart::Query,
        );
        check(rank(H::Any, P::Exact, none, 0), rank(H::Any, P::Exact, none, 1), RankPart::Order);
    }

    #[test]
    fn regexes_are_ordered_by_the_file_alone() {
        let most = conditions(MethodRank::Named, 9, 9);
        let early = Rank::new(HostRank::Any, PathRank::Regex, ConditionRank::default(), 0);
        assert!(early > Rank::new(HostRank::Any, PathRank::Regex, most, 1));
    }
}
