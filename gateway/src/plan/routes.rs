//! Routes that come, go, change or get another name, and which of the old ones each new one is.

use serde_json::Value;

use super::changes::changes;
use super::described::yaml;
use super::{Change, Half, Piece};
use crate::config::{Config, RedirectConfig, RouteConfig};

/// Which new route each old one is, by their places in the two files.
pub struct Pairs {
    /// For each old route, the new one.
    pub new_of: Vec<Option<usize>>,
    /// For each new route, the old one.
    pub old_of: Vec<Option<usize>>,
}

/// Routes are the same by name; those without one by what they match, then by their place among the rest. One that has
/// a new name is the same where all else of it is.
pub fn pairs(old: &Half<'_>, new: &Half<'_>) -> Pairs {
    let (before, after) = (&old.config.routes, &new.config.routes);
    let mut pairs = Pairs { new_of: vec![None; before.len()], old_of: vec![None; after.len()] };
    pairs.pair(before, after, |a, b| a.name.is_some() && a.name == b.name);
    pairs.pair(before, after, |a, b| a.name.is_none() && a == b);
    pairs.pair(before, after, |a, b| a.name.is_none() && b.name.is_none() && a.r#match == b.r#match);
    pairs.pair(before, after, |a, b| nameless(a) == nameless(b));
    pairs.pair(before, after, |a, b| a.name.is_none() && b.name.is_none());
    pairs
}

impl Pairs {
    /// Pairs what is not paired yet, each old route with the first new one that will do.
    fn pair(
        &mut self,
        old: &[RouteConfig],
        new: &[RouteConfig],
        is_same: impl Fn(&RouteConfig, &RouteConfig) -> bool,
    ) {
        for (at, before) in
            old.iter().enumerate().filter(|(at, _)| self.new_of[*at].is_none()).collect::<Vec<_>>()
        {
            let free =
                |(at, after): &(usize, &RouteConfig)| self.old_of[*at].is_none() && is_same(before, after);
            if let Some((found, _)) = new.iter().enumerate().find(free) {
                self.new_of[at] = Some(found);
                self.old_of[found] = Some(at);
            }
        }
    }
}

/// Whether routes that stay do not stay in order.
pub fn are_reordered(pairs: &Pairs) -> bool {
    !pairs.new_of.iter().flatten().is_sorted()
}

/// In the order of the new file, and then those that go.
pub fn compare(old: &Half<'_>, new: &Half<'_>, pairs: &Pairs) -> Vec<Piece> {
    let (before, after) = (&old.config.routes, &new.config.routes);
    let mut found = Vec::new();
    for (at, route) in after.iter().enumerate() {
        let name = name(route, at);
        let Some(was) = pairs.old_of[at] else {
            found.push(Piece::new(&name, Change::Added, what(route)));
            continue;
        };
        let old_name = self::name(&before[was], was);
        let mut piece = Piece::new(&name, Change::Changed, what(route));
        if nameless(&before[was]) != nameless(route) {
            let read = |value: Option<&Value>| serde_yaml::from_value::<RouteConfig>(yaml(value?)).ok();
            let (old, new) = (without_name(old, was), without_name(new, at));
            piece.keys = changes(old.as_ref(), new.as_ref(), &read);
        }
        let body = |half: &Half<'_>, name: &str| half.described.bodies.get(name).cloned();
        if let (Some(was), Some(is)) = (body(old, &old_name), body(new, &name))
            && was != is
        {
            piece.effects.push("the file that it answers with holds something else".to_owned());
        }
        if before[was].name != route.name {
            piece.old_name = Some(old_name);
            if piece.keys.is_empty() && piece.effects.is_empty() {
                piece.change = Change::Renamed;
            }
        }
        found.push(piece);
    }
    for (at, route) in before.iter().enumerate().filter(|(at, _)| pairs.new_of[*at].is_none()) {
        found.push(Piece::new(&name(route, at), Change::Removed, what(route)));
    }
    found
}

/// The name of the route that stands at this place.
pub fn name(route: &RouteConfig, at: usize) -> String {
    route.name.clone().unwrap_or_else(|| format!("routes[{at}]"))
}

/// The names of all routes.
pub fn names(config: &Config) -> Vec<String> {
    config.routes.iter().enumerate().map(|(at, route)| name(route, at)).collect()
}

/// What becomes of a route's requests, in a few words.
pub fn what(route: &RouteConfig) -> String {
    if let Some(upstream) = &route.upstream {
        return format!("upstream {upstream}");
    }
    if let Some(split) = &route.split {
        let parts: Vec<_> = split.iter().map(|part| format!("{} {}", part.upstream, part.weight)).collect();
        return format!("split {}", parts.join(", "));
    }
    match (&route.redirect, &route.respond) {
        (Some(redirect), _) => format!("redirect {}{}", redirect.status, target(redirect)),
        (None, Some(respond)) => format!("respond {}", respond.status),
        (None, None) => "nothing".to_owned(),
    }
}

fn target(redirect: &RedirectConfig) -> String {
    let RedirectConfig { scheme, host, port, path, replace_prefix, .. } = redirect;
    let mut told = String::new();
    for (key, value) in [
        ("scheme", scheme.clone()),
        ("host", host.clone()),
        ("port", port.map(|port| port.to_string())),
        ("path", path.clone()),
        ("replace_prefix", replace_prefix.clone()),
    ] {
        if let Some(value) = value {
            told += &format!(" {key} {value}");
        }
    }
    crate::config::redact::unmarked(&told)
}

fn nameless(route: &RouteConfig) -> RouteConfig {
    RouteConfig { name: None, ..route.clone() }
}

fn without_name(half: &Half<'_>, at: usize) -> Option<Value> {
    let mut route = half.tree.get("routes")?.get(at)?.clone();
    if let Some(map) = route.as_object_mut() {
        map.remove("name");
    }
    Some(route)
}
