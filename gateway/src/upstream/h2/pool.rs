//! The connections that there are, by what they may be used for.
//!
//! A request reads one map and takes a stream by one atomic word; a lock is taken only where a connection comes or
//! goes.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::MAX_STREAMS;
use super::connection::{Connection, Slot};

/// Keys remembered as HTTP/1.1; past that, the list starts anew.
const HTTP1_KEYS: usize = 1024;

/// Every HTTP/2 connection to an upstream.
pub struct Pool {
    by_key: ArcSwap<HashMap<u64, Arc<[Arc<Connection>]>>>,
    /// Upstreams under `auto` that have chosen HTTP/1.1 lately.
    http1: ArcSwap<HashSet<u64>>,
    changing: Mutex<()>,
    /// Connections without a stream. May dip below 0 for a moment, between two threads' counting.
    idle: AtomicIsize,
    max_idle: usize,
}

impl Pool {
    /// Keeps at most so many connections without a stream.
    pub fn new(max_idle: usize) -> Self {
        Self {
            by_key: ArcSwap::default(),
            http1: ArcSwap::default(),
            changing: Mutex::new(()),
            idle: AtomicIsize::new(0),
            max_idle,
        }
    }

    /// A stream on a connection of this key, where one has room.
    pub fn acquire(self: &Arc<Self>, key: u64) -> Option<Slot> {
        // The first that has room: so that the last ones run dry, and close.
        self.by_key.load().get(&key)?.iter().find_map(|connection| connection.open(self))
    }

    /// How many requests one more connection of this key can be expected to carry at once.
    pub fn expected_streams(&self, key: u64) -> u32 {
        let by_key = self.by_key.load();
        let known = by_key.get(&key).and_then(|list| list.first());
        known.map_or(MAX_STREAMS, |connection| connection.limit().max(1))
    }

    /// Whether ALPN chose HTTP/1.1 the last time.
    pub fn chose_http1(&self, key: u64) -> bool {
        self.http1.load().contains(&key)
    }

    /// Notes what ALPN chose.
    pub fn note_http1(&self, key: u64, chosen: bool) {
        if self.chose_http1(key) == chosen {
            return;
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut http1 = HashSet::clone(&self.http1.load());
        if !chosen {
            http1.remove(&key);
        } else {
            if http1.len() >= HTTP1_KEYS {
                http1.clear();
            }
            http1.insert(key);
        }
        self.http1.store(Arc::new(http1));
    }

    /// Puts in a connection that has been made.
    pub(super) fn add(&self, connection: &Arc<Connection>) {
        self.change(connection.key(), |list| list.push(connection.clone()));
    }

    /// Takes a connection out; its streams go on, and it ends with the last of them.
    pub(super) fn remove(&self, connection: &Arc<Connection>) {
        if connection.close() {
            self.note_idle(-1);
        }
        self.change(connection.key(), |list| list.retain(|other| !Arc::ptr_eq(other, connection)));
    }

    /// The same for one without a stream; nothing where it has one by now.
    pub(super) fn remove_idle(&self, connection: &Arc<Connection>) -> bool {
        let closed = connection.close_idle();
        if closed {
            self.note_idle(-1);
            self.change(connection.key(), |list| list.retain(|other| !Arc::ptr_eq(other, connection)));
        }
        closed
    }

    /// Counts idle connections; tells whether there are too many now.
    pub(super) fn note_idle(&self, change: isize) -> bool {
        let now = self.idle.fetch_add(change, Ordering::Relaxed) + change;
        usize::try_from(now).is_ok_and(|now| now > self.max_idle)
    }

    fn change(&self, key: u64, change: impl FnOnce(&mut Vec<Arc<Connection>>)) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut by_key = HashMap::clone(&self.by_key.load());
        let mut list = by_key.get(&key).map(|list| list.to_vec()).unwrap_or_default();
        change(&mut list);
        match list.is_empty() {
            true => by_key.remove(&key),
            false => by_key.insert(key, list.into()),
        };
        self.by_key.store(Arc::new(by_key));
    }
}
