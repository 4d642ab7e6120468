//! The only writer of error replies: a status and a request id, nothing of what lies behind the gateway.

use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use http::StatusCode;
use pingora_core::{Error, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::{FailToProxy, Session};
use vestibule_plugins::{Refusal, Why};

use super::attempt;
use super::ctx::{Ctx, RequestId};
use crate::diagnose::{self, Cause, Failure};

/// Answers a request that goes to no upstream.
pub async fn answer(session: &mut Session, ctx: &mut Ctx, failure: &Failure) -> Result<()> {
    ctx.cause = Some(failure.cause);
    log::debug!("request {}: {}: {failure}", ctx.request_id.as_str(), failure.cause.code());
    if matches!(failure.cause, Cause::RequestInvalid | Cause::HeadTooLarge | Cause::UrlTooLong) {
        // What follows on the connection is not to be trusted either.
        session.set_keepalive(None);
    }
    write(session, ctx, failure.cause.status()).await
}

/// Answers a request whose last attempt failed, unless a part of an answer is on its way already.
pub async fn give_up(session: &mut Session, error: &Error, ctx: &mut Ctx) -> FailToProxy {
    let closed = FailToProxy { error_code: 0, can_reuse_downstream: false };
    let failure = diagnose::of_error(error, ctx.attempt.reused);
    // `attempt` has noted the cause already where an attempt failed; a client's end outranks it.
    if ctx.cause.is_none() || attempt::is_clients(error) {
        ctx.cause = Some(failure.cause);
    }
    // A client that sends a body too slowly, or one that is not legal, is there still to be told.
    let gone = attempt::is_clients(error) && failure.cause == Cause::ClientClosed;
    if gone || session.response_written().is_some() {
        return closed;
    }
    let status = ctx.cause.unwrap_or(failure.cause).status();
    // After an attempt that failed the engine closes the connection whatever is returned here: a client that is not told
    // would lose its next request.
    session.set_keepalive(None);
    let written = write(session, ctx, status).await;
    if failure.cause == Cause::BodyTooLarge && written.is_ok() {
        linger(session).await;
    }
    match written {
        Ok(()) => FailToProxy { error_code: status, ..closed },
        Err(_) => closed,
    }
}

/// The whole answer, as bytes, to a request that the engine cannot read or does not serve, and that hence reaches no
/// hook of ours.
pub fn refusal(status: u16, id: &RequestId) -> String {
    let (reason, body) = (reason(status), body(status, id));
    let (length, id) = (body.len(), id.as_str());
    format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {length}\r\n\
         cache-control: no-store\r\nx-request-id: {id}\r\nconnection: close\r\n\r\n{body}"
    )
}

fn reason(status: u16) -> &'static str {
    StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Error")
}

fn body(status: u16, id: &RequestId) -> String {
    format!("{status} {}\nrequest id: {}\n", reason(status), id.as_str())
}

/// The answer to a request that a plugin does not let pass.
pub fn refused(refusal: Refusal, id: &RequestId) -> Result<(ResponseHeader, Bytes)> {
    let (mut head, body) = reply(refusal.status, id)?;
    for (name, value) in refusal.headers {
        head.append_header(name, value)?;
    }
    Ok((head, body))
}

/// Notes why a plugin does not let a request pass, and tells it: once a second at most, since who is refused may go on
/// asking.
pub fn note_refused(refusal: &Refusal, ctx: &mut Ctx) {
    static TOLD: AtomicU64 = AtomicU64::new(0);
    let cause = of_plugin(refusal.why);
    ctx.cause = Some(cause);
    let level = if crate::observe::due(&TOLD) { log::Level::Warn } else { log::Level::Debug };
    let route = ctx.route().map_or("", |route| &route.name);
    let (code, detail, id) = (cause.code(), &refusal.detail, ctx.request_id.as_str());
    log::log!(level, "route `{route}`: {code}: {detail}\n  request {id}");
}

/// Reads on for a moment after an answer that left a body unread: a connection that is closed with bytes unread is reset, and
/// a reset takes the answer from a client that has yet to read it.
pub async fn linger(session: &mut Session) {
    let downstream = session.as_mut();
    // A stream of HTTP/2 is ended by itself.
    if !downstream.is_http2() && downstream.finish_body().await.is_ok() {
        // Bounded by the time that `admit` has set, and nothing of it is kept.
        let _ = downstream.drain_request_body().await;
    }
}

fn of_plugin(why: Why) -> Cause {
    match why {
        Why::Unauthenticated => Cause::NotAuthenticated,
        Why::Forbidden => Cause::NotAllowed,
        Why::TooMany => Cause::RateLimited,
        Why::TooLarge => Cause::BodyTooLarge,
        Why::Unavailable => Cause::PluginUnavailable,
    }
}

fn reply(status: u16, id: &RequestId) -> Result<(ResponseHeader, Bytes)> {
    let body = Bytes::from(body(status, id));
    let mut head = ResponseHeader::build(status, Some(4))?;
    head.insert_header("content-type", "text/plain; charset=utf-8")?;
    head.insert_header("content-length", body.len())?;
    head.insert_header("cache-control", "no-store")?;
    head.insert_header("x-request-id", id.as_str())?;
    Ok((head, body))
}

async fn write(session: &mut Session, ctx: &Ctx, status: u16) -> Result<()> {
    let (head, body) = reply(status, &ctx.request_id)?;
    if !session.as_mut().is_body_empty() {
        // How much of the body is still to come is anybody's guess, so the connection is not used again.
        session.set_keepalive(None);
    }
    let bodiless = session.req_header().method == http::Method::HEAD;
    session.write_response_header(Box::new(head), bodiless).await?;
    if !bodiless {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}
