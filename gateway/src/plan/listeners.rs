//! Listeners that come, go or change, and what that means for the connections that are open.

use std::collections::BTreeSet;

use serde_json::Value;

use super::changes::changes;
use super::described::yaml;
use super::{Change, Half, Piece};
use crate::config::{ListenerConfig, TcpConfig};
use crate::snapshot::certificates::Usage;

/// In the order of their names.
pub fn compare(old: &Half<'_>, new: &Half<'_>) -> Vec<Piece> {
    let (before, after) = (&old.config.listeners, &new.config.listeners);
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut found = Vec::new();
    for name in names {
        match (before.get(name), after.get(name)) {
            (None, Some(added)) => {
                let mut piece = Piece::new(name, Change::Added, what(added));
                piece.effects.push(match before.iter().find(|(_, other)| other.address == added.address) {
                    Some((other, _)) => format!("it takes the address of `{other}` over"),
                    None => "it will be bound".to_owned(),
                });
                found.push(piece);
            }
            (Some(removed), None) => {
                let mut piece = Piece::new(name, Change::Removed, what(removed));
                piece.effects.push("it closes; what is in flight on its connections finishes".to_owned());
                found.push(piece);
            }
            (Some(before), Some(after)) => {
                let mut piece = Piece::new(name, Change::Changed, what(after));
                if before != after {
                    let read =
                        |value: Option<&Value>| serde_yaml::from_value::<ListenerConfig>(yaml(value?)).ok();
                    piece.keys = changes(old.piece("listeners", name), new.piece("listeners", name), &read);
                    piece.effects = effects(before, after);
                } else {
                    piece.effects = contents(name, old, new);
                }
                if !piece.keys.is_empty() || !piece.effects.is_empty() {
                    found.push(piece);
                }
            }
            (None, None) => {}
        }
    }
    found
}

const NEXT_HANDSHAKE: &str = "the next handshake is served with the new certificates";
const TERMS_OVER: &str = "connections of before serve what is in flight, at most one request more, and close";
const ASKED_OTHERWISE: &str =
    "connections of before are not used for further requests: their clients were asked otherwise";

const ASKED_OTHERWISE_BY_NAME: &str =
    "connections of before are not used for names whose clients are asked otherwise now";

/// What means something though no key differs: files of the same names that hold other certificates.
fn contents(name: &str, old: &Half<'_>, new: &Half<'_>) -> Vec<String> {
    let owner = format!("listeners.{name}");
    let of = |half: &Half<'_>, usage: Usage| {
        let all = half.described.certificates.iter().filter(|it| it.owner == owner && it.usage == usage);
        all.map(|it| it.sha256.clone()).collect::<Vec<_>>()
    };
    let asked = |half: &Half<'_>| half.described.clients.get(name).cloned();
    let told = [
        (of(old, Usage::Listener) != of(new, Usage::Listener)).then_some(NEXT_HANDSHAKE),
        (asked(old) != asked(new) || of(old, Usage::Ca) != of(new, Usage::Ca)).then_some(ASKED_OTHERWISE),
    ];
    told.into_iter().flatten().map(str::to_owned).collect()
}

fn what(listener: &ListenerConfig) -> String {
    format!("{} {}", spoken(listener), listener.address)
}

fn spoken(listener: &ListenerConfig) -> &'static str {
    if listener.udp.is_some() {
        return "udp";
    }
    match (&listener.tcp, &listener.tls) {
        (Some(_), Some(_)) => "https and tcp",
        (Some(_), None) => "tcp",
        (None, Some(_)) => "https",
        (None, None) => "http",
    }
}

/// Where clients go by the name that they ask for, as far as that is another upstream now.
fn by_sni(old: &TcpConfig, new: &TcpConfig) -> Vec<String> {
    let names: BTreeSet<&String> = old.by_sni.keys().chain(new.by_sni.keys()).collect();
    let told = names.into_iter().filter_map(|name| match (old.by_sni.get(name), new.by_sni.get(name)) {
        (before, after) if before == after => None,
        (_, Some(after)) => Some(format!("new connections for {name} go to upstream {after}")),
        (_, None) => Some(format!("new connections for {name} are no longer told apart by their name")),
    });
    told.collect()
}

fn effects(old: &ListenerConfig, new: &ListenerConfig) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    if old.address != new.address {
        told.push(format!(
            "{} will be bound; {} closes, and what is in flight on its connections finishes",
            new.address, old.address
        ));
    }
    let (was, is) = (spoken(old), spoken(new));
    if was != is {
        told.push(format!(
            "new connections speak {is}; those that are open speak {was}, serve what is in flight, at most one request more, and close"
        ));
    }
    if let (Some(before), Some(after)) = (&old.tls, &new.tls) {
        if before.certificates != after.certificates {
            told.push(NEXT_HANDSHAKE.to_owned());
        }
        if before.client_certificate != after.client_certificate {
            told.push(match after.client_certificate {
                Some(_) => ASKED_OTHERWISE.to_owned(),
                None => TERMS_OVER.to_owned(),
            });
        }
        if before.by_sni != after.by_sni {
            told.push(ASKED_OTHERWISE_BY_NAME.to_owned());
        }
        if before.min_version != after.min_version {
            told.push(TERMS_OVER.to_owned());
        }
    }
    if let (Some(before), Some(after)) = (&old.tcp, &new.tcp) {
        match (&before.upstream, &after.upstream) {
            (before, after) if before == after => {}
            (Some(before), Some(after)) => told.push(format!(
                "new connections go to upstream {after}; those that are open stay with {before}"
            )),
            (Some(before), None) => told.push(format!(
                "new connections that by_sni does not name are closed; those that are open stay with {before}"
            )),
            (None, after) => told.push(format!(
                "new connections that by_sni does not name go to upstream {}",
                after.as_deref().unwrap_or_default()
            )),
        }
        told.extend(by_sni(before, after));
    }
    let passed = |listener: &ListenerConfig| {
        let names = listener.tcp.iter().flat_map(|tcp| tcp.by_sni.keys().cloned());
        names.collect::<Vec<_>>()
    };
    let opens_otherwise = old.proxy_protocol != new.proxy_protocol || passed(old) != passed(new);
    if was == is && new.serves_http() && opens_otherwise {
        told.push(TERMS_OVER.to_owned());
    }
    if let (Some(before), Some(after)) = (&old.udp, &new.udp)
        && before.upstream != after.upstream
    {
        told.push(format!(
            "sessions of new clients go to upstream {}; those that there are stay with {}",
            after.upstream, before.upstream
        ));
    }
    if told.is_empty() {
        told.push("it holds for new connections".to_owned());
    }
    told.dedup();
    told
}
