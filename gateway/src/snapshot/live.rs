//! The one swap: which snapshot a new request gets.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Snapshot;

/// Holds the snapshot in force. Reading takes no lock; a request reads it once.
pub struct Live(ArcSwap<Snapshot>);

impl Live {
    /// Puts the first snapshot in force.
    pub fn new(first: Arc<Snapshot>) -> Self {
        Self(ArcSwap::new(first))
    }

    /// The snapshot in force, held for as long as the caller holds it.
    pub fn pin(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// Puts another one in force, for requests that begin from now on.
    pub fn swap(&self, next: Arc<Snapshot>) -> Arc<Snapshot> {
        self.0.swap(next)
    }
}
