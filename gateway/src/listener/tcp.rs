//! Layer 4: bytes pass between a client and an upstream untouched, so that TLS is the two ends' own.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use pingora_core::protocols::l4::stream::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::time::sleep;

use super::Services;
use crate::diagnose::{Cause, Failure};
use crate::observe::Line;
use crate::observe::access_log::now;
use crate::proxy::ctx::Client;
use crate::upstream::{Tried, Upstream, connect::connect};

/// One read's worth, each way.
const BUFFER: usize = 64 * 1024;

/// Connects to an endpoint, another one where the first fails, and copies both ways until both ends are done. An end
/// that stops sending may still receive.
pub async fn pass_through(
    client_stream: Stream,
    upstream: &Upstream,
    idle_timeout: Option<Duration>,
    client: &Client,
    services: &Services,
) {
    let (time, started) = (now(), Instant::now());
    // It may go on for days, under the configuration that it began under.
    let config = services.live.pin().hash.clone();
    let mut tried = Tried::new();
    let connected = reach(upstream, &mut tried).await;
    let mut counts = (0, 0);
    let cause = match connected {
        Err(failure) => {
            log::warn!(
                "listener `{}`, upstream `{}`: {}: {failure}\n  to mend it: {}",
                client.listener.name,
                upstream.name,
                failure.cause.code(),
                failure.cause.remedy(),
            );
            Some(failure.cause)
        }
        Ok(upstream_stream) => {
            let activity = Arc::new(Activity::new());
            let mut near = Watched { stream: client_stream, activity: activity.clone(), read: 0 };
            let mut far = Watched { stream: upstream_stream, activity: activity.clone(), read: 0 };
            tokio::select! {
                _ = copy_bidirectional_with_sizes(&mut near, &mut far, BUFFER, BUFFER) => {}
                () = activity.idle_for(idle_timeout) => {}
            }
            counts = (near.read, far.read);
            None
        }
    };
    services.log.write(&Line {
        time,
        listener: &client.listener.name,
        client_ip: client.ip,
        bytes_in: counts.0,
        bytes_out: counts.1,
        duration_ms: (started.elapsed().as_secs_f64() * 1e6).round() / 1e3,
        upstream: Some(&upstream.name),
        endpoint: tried.last().map(|address| &*address.text),
        attempts: Some(tried.len() as u32),
        cause: cause.map(Cause::code),
        config: &config,
        ..Line::default()
    });
}

async fn reach(upstream: &Upstream, tried: &mut Tried) -> Result<Stream, Failure> {
    let mut last = Failure::new(Cause::DnsNotFound, upstream.name.as_str());
    while let Some(pick) = upstream.balance.pick(tried).filter(|pick| !tried.contains(&pick.address)) {
        tried.push(pick.address.clone());
        match connect(&pick.address.target, upstream.connect_timeout).await {
            Ok(stream) => {
                upstream.attempt_succeeded(&pick, Timestamp::now());
                return Ok(stream);
            }
            Err(failure) => {
                upstream.attempt_failed(Some(&pick), &failure);
                last = Failure::new(failure.cause, format!("{}: {}", pick.address, failure.detail))
            }
        }
    }
    if tried.is_empty() {
        upstream.attempt_failed(None, &last);
    }
    Err(last)
}

/// When a byte last passed, in milliseconds since the connection began.
struct Activity {
    began: Instant,
    last: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self { began: Instant::now(), last: AtomicU64::new(0) }
    }

    fn note(&self) {
        self.last.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Returns once no byte has passed for so long; never where there is no limit.
    async fn idle_for(&self, limit: Option<Duration>) {
        let Some(limit) = limit else { return std::future::pending().await };
        loop {
            let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
            let idle = self.began.elapsed().saturating_sub(last);
            if idle >= limit {
                return;
            }
            sleep(limit - idle).await;
        }
    }
}

/// A stream that notes when bytes pass and counts what is read.
struct Watched {
    stream: Stream,
    activity: Arc<Activity>,
    read: u64,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let count = buf.filled().len() - before;
        if count > 0 {
            self.read += count as u64;
            self.activity.note();
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        if polled.is_ready() {
            self.activity.note();
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
