//! A request on its way to one upstream: the head as it is sent, the endpoints in their order, and as whom each is
//! connected to.

use std::sync::Arc;
use std::time::Duration;

use pingora_http::RequestHeader;
use serde::Serialize;
use vestibule_plugins::retry::RetryPolicy;
use vestibule_plugins::{DurationText, Path};

use super::{Diff, Line, Place, Tls};
use crate::config::Document;
use crate::diagnose::{self, Cause, Failure};
use crate::proxy::attempt;
use crate::proxy::ctx::Ctx;
use crate::snapshot::{Action, Target};
use crate::upstream::{Address, Endpoint, Pick, Protocol};

/// A request as one upstream gets it.
#[derive(Debug, Serialize)]
pub struct Forward {
    /// The upstream, and where it stands in the file.
    pub upstream: Place,
    /// Its share among the route's targets.
    pub weight: u32,
    /// The sum of their weights.
    pub total_weight: u32,
    /// Path and query as they are sent.
    pub target: String,
    /// The head from what the client sent to what the first endpoint gets.
    pub request: Vec<Line>,
    /// The fields as the first endpoint gets them.
    pub headers: Vec<(String, String)>,
    /// In the order in which a gateway that has just started tries them: a retry takes the next.
    pub endpoints: Vec<Destination>,
    /// What is spoken.
    pub protocol: &'static str,
    /// Absent where the upstream is plain.
    pub tls: Option<Tls>,
    /// How long what may take.
    pub timeouts: Timeouts,
    /// When an attempt is made again.
    pub retry: Retry,
}

/// An endpoint, and as whom it is connected to.
#[derive(Debug, Serialize)]
pub struct Destination {
    /// As the file spells it; a name is not resolved.
    pub address: String,
    /// Its share of the upstream's requests.
    pub weight: u32,
    /// The Host that it is sent.
    pub host: String,
    /// The SNI that it is sent.
    pub sni: Option<String>,
    /// Any one of these is what its certificate has to be for; empty where nothing is verified.
    pub verified: Vec<String>,
}

/// How long what may take, as the file spells it; absent is no limit.
#[derive(Debug, Serialize)]
pub struct Timeouts {
    /// All tries together.
    pub request: Option<String>,
    /// Each try.
    pub attempt: Option<String>,
    /// No byte either way.
    pub idle: Option<String>,
    /// TCP connect, and then the TLS handshake.
    pub connect: Option<String>,
    /// How long an idle connection is kept.
    pub keepalive: String,
}

/// The rules of retrying.
#[derive(Debug, Serialize)]
pub struct Retry {
    /// All tries, the first included.
    pub attempts: u32,
    /// What is worth another; empty where only a kept connection that turns out closed is.
    pub on: Vec<String>,
    /// The methods that are safe to send twice.
    pub methods: Vec<String>,
    /// The longest wait before the second try, and the longest of all.
    pub backoff: (String, String),
    /// Retries for each hundred requests.
    pub budget: Option<String>,
}

