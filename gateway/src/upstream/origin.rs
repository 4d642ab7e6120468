//! What is remembered with a connection to an upstream, and shared with the request that uses it.
//!
//! The connection itself is `stream`'s.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;

use super::peer::Wanted;
use super::standing::Standing;
use crate::diagnose::Failure;
use crate::tunnel::{End, Tunnel};

/// What is remembered with a connection for as long as it lives, shared with the request that uses it.
#[derive(Debug)]
pub struct Origin {
    made: Instant,
    resumed: AtomicBool,
    shows_certificate: AtomicBool,
    /// Microseconds after `made`; 0 is none.
    deadline: AtomicU64,
    /// How many reads are to be put off; `UNTIL_TOLD`: all.
    held: AtomicU64,
    /// Whether the answer to a request to upgrade is awaited.
    upgrade: AtomicU8,
    /// Bytes that came with the 101.
    early: AtomicU64,
    tunnel: OnceLock<Arc<Tunnel>>,
    /// Why the request that uses it is to be broken off, and who waits for its answer.
    broken_off: OnceLock<Failure>,
    waiting: AtomicWaker,
    standing: Arc<Standing>,
}

const UNTIL_TOLD: u64 = u64::MAX;
/// The engine ends a tunnel whose 101 it reads before it has seen the end of the request's own, empty body (pingora
/// issue 946). Two turns of the loop after that end has been sent on, it has.
const TURNS: u64 = 2;

/// No answer to a request to upgrade is awaited, or it has come.
const PLAIN: u8 = 0;
/// It is awaited.
const AWAITED: u8 = 1;
/// It is a 101, and nothing more is to be read until the request has heard of it.
const SWITCHING: u8 = 2;

/// A deadline that was set, to be taken back by who set it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Armed(u64);

/// A connection in the hands of a request, until this is dropped.
#[derive(Debug)]
pub struct Lease {
    origin: Arc<Origin>,
    armed: Option<Armed>,
}

impl Origin {
    /// A connection that is made now, and that no pool is to have.
    pub(crate) fn new() -> Self {
        Self::with(Arc::default())
    }

    /// A connection that is made now.
    pub(super) fn with(standing: Arc<Standing>) -> Self {
        Self {
            made: Instant::now(),
            resumed: AtomicBool::new(false),
            shows_certificate: AtomicBool::new(false),
            deadline: AtomicU64::new(0),
            held: AtomicU64::new(0),
            upgrade: AtomicU8::new(PLAIN),
            early: AtomicU64::new(0),
            tunnel: OnceLock::new(),
            broken_off: OnceLock::new(),
            waiting: AtomicWaker::new(),
            standing,
        }
    }

    /// Whether it may still be used.
    pub(super) fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// Whether it was made for what is wanted.
    pub fn serves(&self, wanted: Wanted<'_>) -> bool {
        self.standing.serves(wanted)
    }

    /// Whether the TLS session was resumed.
    pub fn resumed(&self) -> bool {
        self.resumed.load(Ordering::Relaxed)
    }

    /// Whether the handshake was made with a client certificate to show.
    pub(super) fn shows_certificate(&self) -> bool {
        self.shows_certificate.load(Ordering::Relaxed)
    }

    /// Notes how the handshake went.
    pub(crate) fn note_handshake(&self, resumed: bool, shows_certificate: bool) {
        self.resumed.store(resumed, Ordering::Relaxed);
        self.shows_certificate.store(shows_certificate, Ordering::Relaxed);
    }

    /// From now on, reads and writes fail once the deadline has passed.
    pub(super) fn arm(&self, deadline: Instant) -> Armed {
        // At least 1: 0 means none. A deadline that has passed already fails at the first wait.
        let micros = deadline.saturating_duration_since(self.made).as_micros().max(1) as u64;
        self.deadline.store(micros, Ordering::Release);
        Armed(micros)
    }

