//! Counts the frames of an HTTP/2 connection by their heads, before the `h2` crate sees them: what a client may do to it
//! cheaply and the crate allows without end.
//!
//! The crate bounds by itself: streams, the header list and its CONTINUATION frames, resets of streams that nobody has
//! accepted, small and empty DATA. It answers each PING and each SETTINGS, reads each PRIORITY and WINDOW_UPDATE, and
//! counts no reset of a stream that is being served.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, IO, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep};

use crate::observe::OverLimit;
use crate::snapshot::limits::Http2Limits;

/// What limits of frames are per.
const WINDOW: Duration = Duration::from_secs(1);
/// How many control frames a client may send for each frame of an answer: some send a WINDOW_UPDATE for the stream and
/// one for the connection at each DATA frame, some a PING too (gRPC, which measures by it how fast the way is).
const PER_ANSWER: u32 = 10;
/// How many of those may be left over.
const MOST_LEFT: u32 = 10_000;
/// How long the end waits for the client to read it: were the connection closed on bytes that nobody has read, the system
/// would take back what is under way, the GOAWAY among it.
const LINGER: Duration = Duration::from_secs(2);

// RFC 9113 section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;
const PREFACE: usize = 24;
/// PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR and REFUSED_STREAM: the resets of ours that a client
/// brings about by what it sends (RFC 9113 section 7).
const PROVOKED: [u32; 5] = [1, 3, 5, 6, 7];

/// What the connection's task is told of its frames.
#[derive(Debug, Default)]
pub struct Frames {
    over: OnceLock<OverLimit>,
    told: Notify,
    answered: AtomicU64,
}

impl Frames {
    /// The limit that the client has gone over, once it has; nothing is read from it any more.
    pub async fn over(&self) -> OverLimit {
        loop {
            if let Some(over) = self.over.get() {
                return *over;
            }
            self.told.notified().await;
        }
    }

    /// How many frames of answers the client has taken.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

/// A connection whose frames are counted.
#[derive(Debug)]
pub struct Counted<S: IO> {
    inner: S,
    frames: Arc<Frames>,
    come: Heads,
    gone: Heads,
    resets: Rate,
    control: Rate,
    /// Control frames that do not count, since they follow from answers.
    free: u32,
    linger: Option<Pin<Box<Sleep>>>,
}

impl<S: IO> Counted<S> {
    /// A connection of which nothing has been read; what comes of it is left in `frames`.
    pub fn new(inner: S, limits: &Http2Limits, frames: Arc<Frames>) -> Self {
        Self {
            inner,
            frames,
            come: Heads { skip: PREFACE, ..Heads::default() },
            gone: Heads::default(),
            resets: Rate::new(limits.resets),
            control: Rate::new(limits.control_frames),
            free: 0,
            linger: None,
        }
    }

    fn received(&mut self, bytes: &[u8]) {
        let Self { come, resets, control, free, .. } = self;
        let mut over = None;
        come.read(bytes, |frame| {
            let exceeds = match frame.kind {
                RST_STREAM => resets.exceeds().then_some(OverLimit::Http2Resets),
                HEADERS => None,
                DATA if frame.length > 0 || frame.flags & END_STREAM != 0 => None,
                _ if *free > 0 => {
                    *free -= 1;
                    None
                }
                _ => control.exceeds().then_some(OverLimit::Http2ControlFrames),
            };
            over = over.or(exceeds);
        });
        self.told(over);
    }

    fn sent(&mut self, bytes: &[u8]) {
        let Self { gone, resets, free, frames, .. } = self;
        let mut over = None;
        gone.read(bytes, |frame| match frame.kind {
            DATA | HEADERS => {
                *free = (*free + PER_ANSWER).min(MOST_LEFT);
                frames.answered.fetch_add(1, Ordering::Relaxed);
            }
            RST_STREAM if PROVOKED.contains(&frame.code) && resets.exceeds() => {
                over = Some(OverLimit::Http2Resets);
            }
            _ => {}
        });
        self.told(over);
    }

    fn told(&mut self, over: Option<OverLimit>) {
        if let Some(over) = over
            && self.frames.over.set(over).is_ok()
        {
            self.frames.told.notify_one();
        }
    }
}

/// The head of a frame, and of RST_STREAM the error code.
#[derive(Clone, Copy, Debug)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    code: u32,
}

