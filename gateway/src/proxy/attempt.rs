//! One try at an upstream: where it goes, as whom, what came of it, and whether there is another.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, header};
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result, RetryType};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;
use vestibule_plugins::SizeText;
use vestibule_plugins::retry::{Attempt, Body, Connection, Decision, Outcome, RetryPolicy, Sent};

use super::admit::{deadline, host_name};
use super::ctx::{Ctx, Progress};
use super::{tally, upgrade};
use crate::diagnose::{self, Cause, Failure};
use crate::observe::due;
use crate::snapshot::{Host, Sni, Target};
use crate::upstream::peer::{Limits, Wanted, pass_upgrade, peer};
use crate::upstream::{Lease, Origin, Protocol, TlsPolicy, Unserved, misplaced, unserved};

/// Waits where a retry has to, picks an endpoint, and says how it is to be connected to.
pub async fn begin(session: &Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
    let backoff = std::mem::take(&mut ctx.attempt.backoff);
    if !backoff.is_zero() {
        tokio::time::sleep(backoff).await;
    }
    ctx.attempt.number += 1;
    ctx.attempt.progress = Progress::Begun;
    ctx.attempt.deadline = None;
    ctx.attempt.tls = None;
    ctx.attempt.refusal = false;
    ctx.attempt.lease = None;
    ctx.attempt.body = 0;
    let begun = pick(session.req_header(), session.is_upgrade_req(), ctx);
    if let Err(failure) = &begun {
        warn(ctx, failure);
    }
    begun.map_err(Failure::into_error)
}

fn pick(head: &RequestHeader, upgrades: bool, ctx: &mut Ctx) -> Result<Box<HttpPeer>, Failure> {
    let snapshot = ctx.snapshot.clone();
    let internal = || Failure::new(Cause::Internal, "a request without an upstream");
    let route = ctx.route.and_then(|route| snapshot.routes.get(route)).ok_or_else(internal)?;
    let target = target_of(route, ctx.target).ok_or_else(internal)?;
    let upstream = &target.upstream;
    ctx.remaining(None)?;
    ctx.attempt.started = Some(Instant::now());
    ctx.attempt.deadline = deadline(route.timeouts.attempt);

    let Some(pick) = upstream.balance.pick(&ctx.attempt.tried) else {
        let names = upstream.balance.endpoints().iter().map(|endpoint| endpoint.text.as_str());
        return Err(Failure::new(Cause::DnsNotFound, names.collect::<Vec<_>>().join(", ")));
    };
    ctx.attempt.tried.push(pick.address.clone());
    ctx.attempt.pick = Some(pick);
    ctx.attempt.progress = Progress::Placed;
    ctx.attempt.identity = identity(target, head, ctx);
    let limits = Limits {
        connect: upstream.connect_timeout,
        attempt: ctx.remaining(None)?,
        io: route.timeouts.idle,
        idle: upstream.idle_timeout,
    };
    let address = &ctx.attempt.pick.as_ref().ok_or_else(internal)?.address;
    let (protocol, policy) = spoken(target, upgrades);
    let tls = policy.map(|policy| (policy, ctx.attempt.identity.as_str()));
    let mut peer = peer(address, protocol, tls, limits)
        .map_err(|error| Failure::new(Cause::ConnectFailed, error.to_string()))?;
    if upgrades {
        pass_upgrade(&mut peer);
    }
    Ok(peer)
}

/// What is spoken to the target and by which policy: under `auto`, a request to upgrade goes by HTTP/1.1, which alone
/// has upgrades, and so does every request once the upstream has said that it wants that.
fn spoken(target: &Target, upgrades: bool) -> (Protocol, Option<&TlsPolicy>) {
    let protocol = target.upstream.protocol;
    let Some(tls) = &target.tls else { return (protocol, None) };
    match &tls.http1 {
        Some(http1) if upgrades || http1.required.load(Ordering::Relaxed) => {
            (Protocol::Http1, Some(&http1.policy))
        }
        _ => (protocol, Some(&tls.policy)),
    }
}

