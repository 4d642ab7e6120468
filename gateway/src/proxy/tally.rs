//! Counts each attempt once, when it is known what came of it, and each request at its end.

use std::time::Duration;

use http::StatusCode;
use pingora_core::Error;
use pingora_proxy::Session;

use super::attempt::is_clients;
use super::ctx::{Ctx, Progress};
use crate::diagnose::{self, Cause, Failure};
use crate::reload::side::Answer;

/// A connection to the upstream is there.
pub fn connected(ctx: &Ctx) {
    if let (Some(target), Some((_, resumed)), false) = (ctx.target(), ctx.attempt.tls, ctx.attempt.reused) {
        target.upstream.meter.shook_hands(resumed);
    }
}

/// The present attempt failed, unless that is counted already.
pub fn failed(ctx: &mut Ctx, failure: &Failure) {
    let progress = std::mem::take(&mut ctx.attempt.progress);
    let Some(target) = ctx.target().filter(|_| progress != Progress::Counted) else { return };
    let pick = ctx.attempt.pick.as_ref().filter(|_| progress != Progress::Begun);
    target.upstream.attempt_failed(pick, failure);
}

/// The request is over, and with it its last attempt. `error` is what ended it, if something did.
pub fn ended(session: &Session, error: Option<&Error>, took: Duration, ctx: &mut Ctx) {
    match ctx.attempt.progress {
        Progress::Counted => {}
        // The upstream has done its part, even where the client went away before the end.
        Progress::Answered => succeeded(ctx, took),
        Progress::Begun | Progress::Placed => {
            let failure = match error {
                Some(error) if !is_clients(error) => diagnose::of_error(error, ctx.attempt.reused),
                _ => Failure::new(Cause::ClientClosed, ""),
            };
            failed(ctx, &failure);
        }
    }
    let Some(client) = &ctx.client else { return };
    let status = session.response_written().map(|head| head.status.as_u16());
    let meter = ctx.route().map_or(&ctx.snapshot.unrouted, |route| &route.meter);
    meter.ended((client.listener.id, &client.listener.name), status, took);
}

/// Counts the request for its side of a stage, where there is one. A tunnel lasts as long as its ends want, and a client
/// that went away tells nothing.
pub fn on_trial(session: &Session, took: Duration, ctx: &Ctx) {
    let Some((stage, side)) = &ctx.stage else { return };
    let status = session.response_written().map(|head| head.status);
    let answer = match status {
        Some(StatusCode::SWITCHING_PROTOCOLS) => return,
        None if ctx.cause == Some(Cause::ClientClosed) => return,
        Some(status) if status.is_server_error() => Answer::Failed,
        Some(_) => Answer::Good,
        None => Answer::Failed,
    };
    stage.note(*side, answer, took);
    ctx.snapshot.metrics.answered_on_trial(*side, answer);
}

fn succeeded(ctx: &mut Ctx, took: Duration) {
    ctx.attempt.progress = Progress::Counted;
    if let (Some(target), Some(pick)) = (ctx.target(), &ctx.attempt.pick) {
        target.upstream.attempt_succeeded(pick, ctx.time.checked_add(took).unwrap_or(ctx.time));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use vestibule_plugins::Registry;

    use super::*;
    use crate::config::parse;
    use crate::snapshot::live::InForce;
    use crate::snapshot::{Workshop, compile};
    use crate::upstream::Tried;

    #[test]
    fn an_attempt_is_counted_once_and_at_the_endpoint_that_it_went_to() {
        let yaml = "version: 1\nlisteners: { web: { address: \"127.0.0.1:1\" } }\n\
                    upstreams: { u: { endpoints: [\"127.0.0.1:2\"] } }\nroutes: [{ upstream: u }]\n";
        let workshop = Workshop::new(Registry::builtin());
        let snapshot = compile(&parse("x.yaml", yaml, Path::new(".")).unwrap(), &workshop).unwrap();
        let snapshot = Arc::new(snapshot);
        let upstream = snapshot.upstreams[0].clone();
        let mut ctx = Ctx::new(&InForce { running: snapshot, stage: None }, &Arc::default());
        (ctx.route, ctx.target) = (Some(0), Some(0));
        let failure = |cause| Failure::new(cause, "");

        ctx.attempt.progress = Progress::Begun;
        ctx.attempt.pick = upstream.balance.pick(&Tried::new());
        ctx.attempt.progress = Progress::Placed;
        failed(&mut ctx, &failure(Cause::ConnectRefused));
        failed(&mut ctx, &failure(Cause::ConnectRefused));
        // The next attempt comes no further: the endpoint of the one before has nothing to do with it.
        ctx.attempt.progress = Progress::Begun;
        failed(&mut ctx, &failure(Cause::UpstreamTimeout));

        let endpoint: Vec<_> = upstream.balance.endpoints()[0].record.failures().collect();
        assert_eq!(endpoint, [(Cause::ConnectRefused, 1)]);
        assert_eq!(upstream.unplaced.failures().collect::<Vec<_>>(), [(Cause::UpstreamTimeout, 1)]);
        let text = workshop.metrics.encode();
        for cause in ["connect_refused", "upstream_timeout"] {
            let line = format!("vestibule_upstream_attempts_total{{cause=\"{cause}\",upstream=\"u\"}} 1\n");
            assert!(text.contains(&line), "{text}");
        }
    }
}
