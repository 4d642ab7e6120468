//! Names that a client chooses: the SNI follows the client's Host, and what is verified follows the SNI.

use std::collections::BTreeMap;

use serde_yaml::Value;
use vestibule_plugins::{Path, Problem};

use super::{Subject, route_at};
use crate::config::{PluginConfig, SniConfig};
use crate::route::{HostPattern, Rule};
use crate::snapshot::{Action, Host, Sni, Target};
use crate::upstream::{Trust, Verification};

/// A route for every host whose upstream is verified by whatever name the client asked for: where `sni: $host` is
/// written out, or the gateway's own client certificate is at stake. The default alone is no reason: to pass every
/// host on to an ingress is what many do, and means no more than the ingress makes of it.
pub fn sni(subject: &Subject<'_>, warnings: &mut Vec<Problem>) {
    let mut found: BTreeMap<Path, Problem> = BTreeMap::new();
    let routes = subject.config.routes.iter().zip(subject.routes).zip(subject.rules);
    for (index, ((config, route), rule)) in routes.enumerate() {
        let Action::Forward { targets, .. } = &route.action else { continue };
        let may_set_host = subject.config.plugins.iter().chain(&config.plugins).any(may_set_host);
        if may_set_host || !takes_any_host(rule) {
            continue;
        }
        for target in targets.iter().filter(|target| is_verified_as_asked(target)) {
            let upstream = &target.upstream.name;
            let Some(base) = subject.config.upstreams.get(upstream).and_then(|it| it.tls.as_ref()) else {
                continue;
            };
            let at_upstream = Path::root().key("upstreams").key(upstream).key("tls");
            let of_route = config.tls.as_ref().and_then(|tls| tls.sni.as_ref());
            let written = match (of_route, &base.sni) {
                (Some(SniConfig::Template(_)), _) => Some(route_at(index).key("tls").key("sni")),
                (None, Some(SniConfig::Template(_))) => Some(at_upstream.key("sni")),
                _ => None,
            };
            let name = &route.name;
            let (at, message) = match written {
                Some(at) => (
                    at,
                    format!(
                        "the client chooses which name of `{upstream}` is verified: the route `{name}` takes any host, \
                         and `sni: $host` makes it the SNI and the verified name"
                    ),
                ),
                None if target.tls.as_ref().is_some_and(|tls| tls.policy.settings.identity.is_some()) => (
                    match config.tls.as_ref().is_some_and(|tls| tls.client_certificate.is_some()) {
                        true => route_at(index).key("tls").key("client_certificate"),
                        false => at_upstream.key("client_certificate"),
                    },
                    format!(
                        "the client chooses which name of `{upstream}` gets the gateway's client certificate: the \
                         route `{name}` takes any host, which becomes the SNI and the verified name"
                    ),
                ),
                None => continue,
            };
            let hint = "say which name it has, `verify: { name: NAME }`, or give the route the hosts that there are, \
                        `match: { hosts: [NAME] }`";
            found.entry(at.clone()).or_insert_with(|| Problem::new(at, message).hint(hint));
        }
    }
    warnings.extend(found.into_values());
}

fn is_verified_as_asked(target: &Target) -> bool {
    let asked = |tls: &crate::snapshot::TargetTls| {
        let verification = &tls.policy.settings.verification;
        matches!((&tls.sni, verification), (Sni::Host, Verification::On(Trust { names: None, .. })))
    };
    matches!(target.host, Host::Preserve) && target.tls.as_ref().is_some_and(asked)
}

/// Below `*.com` anybody may have a name; below `*.example.com` only its owner.
fn takes_any_host(rule: &Rule) -> bool {
    let is_any = |host: &HostPattern| match host {
        HostPattern::Exact(_) => false,
        HostPattern::Suffix(suffix) => suffix.matches('.').count() == 1,
    };
    rule.hosts.is_empty() || rule.hosts.iter().any(is_any)
}

/// Whether a plugin may replace the client's Host; of one that is not known here nobody can tell.
fn may_set_host(plugin: &PluginConfig) -> bool {
    match plugin.name.as_str() {
        "request_id" | "retry" => false,
        "headers" | "path_rewrite" => names_host(&plugin.config),
        _ => true,
    }
}

fn names_host(value: &Value) -> bool {
    match value {
        Value::Mapping(map) => map.iter().any(|(key, value)| {
            key.as_str().is_some_and(|key| key.eq_ignore_ascii_case("host")) || names_host(value)
        }),
        _ => false,
    }
}
