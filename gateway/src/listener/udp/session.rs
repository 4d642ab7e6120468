//! A client's session: the socket towards its endpoint, and the task that passes answers back.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use socket2::SockRef;
use tokio::io::{Interest, Ready};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{sleep, timeout};

use super::{LARGEST, Socket, would_block};
use crate::diagnose::{Cause, Failure};
use crate::listener::Services;
use crate::listener::crowd::Guest;
use crate::listener::sockets::closed;
use crate::observe::Line;
use crate::observe::access_log::now;
use crate::snapshot::{Listener, Protocol};
use crate::upstream::{Pick, Target, Tried, Upstream};

/// How many answers are passed on before others have their turn.
const BURST: usize = 64;
/// How long an answer that a client waits for may take once the socket is to be let go of.
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// One client and its endpoint.
pub struct Session {
    client: SocketAddr,
    /// The address that the client sends to.
    reply_from: Option<IpAddr>,
    socket: UdpSocket,
    began: Instant,
    /// When a datagram last passed, in milliseconds since then.
    last: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    /// Whether the client has sent something since it was last answered.
    waits: AtomicBool,
    answered: Notify,
    over: AtomicBool,
    refused: Notify,
}

impl Session {
    /// Picks an endpoint, and another one where a socket for the first cannot be had.
    ///
    /// # Errors
    /// No endpoint has an address, or a socket cannot be had for any.
    pub fn open(
        client: SocketAddr,
        reply_from: Option<IpAddr>,
        listener: &Listener,
        upstream: &Upstream,
    ) -> Result<(Self, Pick), Failure> {
        let mut tried = Tried::new();
        let mut last = Failure::new(Cause::DnsNotFound, upstream.name.as_str());
        while let Some(pick) = upstream.balance.pick(&tried).filter(|pick| !tried.contains(&pick.address)) {
            match connected(&pick.address.target) {
                Ok(socket) => {
                    let [last, received, sent] = [0; 3].map(AtomicU64::new);
                    let [waits, over] = [false; 2].map(AtomicBool::new);
                    let (answered, refused) = (Notify::new(), Notify::new());
                    let began = Instant::now();
                    let session = Self {
                        client,
                        reply_from,
                        socket,
                        began,
                        last,
                        received,
                        sent,
                        waits,
                        answered,
                        over,
                        refused,
                    };
                    return Ok((session, pick));
                }
                Err(error) => {
                    last = Failure::new(Cause::ConnectFailed, format!("{}: {error}", pick.address));
                    upstream.attempt_failed(Some(&pick), &last);
                }
            }
            tried.push(pick.address);
        }
        if tried.is_empty() {
            upstream.attempt_failed(None, &last);
        }
        log::debug!("listener `{}`, {client}: no session", listener.name);
        Err(last)
    }

    /// Whether its client's next datagram begins another one.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Sends a client's datagram to the endpoint; `false` where the endpoint has said that nobody listens there, and the
    /// session is over. Where there is no room for it, it is lost, as it might be anywhere.
    pub fn send(&self, datagram: &[u8]) -> bool {
        // By the socket itself: tokio has not yet been told that a new one can be written to.
        match SockRef::from(&self.socket).send(datagram) {
            Err(error) if is_refusal(&error) => {
                self.over.store(true, Ordering::Release);
                self.refused.notify_one();
                return false;
            }
            Err(error) if !would_block(&error) => log::debug!("{}: a datagram is lost: {error}", self.client),
            _ => {}
        }
        self.received.fetch_add(datagram.len() as u64, Ordering::Relaxed);
        self.waits.store(true, Ordering::Relaxed);
        self.note();
        true
    }

    /// Passes on what the endpoint has answered so far: how many datagrams.
    fn pass_back(&self, ready: Ready, front: &Socket) -> io::Result<usize> {
        if ready.is_error() {
            if let Some(error) = self.socket.take_error()? {
                return Err(error);
            }
            // Told of anew with the next one.
            let _ = self
                .socket
                .try_io(Interest::ERROR, || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into()));
        }
        thread_local! {
            // One for each thread, and not for each session.
            static SPACE: RefCell<Vec<u8>> = RefCell::new(vec![0; LARGEST]);
        }
        SPACE.with_borrow_mut(|space| {
            for count in 0..BURST {
                let length = match self.socket.try_recv(space) {
                    Ok(length) => length,
                    Err(error) if would_block(&error) => return Ok(count),
                    Err(error) => return Err(error),
                };
                if let Err(error) = front.send(&space[..length], self.client, self.reply_from)
                    && !would_block(&error)
                {
                    log::debug!("{}: an answer is lost: {error}", self.client);
                }
                self.sent.fetch_add(length as u64, Ordering::Relaxed);
                self.note();
                if self.waits.swap(false, Ordering::Relaxed) {
                    self.answered.notify_one();
                }
            }
            Ok(BURST)
        })
    }

    fn note(&self) {
        self.last.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Returns once no datagram has passed for so long.
    async fn idle_for(&self, limit: Duration) {
        loop {
            let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
            let idle = self.began.elapsed().saturating_sub(last);
            if idle >= limit {
                return;
            }
            sleep(limit - idle).await;
        }
    }

    /// Returns once the client waits for no answer.
    async fn rests(&self) {
        while self.waits.load(Ordering::Relaxed) {
            self.answered.notified().await;
        }
    }
}

