//! A rule: what one route asks of a request, and what it says to one: a rank, or the first condition that
//! failed. How the best of many rules is found quickly is the table's business.

use http::{HeaderMap, HeaderName, Method};

use super::host::HostPattern;
use super::path::PathPattern;
use super::rank::{ConditionRank, HostRank, MethodRank, PathRank, Rank};
use super::text::TextPattern;

/// Which listener a request came in by.
pub type ListenerId = u32;

/// What one route asks of a request: all of the fields, and within `hosts`, `paths`, `methods` and
/// `listeners` any one. An empty list asks for nothing.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    /// Any of these hosts.
    pub hosts: Vec<HostPattern>,
    /// Any of these paths.
    pub paths: Vec<PathPattern>,
    /// Any of these methods.
    pub methods: Vec<Method>,
    /// All of these headers.
    pub headers: Vec<(HeaderName, TextPattern)>,
    /// All of these query parameters, by their decoded names.
    pub query: Vec<(String, TextPattern)>,
    /// Any of these listeners.
    pub listeners: Vec<ListenerId>,
}

/// What of a request decides its route.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The host without its port, in upper or lower case; an IPv6 literal with its brackets.
    pub host: &'a str,
    /// The path as it came, percent-escapes included.
    pub path: &'a str,
    /// What stands after the `?`, as it came.
    pub query: Option<&'a str>,
    /// The method.
    pub method: &'a Method,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// The listener that it came in by.
    pub listener: ListenerId,
}

/// The rule that won.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// Its index in the list that the table was made from.
    pub rule: usize,
    /// How many bytes of the path its prefix took, the trailing slash not counted: 0 for `/` and for a rule
    /// without paths, none if it matched by an exact path or a regex.
    pub prefix_len: Option<usize>,
}

/// The first of a rule's conditions that a request does not meet, in the order of the variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Miss<'a> {
    /// It came in by another listener.
    Listener,
    /// None of the hosts.
    Host,
    /// None of the paths.
    Path,
    /// None of the methods.
    Method,
    /// This header is not as the rule wants it.
    Header(&'a HeaderName),
    /// This query parameter is not as the rule wants it.
    Query(&'a str),
}

impl Rule {
    /// The rank of this rule, the `order`th of the file, for a request whose host is `host` in comparable
    /// form. Of several hosts or paths that match, the closest counts.
    pub(super) fn rank(&self, order: usize, host: &str, request: &Request) -> Result<Rank, Miss<'_>> {
        self.check_listener(request)?;
        let host = match &self.hosts[..] {
            [] => HostRank::Any,
            hosts => hosts.iter().filter_map(|pattern| pattern.rank(host)).max().ok_or(Miss::Host)?,
        };
        let path = match &self.paths[..] {
            [] => PathRank::Prefix(0),
            paths => paths.iter().filter_map(|pattern| pattern.rank(request.path)).max().ok_or(Miss::Path)?,
        };
        self.check_conditions(request)?;
        Ok(Rank::new(host, path, self.condition_rank(), order))
    }

    /// Whether everything but host and path is as the rule wants it.
    pub(super) fn admits(&self, request: &Request) -> bool {
        self.check_listener(request).is_ok() && self.check_conditions(request).is_ok()
    }

    pub(super) fn condition_rank(&self) -> ConditionRank {
        let method = if self.methods.is_empty() { MethodRank::Any } else { MethodRank::Named };
        ConditionRank { method, headers: self.headers.len(), query: self.query.len() }
    }

    fn check_listener(&self, request: &Request) -> Result<(), Miss<'_>> {
        if self.listeners.is_empty() || self.listeners.contains(&request.listener) {
            Ok(())
        } else {
            Err(Miss::Listener)
        }
    }

    fn check_conditions(&self, request: &Request) -> Result<(), Miss<'_>> {
        if !self.methods.is_empty() && !self.methods.contains(request.method) {
            return Err(Miss::Method);
        }
        for (name, pattern) in &self.headers {
            if !pattern.matches_header(name, request.headers) {
                return Err(Miss::Header(name));
            }
        }
        for (name, pattern) in &self.query {
            if !pattern.matches_query(name, request.query) {
                return Err(Miss::Query(name));
            }
        }
        Ok(())
    }
}
