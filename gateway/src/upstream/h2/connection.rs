//! One HTTP/2 connection to an upstream: how many streams it has, and when it is no longer handed out.
//!
//! A task of its own moves its frames. It lives until the upstream ends it, until it has been idle for long enough,
//! or until it has failed.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::task::noop_waker_ref;
use h2::client::{Builder, SendRequest};
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    GetSocketDigest, GetTimingDigest, SocketDigest, Ssl, TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::body::Part;
use super::failure::of_preface;
use super::pool::Pool;
use super::{CONNECTION_WINDOW, MAX_FRAME, MAX_HEAD, MAX_STREAMS, SEND_BUFFER, STREAM_WINDOW};
use crate::diagnose::Failure;
use crate::upstream::peer::Wanted;
use crate::upstream::standing::Standing;
use crate::upstream::stream::Stream;

/// How long an idle connection's GOAWAY may take to be written.
const FAREWELL: Duration = Duration::from_secs(5);

/// What is known of a connection from its handshake on.
#[derive(Debug)]
pub struct Facts {
    /// The key of the pool.
    pub key: u64,
    /// How long it is kept without a stream.
    pub idle_timeout: Duration,
    /// With TLS, whose session may have been resumed.
    pub resumed: bool,
}

/// A connection.
pub struct Connection {
    facts: Facts,
    standing: Arc<Standing>,
    requests: SendRequest<Part>,
    slots: Arc<Slots>,
    wire: Arc<Wire>,
    made: Instant,
    /// Milliseconds after `made`.
    idle_since: AtomicU64,
    tls: Option<Arc<SslDigest>>,
    socket: Option<Arc<SocketDigest>>,
    timing: Vec<Option<TimingDigest>>,
    fd: UniqueIDType,
}

/// The right to one stream. Gives it back when dropped.
pub struct Slot {
    connection: Arc<Connection>,
    pool: Arc<Pool>,
    /// To make the request with.
    pub requests: SendRequest<Part>,
}

/// Speaks HTTP/2 on a stream that has been connected, waits for the upstream's SETTINGS, and puts the connection into
/// the pool with a first stream taken. A server that speaks another protocol, and one that refuses our certificate
/// after a TLS 1.3 handshake, is found out here, before a request is sent.
///
/// # Errors
/// No SETTINGS came.
pub async fn establish(stream: Stream, facts: Facts, pool: &Arc<Pool>) -> Result<Slot, Failure> {
    let (tls, socket) = (stream.get_ssl_digest(), stream.get_socket_digest());
    let (timing, fd) = (stream.get_timing_digest(), stream.id());
    let standing = stream.standing().clone();
    // Retired, it is taken out of the pool, and its streams go on: its bytes never end by that.
    standing.enter();
    let made = Instant::now();
    let wire = Arc::new(Wire::default());
    let transport = Transport { stream, wire: wire.clone(), made };
    let failed = |error: Option<h2::Error>| of_preface(error.as_ref(), wire.noted());
    let handshake = Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_HEAD)
        .max_send_buffer_size(SEND_BUFFER)
        // None until the upstream has told how many.
        .initial_max_send_streams(0)
        .handshake::<_, Part>(transport);
    let (requests, mut frames) = handshake.await.map_err(|error| failed(Some(error)))?;
    std::future::poll_fn(|cx| match Pin::new(&mut frames).poll(cx) {
        Poll::Ready(ended) => Poll::Ready(Err(failed(ended.err()))),
        Poll::Pending if requests.current_max_send_streams() > 0 => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
    })
    .await?;
    let slots = Arc::new(Slots::new(frames.max_concurrent_send_streams()));
    // The first stream is its maker's.
    slots.open();
    let idle_since = AtomicU64::new(0);
    let shared = Shared { slots: slots.clone(), standing: standing.clone() };
    let connection = Arc::new(Connection {
        facts,
        standing: standing.clone(),
        requests,
        slots,
        wire,
        made,
        idle_since,
        tls,
        socket,
        timing,
        fd,
    });
    pool.add(&connection);
    tokio::spawn(drive(frames, shared, Arc::downgrade(&connection), pool.clone()));
    let requests = connection.requests.clone();
    Ok(Slot { connection, pool: pool.clone(), requests })
}

type Frames = h2::client::Connection<Transport, Part>;

/// What a connection shares with the task that moves its frames.
struct Shared {
    slots: Arc<Slots>,
    standing: Arc<Standing>,
}