/// Finds the heads of frames in what passes, however it is cut.
#[derive(Debug, Default)]
struct Heads {
    /// Bytes up to the next head.
    skip: usize,
    /// The bytes of the present head that have come; 9, and 4 more of an error code.
    head: [u8; 13],
    have: usize,
}

impl Heads {
    fn read(&mut self, mut bytes: &[u8], mut found: impl FnMut(Head)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let taken = (self.wanted() - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            // With the ninth byte it may turn out that four more are wanted.
            if self.have < self.wanted() {
                continue;
            }
            let [a, b, c, kind, flags, _, _, _, _, code @ ..] = self.head;
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            self.skip = length - (self.have - 9);
            let code = if self.have == 13 { u32::from_be_bytes(code) } else { 0 };
            self.have = 0;
            found(Head { length, kind, flags, code });
        }
    }

    fn wanted(&self) -> usize {
        let is_reset = self.have >= 9 && self.head[3] == RST_STREAM && self.head[..3] == [0, 0, 4];
        if is_reset { 13 } else { 9 }
    }
}

/// So many in a second. The clock is read once for as many.
#[derive(Debug)]
struct Rate {
    limit: u32,
    count: u32,
    since: Instant,
}

impl Rate {
    fn new(limit: u32) -> Self {
        Self { limit, count: 0, since: Instant::now() }
    }

    /// Counts one more; whether it and those before it came faster than allowed.
    fn exceeds(&mut self) -> bool {
        if self.count < self.limit {
            self.count += 1;
            return false;
        }
        let now = Instant::now();
        if now - self.since < WINDOW {
            return true;
        }
        (self.count, self.since) = (1, now);
        false
    }
}

impl<S: IO> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.frames.over.get().is_some() {
            // The connection's task has been told, and ends it.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.received(&buf.filled()[before..]);
        polled
    }
}

impl<S: IO> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.sent(&buf[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, bufs))?;
        let mut left = count;
        for buf in bufs {
            let part = left.min(buf.len());
            self.sent(&buf[..part]);
            left -= part;
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
            self.linger = Some(Box::pin(sleep(LINGER)));
        }
        let mut rest = [0; 4096];
        loop {
            if let Some(linger) = &mut self.linger
                && linger.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Ok(()));
            }
            let mut rest = ReadBuf::new(&mut rest);
            match ready!(Pin::new(&mut self.inner).poll_read(cx, &mut rest)) {
                Ok(()) if !rest.filled().is_empty() => {}
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[async_trait]
impl<S: IO> Shutdown for Counted<S> {
    async fn shutdown(&mut self) {
        Shutdown::shutdown(&mut self.inner).await;
    }
}

impl<S: IO> UniqueID for Counted<S> {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl<S: IO> Ssl for Counted<S> {
    fn get_ssl(&self) -> Option<&openssl::ssl::SslRef> {
        self.inner.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl<S: IO> GetTimingDigest for Counted<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl<S: IO> GetProxyDigest for Counted<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }
}

impl<S: IO> GetSocketDigest for Counted<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}

impl<S: IO> Peek for Counted<S> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        [&(payload.len() as u32).to_be_bytes()[1..], &[kind, 0, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn heads_are_found_however_the_bytes_are_cut() {
        let all: Vec<u8> = [
            vec![b'P'; PREFACE],
            frame(4, &[]),
            frame(HEADERS, &[1; 30]),
            frame(RST_STREAM, &[0, 0, 0, 8]),
            frame(RST_STREAM, &[9; 5]),
            frame(DATA, &[2; 300]),
            frame(6, &[3; 8]),
        ]
        .concat();
        for size in 1..all.len() {
            let mut heads = Heads { skip: PREFACE, ..Heads::default() };
            let mut found = Vec::new();
            for piece in all.chunks(size) {
                heads.read(piece, |head| found.push((head.kind, head.length, head.code)));
            }
            assert_eq!(
                found,
                [
                    (4, 0, 0),
                    (HEADERS, 30, 0),
                    (RST_STREAM, 4, 8),
                    (RST_STREAM, 5, 0),
                    (DATA, 300, 0),
                    (6, 8, 0)
                ],
                "in pieces of {size}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_exceeded_by_more_than_its_limit_within_a_second() {
        let mut rate = Rate::new(3);
        for _ in 0..10 {
            assert!((0..3).all(|_| !rate.exceeds()));
            tokio::time::advance(WINDOW).await;
        }
        assert!((0..3).all(|_| !rate.exceeds()), "a second has passed");
        assert!(rate.exceeds());
    }
}