fn target_of(route: &crate::snapshot::Route, target: Option<usize>) -> Option<&Target> {
    match &route.action {
        crate::snapshot::Action::Forward { targets, .. } => targets.get(target?),
        _ => None,
    }
}

/// The SNI of this attempt; where the Host is an IP address that address, and nothing where the file says `none`.
pub fn identity(target: &Target, head: &RequestHeader, ctx: &Ctx) -> String {
    let Some(tls) = &target.tls else { return String::new() };
    let name = match &tls.sni {
        Sni::None => return String::new(),
        Sni::Template(template) => template.render(head, &ctx.info()).into_owned(),
        Sni::Host => sent_host(target, head, ctx),
    };
    bare(&name)
}

/// The name in a Host. RFC 6066 section 3: neither a port nor a trailing dot.
pub fn bare(host: &str) -> String {
    host_name(host).trim_end_matches('.').trim_matches(['[', ']']).to_ascii_lowercase()
}

/// The Host that is sent, with its port.
fn sent_host(target: &Target, head: &RequestHeader, ctx: &Ctx) -> String {
    host(target, head, ctx).unwrap_or_else(|| {
        head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned()
    })
}

/// The Host to send where it is not the one that the request has.
fn host(target: &Target, head: &RequestHeader, ctx: &Ctx) -> Option<String> {
    match &target.host {
        Host::Preserve => None,
        Host::Endpoint => Some(ctx.attempt.pick.as_ref()?.endpoint.host.clone()),
        Host::Template(template) => Some(template.render(head, &ctx.info()).into_owned()),
    }
}

/// Writes the Host that this attempt is to have into the request that goes to the upstream.
pub fn address(request: &mut RequestHeader, ctx: &Ctx) -> Result<()> {
    let Some(target) = ctx.target() else { return Ok(()) };
    if request.headers.contains_key(header::UPGRADE) {
        upgrade::strip_hop_by_hop(request)?;
    } else if target.upstream.idle_timeout.is_zero() {
        // Not to be kept: said to the upstream, whose answer then ends the connection.
        request.insert_header(header::CONNECTION, "close")?;
    }
    let Some(host) = host(target, request, ctx) else { return Ok(()) };
    let value = HeaderValue::from_str(&host).map_err(|_| {
        Failure::new(Cause::Internal, "`host` of the upstream came out as an illegal header value")
            .into_error()
    })?;
    request.insert_header(header::HOST, value)
}

/// Whether a request has a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// It has.
    Some,
    /// It has not.
    None,
}

impl Content {
    /// What a request has.
    pub fn of(session: &mut Session) -> Self {
        if session.as_downstream_mut().is_body_empty() { Self::None } else { Self::Some }
    }
}

/// Notes how the connection came about, and takes it. `upgrade` is the body of a request to change the protocol.
///
/// # Errors
/// It was made for something else.
pub fn connected(
    wanted: Wanted<'_>,
    upgrade: Option<Content>,
    reused: bool,
    digest: Option<&Digest>,
    ctx: &mut Ctx,
) -> Result<()> {
    ctx.attempt.reused = reused;
    let data = digest.and_then(|digest| digest.proxy_digest.as_ref()?.user_data.as_ref());
    let Some(origin) = data.and_then(|data| data.downcast_ref::<Arc<Origin>>()) else { return Ok(()) };
    if !origin.serves(wanted) {
        return Err(misplaced());
    }
    if let Some(tls) = digest.and_then(|digest| digest.ssl_digest.as_ref()) {
        ctx.attempt.tls = Some((known_version(&tls.version), origin.resumed()));
    }
    tally::connected(ctx);
    if let Some(content) = upgrade {
        origin.await_upgrade(content == Content::Some);
        if let Some(client) = &ctx.client {
            client.heads.await_upgrade();
        }
    }
    let deadline = [ctx.deadline, ctx.attempt.deadline].into_iter().flatten().min();
    ctx.attempt.lease = Some(Lease::new(origin.clone(), deadline));
    Ok(())
}

