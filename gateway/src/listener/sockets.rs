//! The addresses that the gateway holds: bound before a snapshot is put in force, let go of after it. An address that two
//! snapshots have in common is never let go of, and what waits in its queue is never lost.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use vestibule_plugins::{Path, Problem};

use super::terms::covers;
use super::udp::{self, Forwarding};
use super::{Services, serve};
use crate::snapshot::{Listener, Protocol, Snapshot};

/// Connections that the kernel keeps for us until they are accepted; it has a limit of its own, by default the same.
const BACKLOG: u32 = 4096;
/// How long accepting rests when the process has no file descriptor left.
const REST: Duration = Duration::from_millis(100);

/// By what a socket is known from one snapshot to the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Its address: which listener has it may change.
    At(SocketAddr),
    /// The same of UDP, whose ports are others than those of TCP.
    UdpAt(SocketAddr),
    /// Its listener, where the system chose the port.
    Of(String, IpAddr),
}

impl Place {
    fn of(listener: &Listener) -> Self {
        match (listener.address.port(), &listener.protocol) {
            (0, _) => Self::Of(listener.name.clone(), listener.address.ip()),
            (_, Protocol::Udp { .. }) => Self::UdpAt(listener.address),
            _ => Self::At(listener.address),
        }
    }

    /// The listener that has this place in a snapshot.
    pub(super) fn listener<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Arc<Listener>> {
        snapshot.listeners.iter().find(|listener| Self::of(listener) == *self)
    }
}

/// Every socket that clients connect to.
#[derive(Default)]
pub struct Sockets(HashMap<Place, Held>);

struct Held {
    /// The listener that has it, for a message.
    listener: Arc<Listener>,
    room: Arc<Room>,
    closing: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

/// Sockets that are bound for a snapshot that is not in force yet. Nobody can connect to them as yet.
#[derive(Default)]
pub struct Bound(Vec<(Place, Arc<Listener>, Socket<TcpSocket>)>);

/// The same, with clients waiting.
#[derive(Default)]
pub struct Listening(Vec<(Place, Arc<Listener>, Socket<TcpListener>)>);

/// A socket of either kind. One of UDP does not listen: what is sent to it waits in it.
enum Socket<T> {
    Tcp(T),
    Udp(udp::Socket),
}

impl Sockets {
    /// Takes the addresses that the snapshot has and that are not held yet. Within a tokio runtime.
    ///
    /// # Errors
    /// Every one that cannot be had: in use, not this machine's, or for root alone.
    pub fn bind(&self, next: &Snapshot) -> Result<Bound, Vec<Problem>> {
        let (mut bound, mut failed) = (Vec::new(), Vec::new());
        for listener in &next.listeners {
            let place = Place::of(listener);
            if self.0.contains_key(&place) {
                continue;
            }
            let socket = match listener.protocol {
                Protocol::Udp { .. } => udp::bind(listener.address).map(Socket::Udp),
                _ => socket(listener.address).map(Socket::Tcp),
            };
            match socket {
                Ok(socket) => bound.push((place, listener.clone(), socket)),
                Err(error) => failed.push(self.told(listener, &error)),
            }
        }
        if failed.is_empty() { Ok(Bound(bound)) } else { Err(failed) }
    }

    /// Accepts at what is new and lets go of what the snapshot, which is in force by now, has no more. Clients that wait
    /// at such an address are served still. Returns when nobody can connect to one any more.
    pub async fn commit(&mut self, next: &Snapshot, new: Listening, services: &Services) {
        let mut gone = Vec::new();
        for (place, mut held) in std::mem::take(&mut self.0) {
            if let Some(listener) = place.listener(next) {
                held.listener = listener.clone();
                // Its limit may have changed.
                held.room.changed.notify_one();
                self.0.insert(place, held);
            } else {
                held.closing.send_replace(true);
                gone.push(held.accepting);
            }
        }
        for (place, listener, socket) in new.0 {
            let (closing, closed) = watch::channel(false);
            let room = Arc::new(Room::default());
            let (place_of, listener_of) = (place.clone(), listener.clone());
            let accepting = match socket {
                Socket::Tcp(socket) => {
                    let (place, listener, room) = (place_of, listener_of, room.clone());
                    let accepting = Accepting { place, socket, room, closing: closed, listener };
                    tokio::spawn(accepting.run(services.clone()))
                }
                Socket::Udp(socket) => {
                    let (forwarding, over) = Forwarding::new(place_of, socket, closed, listener_of);
                    tokio::spawn(forwarding.run(over, services.clone()))
                }
            };
            self.0.insert(place, Held { listener, room, closing, accepting });
        }
        for accepting in gone {
            // It rests for a moment at most, where the process has no file descriptor left.
            let _ = accepting.await;
        }
    }

    /// Accepts nothing more.
    pub fn close(&mut self) {
        for (_, held) in self.0.drain() {
            held.closing.send_replace(true);
        }
    }