/// Moves the frames of a connection until it ends.
async fn drive(mut frames: Frames, shared: Shared, connection: Weak<Connection>, pool: Arc<Pool>) {
    let Shared { slots, standing } = shared;
    let mut check = tokio::time::Instant::now();
    let (mut leaving, mut retired) = (false, false);
    loop {
        let ended = std::future::poll_fn(|cx| {
            standing.watch(cx);
            if !retired && standing.is_retired() {
                retired = true;
                if let Some(connection) = connection.upgrade() {
                    pool.remove(&connection);
                }
            }
            let polled = Pin::new(&mut frames).poll(cx);
            slots.set_limit(frames.max_concurrent_send_streams());
            polled.map(|_| ())
        });
        if tokio::time::timeout_at(check, ended).await.is_ok() {
            break;
        }
        let rest = connection.upgrade().and_then(|connection| connection.rest(&pool));
        // Once nobody holds it the library says GOAWAY, and it has so long to get that off.
        if rest.is_none() && std::mem::replace(&mut leaving, true) {
            break;
        }
        check = tokio::time::Instant::now() + rest.unwrap_or(FAREWELL);
    }
    if let Some(connection) = connection.upgrade() {
        pool.remove(&connection);
    }
}

impl Connection {
    /// Under which the pool has it.
    pub fn key(&self) -> u64 {
        self.facts.key
    }

    /// Whether it was made for what is wanted.
    pub(super) fn serves(&self, wanted: Wanted<'_>) -> bool {
        self.standing.serves(wanted)
    }

    /// Takes a stream, unless all are taken or the connection is not to be used again.
    pub(super) fn open(self: &Arc<Self>, pool: &Arc<Pool>) -> Option<Slot> {
        if self.standing.is_retired() {
            pool.remove(self);
            return None;
        }
        let first = self.slots.open()?;
        if first {
            pool.note_idle(-1);
        }
        let mut slot = Slot { requests: self.requests.clone(), connection: self.clone(), pool: pool.clone() };
        // After a GOAWAY, and once all stream numbers are used, the library takes no request.
        match slot.requests.poll_ready(&mut Context::from_waker(noop_waker_ref())) {
            Poll::Ready(Ok(())) => Some(slot),
            _ => {
                pool.remove(self);
                None
            }
        }
    }

    /// Never hands it out again; tells whether it was idle.
    pub(super) fn close(&self) -> bool {
        self.slots.close()
    }

    /// The same, and nothing where there is a stream.
    pub(super) fn close_idle(&self) -> bool {
        self.slots.close_idle()
    }

    /// How many streams it may have.
    pub(super) fn limit(&self) -> u32 {
        self.slots.limit.load(Ordering::Relaxed)
    }

    fn leave(self: &Arc<Self>, pool: &Arc<Pool>) {
        self.idle_since.store(self.age(), Ordering::Release);
        if self.slots.leave() && (pool.note_idle(1) || self.facts.idle_timeout.is_zero()) {
            pool.remove_idle(self);
        }
    }

    fn age(&self) -> u64 {
        self.made.elapsed().as_millis() as u64
    }

    /// How long until its idleness is to be looked at again; `None` once it has been idle for long enough, and is out
    /// of the pool.
    fn rest(self: &Arc<Self>, pool: &Arc<Pool>) -> Option<Duration> {
        let timeout = self.facts.idle_timeout;
        if self.slots.is_idle() {
            let idle = self.age().saturating_sub(self.idle_since.load(Ordering::Acquire));
            match timeout.checked_sub(Duration::from_millis(idle)).filter(|left| !left.is_zero()) {
                Some(left) => return Some(left),
                None if pool.remove_idle(self) => return None,
                None => {}
            }
        }
        // Looked at often enough that it closes soon after its time, and rarely enough to cost nothing. What is not
        // kept at all closes with its last stream.
        Some(if timeout.is_zero() { FAREWELL } else { (timeout / 16).max(Duration::from_millis(10)) })
    }
}

impl Slot {
    /// What the connection's reads and writes have failed with.
    pub fn noted(&self) -> Option<&Failure> {
        self.connection.wire.noted()
    }

    /// Whether the connection may still be used.
    pub fn standing(&self) -> &Arc<Standing> {
        &self.connection.standing
    }

    /// The connection as the engine logs it.
    pub fn fd(&self) -> UniqueIDType {
        self.connection.fd
    }

    /// TLS, where there is any.
    pub fn tls(&self) -> Option<Arc<SslDigest>> {
        self.connection.tls.clone()
    }

    /// Both ends' addresses.
    pub fn socket(&self) -> Option<Arc<SocketDigest>> {
        self.connection.socket.clone()
    }

    /// When it was made.
    pub fn timing(&self) -> Vec<Option<TimingDigest>> {
        self.connection.timing.clone()
    }

    /// Whether its TLS session was resumed.
    pub fn resumed(&self) -> bool {
        self.connection.facts.resumed
    }