fn known_version(version: &str) -> &'static str {
    match version {
        "TLSv1" => "TLSv1",
        "TLSv1.1" => "TLSv1.1",
        "TLSv1.2" => "TLSv1.2",
        "TLSv1.3" => "TLSv1.3",
        _ => "other",
    }
}

/// A head has come from the upstream: passed on, or given up for another try.
pub fn answered(session: &mut Session, response: &ResponseHeader, ctx: &mut Ctx) -> Result<()> {
    let status = response.status;
    if status.is_informational() && status != http::StatusCode::SWITCHING_PROTOCOLS {
        return Ok(());
    }
    if status == http::StatusCode::SWITCHING_PROTOCOLS {
        if let Some(lease) = &mut ctx.attempt.lease {
            lease.disarm();
            let tunnel = lease.origin().open_tunnel();
            if let Some(client) = &ctx.client {
                client.heads.open(tunnel.clone());
            }
            ctx.attempt.tunnel = Some(tunnel);
        }
        (ctx.deadline, ctx.attempt.deadline) = (None, None);
        // Either end of a tunnel may be silent for as long as the route lets both be.
        let idle = ctx.route().and_then(|route| route.timeouts.idle);
        session.set_read_timeout(idle);
        session.set_write_timeout(idle);
    }
    ctx.attempt.progress = Progress::Answered;
    ctx.attempt.status = Some(status.as_u16());
    ctx.attempt.refusal = status == http::StatusCode::BAD_REQUEST;
    ctx.attempt.took = ctx.attempt.started.map(|started| started.elapsed());
    if !policy(ctx).is_retryable_status(status.as_u16()) {
        told_by_status(session.req_header(), status.as_u16(), ctx);
        return Ok(());
    }
    let failure = Failure::new(Cause::UpstreamStatus, status.as_str());
    if !again(session, ctx, Outcome::Status(status.as_u16()), Sent::Something) {
        told_by_status(session.req_header(), status.as_u16(), ctx);
        tally::failed(ctx, &failure);
        // The client gets the upstream's own answer: it says more than one of ours.
        return Ok(());
    }
    warn(ctx, &failure);
    let mut error = failure.into_error();
    error.set_retry(true);
    Err(error)
}

/// A piece of what the client sends is on its way to the upstream, or the end of it.
pub fn passes_up(body: Option<&Bytes>, end: bool, ctx: &Ctx) {
    if let (Some(tunnel), Some(body)) = (&ctx.attempt.tunnel, body) {
        tunnel.take_up(body.len());
    }
    if let Some(lease) = ctx.attempt.lease.as_ref().filter(|_| end) {
        lease.origin().sent();
    }
}

/// Notes the mistake that a status tells of, in an answer that is passed on as it is.
fn told_by_status(head: &RequestHeader, status: u16, ctx: &mut Ctx) {
    let Some(target) = ctx.target().filter(|_| matches!(status, 421 | 426)) else { return };
    let identity = target.tls.is_some().then_some(ctx.attempt.identity.as_str());
    let host = bare(&sent_host(target, head, ctx));
    if let Some(failure) = diagnose::of_status(status, &host, identity) {
        warn(ctx, &failure);
    }
}

/// Notes the mistake that a 400 tells of, by the first piece of its body. The answer is passed on as it is.
pub fn told_by_body(body: Option<&Bytes>, ctx: &mut Ctx) {
    let Some(body) = body.filter(|body| ctx.attempt.refusal && !body.is_empty()) else { return };
    ctx.attempt.refusal = false;
    let is_tls = ctx.target().is_some_and(|target| target.tls.is_some());
    if let Some(failure) = diagnose::of_refusal(body, is_tls) {
        warn(ctx, &failure);
    }
}