    /// Takes the deadline back, unless a later request on the same connection has set its own.
    pub(super) fn disarm(&self, armed: Armed) {
        let _ = self.deadline.compare_exchange(armed.0, 0, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// A request to upgrade is about to be sent. Where it has no body, nothing is read until `sent` says that its end is
    /// on its way; else the answer may come before all of the body has been read, and is not waited for so.
    pub fn await_upgrade(&self, has_body: bool) {
        self.held.store(if has_body { TURNS } else { UNTIL_TOLD }, Ordering::Release);
        self.upgrade.store(AWAITED, Ordering::Release);
    }

    /// The end of the request is on its way.
    pub fn sent(&self) {
        let told = self.held.compare_exchange(UNTIL_TOLD, TURNS, Ordering::AcqRel, Ordering::Relaxed);
        if told.is_ok() {
            self.standing.wake();
        }
    }

    /// The request has heard of the 101: from now on this is a tunnel, whose other end gets the same.
    pub fn open_tunnel(&self) -> Arc<Tunnel> {
        let tunnel = self.tunnel.get_or_init(|| Arc::new(Tunnel::new(self.early.load(Ordering::Acquire))));
        self.upgrade.store(PLAIN, Ordering::Release);
        self.standing.wake();
        tunnel.clone()
    }

    /// This end of the tunnel, once there is one.
    pub(super) fn tunnel(&self) -> Option<End<'_>> {
        self.tunnel.get().map(|tunnel| tunnel.upstream())
    }

    /// Whether the head that comes next is to be looked at.
    pub(super) fn awaits_upgrade(&self) -> bool {
        self.upgrade.load(Ordering::Acquire) == AWAITED
    }

    /// The answer's head is there: a 101 with so many bytes behind it, or anything else.
    pub(super) fn note_answer(&self, switch: Option<usize>) {
        self.early.store(switch.unwrap_or_default() as u64, Ordering::Release);
        self.upgrade.store(if switch.is_some() { SWITCHING } else { PLAIN }, Ordering::Release);
    }

    /// Ready unless reads are to be put off.
    pub(super) fn poll_readable(&self, cx: &Context<'_>) -> Poll<()> {
        if self.held.load(Ordering::Acquire) == 0 && self.upgrade.load(Ordering::Acquire) != SWITCHING {
            return Poll::Ready(());
        }
        // Looked at once more after the waker is in place, so that no change in between is missed.
        self.standing.watch(cx);
        match self.held.load(Ordering::Acquire) {
            0 if self.upgrade.load(Ordering::Acquire) != SWITCHING => return Poll::Ready(()),
            0 | UNTIL_TOLD => {}
            turns => {
                let _ = self.held.compare_exchange(turns, turns - 1, Ordering::AcqRel, Ordering::Relaxed);
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    /// Why the exchange is to end, for whoever waits for something of it.
    pub(super) fn broken_off(&self, waiting: &Waker) -> Option<&Failure> {
        self.waiting.register(waiting);
        self.broken_off.get()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.deadline.load(Ordering::Acquire) {
            0 => None,
            micros => Some(self.made + Duration::from_micros(micros)),
        }
    }
}

impl Lease {
    /// Ends a stream of HTTP/2: whoever waits for its answer gets this failure. A connection of HTTP/1.1 ends when a hook
    /// fails; of a stream the engine waits on for the answer to what was sent so far.
    pub fn break_off(&self, failure: Failure) {
        let _ = self.origin.broken_off.set(failure);
        self.origin.waiting.wake();
    }

    /// From now on the connection is in use, and its reads and writes fail once the deadline has passed.
    pub fn new(origin: Arc<Origin>, deadline: Option<Instant>) -> Self {
        origin.standing.enter();
        let armed = deadline.map(|deadline| origin.arm(deadline));
        Self { origin, armed }
    }

    /// The connection.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Takes the deadline back: the exchange has become a tunnel, which only idleness ends.
    pub fn disarm(&mut self) {
        if let Some(armed) = self.armed.take() {
            self.origin.disarm(armed);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.disarm();
        self.origin.standing.leave();
    }
}
