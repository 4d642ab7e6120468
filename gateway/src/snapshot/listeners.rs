//! From `listeners:` to what clients connect to.

use std::collections::HashMap;
use std::net::IpAddr;
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
use crate::config::{
    Config, DownstreamClientCertificateConfig, DownstreamTlsConfig, ListenerConfig,
    SniClientCertificateConfig, TlsVersion,
};
use crate::listener::{AllTerms, Certificate, ClientCheck, ListenerIds, Policies, TermsKey, acceptor};
use crate::observe::Metrics;
use crate::route::HostPattern;
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
            let key = |spoken| TermsKey { listener: name.clone(), address: config.address, spoken };
            let terms = protocol.spoken().into_iter().map(|spoken| self.terms.intern(key(spoken))).collect();
            listeners.push(Arc::new(Listener {
                name: name.clone(),
                id: self.ids.intern(name),
                address: config.address,
                protocol,
                terms,
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

    fn check(
        &self,
        config: &DownstreamClientCertificateConfig,
        at: &Path,
        problems: &mut Vec<Problem>,
    ) -> Option<ClientCheck> {
        let DownstreamClientCertificateConfig { ca, require, crl, depth } = config;
        let roots = self.files.certificates(ca, &at.key("ca"));
        let crls = crl.as_ref().map(|crl| self.files.crls(crl, &at.key("crl"))).transpose();
        match (roots, crls) {
            (Ok(roots), Ok(crls)) => {
                Some(ClientCheck { roots, crls: crls.unwrap_or_default(), depth: *depth, required: *require })
            }
            (roots, crls) => {
                problems.extend(roots.err().into_iter().chain(crls.err()));
                None
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
        let own = tls.client_certificate.as_ref();
        let mut checks =
            vec![own.and_then(|clients| self.check(clients, &at.key("client_certificate"), problems))];
        let mut names = Vec::new();
        for (name, entry) in &tls.by_sni {
            let at = at.key("by_sni").key(name);
            match sni_pattern(name, &names) {
                Ok(pattern) => names.push(pattern),
                Err(problem) => problems.push(problem.under(&at)),
            }
            checks.push(match &entry.client_certificate {
                SniClientCertificateConfig::None => None,
                SniClientCertificateConfig::Asked(clients) => {
                    self.check(clients, &at.key("client_certificate"), problems)
                }
            });
        }
        if problems.len() > before {
            return None;
        }
        let made = policies(names, &checks).and_then(|policies| {
            let definition = HttpsDefinition {
                chains: chains(&certificates)?,
                policies: policies.all().to_vec(),
                min_version: tls.min_version,
            };
            self.kept.https.try_take_over(definition, || {
                let min_version = match tls.min_version {
                    TlsVersion::Tls12 => SslVersion::TLS1_2,
                    TlsVersion::Tls13 => SslVersion::TLS1_3,
                };
                let policies = Arc::new(policies);
                Ok(Arc::new(Https {
                    acceptor: acceptor(&certificates, &policies, &checks, min_version)?,
                    min_version,
                    policies,
                    leaves: certificates.iter().filter_map(|it| it.chain.first().cloned()).collect(),
                    authorities: checks.into_iter().flatten().flat_map(|check| check.roots).collect(),
                }))
            })
        });
        let told = |error: ErrorStack| {
            Problem::new(at.clone(), format!("OpenSSL does not take these settings: {error}"))
        };
        made.map_err(|error| problems.push(told(error))).ok()
    }
}

/// The names that an entry of `by_sni` is for; the others' are given.
fn sni_pattern(text: &str, others: &[HostPattern]) -> Result<HostPattern, Problem> {
    let problem = |message: String| Problem::new(Path::root(), message);
    let pattern = HostPattern::parse(text).map_err(problem)?;
    if let HostPattern::Exact(name) = &pattern
        && (name.starts_with('[') || name.parse::<IpAddr>().is_ok())
    {
        return Err(problem(format!("`{text}` is an address, and no client sends one as its SNI"))
            .hint("clients that connect to an address send no SNI: they have the listener's own policy"));
    }
    match others.contains(&pattern) {
        true => {
            Err(problem(format!("`{text}` stands here twice: case and a dot at the end tell no names apart")))
        }
        false => Ok(pattern),
    }
}

/// The first of the checks is the default's.
fn policies(names: Vec<HostPattern>, checks: &[Option<ClientCheck>]) -> Result<Policies, ErrorStack> {
    let terms = |check: &Option<ClientCheck>| check.as_ref().map(ClientCheck::terms).transpose();
    let mut clients = checks.iter().map(terms).collect::<Result<Vec<_>, _>>()?.into_iter();
    let default = clients.next().flatten();
    Ok(Policies::new(default, names.into_iter().zip(clients).collect()))
}

fn chains(certificates: &[Certificate]) -> Result<Vec<[u8; 32]>, ErrorStack> {
    let mut chains = Vec::new();
    for certificate in certificates {
        let mut chain = Sha256::new();
        for link in &certificate.chain {
            chain.update(&link.digest(MessageDigest::sha256())?);
        }
        chains.push(chain.finish());
    }
    Ok(chains)
}
