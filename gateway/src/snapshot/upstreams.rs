//! From `upstreams:` to endpoints that can be picked.

use std::sync::Arc;

use vestibule_plugins::{Path, Problem, Scope, Template};

use super::Host;
use crate::config::{EndpointAddress, EndpointConfig, HostConfig, UpstreamConfig};
use crate::observe::Metrics;
use crate::upstream::{Address, Balance, Endpoint, Upstream};

/// Compiles one upstream; `at` is its own path.
pub fn compile(
    name: &str,
    config: &UpstreamConfig,
    at: &Path,
    metrics: &Metrics,
    problems: &mut Vec<Problem>,
) -> Arc<Upstream> {
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
    let endpoints = config.endpoints.iter().map(|endpoint| {
        let mut endpoint = compile_endpoint(endpoint, config.tls.is_some());
        endpoint.record = metrics.record(name, &endpoint.text);
        Arc::new(endpoint)
    });
    Arc::new(Upstream {
        name: name.to_owned(),
        balance: Balance::new(endpoints.collect()),
        connect_timeout: (!config.connect_timeout.is_zero()).then_some(config.connect_timeout),
        idle_timeout: config.keepalive.idle_timeout,
        meter: metrics.upstream(name),
        unplaced: metrics.record(name, ""),
    })
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

fn compile_endpoint(config: &EndpointConfig, tls: bool) -> Endpoint {
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
    Endpoint::new(text, host, config.weight, name, fixed)
}
