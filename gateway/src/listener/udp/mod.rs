//! UDP: datagrams pass between clients and an upstream. Each client has a session, a socket of its own towards one
//! endpoint, for as long as datagrams pass.
//!
//! One task reads what clients send and owns the table of sessions, so that no datagram takes a lock; each session's own
//! task reads what its endpoint answers.

mod session;
mod socket;

use std::array;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ahash::AHashMap;
use quinn_udp::{BATCH_SIZE, RecvMeta};
use tokio::sync::{mpsc, watch};

use session::Session;
pub use socket::{Socket, bind};

use super::Services;
use super::sockets::{Place, closed};
use crate::observe::OverLimit;
use crate::snapshot::{Listener, Protocol};

/// What one read may bring of one client.
const LARGEST: usize = 64 * 1024;

/// The task of one socket.
pub struct Forwarding {
    place: Place,
    socket: Arc<Socket>,
    closing: watch::Receiver<bool>,
    /// The one that has the place at present, or had it last.
    listener: Arc<Listener>,
    sessions: AHashMap<SocketAddr, Arc<Session>>,
    /// Sessions that are over tell it here.
    ended: mpsc::UnboundedSender<SocketAddr>,
}

impl Forwarding {
    /// For a socket of this listener's.
    pub fn new(
        place: Place,
        socket: Socket,
        closing: watch::Receiver<bool>,
        listener: Arc<Listener>,
    ) -> (Self, mpsc::UnboundedReceiver<SocketAddr>) {
        let (ended, over) = mpsc::unbounded_channel();
        let (socket, sessions) = (Arc::new(socket), AHashMap::new());
        (Self { place, socket, closing, listener, sessions, ended }, over)
    }

    /// Passes datagrams on until the socket is to be let go of and no answer is awaited any more.
    pub async fn run(mut self, mut over: mpsc::UnboundedReceiver<SocketAddr>, services: Services) {
        let (mut closing, socket) = (self.closing.clone(), self.socket.clone());
        let mut space = vec![0; BATCH_SIZE * LARGEST];
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        loop {
            tokio::select! {
                biased;
                () = closed(&mut closing) => break,
                Some(client) = over.recv() => {
                    if self.sessions.get(&client).is_some_and(|session| session.is_over()) {
                        self.sessions.remove(&client);
                    }
                }
                received = socket.receive(&mut space, &mut metas) => match received {
                    Ok(count) => {
                        for (meta, bytes) in metas[..count].iter().zip(space.chunks(LARGEST)) {
                            self.pass_on(meta, &bytes[..meta.len], &services);
                        }
                    }
                    Err(error) => {
                        // Of a datagram that was sent before, say: the next one is read all the same.
                        log::debug!("listener `{}`: {error}", self.listener.name);
                    }
                }
            }
        }
        // Each session's task ends by itself.
        drop((self.sessions, self.ended));
        while over.recv().await.is_some() {}
    }

    fn pass_on(&mut self, meta: &RecvMeta, bytes: &[u8], services: &Services) {
        // The kernel may join datagrams of one length.
        let mut rest = bytes;
        loop {
            let (datagram, more) = rest.split_at(meta.stride.min(rest.len()));
            self.send(datagram, meta.addr, meta.dst_ip, services);
            rest = more;
            if rest.is_empty() || meta.stride == 0 {
                return;
            }
        }
    }

    fn send(&mut self, datagram: &[u8], client: SocketAddr, reply_from: Option<IpAddr>, services: &Services) {
        if let Some(session) = self.sessions.get(&client).filter(|session| !session.is_over())
            && session.send(datagram)
        {
            return;
        }
        // A new client, or one whose endpoint has just said that nobody listens there.
        if let Some(session) = self.open(client, reply_from, services) {
            session.send(datagram);
            self.sessions.insert(client, session);
        }
    }

    fn open(
        &mut self,
        client: SocketAddr,
        reply_from: Option<IpAddr>,
        services: &Services,
    ) -> Option<Arc<Session>> {
        if let Some(listener) = self.place.listener(&services.live.pin()) {
            self.listener = listener.clone();
        }
        let Protocol::Udp { upstream, max_sessions, .. } = &self.listener.protocol else { return None };
        let ip = client.ip().to_canonical();
        if self.sessions.len() >= *max_sessions && !self.sessions.contains_key(&client) {
            self.listener.meter.over_limit(OverLimit::UdpSessions, ip);
            return None;
        }
        let limit = self.listener.max_connections_per_client;
        let Some(guest) = services.crowd.enter(self.listener.id, ip, limit) else {
            self.listener.meter.over_limit(OverLimit::ConnectionsPerClient, ip);
            return None;
        };
        let opened = Session::open(client, reply_from, &self.listener, upstream);
        let (session, pick) =
            opened.inspect_err(|failure| session::warn(&self.listener, upstream, failure)).ok()?;
        let session = Arc::new(session);
        let carrying = session::Carrying {
            session: session.clone(),
            front: self.socket.clone(),
            listener: self.listener.clone(),
            upstream: upstream.clone(),
            pick,
            closing: self.closing.clone(),
            ended: self.ended.clone(),
            guest,
        };
        tokio::spawn(carrying.run(services.clone()));
        Some(session)
    }
}

/// One buffer for each datagram of a batch.
fn slices<'a>(space: &'a mut [u8]) -> [IoSliceMut<'a>; BATCH_SIZE] {
    let mut chunks = space.chunks_mut(LARGEST);
    array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()))
}

/// Whether there is just nothing to be read or no room to be written to.
fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}
