//! Routes that lend the gateway's own identity to everybody.

use vestibule_plugins::{Path, Problem};

use super::{Subject, route_at};
use crate::snapshot::{Action, Protocol};

/// A route whose upstream is shown a client certificate, and that lets pass who has proven nothing.
pub fn identity(subject: &Subject<'_>, warnings: &mut Vec<Problem>) {
    for (index, route) in subject.routes.iter().enumerate() {
        let Action::Forward { targets, .. } = &route.action else { continue };
        let shown = targets
            .iter()
            .find(|target| target.tls.as_ref().is_some_and(|tls| tls.policy.settings.identity.is_some()));
        let Some(target) = shown else { continue };
        if route.chain.authenticates() || subject.asks_for_certificates(index) {
            continue;
        }
        let name = &target.upstream.name;
        let own = subject.config.routes.get(index).and_then(|route| route.tls.as_ref());
        let at = match own.is_some_and(|tls| tls.client_certificate.is_some()) {
            true => route_at(index).key("tls").key("client_certificate"),
            false => Path::root().key("upstreams").key(name).key("tls").key("client_certificate"),
        };
        warnings.push(
            Problem::new(
                at,
                format!(
                    "the route `{}` shows this certificate to `{name}` for everybody: whoever reaches the listener acts as the \
                     gateway there, since nothing asks who it is",
                    route.name
                ),
            )
            .hint(
                "ask for it: `plugins: [jwt: …]`, `basic_auth`, `api_key` or `forward_auth`, or `client_certificate: { ca: FILE, \
                 require: true }` of the listener; for the Kubernetes API add `kube_impersonate`",
            ),
        );
    }
}

impl Subject<'_> {
    /// Whether every listener by which this route gets requests refuses clients without a certificate.
    fn asks_for_certificates(&self, route: usize) -> bool {
        let own = self.listeners_of(route);
        let mut listeners = self.listeners.iter().filter(|listener| own.contains(&listener.id));
        listeners.all(|listener| match &listener.protocol {
            Protocol::Https(https) => https
                .policies
                .all()
                .iter()
                .all(|policy| policy.clients.as_ref().is_some_and(|clients| clients.required)),
            Protocol::Http | Protocol::Tcp(_) | Protocol::Udp { .. } => false,
        })
    }
}