/// Follows `request`, which has been through the chain, to the target that `ctx` names.
pub fn forward(
    request: RequestHeader,
    mut diff: Diff,
    ctx: &mut Ctx,
    document: &Document,
) -> Result<Forward, Failure> {
    let snapshot = ctx.snapshot.clone();
    let internal = || Failure::new(Cause::Internal, "a request without an upstream");
    let route = ctx.route.and_then(|route| snapshot.routes.get(route)).ok_or_else(internal)?;
    let Action::Forward { targets, total_weight } = &route.action else { return Err(internal()) };
    let target = ctx.target.and_then(|target| targets.get(target)).ok_or_else(internal)?;
    let upstream = &target.upstream;

    let mut sent = request.clone();
    strip_hop_by_hop(&mut sent);
    diff.step(&sent, "hop-by-hop");
    let mut endpoints = Vec::new();
    let mut first = None;
    for endpoint in upstream.balance.order() {
        let (head, destination) = destination(target, endpoint, &sent, ctx)?;
        endpoints.push(destination);
        first.get_or_insert(head);
    }
    let first = first.ok_or_else(internal)?;
    diff.step(&first, &format!("upstream {}", upstream.name));

    let text = |duration: Duration| DurationText(duration).to_string();
    Ok(Forward {
        upstream: Place::of(&upstream.name, document, &Path::root().key("upstreams").key(&upstream.name)),
        weight: target.weight,
        total_weight: *total_weight,
        target: String::from_utf8_lossy(first.raw_path()).into_owned(),
        request: diff.lines(),
        headers: fields(&first),
        endpoints,
        protocol: protocol(upstream.protocol),
        tls: target.tls.as_ref().map(|tls| Tls::of(&tls.policy.settings)),
        timeouts: Timeouts {
            request: route.timeouts.request.map(text),
            attempt: route.timeouts.attempt.map(text),
            idle: route.timeouts.idle.map(text),
            connect: upstream.connect_timeout.map(text),
            keepalive: text(upstream.idle_timeout),
        },
        retry: retry(attempt::policy(ctx)),
    })
}

/// What one endpoint gets, by the proxy's own choice of Host and SNI.
fn destination(
    target: &Target,
    endpoint: &Arc<Endpoint>,
    sent: &RequestHeader,
    ctx: &mut Ctx,
) -> Result<(RequestHeader, Destination), Failure> {
    // Nothing connects to the address: the name of an endpoint stands for what it would resolve to.
    let address = endpoint.addresses().first().cloned().unwrap_or_else(|| {
        let port = endpoint.name.as_ref().map_or(0, |(_, port)| *port);
        Address { text: endpoint.text.as_str().into(), ..Address::tcp(([0, 0, 0, 0], port).into()) }
    });
    ctx.attempt.pick = Some(Pick { endpoint: endpoint.clone(), address });
    ctx.attempt.identity = attempt::identity(target, sent, ctx);
    let mut head = sent.clone();
    attempt::address(&mut head, ctx).map_err(|error| diagnose::of_error(&error, false))?;
    let host = head.headers.get(http::header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()));
    let destination = Destination {
        address: endpoint.text.clone(),
        weight: endpoint.weight,
        host: host.unwrap_or_default().into_owned(),
        sni: ctx.sni().map(str::to_owned),
        verified: target.tls.as_ref().map_or_else(Vec::new, |tls| {
            let names = tls.policy.names_for(&ctx.attempt.identity);
            names.iter().map(ToString::to_string).collect()
        }),
    };
    Ok((head, destination))
}

/// The one step that is the engine's and that it lets nobody call: `sanitize_h1_upstream_request` of `pingora-proxy`,
/// under its default policy; a request to upgrade it leaves as it is, and `attempt::address` strips. An end-to-end test
/// compares the outcome with what an origin gets.
fn strip_hop_by_hop(head: &mut RequestHeader) {
    if head.headers.contains_key("upgrade") {
        return;
    }
    const STRIPPED: [&str; 10] = [
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "connection",
        "upgrade",
        "http2-settings",
    ];
    for name in STRIPPED {
        head.remove_header(name);
    }
}

fn fields(head: &RequestHeader) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

fn retry(policy: &RetryPolicy) -> Retry {
    let (base, max) = policy.backoff();
    Retry {
        attempts: policy.attempts(),
        on: policy.retry_on(),
        methods: policy.methods().iter().map(ToString::to_string).collect(),
        backoff: (DurationText(base).to_string(), DurationText(max).to_string()),
        budget: policy.budget().map(|share| share.to_string()),
    }
}

/// What is spoken to the upstream.
fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => "http/1.1",
        Protocol::H2 => "h2",
        Protocol::H2c => "h2c",
        Protocol::Auto => "h2 or http/1.1, as ALPN chooses",
    }
}
