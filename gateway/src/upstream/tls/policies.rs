//! Every policy in use, found by its key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;

use super::TlsPolicy;
use super::settings::Settings;

/// A reload that compiles the same policy again gets the one that is there, with its sessions and, since the pool goes
/// by the key, its connections.
#[derive(Debug, Default)]
pub struct Policies {
    by_key: ArcSwap<HashMap<u64, Weak<TlsPolicy>>>,
    writing: Mutex<()>,
}

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
}
