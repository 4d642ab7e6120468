//! The gateway's own requests to an upstream, on behalf of a plugin: HTTP/1.1 by hyper over the connections that
//! `connect` makes, a few of which are kept. What is asked, and what becomes of the answer, is the plugin's business.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::{sleep, timeout};
use vestibule_plugins::outbound::{Asking, Limits, Unanswered};

use super::connect::{chosen, connect, handshake};
use super::{Origin, Pick, Protocol, Stream, TlsPolicy, Transport, Tried, Upstream};
use crate::diagnose::{Cause, Failure, HttpVersion, of_http1};
use crate::proxy::attempt::bare;

/// Asks one upstream.
pub struct Caller {
    upstream: Arc<Upstream>,
    /// The Host that is sent; `None` is the endpoint's own.
    host: Option<String>,
    tls: Option<(Arc<TlsPolicy>, CallerSni)>,
    idle: ArrayQueue<Kept>,
}

/// The SNI that a caller sends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CallerSni {
    /// None at all.
    None,
    /// The Host that is sent, without its port.
    Host,
    /// This.
    Name(String),
}

/// A connection that is open, and on which nothing is asked at present.
struct Kept {
    sender: SendRequest<Full<Bytes>>,
    host: HeaderValue,
    quiet: Arc<Quiet>,
}

/// Since when nothing is asked on a connection, in milliseconds after it was made; `BUSY` while something is.
struct Quiet {
    made: Instant,
    since: AtomicU64,
}

const BUSY: u64 = u64::MAX;

/// Idle connections kept to one upstream.
const MOST_KEPT: usize = 16;
/// Endpoints tried for one request.
const MOST_TRIES: usize = 3;

impl Caller {
    /// To this upstream, with this Host and TLS.
    pub fn new(
        upstream: Arc<Upstream>,
        host: Option<String>,
        tls: Option<(Arc<TlsPolicy>, CallerSni)>,
    ) -> Self {
        Self { upstream, host, tls, idle: ArrayQueue::new(MOST_KEPT) }
    }

    async fn exchange(&self, request: Request<Bytes>, most: usize) -> Result<Response<Bytes>, Failure> {
        while let Some(kept) = self.idle.pop() {
            if kept.sender.is_closed() {
                continue;
            }
            match self.send(kept, request.clone(), most).await {
                Ok(answer) => return Ok(answer),
                // The other side may close a connection at any time, and the request that meets its end is not at fault.
                Err((_, Sent::No)) => {}
                Err((_, Sent::Maybe)) if request.method().is_idempotent() => {}
                Err((failure, Sent::Maybe)) => return Err(failure),
            }
        }
        let kept = self.dial().await?;
        self.send(kept, request, most).await.map_err(|(failure, _)| failure)
    }

    async fn send(
        &self,
        mut kept: Kept,
        request: Request<Bytes>,
        most: usize,
    ) -> Result<Response<Bytes>, (Failure, Sent)> {
        kept.quiet.since.store(BUSY, Ordering::Release);
        kept.sender.ready().await.map_err(|error| (of_http1(&error), Sent::No))?;
        let mut request = request.map(Full::new);
        request.headers_mut().insert(header::HOST, kept.host.clone());
        if self.upstream.idle_timeout.is_zero() {
            request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let answer = kept.sender.try_send_request(request).await.map_err(|mut error| {
            let sent = if error.take_message().is_some() { Sent::No } else { Sent::Maybe };
            (of_http1(&error.into_error()), sent)
        })?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, most).collect().await.map_err(|error| {
            let failure = match error.downcast_ref::<hyper::Error>() {
                Some(error) => of_http1(error),
                None => Failure::new(
                    Cause::UpstreamInvalidResponse,
                    format!("its body has more than {most} bytes"),
                ),
            };
            (failure, Sent::Maybe)
        })?;
        kept.quiet.begin();
        if !kept.sender.is_closed() && !self.upstream.idle_timeout.is_zero() {
            // Where enough are kept already, this one ends here.
            let _ = self.idle.push(kept);
        }
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    async fn dial(&self) -> Result<Kept, Failure> {
        let endpoints = self.upstream.balance.endpoints();
        let mut tried = Tried::new();
        let mut last = None;
        for _ in 0..endpoints.len().min(MOST_TRIES) {
            let Some(pick) = self.upstream.balance.pick(&tried) else { break };
            tried.push(pick.address.clone());
            match self.reach(&pick).await {
                Ok(kept) => return Ok(kept),
                Err(failure) => last = Some(failure),
            }
        }
        Err(last.unwrap_or_else(|| {
            let names: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.text.as_str()).collect();
            Failure::new(Cause::DnsNotFound, names.join(", "))
        }))
    }

