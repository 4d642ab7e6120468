//! From `listeners:` to what clients connect to.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::sha::Sha256;
use openssl::ssl::SslVersion;
use vestibule_plugins::{Path, Problem};

use super::files::Files;
use super::kept::{HttpsDefinition, Kept};
use super::{Https, Listener, PassThrough, Protocol, limits, routes};
use crate::config::{
    Config, DownstreamClientCertificateConfig, DownstreamTlsConfig, ListenerConfig, ProxyProtocolConfig,
    ProxyVersionConfig, SniClientCertificateConfig, TcpConfig, TlsVersion, UdpConfig,
};
use crate::listener::proxy_protocol::Version;
use crate::listener::{
    AllTerms, Certificate, ClientCheck, ListenerIds, OpeningTerms, Policies, Proxies, TermsKey, acceptor,
};
use crate::observe::Metrics;
use crate::route::{HostPattern, Names};
use crate::upstream::{Target, Upstream};

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
            let Some((protocol, passes)) = self.protocol(config, &at, problems) else { continue };
            let proxies = proxies(&config.proxy_protocol);
            let passed = config.tcp.iter().filter(|_| passes.is_some()).flat_map(|tcp| tcp.by_sni.keys());
            let opening = OpeningTerms { proxies: proxies.clone(), passed: passed.cloned().collect() };
            let terms = protocol.spoken().into_iter().map(|spoken| {
                let (listener, address, opening) = (name.clone(), config.address, opening.clone());
                self.terms.intern(TermsKey { listener, address, spoken, opening })
            });
            let terms = terms.collect();
            listeners.push(Arc::new(Listener {
                name: name.clone(),
                id: self.ids.intern(name),
                address: config.address,
                proxies,
                protocol,
                passes,
                terms,
                max_connections: config.max_connections,
                max_connections_per_client: config.max_connections_per_client,
                limits: limits::compile(config, &at, problems),
                paths: limits::paths(config, &at, problems),
                idle_timeout: config.keepalive.idle_timeout,
                meter: self.metrics.listener(name),
                warned: AtomicU64::new(0),
            }));
        }
        listeners
    }

    /// That one of the listeners before it has the address already.
    fn twin(&self, name: &str, config: &ListenerConfig, at: &Path) -> Option<Problem> {
        let before = self.config.listeners.iter().take_while(|(other, _)| *other != name);
        let same = |(_, other): &(&String, &ListenerConfig)| {
            let both_udp = other.udp.is_some() == config.udp.is_some();
            other.address == config.address && config.address.port() != 0 && both_udp
        };
        let (other, _) = before.into_iter().find(same)?;
        let message = format!("the listener `{other}` has the address `{}` already", config.address);
        Some(Problem::new(at.key("address"), message).hint("give each listener an address of its own"))
    }

    /// What is spoken, and what of a listener that ends TLS is passed through.
    fn protocol(
        &self,
        listener: &ListenerConfig,
        at: &Path,
        problems: &mut Vec<Problem>,
    ) -> Option<(Protocol, Option<PassThrough>)> {
        if let Some(udp) = &listener.udp {
            return self.udp(udp, listener, at, problems).map(|udp| (udp, None));
        }
        let pass = listener.tcp.as_ref().map(|tcp| {
            if listener.tls.is_some() {
                problems.extend(neither_alone(tcp, at));
            }
            self.pass_through(tcp, listener.tls.is_none(), &at.key("tcp"), problems)
        });
        let https = listener.tls.as_ref().map(|tls| self.https(tls, &at.key("tls"), problems));
        match (pass, https) {
            (None, None) => Some((Protocol::Http, None)),
            (None, Some(https)) => Some((Protocol::Https(https?), None)),
            (Some(pass), None) => Some((Protocol::Tcp(pass?), None)),
            (Some(pass), Some(https)) => Some((Protocol::Https(https?), Some(pass?))),
        }
    }

    /// `all` where nothing else takes what this does not.
    fn pass_through(
        &self,
        tcp: &TcpConfig,
        all: bool,
        at: &Path,
        problems: &mut Vec<Problem>,
    ) -> Option<PassThrough> {
        let before = problems.len();
        if all && tcp.upstream.is_none() && tcp.by_sni.is_empty() {
            problems.push(
                Problem::new(at.clone(), "a `tcp` listener leads to no upstream")
                    .hint("write `upstream: NAME`, or `by_sni: { NAME: UPSTREAM }`"),
            );
        }
        let upstream = |name: &String, at: Path, problems: &mut Vec<Problem>| {
            let found = self.upstreams.get(name.as_str()).cloned();
            if found.is_none() {
                problems.extend(routes::unknown("upstream", name, self.upstream_names, at));
            }
            found
        };
        let mut by_sni = Names::default();
        for (name, target) in &tcp.by_sni {
            let at = at.key("by_sni").key(name);
            let found = upstream(target, at.clone(), problems);
            match (server_name(name), found) {
                (Err(message), _) => problems.push(Problem::new(at, message)),
                (Ok(pattern), Some(found)) => {
                    if by_sni.insert(pattern, found).is_err() {
                        problems
                            .push(Problem::new(at, format!("`{name}` is the same name as another one here")));
                    }
                }
                (Ok(_), None) => {}
            }
        }
        let fallback = tcp.upstream.as_ref().map(|name| upstream(name, at.key("upstream"), problems));
        // An upstream that has problems of its own is none, and has told them.
        let complete = by_sni.values().count() == tcp.by_sni.len() && !matches!(fallback, Some(None));
        (complete && problems.len() == before).then(|| PassThrough {
            by_sni,
            upstream: fallback.flatten(),
            idle_timeout: (tcp.idle_timeout != Duration::ZERO).then_some(tcp.idle_timeout),
            announce: tcp.proxy_protocol.map(|version| match version {
                ProxyVersionConfig::V1 => Version::V1,
                ProxyVersionConfig::V2 => Version::V2,
            }),
        })
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

    fn udp(
        &self,
        udp: &UdpConfig,
        listener: &ListenerConfig,
        at: &Path,
        problems: &mut Vec<Problem>,
    ) -> Option<Protocol> {
        let before = problems.len();
        let announced = listener.proxy_protocol != ProxyProtocolConfig::No;
        let others =
            [("tls", listener.tls.is_some()), ("tcp", listener.tcp.is_some()), ("proxy_protocol", announced)];
        for (key, given) in others {
            if given {
                let message = format!("a `udp` listener passes datagrams through, so it has no `{key}`");
                let hint =
                    "a port of UDP and one of TCP may have the same number: give each a listener of its own";
                problems.push(Problem::new(at.key(key), message).hint(hint));
            }
        }
        let at = at.key("udp");
        if udp.idle_timeout.is_zero() {
            problems.push(
                Problem::new(at.key("idle_timeout"), "`0s` is no limit, and then no session would ever end")
                    .hint("write how long a client may be silent, such as `30s`"),
            );
        }
        let at = at.key("upstream");
        let Some(upstream) = self.upstreams.get(udp.upstream.as_str()) else {
            problems.extend(routes::unknown("upstream", &udp.upstream, self.upstream_names, at));
            return None;
        };
        let fixed = upstream.balance.endpoints().iter().flat_map(|endpoint| endpoint.addresses().to_vec());
        if let Some(unix) = fixed.into_iter().find(|address| matches!(address.target, Target::Unix(_))) {
            let message = format!("datagrams cannot go to the endpoint `{unix}` of `{}`", udp.upstream);
            problems.push(Problem::new(at, message).hint("give endpoints as `host:port`"));
        }
        let (idle_timeout, max_sessions) = (udp.idle_timeout, udp.max_sessions);
        let protocol = Protocol::Udp { upstream: upstream.clone(), idle_timeout, max_sessions };
        (problems.len() == before).then_some(protocol)
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

/// What cannot be where TLS is ended too.
fn neither_alone(tcp: &TcpConfig, at: &Path) -> Option<Problem> {
    if tcp.upstream.is_some() {
        let message = "`tls` ends what `by_sni` does not name, so nothing is left for an `upstream`";
        let hint = match tcp.by_sni.is_empty() {
            true => {
                "keep `tls` to end TLS here, or `tcp` to pass it through; with both, write `by_sni` and no `upstream`"
            }
            false => "leave the `upstream` out, or the `tls`",
        };
        return Some(Problem::new(at.key("tcp").key("upstream"), message).hint(hint));
    }
    tcp.by_sni.is_empty().then(|| {
        Problem::new(at.key("tcp"), "`tls` ends everything, so nothing is passed through")
            .hint("name what is to be passed through: `by_sni: { NAME: UPSTREAM }`; or leave `tcp` out")
    })
}

/// A name that a client may ask for.
fn server_name(text: &str) -> Result<HostPattern, String> {
    if matches!(text, "" | "*") {
        return Err(format!(
            "`{text}` is no name: `tcp: {{ upstream: NAME }}` is for all that have none here"
        ));
    }
    let pattern = HostPattern::parse(text)?;
    let is_address = |name: &String| name.starts_with('[') || name.parse::<IpAddr>().is_ok();
    match &pattern {
        HostPattern::Exact(name) if is_address(name) => {
            Err(format!("`{text}` is an address, which no client asks for by SNI (RFC 6066 section 3)"))
        }
        _ => Ok(pattern),
    }
}

fn proxies(config: &ProxyProtocolConfig) -> Proxies {
    match config {
        ProxyProtocolConfig::No => Proxies::None,
        ProxyProtocolConfig::Yes => Proxies::All,
        ProxyProtocolConfig::From(proxies) => {
            Proxies::From(proxies.from.iter().map(|block| block.0).collect())
        }
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
