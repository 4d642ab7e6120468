//! From `listeners:` to what clients connect to.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::sha::Sha256;
use openssl::ssl::SslVersion;
use vestibule_plugins::{Path, Problem};

use super::files::Files;
use super::kept::{HttpsDefinition, Kept};
use super::{Https, Listener, Protocol, limits, routes};
use crate::config::{Config, DownstreamTlsConfig, ListenerConfig, TlsVersion};
use crate::listener::{AllTerms, Certificate, ClientCheck, ListenerIds, TermsKey, acceptor};
use crate::observe::Metrics;
use crate::upstream::Upstream;

/// What listeners are compiled with.
pub struct Hall<'a> {
    /// The whole file.
    pub config: &'a Config,
    /// The upstreams that compiled, by name.
    pub upstreams: &'a HashMap<&'a str, Arc<Upstream>>,
    /// Upstream names that stand in the file, those with problems of their own included.
    pub upstream_names: &'a [String],
    /// Certificates.
    pub files: &'a Files<'a>,
    /// What may be taken over.
    pub kept: &'a Kept,
    /// The numbers of the listeners' names.
    pub ids: &'a ListenerIds,
    /// The terms on which there are connections.
    pub terms: &'a AllTerms,
    /// Where connections are counted.
    pub metrics: &'a Metrics,
}

impl Hall<'_> {
    /// Compiles every listener that has no problem, in the order of their names.
    pub fn listeners(&self, problems: &mut Vec<Problem>) -> Vec<Arc<Listener>> {
        let root = Path::root();
        let mut listeners = Vec::new();
        for (name, config) in &self.config.listeners {
            let at = root.key("listeners").key(name);
            problems.extend(self.twin(name, config, &at));
            let Some(protocol) = self.protocol(config, &at, problems) else { continue };
            let key = TermsKey { listener: name.clone(), address: config.address, spoken: protocol.spoken() };
            listeners.push(Arc::new(Listener {
                name: name.clone(),
                id: self.ids.intern(name),
                address: config.address,
                protocol,
                terms: self.terms.intern(key),
                max_connections: config.max_connections,
                limits: limits::compile(config, &at, problems),
                idle_timeout: config.keepalive.idle_timeout,
                meter: self.metrics.listener(name),
            }));
        }
        listeners
    }

    /// That one of the listeners before it has the address already.
    fn twin(&self, name: &str, config: &ListenerConfig, at: &Path) -> Option<Problem> {
        let before = self.config.listeners.iter().take_while(|(other, _)| *other != name);
        let same = |(_, other): &(&String, &ListenerConfig)| {
            other.address == config.address && config.address.port() != 0
        };
        let (other, _) = before.into_iter().find(same)?;
        let message = format!("the listener `{other}` has the address `{}` already", config.address);
        Some(Problem::new(at.key("address"), message).hint("give each listener an address of its own"))
    }

    fn protocol(
        &self,
        listener: &ListenerConfig,
        at: &Path,
        problems: &mut Vec<Problem>,
    ) -> Option<Protocol> {
        match (&listener.tcp, &listener.tls) {
            (None, None) => Some(Protocol::Http),
            (None, Some(tls)) => self.https(tls, &at.key("tls"), problems).map(Protocol::Https),
            (Some(_), Some(_)) => {
                problems.push(
                    Problem::new(
                        at.key("tls"),
                        "a `tcp` listener passes TLS through untouched, so it has no `tls` of its own",
                    )
                    .hint("keep `tls` to end TLS here, or `tcp` to pass it through"),
                );
                None
            }
            (Some(tcp), None) => {
                let at = at.key("tcp").key("upstream");
                let Some(upstream) = self.upstreams.get(tcp.upstream.as_str()) else {
                    problems.extend(routes::unknown("upstream", &tcp.upstream, self.upstream_names, at));
                    return None;
                };
                let idle_timeout = (tcp.idle_timeout != Duration::ZERO).then_some(tcp.idle_timeout);
                Some(Protocol::Tcp { upstream: upstream.clone(), idle_timeout })
            }
        }
    }

    fn https(&self, tls: &DownstreamTlsConfig, at: &Path, problems: &mut Vec<Problem>) -> Option<Arc<Https>> {
        let files = self.files;
        let before = problems.len();
        if tls.certificates.is_empty() {
            problems.push(
                Problem::new(at.key("certificates"), "a TLS listener needs at least one certificate")
                    .hint("write `certificates: [{ cert: FILE, key: FILE }]`"),
            );
        }
        let mut certificates = Vec::new();
        for (index, pair) in tls.certificates.iter().enumerate() {
            match files.key_pair(pair, &at.key("certificates").index(index)) {
                Ok((chain, key)) => certificates.push(Certificate { chain, key }),
                Err(found) => problems.extend(found),
            }
        }
        let clients = tls.client_certificate.as_ref().and_then(|clients| {
            let roots = files.certificates(&clients.ca, &at.key("client_certificate").key("ca"));
            roots
                .map(|roots| ClientCheck { roots, required: clients.require })
                .map_err(|problem| problems.push(problem))
                .ok()
        });
        if problems.len() > before {
            return None;
        }
        let made = definition(&certificates, clients.as_ref(), tls.min_version).and_then(|definition| {
            self.kept.https.try_take_over(definition.clone(), || {
                let min_version = match tls.min_version {
                    TlsVersion::Tls12 => SslVersion::TLS1_2,
                    TlsVersion::Tls13 => SslVersion::TLS1_3,
                };
                Ok(Arc::new(Https {
                    acceptor: acceptor(&certificates, clients.as_ref(), min_version)?,
                    min_version,
                    clients: definition.clients,
                    leaves: certificates.iter().filter_map(|it| it.chain.first().cloned()).collect(),
                    authorities: clients.map(|clients| clients.roots).unwrap_or_default(),
                }))
            })
        });
        let told = |error: ErrorStack| {
            Problem::new(at.clone(), format!("OpenSSL does not take these settings: {error}"))
        };
        made.map_err(|error| problems.push(told(error))).ok()
    }
}

fn definition(
    certificates: &[Certificate],
    clients: Option<&ClientCheck>,
    min_version: TlsVersion,
) -> Result<HttpsDefinition, ErrorStack> {
    let mut chains = Vec::new();
    for certificate in certificates {
        let mut chain = Sha256::new();
        for link in &certificate.chain {
            chain.update(&link.digest(MessageDigest::sha256())?);
        }
        chains.push(chain.finish());
    }
    Ok(HttpsDefinition { chains, clients: clients.map(ClientCheck::terms).transpose()?, min_version })
}