/// The task of a session, with what it holds until it is over.
pub struct Carrying {
    /// What it carries.
    pub session: Arc<Session>,
    /// Where its client sends to.
    pub front: Arc<Socket>,
    /// As it was when the session began.
    pub listener: Arc<Listener>,
    /// Whose endpoint it is.
    pub upstream: Arc<Upstream>,
    /// The endpoint.
    pub pick: Pick,
    /// Turns true when the socket is to be let go of.
    pub closing: watch::Receiver<bool>,
    /// Where it tells its end.
    pub ended: mpsc::UnboundedSender<SocketAddr>,
    /// Its place among its client's connections.
    pub guest: Guest,
}

impl Carrying {
    /// Passes answers back until the session is over, and writes its line of the access log.
    pub async fn run(mut self, services: Services) {
        let (_open, time) = (self.listener.meter.enter(), now());
        let config = services.live.pin().hash.clone();
        let cause = self.carry().await;
        let Self { session, listener, upstream, pick, ended, guest, .. } = self;
        session.over.store(true, Ordering::Release);
        drop(guest);
        // Nobody listens there any more while the socket is let go of.
        let _ = ended.send(session.client);
        services.log.write(&Line {
            time,
            listener: &listener.name,
            client_ip: Some(session.client.ip().to_canonical()),
            bytes_in: session.received.load(Ordering::Relaxed),
            bytes_out: session.sent.load(Ordering::Relaxed),
            duration_ms: (session.began.elapsed().as_secs_f64() * 1e6).round() / 1e3,
            upstream: Some(&upstream.name),
            endpoint: Some(&pick.address.text),
            attempts: Some(1),
            cause: cause.map(Cause::code),
            config: &config,
            ..Line::default()
        });
    }

    async fn carry(&mut self) -> Option<Cause> {
        let Self { session, front, listener, upstream, pick, closing, .. } = self;
        let Protocol::Udp { idle_timeout, .. } = &listener.protocol else { return None };
        let mut idle = pin!(session.idle_for(*idle_timeout));
        let mut let_go = pin!(async {
            closed(closing).await;
            let _ = timeout(LAST_ANSWER, session.rests()).await;
        });
        let mut answered = false;
        let refused = loop {
            let passed = tokio::select! {
                biased;
                () = &mut let_go => return None,
                () = session.refused.notified() => break io::ErrorKind::ConnectionRefused.into(),
                ready = session.socket.ready(answers()) => {
                    ready.and_then(|ready| session.pass_back(ready, front))
                },
                () = &mut idle => return None,
            };
            match passed {
                Ok(0) => {}
                Ok(_) if answered => {}
                Ok(_) => {
                    answered = true;
                    upstream.attempt_succeeded(pick, Timestamp::now());
                }
                Err(error) => break error,
            }
        };
        let cause = if is_refusal(&refused) { Cause::ConnectRefused } else { Cause::ConnectFailed };
        let failure = Failure::new(cause, format!("{}: {refused}", pick.address));
        upstream.attempt_failed(Some(pick), &failure);
        warn(listener, upstream, &failure);
        Some(cause)
    }
}

/// Tells a failure in the log, once a second at most.
pub fn warn(listener: &Listener, upstream: &Upstream, failure: &Failure) {
    if listener.meter.may_warn() {
        log::warn!(
            "listener `{}`, upstream `{}`: {}: {failure}\n  to mend it: {}",
            listener.name,
            upstream.name,
            failure.cause.code(),
            failure.cause.remedy(),
        );
    }
}

/// Datagrams, and what ICMP says.
fn answers() -> Interest {
    Interest::READABLE | Interest::ERROR
}

/// Whether a host has answered, by ICMP, that nobody listens at a port.
fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

fn connected(target: &Target) -> io::Result<UdpSocket> {
    let Target::Tcp(address) = target else {
        // Refused at load.
        return Err(io::ErrorKind::Unsupported.into());
    };
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = StdSocket::bind((any, 0))?;
    socket.connect(address)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}
