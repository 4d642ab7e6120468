//! HTTP/2 towards clients: the streams of a connection, each on what was in force when it began, and what ends it.
//!
//! As the engine's own loop has it, but for that: there a stream finds out what is in force when its task first runs, and
//! the tasks of streams that begin together run in any order, so that over a reload a later stream could be served by an
//! older configuration than an earlier one. Nor has that loop a limit on what `frames` counts.

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use h2::Reason;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{
    H2Accept, H2Options, HttpSession, default_h2_options, handshake,
};
use pingora_core::protocols::{Digest, IO};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::frames::{Counted, Frames};
use super::handshake::LONGEST as HANDSHAKE;
use super::{FIRST_REQUEST, Services};
use crate::observe::OverLimit;
use crate::proxy;
use crate::proxy::ctx::Client;
use crate::snapshot::Listener;
use crate::snapshot::limits::{Http2Limits, Limits};

/// How many malformed requests a connection may send; the engine's own loop has the same bound.
const MALFORMED: usize = 32;
/// How much of an answer waits within the gateway for a client that does not read it, for each stream.
const SEND_BUFFER: usize = 64 * 1024;
/// How long the end of a connection may take, once it has no stream and nothing moves.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves the streams of a connection until it closes, is idle for too long, goes over a limit, or its terms are over and
/// the streams that were begun have ended.
pub async fn http_2(stream: impl IO + 'static, client: &Client, services: &Services) {
    let (listener, mut over) = (&client.listener, client.terms.over());
    let digest = Arc::new(Digest {
        ssl_digest: stream.get_ssl_digest(),
        timing_digest: stream.get_timing_digest(),
        proxy_digest: stream.get_proxy_digest(),
        socket_digest: stream.get_socket_digest(),
    });
    let frames = Arc::new(Frames::default());
    let stream = Counted::new(stream, &listener.limits.http2, frames.clone());
    let (options, requests) = (options(&listener.limits), &listener.limits.requests);
    let mut connection = match timeout(HANDSHAKE, handshake(Box::new(stream), Some(options))).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return log::debug!("no HTTP/2 connection: {error}"),
        Err(_) => return log::debug!("no HTTP/2 connection in {HANDSHAKE:?}"),
    };
    let streams = Arc::new(Streams::default());
    let (shutdown, mut closing, mut malformed, mut begun) = (over.clone(), false, 0, 0);
    // A listener that keeps no connection waits for a first request all the same.
    let mut idle = match listener.idle_timeout {
        Duration::ZERO => Duration::from_secs(FIRST_REQUEST),
        kept => kept,
    };
    let exceeded = loop {
        let accepted = tokio::select! {
            biased;
            _ = over.wait_for(|over| *over), if !closing => {
                connection.graceful_shutdown();
                closing = true;
                continue;
            }
            exceeded = frames.over() => break exceeded,
            accepted = HttpSession::from_h2_conn(&mut connection, digest.clone()) => accepted,
            () = streams.idle_for(if closing { FAREWELL } else { idle }, &frames) => {
                if closing {
                    return;
                }
                connection.graceful_shutdown();
                closing = true;
                continue;
            }
        };
        match accepted {
            Ok(Some(H2Accept::Session(session))) => {
                idle = listener.idle_timeout;
                begun += 1;
                if begun >= requests.requests_per_connection && !closing {
                    connection.graceful_shutdown();
                    closing = true;
                }
                let (engine, open, over) =
                    (services.engine.clone(), Streams::enter(&streams), shutdown.clone());
                tokio::spawn(proxy::on(services.live.hold(), async move {
                    let _open = open;
                    engine.process_new_http(ServerSession::new_http2(session), &over).await;
                }));
            }
            // It was answered or reset.
            Ok(Some(H2Accept::Rejected)) if malformed < MALFORMED => malformed += 1,
            Ok(Some(H2Accept::Rejected)) => break OverLimit::Http2Malformed,
            Ok(None) => return,
            Err(error) => {
                // The crate has said so to the client by itself.
                if is_excess(&error) {
                    told(listener, OverLimit::Http2Excess, client.ip);
                }
                return;
            }
        }
    };
    told(listener, exceeded, client.ip);
    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
    // A client that reads nothing is not told.
    let _ = timeout(FAREWELL, poll_fn(|cx| connection.poll_closed(cx))).await;
}

/// The engine's bounds, and over them the listener's.
fn options(limits: &Limits) -> H2Options {
    let mut options = default_h2_options();
    let Http2Limits { streams, .. } = limits.http2;
    options.max_concurrent_streams(streams);
    // As many as may be open at once may also be given up at once.
    options.max_pending_accept_reset_streams(streams as usize);
    options.max_send_buffer_size(SEND_BUFFER);
    options.max_header_list_size(u32::try_from(limits.requests.head_size).unwrap_or(u32::MAX));
    options
}

fn told(listener: &Listener, limit: OverLimit, client: Option<IpAddr>) {
    if let Some(client) = client {
        listener.meter.over_limit(limit, client);
    }
}

/// Whether the `h2` crate has ended the connection since it went over one of the crate's own bounds.
fn is_excess(error: &pingora_core::Error) -> bool {
    let cause = error.cause.as_ref().and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| cause.is_library() && cause.reason() == Some(Reason::ENHANCE_YOUR_CALM))
}

/// How many streams of a connection are served.
#[derive(Default)]
struct Streams {
    open: AtomicUsize,
    none: Notify,
}

/// One of them.
struct Open(Arc<Streams>);

impl Streams {
    fn enter(streams: &Arc<Self>) -> Open {
        streams.open.fetch_add(1, Ordering::Relaxed);
        Open(streams.clone())
    }

    /// Returns when there was none for so long, and the client took nothing more of the answers that were there.
    async fn idle_for(&self, time: Duration, frames: &Frames) {
        loop {
            // None is added while this is polled: whoever accepts one begins anew.
            while self.open.load(Ordering::Relaxed) > 0 {
                self.none.notified().await;
            }
            let answered = frames.answered();
            sleep(time).await;
            if frames.answered() == answered {
                return;
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.none.notify_one();
        }
    }
}