/// Counts what has come of the request's body, and breaks the attempt off where that is more than the route allows.
pub fn count_body(piece: Option<&Bytes>, ctx: &mut Ctx) -> Result<()> {
    let Some(most) = ctx.route().and_then(|route| route.chain.body_limit()) else { return Ok(()) };
    ctx.attempt.body += piece.map_or(0, |piece| piece.len() as u64);
    if ctx.attempt.body <= most {
        return Ok(());
    }
    let failure = || Failure::new(Cause::BodyTooLarge, format!("more than {} have come", SizeText(most)));
    if let Some(lease) = &ctx.attempt.lease {
        lease.break_off(failure());
    }
    let mut error = failure().into_error();
    error.as_down();
    Err(error)
}

/// The endpoint could not be connected to: nothing of the request has been sent.
pub fn not_connected(session: &Session, ctx: &mut Ctx, error: Box<Error>) -> Box<Error> {
    let failure = diagnose::of_error(&error, false);
    let outcome = match failure.cause {
        Cause::ConnectTimeout | Cause::TlsHandshakeTimeout => Outcome::Timeout,
        _ => Outcome::ConnectFailure,
    };
    failed(session, ctx, error, &failure, outcome, Sent::Nothing)
}

/// The exchange broke off after the connection had been made.
pub fn broken(session: &Session, ctx: &mut Ctx, mut error: Box<Error>, reused: bool) -> Box<Error> {
    if is_too_large(&error) {
        // A stream of HTTP/2 tells it as the upstream's.
        error.as_down();
    }
    if matches!(error.esource, ErrorSource::Downstream) {
        error.retry = RetryType::Decided(false);
        return error;
    }
    // Decided where the answer's head was read.
    if error
        .cause
        .as_ref()
        .and_then(|cause| cause.downcast_ref::<Failure>())
        .is_some_and(|it| it.cause == Cause::UpstreamStatus)
    {
        return error;
    }
    let failure = diagnose::of_error(&error, reused);
    let outcome = match failure.cause {
        Cause::UpstreamTimeout => Outcome::Timeout,
        _ => Outcome::Reset,
    };
    let sent = match unserved(&error) {
        None => Sent::Something,
        Some(unserved) => {
            note_unserved(unserved, ctx);
            Sent::Nothing
        }
    };
    failed(session, ctx, error, &failure, outcome, sent)
}

/// An upstream has certainly done nothing of a request. That is worth another try without further ado, as a
/// kept connection is that turns out to be closed.
fn note_unserved(unserved: Unserved, ctx: &mut Ctx) {
    ctx.attempt.reused = true;
    let http1 = ctx.target().and_then(|target| target.tls.as_ref()?.http1.as_ref());
    match (unserved, http1) {
        (Unserved::WantsHttp1, Some(http1)) => http1.required.store(true, Ordering::Relaxed),
        // Without another way to ask it, asking again would only be told the same.
        (Unserved::WantsHttp1, None) => ctx.attempt.reused = false,
        (Unserved::Closing | Unserved::Refused | Unserved::Misplaced, _) => {}
    }
}

fn failed(
    session: &Session,
    ctx: &mut Ctx,
    mut error: Box<Error>,
    failure: &Failure,
    outcome: Outcome,
    sent: Sent,
) -> Box<Error> {
    let retry = session.response_written().is_none() && again(session, ctx, outcome, sent);
    warn(ctx, failure);
    error.set_retry(retry);
    error
}

/// Asks the route's rules whether there is another try, and notes how long to wait before it.
fn again(session: &Session, ctx: &mut Ctx, outcome: Outcome, sent: Sent) -> bool {
    let attempt = Attempt {
        number: ctx.attempt.number,
        method: &session.req_header().method,
        outcome,
        sent,
        // The engine keeps the first 64 KiB of a body for a replay; past that it is lost.
        body: if session.as_downstream().retry_buffer_truncated() {
            Body::Consumed
        } else {
            Body::Replayable
        },
        connection: if ctx.attempt.reused { Connection::Reused } else { Connection::New },
        jitter: fastrand::f64(),
    };
    match policy(ctx).decide(&attempt) {
        Decision::GiveUp(_) => false,
        Decision::Again { after } => {
            if ctx.deadline.is_some_and(|deadline| Instant::now() + after >= deadline) {
                return false;
            }
            ctx.attempt.backoff = after;
            // A connection that the upstream had closed while idle says nothing against its endpoint.
            if ctx.attempt.reused && outcome == Outcome::Reset {
                ctx.attempt.tried.pop();
            }
            true
        }
    }
}

