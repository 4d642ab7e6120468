//! HTTP/2 towards clients: the streams of a connection, each on what was in force when it began.
//!
//! As the engine's own loop has it, but for that: there a stream finds out what is in force when its task first runs, and
//! the tasks of streams that begin together run in any order, so that over a reload a later stream could be served by an
//! older configuration than an earlier one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{H2Accept, HttpSession, default_h2_options, handshake};
use pingora_core::protocols::{Digest, IO};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::Services;
use super::handshake::LONGEST as HANDSHAKE;
use crate::proxy;
use crate::proxy::ctx::Client;

/// How long a connection without a stream is kept.
const IDLE: Duration = Duration::from_secs(60);
/// How many malformed requests a connection may send; the engine's own loop has the same bound.
const MALFORMED: usize = 32;

/// Serves the streams of a connection until it closes, is idle for too long, or `over` turns true and those that were
/// begun have ended.
pub async fn http_2(stream: impl IO + 'static, client: &Client, services: &Services) {
    let mut over = client.terms.over();
    let digest = Arc::new(Digest {
        ssl_digest: stream.get_ssl_digest(),
        timing_digest: stream.get_timing_digest(),
        proxy_digest: stream.get_proxy_digest(),
        socket_digest: stream.get_socket_digest(),
    });
    // The engine's bounds, and over them the listener's.
    let mut options = default_h2_options();
    options.max_concurrent_streams(client.listener.limits.http2.streams);
    let mut connection = match timeout(HANDSHAKE, handshake(Box::new(stream), Some(options))).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return log::debug!("no HTTP/2 connection: {error}"),
        Err(_) => return log::debug!("no HTTP/2 connection in {HANDSHAKE:?}"),
    };
    let streams = Arc::new(Streams::default());
    let (shutdown, mut closing, mut malformed) = (over.clone(), false, 0);
    loop {
        let accepted = tokio::select! {
            biased;
            _ = over.wait_for(|over| *over), if !closing => {
                connection.graceful_shutdown();
                closing = true;
                continue;
            }
            accepted = HttpSession::from_h2_conn(&mut connection, digest.clone()) => accepted,
            () = streams.idle_for(IDLE), if !closing => return,
        };
        match accepted {
            Ok(Some(H2Accept::Session(session))) => {
                let (engine, open, over) =
                    (services.engine.clone(), Streams::enter(&streams), shutdown.clone());
                tokio::spawn(proxy::on(services.live.hold(), async move {
                    let _open = open;
                    engine.process_new_http(ServerSession::new_http2(session), &over).await;
                }));
            }
            // It was answered or reset.
            Ok(Some(H2Accept::Rejected)) if malformed < MALFORMED => malformed += 1,
            Ok(Some(H2Accept::Rejected) | None) | Err(_) => return,
        }
    }
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

    /// Returns when there was none for so long.
    async fn idle_for(&self, time: Duration) {
        // None is added while this is polled: whoever accepts one begins anew.
        while self.open.load(Ordering::Relaxed) > 0 {
            self.none.notified().await;
        }
        sleep(time).await;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.none.notify_one();
        }
    }
}
