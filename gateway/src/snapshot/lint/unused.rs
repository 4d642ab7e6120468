//! Upstreams that nothing leads to.

use std::collections::HashSet;
use std::sync::Arc;

use vestibule_plugins::{Path, Problem};

use super::Subject;
use crate::snapshot::{Action, PassThrough, Protocol};
use crate::upstream::Upstream;

/// An upstream that no route, no listener and no plugin names.
pub fn unused(subject: &Subject<'_>, warnings: &mut Vec<Problem>) {
    let of_routes = subject.routes.iter().flat_map(|route| match &route.action {
        Action::Forward { targets, .. } => targets.as_slice(),
        Action::Respond { .. } | Action::Redirect(_) => &[],
    });
    let passed = subject.listeners.iter().filter_map(|it| it.pass_through()).flat_map(PassThrough::upstreams);
    let of_listeners =
        passed.chain(subject.listeners.iter().filter_map(|listener| match &listener.protocol {
            Protocol::Udp { upstream, .. } => Some(upstream),
            Protocol::Http | Protocol::Https(_) | Protocol::Tcp(_) => None,
        }));
    let used: HashSet<*const Upstream> =
        of_routes.map(|target| &target.upstream).chain(of_listeners).map(Arc::as_ptr).collect();
    for (name, upstream) in subject.upstreams {
        if used.contains(&Arc::as_ptr(upstream)) || subject.of_plugins.contains(*name) {
            continue;
        }
        let at = Path::root().key("upstreams").key(*name);
        warnings.push(
            Problem::new(at, format!("nothing leads to the upstream `{name}`"))
                .hint(format!("remove it, or let a route lead to it: `upstream: {name}`")),
        );
    }
}
