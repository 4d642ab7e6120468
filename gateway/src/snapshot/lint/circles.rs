//! Ways that lead back to where they began: upstreams that are the gateway itself, redirects to what was asked for.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use vestibule_plugins::{Path, Problem};

use super::{Subject, route_at};
use crate::config::EndpointAddress;
use crate::snapshot::{Action, Host, Listener, Protocol, RedirectPath, Target};

/// A route or a layer-4 listener whose upstream is the listener that the request came by, and a redirect to `https`
/// of what came by it.
pub fn circles(subject: &Subject<'_>, warnings: &mut Vec<Problem>) {
    for listener in subject.listeners {
        let Some(tcp) = subject.config.listeners.get(&listener.name).and_then(|it| it.tcp.as_ref()) else {
            continue;
        };
        let at = Path::root().key("listeners").key(&listener.name).key("tcp");
        let named = tcp.by_sni.iter().map(|(name, upstream)| (at.key("by_sni").key(name), upstream));
        for (at, upstream) in tcp.upstream.iter().map(|upstream| (at.key("upstream"), upstream)).chain(named)
        {
            if is_own(subject, upstream, listener) {
                warnings.push(loops(at, upstream, listener));
            }
        }
    }
    // A route that asks for a header may ask for one that the gateway adds, or for an outer proxy's scheme.
    let asks_for_headers = subject.rules.iter().any(|rule| !rule.headers.is_empty());
    let changes_all = !subject.config.plugins.is_empty();
    for ((index, route), config) in subject.routes.iter().enumerate().zip(&subject.config.routes) {
        match &route.action {
            Action::Forward { targets, .. }
                if !asks_for_headers && !changes_all && config.plugins.is_empty() =>
            {
                let back = |listener: &Listener, target: &Target| {
                    matches!(target.host, Host::Preserve)
                        && is_plain(listener) == target.tls.is_none()
                        && is_own(subject, &target.upstream.name, listener)
                };
                let all_back = |listener: &Listener| targets.iter().all(|target| back(listener, target));
                if let (Some(listener), [target, ..]) =
                    (reached(subject, index, all_back), targets.as_slice())
                {
                    let key = if targets.len() > 1 { "split" } else { "upstream" };
                    warnings.push(loops(route_at(index).key(key), &target.upstream.name, listener));
                }
            }
            Action::Redirect(to) if to.host.is_none() && matches!(to.path, RedirectPath::Keep) => {
                // To `http` an outer proxy may lead elsewhere; what asks for `https` by TLS has no other way.
                let same = |listener: &Listener| {
                    !is_plain(listener)
                        && to.scheme.as_deref() == Some("https")
                        && to.port.is_none_or(|port| port == listener.address.port())
                };
                if !asks_for_headers && let Some(listener) = reached(subject, index, same) {
                    warnings.push(redirects(subject, index, listener));
                }
            }
            _ => {}
        }
    }
}

/// The first listener of this kind by which requests come to the route.
fn reached<'a>(
    subject: &Subject<'a>,
    route: usize,
    is_meant: impl Fn(&Listener) -> bool,
) -> Option<&'a Arc<Listener>> {
    let ids = subject.listeners_of(route);
    let mut listeners = subject.listeners.iter().filter(|listener| ids.contains(&listener.id));
    listeners.find(|it| is_meant(it) && subject.shadows.takers(route, it.id).is_none())
}

fn redirects(subject: &Subject<'_>, route: usize, listener: &Listener) -> Problem {
    let ids = subject.listeners_of(route);
    let plain = subject.listeners.iter().filter(|it| ids.contains(&it.id) && is_plain(it));
    let plain: Vec<&str> = plain.map(|listener| listener.name.as_str()).collect();
    let hint = match plain.as_slice() {
        [] => "remove it, or name another `host` or `port`".to_owned(),
        plain => {
            format!("name the listeners that are meant: `match: {{ listeners: [{}] }}`", plain.join(", "))
        }
    };
    let name = &listener.name;
    let message = format!(
        "a request by the listener `{name}` is redirected to the `https` that it came by, and so without end"
    );
    Problem::new(route_at(route).key("redirect").key("scheme"), message).hint(hint)
}

fn loops(at: Path, upstream: &str, listener: &Listener) -> Problem {
    let (name, address) = (&listener.name, listener.address);
    let message = format!(
        "`{upstream}` is the listener `{name}` itself ({address}): what comes in there goes back there, and so on"
    );
    Problem::new(at, message)
        .hint(format!("name another address: `endpoints: [\"HOST:PORT\"]` of `upstreams.{upstream}`"))
}

/// Whether every endpoint of the upstream is this listener.
fn is_own(subject: &Subject<'_>, upstream: &str, listener: &Listener) -> bool {
    let endpoints =
        subject.config.upstreams.get(upstream).map(|it| it.endpoints.as_slice()).unwrap_or_default();
    !endpoints.is_empty() && endpoints.iter().all(|endpoint| leads_to(&endpoint.address, listener.address))
}

fn leads_to(endpoint: &EndpointAddress, listener: SocketAddr) -> bool {
    let ip = listener.ip();
    match endpoint {
        // `0.0.0.0` takes what comes to this machine's own address over IPv4.
        EndpointAddress::Ip(to) if to.port() == listener.port() => {
            to.ip() == ip
                || (ip.is_unspecified() && to.ip().is_loopback() && to.is_ipv4() == listener.is_ipv4())
        }
        EndpointAddress::Name { host, port } if *port == listener.port() => {
            host == "localhost"
                && (ip == IpAddr::from([127, 0, 0, 1]) || listener.is_ipv4() && ip.is_unspecified())
        }
        _ => false,
    }
}

fn is_plain(listener: &Listener) -> bool {
    matches!(listener.protocol, Protocol::Http)
}
