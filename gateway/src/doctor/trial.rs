//! Many tries at one address, so many at once and no more.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::probe::{Attempt, Way, attempt};
use crate::diagnose::{Cause, Failure};
use crate::upstream::Target;

/// Connections that are open at once.
const AT_ONCE: usize = 16;

/// Where tries are made.
#[derive(Clone)]
pub struct Lab {
    slots: Arc<Semaphore>,
    /// Each step of a try may take so long.
    pub timeout: Duration,
}

impl Lab {
    /// Each step of a try may take `timeout`.
    pub fn new(timeout: Duration) -> Self {
        Self { slots: Arc::new(Semaphore::new(AT_ONCE)), timeout }
    }

    /// One try.
    pub async fn attempt(&self, target: &Target, way: &Way) -> Attempt {
        // Nobody closes the semaphore, so there is a permit sooner or later.
        let _permit = self.slots.acquire().await;
        attempt(target, way).await
    }

    /// All of them; what came of each, in their order.
    pub async fn all(&self, target: &Target, ways: Vec<Way>) -> Vec<Attempt> {
        let mut running = JoinSet::new();
        let count = ways.len();
        for (place, way) in ways.into_iter().enumerate() {
            let (lab, target) = (self.clone(), target.clone());
            running.spawn(async move { (place, lab.attempt(&target, &way).await) });
        }
        let mut done: Vec<Option<Attempt>> = (0..count).map(|_| None).collect();
        while let Some(ended) = running.join_next().await {
            if let Ok((place, attempt)) = ended {
                done[place] = Some(attempt);
            }
        }
        let lost = || Attempt::failed(Failure::new(Cause::Internal, "a try was lost"));
        done.into_iter().map(|attempt| attempt.unwrap_or_else(lost)).collect()
    }
}
