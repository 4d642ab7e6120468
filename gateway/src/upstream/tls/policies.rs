//! Every policy in use, found by its key; which of them are in force; and the connections that were made by them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::TlsPolicy;
use super::settings::Settings;
use crate::upstream::peer::Purpose;
use crate::upstream::standing::Standing;

/// A reload that compiles the same policy again gets the one that is there, with its sessions and, since the pool goes
/// by the key, its connections.
#[derive(Debug, Default)]
pub struct Policies {
    by_key: ArcSwap<HashMap<u64, Weak<TlsPolicy>>>,
    writing: Mutex<()>,
    /// None until it is told: then all are.
    in_force: ArcSwapOption<HashSet<u64>>,
    connections: Mutex<Connections>,
}

/// Those that are open and not retired, and some that have been closed.
#[derive(Debug, Default)]
struct Connections {
    by_policy: Vec<(u64, Weak<Standing>)>,
    /// At so many, the closed ones are taken out.
    sweep_at: usize,
}

const FIRST_SWEEP: usize = 64;

impl Policies {
    /// The policy of this key, while any snapshot holds it.
    pub fn find(&self, key: u64) -> Option<Arc<TlsPolicy>> {
        self.by_key.load().get(&key)?.upgrade()
    }

    /// The policy of these settings, made anew only where there is none.
    ///
    /// # Errors
    /// What OpenSSL said, when it does not take a setting.
    pub fn intern(&self, settings: Settings) -> Result<Arc<TlsPolicy>, String> {
        let key = settings.key().map_err(|error| error.to_string())?;
        // A poisoned lock guards no data of its own.
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(policy) = self.find(key) {
            return Ok(policy);
        }
        let policy = Arc::new(TlsPolicy::new(settings)?);
        let mut by_key: HashMap<_, _> = self.by_key.load().as_ref().clone();
        by_key.retain(|_, policy| policy.strong_count() > 0);
        by_key.insert(key, Arc::downgrade(&policy));
        self.by_key.store(Arc::new(by_key));
        Ok(policy)
    }

    /// Says which policies are in force from now on: those of every snapshot that gets new requests. Connections under
    /// any other are retired: closed at once where they are idle, and as soon as they are idle where they are not. A
    /// policy may come back, and new connections are then kept under it again.
    pub fn put_in_force(&self, keys: &HashSet<u64>) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        // Before any is retired, so that who finds one retired finds its policy out of force.
        self.in_force.store(Some(Arc::new(keys.clone())));
        connections.by_policy.retain(|(key, standing)| {
            let Some(standing) = standing.upgrade() else { return false };
            let stays = keys.contains(key);
            if !stays {
                standing.retire();
            }
            stays
        });
    }

    /// Whether connections are kept under the policy of this key.
    pub fn is_in_force(&self, key: u64) -> bool {
        self.in_force.load().as_ref().is_none_or(|keys| keys.contains(&key))
    }

    /// A connection that is being made by the policy of this key. Where that is not in force, as for a request that
    /// began under an earlier snapshot, it is retired from the start: good for that one request.
    pub(crate) fn enroll(&self, key: u64, purpose: Purpose) -> Arc<Standing> {
        let standing = Arc::new(Standing::new(purpose));
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_in_force(key) {
            standing.retire();
            return standing;
        }
        if connections.by_policy.len() >= connections.sweep_at {
            connections.by_policy.retain(|(_, standing)| standing.strong_count() > 0);
            connections.sweep_at = FIRST_SWEEP.max(2 * connections.by_policy.len());
        }
        connections.by_policy.push((key, Arc::downgrade(&standing)));
        standing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_a_policy_out_of_force_are_retired_for_good() {
        let policies = Policies::default();
        let in_force = |keys: &[u64]| policies.put_in_force(&keys.iter().copied().collect());
        let (first, other) = (enrolled(&policies, 1), enrolled(&policies, 2));
        in_force(&[1, 2]);
        assert!(!first.is_retired() && !other.is_retired());
        in_force(&[2]);
        assert!(first.is_retired() && !other.is_retired());
        assert!(enrolled(&policies, 1).is_retired(), "made by a request of an earlier snapshot");
        in_force(&[1, 2]);
        assert!(first.is_retired(), "a connection does not come back with its policy");
        assert!(!enrolled(&policies, 1).is_retired() && !other.is_retired());
    }

    #[test]
    fn connections_that_are_closed_are_forgotten() {
        let policies = Policies::default();
        let kept: Vec<_> = (0..100).map(|_| enrolled(&policies, 1)).collect();
        for _ in 0..10_000 {
            enrolled(&policies, 1);
        }
        let known = policies.connections.lock().unwrap().by_policy.len();
        assert!((kept.len()..=2 * kept.len()).contains(&known), "{known}");
    }

    fn enrolled(policies: &Policies, key: u64) -> Arc<Standing> {
        policies.enroll(key, Purpose::default())
    }
}