/// The route's rules. Where it has none, only what the engine's pool brings about is made good.
pub fn policy(ctx: &Ctx) -> &RetryPolicy {
    ctx.route().and_then(|route| route.chain.retry()).unwrap_or_else(|| RetryPolicy::stale_connection())
}

/// Tells a failed attempt in the log, at most once a second for each target, and keeps its cause for the access log.
pub fn warn(ctx: &mut Ctx, failure: &Failure) {
    ctx.cause = Some(failure.cause);
    tally::failed(ctx, failure);
    let Some(target) = ctx.target() else { return };
    if !due(&target.warned) {
        return;
    }
    let endpoint = ctx.attempt.pick.as_ref().map_or("no endpoint", |pick| &*pick.address.text);
    let route = ctx.route().map_or("", |route| &route.name);
    log::warn!(
        "route `{route}`, upstream `{}`, {endpoint}: {}: {failure}\n  to mend it: {}\n  request {}",
        target.upstream.name,
        failure.cause.code(),
        failure.cause.remedy(),
        ctx.request_id.as_str(),
    );
}

/// Whether it is that of `count_body`.
pub fn is_too_large(error: &Error) -> bool {
    matches!(diagnose::of_error(error, false).cause, Cause::BodyTooLarge)
}

/// Whether an error of the engine is the end of a client, not of an upstream.
pub fn is_clients(error: &Error) -> bool {
    matches!(error.esource, ErrorSource::Downstream) && !matches!(error.etype, ErrorType::InvalidHTTPHeader)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http::Method;
    use pingora_core::protocols::raw_connect::ProxyDigest;
    use vestibule_plugins::Registry;

    use super::*;
    use crate::config::parse;
    use crate::snapshot::live::InForce;
    use crate::snapshot::{Workshop, compile};

    #[test]
    fn a_connection_that_was_made_for_something_else_is_given_back_unused() {
        let yaml = "version: 1\nlisteners: { web: { address: \"127.0.0.1:1\" } }\n\
                    routes: [{ respond: { body: x } }]\n";
        let snapshot =
            compile(&parse("x.yaml", yaml, Path::new(".")).unwrap(), &Workshop::new(Registry::builtin()));
        let running = Arc::new(snapshot.unwrap_or_else(|it| panic!("{it}")));
        let mut ctx = Ctx::new(&InForce { running, stage: None }, &Arc::default());
        let blank = ResponseHeader::build(200, Some(0)).unwrap();
        let other = Arc::new(Origin::new());
        let digest = Digest {
            proxy_digest: Some(Arc::new(ProxyDigest::new(Box::new(blank), Some(Box::new(other))))),
            ..Digest::default()
        };
        let peer = HttpPeer::new(("127.0.0.1", 2), true, "a.test".into());
        let error = connected(Wanted::of(&peer), None, true, Some(&digest), &mut ctx).unwrap_err();
        assert!(ctx.attempt.lease.is_none());
        // Whatever the method, as after a kept connection that turns out to be closed.
        let unserved = unserved(&error).unwrap();
        assert_eq!(unserved, Unserved::Misplaced);
        note_unserved(unserved, &mut ctx);
        let attempt = Attempt {
            number: 1,
            method: &Method::POST,
            outcome: Outcome::Reset,
            sent: Sent::Nothing,
            body: Body::Replayable,
            connection: if ctx.attempt.reused { Connection::Reused } else { Connection::New },
            jitter: 0.0,
        };
        let decision = policy(&ctx).decide(&attempt);
        assert_eq!(decision, Decision::Again { after: std::time::Duration::ZERO });
    }
}
