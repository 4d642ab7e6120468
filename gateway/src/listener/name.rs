//! The number of each listener's name: the same in every snapshot, so that a connection that was accepted under one is
//! matched rightly under the next.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::route::ListenerId;

/// Every name that there was. None is ever forgotten: a number that meant another listener to an open connection would
/// send its requests astray.
#[derive(Debug, Default)]
pub struct ListenerIds(Mutex<HashMap<String, ListenerId>>);

impl ListenerIds {
    /// The number of this name.
    pub fn intern(&self, name: &str) -> ListenerId {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = ids.len() as ListenerId;
        *ids.entry(name.to_owned()).or_insert(next)
    }

    /// How many there are: one more than the greatest.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
