//! The one swap: which snapshot a new request gets.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::Snapshot;
use crate::reload::stage::Stage;

/// Holds what is in force. Reading takes no lock; a request reads it once.
pub struct Live(ArcSwap<InForce>);

/// What requests run on.
pub struct InForce {
    /// The snapshot that runs.
    pub running: Arc<Snapshot>,
    /// The one that takes a share of the requests beside it, while it is on trial.
    pub stage: Option<Arc<Stage>>,
}

impl Live {
    /// Puts the first snapshot in force.
    pub fn new(first: Arc<Snapshot>) -> Self {
        Self(ArcSwap::from_pointee(InForce { running: first, stage: None }))
    }

    /// What is in force at this moment.
    pub fn in_force(&self) -> Guard<Arc<InForce>> {
        self.0.load()
    }

    /// The same, held for as long as the caller holds it.
    pub fn hold(&self) -> Arc<InForce> {
        self.0.load_full()
    }

    /// The snapshot that runs, held for as long as the caller holds it.
    pub fn pin(&self) -> Arc<Snapshot> {
        self.0.load().running.clone()
    }

    /// Puts something else in force, for requests that begin from now on.
    pub fn swap(&self, next: InForce) {
        self.0.store(Arc::new(next));
    }
}
