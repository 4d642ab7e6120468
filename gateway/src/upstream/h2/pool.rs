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
use crate::upstream::peer::Wanted;

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

    /// A stream on a connection of this key, where one that was made for what is wanted has room.
    pub fn acquire(self: &Arc<Self>, key: u64, wanted: Wanted<'_>) -> Option<Slot> {
        let by_key = self.by_key.load();
        let mut made_for_it = by_key.get(&key)?.iter().filter(|connection| connection.serves(wanted));
        // The first that has room: so that the last ones run dry, and close.
        made_for_it.find_map(|connection| connection.open(self))
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::{Request, Response};
    use pingora_core::protocols::l4::stream::Stream as L4;
    use pingora_core::upstreams::peer::HttpPeer;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::*;
    use crate::diagnose::HttpVersion;
    use crate::upstream::Policies;
    use crate::upstream::h2::connection::{Facts, establish};
    use crate::upstream::origin::Origin;
    use crate::upstream::stream::{Stream, Transport};

    const KEY: u64 = 1;

    #[tokio::test]
    async fn a_connection_is_found_only_for_what_it_was_made_for() {
        let (pool, policies) = pools();
        let (peer, slot, _server) = connected(&pool, &policies).await;
        let mut other = peer.clone();
        other.sni = "other.test".into();
        assert!(pool.acquire(KEY, Wanted::of(&other)).is_none());
        assert!(pool.acquire(KEY, Wanted::of(&peer)).is_some());
        drop(slot);
    }

    #[tokio::test]
    async fn an_idle_connection_closes_at_once_when_its_policy_goes_out_of_force() {
        let (pool, policies) = pools();
        let (peer, slot, server) = connected(&pool, &policies).await;
        drop(slot);
        assert!(pool.acquire(KEY, Wanted::of(&peer)).is_some(), "kept");
        policies.put_in_force(&HashSet::new());
        timeout(SOON, server.ended).await.expect("closed").unwrap();
        assert!(pool.acquire(KEY, Wanted::of(&peer)).is_none() && pool.by_key.load().is_empty());
        assert_eq!(pool.idle.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_stream_in_progress_outlives_its_policy() {
        let (pool, policies) = pools();
        let (peer, mut slot, server) = connected(&pool, &policies).await;
        let Server { ended, answer: answering } = server;
        let (answer, _) = slot.requests.send_request(Request::new(()), true).unwrap();
        policies.put_in_force(&HashSet::new());
        assert!(pool.acquire(KEY, Wanted::of(&peer)).is_none(), "takes no further one");
        policies.put_in_force(&HashSet::from([KEY]));
        assert!(pool.acquire(KEY, Wanted::of(&peer)).is_none(), "for good");
        answering.notify_one();
        let mut answer = timeout(SOON, answer).await.unwrap().unwrap();
        assert_eq!(answer.body_mut().data().await.unwrap().unwrap(), "whole");
        assert!(!ended.is_finished());
        drop((answer, slot));
        timeout(SOON, ended).await.expect("closed").unwrap();
    }

    const SOON: Duration = Duration::from_secs(5);

    fn pools() -> (Arc<Pool>, Policies) {
        let policies = Policies::default();
        policies.put_in_force(&HashSet::from([KEY]));
        (Arc::new(Pool::new(9)), policies)
    }

    struct Server {
        /// With the connection.
        ended: JoinHandle<()>,
        /// Lets it answer a request.
        answer: Arc<Notify>,
    }

    /// A connection with one stream.
    async fn connected(pool: &Arc<Pool>, policies: &Policies) -> (HttpPeer, Slot, Server) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let near = TcpStream::connect(address).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let answer = Arc::new(Notify::new());
        let told = answer.clone();
        let ended = tokio::spawn(async move {
            let mut connection = h2::server::handshake(far).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let told = told.clone();
                let mut body = respond.send_response(Response::new(()), false).unwrap();
                tokio::spawn(async move {
                    told.notified().await;
                    body.send_data(Bytes::from_static(b"whole"), true).unwrap();
                });
            }
        });
        let mut peer = HttpPeer::new(address, true, "a.test".into());
        peer.group_key = KEY;
        let origin = Arc::new(Origin::with(policies.enroll(KEY, Wanted::of(&peer).purpose())));
        let transport = Transport::Plain(Box::new(L4::from(near)));
        let stream = Stream::new(transport, origin, HttpVersion::Http2);
        let facts = Facts { key: KEY, idle_timeout: Duration::from_secs(600), resumed: false };
        let slot = establish(stream, facts, pool).await.unwrap();
        (peer, slot, Server { ended, answer })
    }
}
