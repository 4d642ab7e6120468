//! Upstreams that come, go or change, and what becomes of their connections.

use std::collections::BTreeSet;

use serde_json::Value;

use super::changes::changes;
use super::described::yaml;
use super::{Change, Half, Piece};
use crate::config::UpstreamConfig;
use crate::snapshot::UpstreamDefinition;

/// In the order of their names.
pub fn compare(old: &Half<'_>, new: &Half<'_>) -> Vec<Piece> {
    let (before, after) = (&old.config.upstreams, &new.config.upstreams);
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut found = Vec::new();
    for name in names {
        match (before.get(name), after.get(name)) {
            (None, Some(added)) => found.push(Piece::new(name, Change::Added, what(added))),
            (Some(removed), None) => {
                let mut piece = Piece::new(name, Change::Removed, what(removed));
                piece.effects.push("its connections close when they are idle".to_owned());
                found.push(piece);
            }
            (Some(before), Some(after)) => {
                let mut piece = Piece::new(name, Change::Changed, what(after));
                if before != after {
                    let read =
                        |value: Option<&Value>| serde_yaml::from_value::<UpstreamConfig>(yaml(value?)).ok();
                    piece.keys = changes(old.piece("upstreams", name), new.piece("upstreams", name), &read);
                    piece.effects.push(rotation(name, before, after));
                }
                piece.effects.extend(connections(name, (old, before), (new, after)));
                if !piece.keys.is_empty() || !piece.effects.is_empty() {
                    found.push(piece);
                }
            }
            (None, None) => {}
        }
    }
    found
}

fn what(upstream: &UpstreamConfig) -> String {
    let endpoints: Vec<_> = upstream.endpoints.iter().map(|it| it.address.to_string()).collect();
    format!("{}{}", endpoints.join(", "), if upstream.tls.is_some() { " over TLS" } else { "" })
}

/// By what the gateway itself asks.
fn rotation(name: &str, old: &UpstreamConfig, new: &UpstreamConfig) -> String {
    match UpstreamDefinition::new(name, old) == UpstreamDefinition::new(name, new) {
        true => "whose turn it is of the endpoints is kept".to_owned(),
        false => "the rotation over the endpoints begins anew".to_owned(),
    }
}

fn connections(
    name: &str,
    (old, before): (&Half<'_>, &UpstreamConfig),
    (new, after): (&Half<'_>, &UpstreamConfig),
) -> Option<String> {
    const CLOSE: &str = "the next connections are made by it, and those of before close when they are idle";
    match (&before.tls, &after.tls) {
        (None, Some(_)) => Some(format!("its connections are plain now and will be TLS: {CLOSE}")),
        (Some(_), None) => Some(format!("its connections are TLS now and will be plain: {CLOSE}")),
        _ => {
            let keys = |half: &Half<'_>| half.described.policies.get(name).cloned().unwrap_or_default();
            let (had, has) = (keys(old), keys(new));
            // Where it was not reached, it has no connection.
            let is_gone = !had.is_empty() && !has.is_empty() && !had.is_subset(&has);
            let why = match (before.tls == after.tls, before.protocol == after.protocol) {
                (true, true) => {
                    "a certificate, CA or revocation list, or a route's own `tls`, is another one"
                }
                _ => "another TLS policy",
            };
            is_gone.then(|| format!("{why}: {CLOSE}"))
        }
    }
}
