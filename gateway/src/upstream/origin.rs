//! What is remembered with a connection to an upstream, and shared with the request that uses it.
//!
//! The connection itself is `stream`'s.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::peer::Wanted;
use super::standing::Standing;

/// What is remembered with a connection for as long as it lives, shared with the request that uses it.
#[derive(Debug)]
pub struct Origin {
    made: Instant,
    resumed: AtomicBool,
    shows_certificate: AtomicBool,
    /// Microseconds after `made`; 0 is none.
    deadline: AtomicU64,
    /// How many reads are to be put off.
    held: AtomicU64,
    standing: Arc<Standing>,
}

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

    /// Puts the next reads off for two turns of the loop. The engine ends a tunnel whose 101 it reads before it has
    /// seen the end of the request's own, empty body (pingora issue 946); two turns later, it has.
    pub fn hold_first_read(&self) {
        self.held.store(2, Ordering::Release);
    }

    pub(super) fn is_held(&self) -> bool {
        let less = |held: u64| held.checked_sub(1);
        self.held.load(Ordering::Relaxed) > 0
            && self.held.fetch_update(Ordering::AcqRel, Ordering::Relaxed, less).is_ok()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.deadline.load(Ordering::Acquire) {
            0 => None,
            micros => Some(self.made + Duration::from_micros(micros)),
        }
    }
}

impl Lease {
    /// From now on the connection is in use, and its reads and writes fail once the deadline has passed.
    pub fn new(origin: Arc<Origin>, deadline: Option<Instant>) -> Self {
        origin.standing.enter();
        let armed = deadline.map(|deadline| origin.arm(deadline));
        Self { origin, armed }
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