    fn told(&self, listener: &Listener, error: &io::Error) -> Problem {
        let at = Path::root().key("listeners").key(&listener.name).key("address");
        let problem = not_bound(&format!("listener `{}`", listener.name), listener.address, error, at);
        let is_udp = |listener: &Listener| matches!(listener.protocol, Protocol::Udp { .. });
        let takes = |held: &&Held| {
            covers(held.listener.address, listener.address) && is_udp(&held.listener) == is_udp(listener)
        };
        match self.0.values().find(takes) {
            Some(held) => problem.hint(format!(
                "the listener `{}` of the running configuration holds {}, which takes the same connections: go by way \
                 of another port, or restart the gateway",
                held.listener.name, held.listener.address
            )),
            None => problem,
        }
    }
}

impl Bound {
    /// Lets clients connect; they are accepted once the sockets are committed.
    ///
    /// # Errors
    /// Every address that another program has taken meanwhile.
    pub fn listen(self) -> Result<Listening, Vec<Problem>> {
        let (mut listening, mut failed) = (Vec::new(), Vec::new());
        for (place, listener, socket) in self.0 {
            let socket = match socket {
                Socket::Tcp(socket) => listen(socket).map(Socket::Tcp),
                Socket::Udp(socket) => Ok(Socket::Udp(socket)),
            };
            match socket {
                Ok(socket) => listening.push((place, listener, socket)),
                Err(error) => failed.push(Sockets::default().told(&listener, &error)),
            }
        }
        if failed.is_empty() { Ok(Listening(listening)) } else { Err(failed) }
    }
}

/// Holds an address.
///
/// # Errors
/// As the system tells them.
pub fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of an earlier process that are not quite over keep nobody from starting again.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Lets clients connect to it.
///
/// # Errors
/// As the system tells them.
pub fn listen(socket: TcpSocket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)
}

/// That `who` cannot have an address, and what helps.
pub fn not_bound(who: &str, address: SocketAddr, error: &io::Error, at: Path) -> Problem {
    let problem = Problem::new(at, format!("{who} cannot listen on {address}: {error}"));
    match error.kind() {
        io::ErrorKind::AddrInUse => problem.hint("another program listens there: `ss -ltnp` names it"),
        io::ErrorKind::PermissionDenied => {
            problem.hint("ports below 1024 are root's: use one above, such as 8080")
        }
        io::ErrorKind::AddrNotAvailable => {
            problem.hint("no interface of this machine has the address; 0.0.0.0 is all of them")
        }
        _ => problem,
    }
}

/// How many connections of a socket are open.
#[derive(Debug, Default)]
struct Room {
    open: AtomicUsize,
    changed: Notify,
}

impl Room {
    fn enter(self: &Arc<Self>) -> Seat {
        self.open.fetch_add(1, Ordering::AcqRel);
        Seat(self.clone())
    }

    fn is_full(&self, listener: &Listener) -> bool {
        self.open.load(Ordering::Acquire) >= listener.max_connections
    }
}

/// One of them.
struct Seat(Arc<Room>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_one();
    }
}

/// The task of one socket.
struct Accepting {
    place: Place,
    socket: TcpListener,
    room: Arc<Room>,
    closing: watch::Receiver<bool>,
    /// The one that has the place at present, or had it last.
    listener: Arc<Listener>,
}

impl Accepting {
    async fn run(mut self, services: Services) {
        let mut closing = self.closing.clone();
        loop {
            self.look_up(&services);
            // Looked at before accepting: past the limit, clients wait in the kernel's queue.
            if self.room.is_full(&self.listener) {
                tokio::select! {
                    () = closed(&mut closing) => return,
                    () = self.room.changed.notified() => continue,
                }
            }
            // The same for all listeners together: whoever waits first, has room first.
            tokio::select! {
                biased;
                () = closed(&mut closing) => break,
                room = services.room.acquire() => drop(room),
            }
            tokio::select! {
                biased;
                () = closed(&mut closing) => break,
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, _)) => {
                        // It may have waited through a reload.
                        self.look_up(&services);
                        self.serve(stream, &services);
                    }
                    Err(error) => {
                        let name = &self.listener.name;
                        log::warn!("listener `{name}`: a connection cannot be accepted: {error}");
                        sleep(REST).await;
                    }
                }
            }
        }
        // Clients that the kernel has let in already would else be cut off.
        while !self.room.is_full(&self.listener)
            && services.room.available_permits() > 0
            && let Some(Ok((stream, _))) = self.socket.accept().now_or_never()
        {
            self.serve(stream, &services);
        }
    }

    fn look_up(&mut self, services: &Services) {
        if let Some(listener) = self.place.listener(&services.live.pin()) {
            self.listener = listener.clone();
        }
    }

    fn serve(&self, stream: tokio::net::TcpStream, services: &Services) {
        let (listener, services, seat) = (self.listener.clone(), services.clone(), self.room.enter());
        tokio::spawn(async move {
            // There was room just now; another listener may have taken it. The semaphore is never closed.
            let _room = services.room.clone().acquire_owned().await;
            let _open = listener.meter.enter();
            serve(stream, listener.clone(), services).await;
            drop(seat);
        });
    }
}

/// Returns when the socket is to be let go of.
pub(super) async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}
