//! A request's last hook: its metrics, and its line in the access log.

use pingora_core::Error;
use pingora_proxy::Session;

use super::ctx::Ctx;
use super::{attempt, tally};
use crate::diagnose;
use crate::observe::{AccessLog, Line, access_log};

/// Counts, and writes the line.
pub fn log(log: &AccessLog, session: &Session, error: Option<&Error>, ctx: &mut Ctx) {
    // The client of a tunnel that has said its last may go before it has heard the other's: that is no failure.
    let has_left = ctx.attempt.tunnel.as_ref().is_some_and(|tunnel| tunnel.client_has_ended());
    let error = error.filter(|error| !(has_left && attempt::is_clients(error)));
    if let Some(error) = error.filter(|error| ctx.cause.is_none() || attempt::is_clients(error)) {
        ctx.cause = Some(diagnose::of_error(error, ctx.attempt.reused).cause);
    }
    let took = ctx.started.elapsed();
    tally::ended(session, error, took, ctx);
    tally::on_trial(session, took, ctx);
    if !log.is_on() {
        return;
    }
    let millis = |duration: std::time::Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
    let attempt = &ctx.attempt;
    let tried = attempt.number > 0;
    log.write(&Line {
        time: access_log::told(ctx.time),
        request_id: ctx.request_id.as_str(),
        listener: ctx.client.as_ref().map_or("", |client| &client.listener.name),
        client_ip: ctx.client.as_ref().and_then(|client| client.ip),
        method: Some(session.req_header().method.as_str()),
        host: Some(ctx.asked.host.as_str()).filter(|host| !host.is_empty()),
        path: Some(&ctx.asked.path),
        status: session.response_written().map(|head| head.status.as_u16()),
        bytes_in: session.body_bytes_read() as u64,
        bytes_out: session.body_bytes_sent() as u64,
        duration_ms: millis(took),
        route: ctx.route().map(|route| route.name.as_str()),
        upstream: ctx.target().map(|target| target.upstream.name.as_str()),
        endpoint: attempt.pick.as_ref().map(|pick| &*pick.address.text),
        attempts: tried.then_some(attempt.number),
        upstream_status: attempt.status,
        upstream_ms: attempt.took.map(millis),
        sni: ctx.sni(),
        tls_version: attempt.tls.map(|(version, _)| version),
        tls_resumed: attempt.tls.map(|(_, resumed)| resumed),
        cause: ctx.cause.map(diagnose::Cause::code),
        config: &ctx.snapshot.hash,
    });
}
