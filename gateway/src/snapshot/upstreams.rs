//! From `upstreams:` to endpoints that can be picked.

use std::sync::Arc;

use vestibule_plugins::{Path, Problem, Scope, Template};

use super::kept::{Kept, UpstreamDefinition};
use super::{Host, Workshop};
use crate::config::{EndpointAddress, EndpointConfig, HostConfig, ProtocolConfig, UpstreamConfig};
use crate::upstream::{Address, Balance, Endpoint, Protocol, Upstream};

/// Compiles one upstream, or takes it over with all that it has learnt; `at` is its own path.
pub fn compile(
    name: &str,
    config: &UpstreamConfig,
    at: &Path,
    workshop: &Workshop,
    problems: &mut Vec<Problem>,
) -> Arc<Upstream> {
    problems.extend(contradiction(config, at));
    let listed = at.key("endpoints");
    if config.endpoints.is_empty() {
        problems.push(
            Problem::new(listed.clone(), "an upstream needs at least one endpoint")
                .hint("write `endpoints: [\"HOST:PORT\"]`"),
        );
    }
    for (position, endpoint) in config.endpoints.iter().enumerate() {
        let same = |other: &&EndpointConfig| other.address == endpoint.address;
        if config.endpoints[..position].iter().any(|other| same(&other)) {
            problems.push(
                Problem::new(
                    listed.index(position),
                    format!("the endpoint `{}` is given twice", endpoint.address),
                )
                .hint("give it once, with a `weight`"),
            );
        }
    }
    let Workshop { metrics, kept, .. } = workshop;
    kept.upstreams.take_over(UpstreamDefinition::new(name, config), || {
        let endpoints = config.endpoints.iter().map(|endpoint| {
            let mut endpoint = compile_endpoint(endpoint, config.tls.is_some(), kept);
            endpoint.record = metrics.record(name, &endpoint.text);
            Arc::new(endpoint)
        });
        Arc::new(Upstream {
            name: name.to_owned(),
            balance: Balance::new(endpoints.collect()),
            protocol: protocol(config),
            connect_timeout: (!config.connect_timeout.is_zero()).then_some(config.connect_timeout),
            idle_timeout: config.keepalive.idle_timeout,
            meter: metrics.upstream(name),
            unplaced: metrics.record(name, ""),
        })
    })
}

/// What is spoken to this upstream.
pub fn protocol(config: &UpstreamConfig) -> Protocol {
    match config.protocol {
        ProtocolConfig::Http1 => Protocol::Http1,
        ProtocolConfig::H2 => Protocol::H2,
        ProtocolConfig::H2c => Protocol::H2c,
        ProtocolConfig::Auto => Protocol::Auto,
    }
}

/// That the protocol does not go with the `tls` block, or with the lack of one.
fn contradiction(config: &UpstreamConfig, at: &Path) -> Option<Problem> {
    let (what, hint) = match (config.protocol, &config.tls) {
        (ProtocolConfig::H2, None) => (
            "`h2` is HTTP/2 over TLS, and this upstream has no `tls` block",
            "h2 without TLS is `h2c`; with TLS, add `tls: {}`",
        ),
        (ProtocolConfig::Auto, None) => (
            "`auto` lets the TLS handshake choose, and this upstream has no `tls` block",
            "h2 without TLS is `h2c`; with TLS, add `tls: {}`",
        ),
        (ProtocolConfig::H2c, Some(_)) => (
            "`h2c` is HTTP/2 without TLS, and this upstream has a `tls` block",
            "h2c with TLS is `h2`; without TLS, remove `tls`",
        ),
        _ => return None,
    };
    Some(Problem::new(at.key("protocol"), what).hint(hint))
}

/// The Host that is sent to this upstream.
///
/// # Errors
/// The template cannot be parsed.
pub fn host(config: &UpstreamConfig, at: &Path) -> Result<Host, Problem> {
    Ok(match &config.host {
        HostConfig::Preserve => Host::Preserve,
        HostConfig::Endpoint => Host::Endpoint,
        HostConfig::Template(text) => Host::Template(
            Template::parse(text, Scope::Upstream).map_err(|problem| problem.under(&at.key("host")))?,
        ),
    })
}

fn compile_endpoint(config: &EndpointConfig, tls: bool, kept: &Kept) -> Endpoint {
    let text = config.address.to_string();
    let own_port = if tls { 443 } else { 80 };
    let with_port = |name: String, port: u16| if port == own_port { name } else { format!("{name}:{port}") };
    let (host, name, fixed) = match &config.address {
        EndpointAddress::Ip(address) => {
            let ip = match address.ip() {
                std::net::IpAddr::V4(ip) => ip.to_string(),
                std::net::IpAddr::V6(ip) => format!("[{ip}]"),
            };
            (with_port(ip, address.port()), None, vec![Address::tcp(*address)])
        }
        EndpointAddress::Name { host, port } => {
            (with_port(host.clone(), *port), Some((host.clone(), *port)), Vec::new())
        }
        EndpointAddress::Unix(path) => ("localhost".to_owned(), None, vec![Address::unix(path.clone())]),
    };
    let mut endpoint = Endpoint::new(text, host, config.weight, name, fixed);
    if let Some(name) = &endpoint.name {
        // Known from the start where an earlier snapshot has asked: no request finds it without an address.
        endpoint.known = kept.addresses.take_over(name.clone(), Arc::default);
    }
    endpoint
}
