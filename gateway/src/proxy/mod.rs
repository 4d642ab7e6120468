//! The engine's hooks in the order in which they are called, each a few lines that delegate.

pub(crate) mod admit;
pub(crate) mod attempt;
pub mod ctx;
pub mod fail;
mod finish;
mod forwarded;
mod http10;
mod misdirected;
pub(crate) mod respond;
mod tally;
pub(crate) mod upgrade;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use async_trait::async_trait;
use bytes::Bytes;
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use crate::observe::AccessLog;
use crate::snapshot::live::{InForce, Live};
use crate::upstream::peer::Wanted;
use attempt::Content;
use ctx::Ctx;

tokio::task_local! {
    /// What was in force when the request of this task began, where that is not for its first hook to find out.
    static BEGUN_ON: Arc<InForce>;
}

/// Has a request that is read in this future served by what was in force when it began.
pub fn on<T>(in_force: Arc<InForce>, serve: impl Future<Output = T>) -> impl Future<Output = T> {
    BEGUN_ON.scope(in_force, serve)
}

/// The gateway as the engine sees it.
pub struct Proxy {
    live: Arc<Live>,
    log: Arc<AccessLog>,
    requests: Arc<AtomicUsize>,
}

impl Proxy {
    /// Runs requests on the snapshot that `live` holds when each begins, but for those that `on` has told of.
    pub fn new(live: Arc<Live>, log: Arc<AccessLog>) -> Self {
        Self { live, log, requests: Arc::default() }
    }

    /// How many requests are being answered right now: shared, so that a stop can wait for none.
    pub fn requests(&self) -> Arc<AtomicUsize> {
        self.requests.clone()
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    // Boxed, since the engine moves it through several futures for each request.
    type CTX = Box<Ctx>;

    fn new_ctx(&self) -> Box<Ctx> {
        let begun = BEGUN_ON.try_with(|in_force| Ctx::new(in_force, &self.requests));
        Box::new(begun.unwrap_or_else(|_| Ctx::new(&self.live.in_force(), &self.requests)))
    }

    // The engine's default would make a compression context for each request.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<bool> {
        match admit::admit(session, ctx).await {
            Ok(admit::Next::Forward) => Ok(false),
            Ok(admit::Next::Answered) => Ok(true),
            Err(failure) => {
                fail::answer(session, ctx, &failure).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<Box<HttpPeer>> {
        attempt::begin(session, ctx).await
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Self::CTX,
        error: Box<Error>,
    ) -> Box<Error> {
        attempt::not_connected(session, ctx, error)
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        reused: bool,
        peer: &HttpPeer,
        #[cfg(unix)] _fd: std::os::unix::io::RawFd,
        #[cfg(windows)] _sock: std::os::windows::io::RawSocket,
        digest: Option<&Digest>,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        let upgrade = session.is_upgrade_req().then(|| Content::of(session));
        attempt::connected(Wanted::of(peer), upgrade, reused, digest, ctx)
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        attempt::address(request, ctx)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        // What goes through a tunnel is no body.
        if !session.was_upgraded() {
            attempt::count_body(body.as_ref(), ctx)?;
        }
        attempt::passes_up(body.as_ref(), end_of_stream, ctx);
        ctx.remaining(None).map(|_| ()).map_err(crate::diagnose::Failure::into_error)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        attempt::answered(session, response, ctx)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        respond::decorate(session.req_header(), response, ctx);
        http10::close_behind(session, response);
        if ctx.client.as_ref().is_some_and(|client| client.terms.are_over()) {
            // Said with this answer, so that the client sends no next request into a connection that is to close.
            session.set_keepalive(None);
        }
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &mut Self::CTX,
    ) -> Result<Option<std::time::Duration>> {
        attempt::told_by_body(body.as_ref(), ctx);
        ctx.remaining(None).map(|_| None).map_err(crate::diagnose::Failure::into_error)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut Self::CTX,
        reused: bool,
    ) -> Box<Error> {
        attempt::broken(session, ctx, error, reused)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Self::CTX) -> FailToProxy {
        fail::give_up(session, error, ctx).await
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Self::CTX) {
        ctx.attempt.lease = None;
        finish::log(&self.log, session, error, ctx);
    }

    // Every failure is told once, by `attempt` and in the access log.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Self::CTX, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Self::CTX,
        _error: &Error,
        _context: pingora_proxy::ProxyWarnLogContext,
    ) -> bool {
        true
    }
}
