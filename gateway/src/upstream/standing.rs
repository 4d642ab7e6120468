//! Whether a connection to an upstream may still be used: how many requests use it, and whether it is retired, which
//! it is once its TLS policy is no longer in force.
//!
//! Which policies are in force is `tls::Policies`'s to know. Nothing here locks.

use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

use super::peer::{Purpose, Wanted};

/// One connection's.
#[derive(Debug, Default)]
pub struct Standing {
    /// None where no pool has it.
    purpose: Option<Purpose>,
    /// How many use it, and `RETIRED`.
    state: AtomicU32,
    /// Who reads from the connection.
    reader: AtomicWaker,
}

const RETIRED: u32 = 1 << 31;

impl Standing {
    /// A connection that is being made for this.
    pub fn new(purpose: Purpose) -> Self {
        Self { purpose: Some(purpose), ..Self::default() }
    }

    /// Whether it was made for what is wanted.
    pub fn serves(&self, wanted: Wanted<'_>) -> bool {
        self.purpose.as_ref().is_some_and(|purpose| wanted.is(purpose))
    }

    /// One more uses it.
    pub fn enter(&self) {
        self.state.fetch_add(1, Ordering::AcqRel);
    }

    /// One less. The next request may have come already: the engine hands a connection on before the hook that ends
    /// the request before.
    pub fn leave(&self) {
        if self.state.fetch_sub(1, Ordering::AcqRel) == RETIRED | 1 {
            self.reader.wake();
        }
    }

    /// Not to be used again, for good.
    pub fn retire(&self) {
        self.state.fetch_or(RETIRED, Ordering::AcqRel);
        self.reader.wake();
    }

    /// Whether it is not to be used again.
    pub fn is_retired(&self) -> bool {
        self.state.load(Ordering::Acquire) & RETIRED != 0
    }

    /// Whether nobody uses it any more, and nobody is to.
    pub fn is_over(&self) -> bool {
        self.state.load(Ordering::Acquire) == RETIRED
    }

    /// Wakes who reads.
    pub fn wake(&self) {
        self.reader.wake();
    }

    /// Wakes this task when the connection is retired, and when a retired one is used no longer.
    pub fn watch(&self, cx: &Context<'_>) {
        self.reader.register(cx.waker());
    }

    /// Ready once it is over.
    pub fn poll_over(&self, cx: &Context<'_>) -> Poll<()> {
        self.watch(cx);
        // Looked at after the waker is in place, so that no change in between is missed.
        if self.is_over() { Poll::Ready(()) } else { Poll::Pending }
    }
}