    async fn reach(&self, pick: &Pick) -> Result<Kept, Failure> {
        let limit = self.upstream.connect_timeout;
        let host = self.host.as_deref().unwrap_or(&pick.endpoint.host);
        let target = &pick.address.target;
        let stream = connect(target, limit).await?;
        let origin = Arc::new(Origin::new());
        let transport = match &self.tls {
            None => Transport::Plain(Box::new(stream)),
            Some((policy, sni)) => {
                let identity = match sni {
                    CallerSni::None => String::new(),
                    CallerSni::Host => bare(host),
                    CallerSni::Name(name) => bare(name),
                };
                let stream = handshake(stream, policy, target, &identity, limit).await;
                let stream = stream.map_err(|(failure, _)| failure)?;
                origin.note_handshake(stream.ssl().session_reused(), policy.settings.identity.is_some());
                chosen(Protocol::Http1, stream.ssl().selected_alpn_protocol())?;
                Transport::Tls(stream)
            }
        };
        let host = HeaderValue::from_str(host)
            .map_err(|_| Failure::new(Cause::Internal, "an illegal Host of an upstream"))?;
        let stream = Stream::new(transport, origin, HttpVersion::Http1);
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| of_http1(&error))?;
        let quiet = Arc::new(Quiet { made: Instant::now(), since: AtomicU64::new(BUSY) });
        let (watched, most) = (quiet.clone(), self.upstream.idle_timeout);
        // It ends with the sender, with the other side, or once nothing was asked for as long as the file says.
        tokio::spawn(async move {
            tokio::select! {
                _ = connection => {}
                () = watched.outlast(most) => {}
            }
        });
        Ok(Kept { sender, host, quiet })
    }
}

/// Whether a request that failed may have reached the other side.
enum Sent {
    No,
    Maybe,
}

impl vestibule_plugins::outbound::Upstream for Caller {
    fn name(&self) -> &str {
        &self.upstream.name
    }

    fn ask(&self, request: Request<Bytes>, limits: Limits) -> Asking<'_> {
        Box::pin(async move {
            let asked = timeout(limits.timeout, self.exchange(request, limits.body)).await;
            let asked = asked.unwrap_or_else(|_| {
                Err(Failure::new(Cause::UpstreamTimeout, format!("no answer after {:?}", limits.timeout)))
            });
            asked.map_err(|failure| {
                Unanswered(format!("upstream `{}`: {}: {failure}", self.upstream.name, failure.cause.code()))
            })
        })
    }
}

impl Quiet {
    fn begin(&self) {
        let since = u64::try_from(self.made.elapsed().as_millis()).unwrap_or(BUSY);
        self.since.store(since, Ordering::Release);
    }

    /// Until nothing has been asked for so long.
    async fn outlast(&self, most: Duration) {
        loop {
            let since = self.since.load(Ordering::Acquire);
            let quiet = match since {
                BUSY => Duration::ZERO,
                since => self.made.elapsed().saturating_sub(Duration::from_millis(since)),
            };
            match most.checked_sub(quiet) {
                // At least a second, or a request at hand that is to leave nothing behind would make this spin.
                Some(rest) => sleep(rest.max(Duration::from_secs(1))).await,
                None => return,
            }
        }
    }
}