    /// Notes that a stream has timed out which began at `since`. Where not a byte has come from the upstream in all
    /// that time, the connection itself may be dead, and no further request is to find that out.
    pub fn suspect(&self, since: Instant) {
        let connection = &self.connection;
        let last = connection.made + Duration::from_millis(connection.wire.read_at.load(Ordering::Relaxed));
        if last <= since {
            self.pool.remove(connection);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connection.leave(&self.pool);
    }
}

/// How many streams there are, and whether there may be more: one word, changed without a lock.
#[derive(Debug)]
struct Slots {
    /// The number of streams, and `CLOSED`.
    word: AtomicU32,
    limit: AtomicU32,
}

const CLOSED: u32 = 1 << 31;

impl Slots {
    fn new(allowed: usize) -> Self {
        let slots = Self { word: AtomicU32::new(0), limit: AtomicU32::new(0) };
        slots.set_limit(allowed);
        slots
    }

    fn set_limit(&self, allowed: usize) {
        let limit = u32::try_from(allowed).map_or(MAX_STREAMS, |allowed| allowed.min(MAX_STREAMS));
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// One stream more; tells whether it is the only one. `None` where there may be no more.
    fn open(&self) -> Option<bool> {
        let limit = self.limit.load(Ordering::Relaxed);
        // A closed word is above every limit.
        let more = |word: u32| (word < limit).then_some(word + 1);
        self.word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).ok().map(|before| before == 0)
    }

    /// One stream less; tells whether the connection is idle now and may be used again.
    fn leave(&self) -> bool {
        self.word.fetch_sub(1, Ordering::AcqRel) == 1
    }

    fn is_idle(&self) -> bool {
        self.word.load(Ordering::Acquire) == 0
    }

    /// Tells whether it was idle, and open.
    fn close(&self) -> bool {
        self.word.fetch_or(CLOSED, Ordering::AcqRel) == 0
    }

    /// Closes only what has no stream.
    fn close_idle(&self) -> bool {
        self.word.compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// What a connection's transport has met with.
#[derive(Debug, Default)]
struct Wire {
    failure: OnceLock<Failure>,
    /// When the last bytes came, in milliseconds after the connection was made.
    read_at: AtomicU64,
}

impl Wire {
    fn noted(&self) -> Option<&Failure> {
        self.failure.get()
    }

    /// The library passes on the kind of an error and its text, so the cause in it is kept here.
    fn note(&self, error: &io::Error) {
        let failure = error.get_ref().and_then(|inner| inner.downcast_ref::<Failure>());
        if let Some(Failure { cause, detail }) = failure {
            let _ = self.failure.set(Failure::new(*cause, detail.clone()));
        }
    }
}

/// The stream beneath the frames.
struct Transport {
    stream: Stream,
    wire: Arc<Wire>,
    made: Instant,
}

impl Transport {
    fn noting<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled {
            self.wire.note(error);
        }
        polled
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if polled.is_ready() {
            self.wire.read_at.store(self.made.elapsed().as_millis() as u64, Ordering::Relaxed);
        }
        self.noting(polled)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.noting(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.noting(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.noting(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_no_more_streams_than_both_sides_allow() {
        for (allowed, expected) in [(1, 1), (7, 7), (100, 100), (101, 100), (usize::MAX, 100)] {
            let slots = Slots::new(allowed);
            assert_eq!(std::iter::from_fn(|| slots.open()).count(), expected, "{allowed} allowed");
            assert!(!slots.leave() || expected == 1);
            assert!(slots.open().is_some());
        }
        assert!(Slots::new(0).open().is_none());
    }

    #[test]
    fn a_lower_limit_takes_nobodys_stream_away() {
        let slots = Slots::new(3);
        assert_eq!([slots.open(), slots.open(), slots.open()], [Some(true), Some(false), Some(false)]);
        slots.set_limit(1);
        assert!(!slots.leave() && !slots.leave());
        assert_eq!(slots.open(), None);
        assert!(slots.leave());
        assert_eq!(slots.open(), Some(true));
    }

    #[test]
    fn a_closed_connection_is_never_handed_out_and_counts_down_to_nothing() {
        let slots = Slots::new(100);
        slots.open();
        assert!(!slots.close_idle(), "it has a stream");
        assert!(!slots.close());
        assert_eq!(slots.open(), None);
        assert!(!slots.leave(), "not idle: closed");
        assert!(!slots.close() && !slots.close_idle(), "closed once");
        let slots = Slots::new(100);
        assert!(slots.close());
        assert_eq!(slots.open(), None);
    }

    #[test]
    fn streams_opened_at_once_from_many_threads_are_counted_one_by_one() {
        let slots = Slots::new(50);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        if slots.open().is_some() {
                            assert!(slots.word.load(Ordering::Relaxed) <= 50);
                            slots.leave();
                        }
                    }
                });
            }
        });
        assert!(slots.is_idle());
    }
}
