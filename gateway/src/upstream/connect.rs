//! A new connection to an upstream, plain or TLS: the one place where a client-side handshake is made.

use std::any::Any;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora_core::Result;
use pingora_core::connectors::http::custom::{Connection, Connector};
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::l4::stream::Stream as L4;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslStream;
use pingora_core::protocols::{GetProxyDigest, GetSocketDigest, SocketDigest};
use pingora_core::upstreams::peer::{HttpPeer, Peer};
use pingora_http::ResponseHeader;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::Protocol;
use super::endpoint::Target;
use super::h2::{Facts, Flights, Made, Pool, Session, establish};
use super::origin::Origin;
use super::peer::{Wanted, protocol_of};
use super::session::SessionKey;
use super::standing::Standing;
use super::stream::{Stream, Transport};
use super::tls::{Ciphers, Policies, Seen, TlsPolicy, is_name};
use crate::diagnose::{Cause, Failure, HandshakeFacts, HttpVersion, Refusal, of_handshake};

/// Makes the connections to upstreams in the engine's stead: the engine's own connector ties the verified name to the
/// SNI, verifies nothing without one, resumes no session, and bounds no attempt as a whole. HTTP/1.1 goes by the
/// engine's pool, HTTP/2 by our own.
pub struct UpstreamConnector {
    dialer: Arc<Dialer>,
    flights: Flights,
}

impl UpstreamConnector {
    /// Finds the policy of each peer by its group key; keeps at most so many idle HTTP/2 connections.
    pub fn new(policies: Arc<Policies>, max_idle: usize) -> Self {
        let dialer = Dialer { policies, pool: Arc::new(Pool::new(max_idle)) };
        Self { dialer: Arc::new(dialer), flights: Flights::default() }
    }

    /// A connection for one request, shared where the upstream speaks HTTP/2.
    async fn connect(&self, peer: &HttpPeer) -> Result<(Made, Found), Failure> {
        let (protocol, pool) = (protocol_of(peer), &self.dialer.pool);
        let began = Instant::now();
        if protocol == Protocol::Http1 {
            return Ok((self.dialer.dial(peer, protocol, began).await?, Found::New));
        }
        let (key, wanted) = (peer.reuse_hash(), Wanted::of(peer));
        for _ in 0..ROUNDS {
            if let Some(slot) = pool.acquire(key, wanted) {
                return Ok((Made::H2(slot), Found::Kept));
            }
            // What is made by a policy that is no longer in force carries one request, so there is none to share.
            if pool.chose_http1(key) || !self.dialer.keeps(peer) {
                return Ok((self.dialer.dial(peer, protocol, began).await?, Found::New));
            }
            let flight = self.flights.join(key, pool.expected_streams(key), || {
                let (dialer, peer) = (self.dialer.clone(), peer.clone());
                async move { dialer.dial(&peer, protocol, Instant::now()).await }
            });
            let total = peer.options.total_connection_timeout;
            let limit = total.map(|total| total.saturating_sub(began.elapsed()));
            let landed = within(limit, flight).await.map_err(|_| too_late(limit))?;
            // Another purpose may have the same key.
            if let Some(made) = landed.claim()?.filter(|made| made.serves(wanted)) {
                return Ok((made, Found::New));
            }
        }
        // Others were quicker each time, or each was retired before it could be shared: then one for this request alone.
        Ok((self.dialer.dial(peer, protocol, began).await?, Found::New))
    }
}

/// How often a request looks for a stream on connections that it waited for with others.
const ROUNDS: usize = 4;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    New,
    Kept,
}

/// Makes single connections.
struct Dialer {
    policies: Arc<Policies>,
    pool: Arc<Pool>,
}

impl Dialer {
    /// Whether a connection to this peer is kept for later requests.
    fn keeps(&self, peer: &HttpPeer) -> bool {
        !peer.is_tls() || self.policies.is_in_force(peer.group_key)
    }

    /// For an attempt that began to look for a connection at `began`.
    async fn dial(&self, peer: &HttpPeer, protocol: Protocol, began: Instant) -> Result<Made, Failure> {
        let target = match &peer._address {
            SocketAddr::Inet(address) => Target::Tcp(*address),
            SocketAddr::Unix(address) => {
                Target::Unix(address.as_pathname().unwrap_or("".as_ref()).to_owned())
            }
        };
        // Each of the steps may take as long as the file says, and no longer than what is left of the attempt. A
        // connection that is made for several requests goes by the limits of the first.
        let limit = || {
            let left =
                peer.options.total_connection_timeout.map(|total| total.saturating_sub(began.elapsed()));
            [peer.options.connection_timeout, left].into_iter().flatten().min()
        };
        let purpose = Wanted::of(peer).purpose();
        let standing = match peer.is_tls() {
            true => self.policies.enroll(peer.group_key, purpose),
            false => Arc::new(Standing::new(purpose)),
        };
        let origin = Arc::new(Origin::with(standing));
        let mut stream = connect(&target, limit()).await?;
        // The engine hands this digest back with each request on an HTTP/1.1 connection, pooled or not.
        let blank = ResponseHeader::build(200, Some(0));
        let blank = blank.map_err(|error| Failure::new(Cause::Internal, error.to_string()))?;
        stream.set_proxy_digest(ProxyDigest::new(Box::new(blank), Some(Box::new(origin.clone()))));
        let (transport, version) = if peer.is_tls() {
            let policy = self.policies.find(peer.group_key);
            let policy =
                policy.ok_or_else(|| Failure::new(Cause::Internal, "a TLS peer without a policy"))?;
            let stream = handshake(stream, &policy, &target, &peer.sni, limit()).await;
            let stream = stream.map_err(|(failure, _)| failure)?;
            origin.note_handshake(stream.ssl().session_reused(), policy.settings.identity.is_some());
            let version = chosen(protocol, stream.ssl().selected_alpn_protocol())?;
            (Transport::Tls(stream), version)
        } else {
            let version = if protocol == Protocol::H2c { HttpVersion::Http2 } else { HttpVersion::Http1 };
            (Transport::Plain(Box::new(stream)), version)
        };
        let stream = Stream::new(transport, origin.clone(), version);
        if protocol == Protocol::Auto {
            self.pool.note_http1(peer.reuse_hash(), version == HttpVersion::Http1);
        }
        if version == HttpVersion::Http1 {
            return Ok(Made::Http1(Box::new(stream)));
        }
        let facts = Facts {
            key: peer.reuse_hash(),
            idle_timeout: peer.options.idle_timeout.unwrap_or_default(),
            resumed: origin.resumed(),
        };
        let limit = limit();
        let established = within(limit, establish(stream, facts, &self.pool)).await;
        established
            .map_err(|_| Failure::new(Cause::ConnectTimeout, format!("no HTTP/2 SETTINGS {}", after(limit))))?
            .map(Made::H2)
    }
}

/// What is spoken on a TLS connection whose handshake is done.
///
/// # Errors
/// It is not what the file names.
pub fn chosen(protocol: Protocol, alpn: Option<&[u8]>) -> Result<HttpVersion, Failure> {
    match (protocol, alpn) {
        (Protocol::H2 | Protocol::Auto, Some(b"h2")) => Ok(HttpVersion::Http2),
        // A server without ALPN speaks what there was before it.
        (Protocol::Http1 | Protocol::Auto, _) => Ok(HttpVersion::Http1),
        (Protocol::H2 | Protocol::H2c, chosen) => {
            let chosen = chosen.map(String::from_utf8_lossy);
            let told = chosen.map_or("offered `h2`, and it chose no protocol".to_owned(), |chosen| {
                format!("offered `h2`, and it chose `{}`", chosen.escape_debug())
            });
            Err(Failure::new(Cause::AlpnMismatch, told))
        }
    }
}

fn too_late(limit: Option<Duration>) -> Failure {
    Failure::new(Cause::ConnectTimeout, after(limit))
}

#[async_trait]
impl Connector for UpstreamConnector {
    type Session = Session;

    async fn get_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        peer: &P,
    ) -> Result<(Connection<Session>, bool)> {
        let Some(peer) = (peer as &dyn Any).downcast_ref::<HttpPeer>() else {
            return Err(Failure::new(Cause::Internal, "a peer of another kind").into_error());
        };
        let (made, found) = self.connect(peer).await.map_err(Failure::into_error)?;
        let connection = match made {
            Made::Http1(stream) => Connection::Stream(stream),
            Made::H2(slot) => Connection::Session(Session::new(slot).map_err(Failure::into_error)?),
        };
        Ok((connection, found == Found::Kept))
    }

    async fn reused_http_session<P: Peer + Send + Sync + 'static>(&self, peer: &P) -> Option<Session> {
        let peer = (peer as &dyn Any).downcast_ref::<HttpPeer>()?;
        // HTTP/1.1 streams go to and come from the engine's own pool.
        if protocol_of(peer) == Protocol::Http1 {
            return None;
        }
        Session::new(self.dialer.pool.acquire(peer.reuse_hash(), Wanted::of(peer))?).ok()
    }

    async fn release_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        session: Session,
        _: &P,
        _: Option<Duration>,
    ) {
        // The stream's place goes back to its connection; a stream that has not ended is reset.
        drop(session);
    }
}

/// A connection as the system has it.
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// To a unix socket.
    Unix(UnixStream),
}

/// A connection to this address as the engine has it, within the time given.
///
/// # Errors
/// Why there is none.
pub async fn connect(target: &Target, limit: Option<Duration>) -> Result<L4, Failure> {
    let (mut stream, fd) = match dial(target, limit).await? {
        Socket::Tcp(stream) => {
            let fd = stream.as_raw_fd();
            (L4::from(stream), fd)
        }
        Socket::Unix(stream) => {
            let fd = stream.as_raw_fd();
            (L4::from(stream), fd)
        }
    };
    stream.set_socket_digest(SocketDigest::from_raw_fd(fd));
    Ok(stream)
}

/// A connection to this address, without delay for small packets, within the time given.
///
/// # Errors
/// Why there is none.
pub async fn dial(target: &Target, limit: Option<Duration>) -> Result<Socket, Failure> {
    let connecting = async {
        match target {
            Target::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                std::io::Result::Ok(Socket::Tcp(stream))
            }
            Target::Unix(path) => Ok(Socket::Unix(UnixStream::connect(path).await?)),
        }
    };
    let Ok(connected) = within(limit, connecting).await else {
        return Err(Failure::new(Cause::ConnectTimeout, after(limit)));
    };
    connected.map_err(|error| {
        let cause = match error.kind() {
            std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound => Cause::ConnectRefused,
            std::io::ErrorKind::TimedOut => Cause::ConnectTimeout,
            _ => Cause::ConnectFailed,
        };
        Failure::new(cause, error.to_string())
    })
}

/// A handshake over a connection that is made, within the time given.
///
/// # Errors
/// The cause; and, for a diagnosis, what was seen of the upstream until then.
pub async fn handshake(
    stream: L4,
    policy: &TlsPolicy,
    target: &Target,
    identity: &str,
    limit: Option<Duration>,
) -> Result<SslStream<L4>, (Failure, Box<Seen>)> {
    let internal = |error: &dyn std::fmt::Display| {
        (Failure::new(Cause::TlsHandshakeFailed, error.to_string()), Box::default())
    };
    let ssl =
        policy.prepare(identity, SessionKey::new(target, identity)).map_err(|error| internal(&error))?;
    let mut stream = SslStream::new(ssl, stream).map_err(|error| internal(&error))?;
    let error = match within(limit, stream.connect()).await {
        Ok(Ok(())) => return Ok(stream),
        Ok(Err(error)) => error,
        Err(_) => {
            let late = Failure::new(Cause::TlsHandshakeTimeout, after(limit));
            return Err((late, Box::new(Seen::of(stream.ssl()))));
        }
    };
    let seen = Seen::of(stream.ssl());
    let refusal = seen.refused.as_ref().map(|refused| Refusal {
        result: refused.result,
        certificate: &refused.certificate,
        depth: refused.depth,
    });
    let settings = &policy.settings;
    let failure = of_handshake(
        &error,
        &HandshakeFacts {
            sni: is_name(identity).then_some(identity),
            names: policy.names_for(identity).iter().map(ToString::to_string).collect(),
            refusal,
            presented: &seen.presented,
            asked: seen.asked,
            shows_certificate: settings.identity.is_some(),
            narrows_ciphers: settings.ciphers != Ciphers::default() || settings.curves.is_some(),
        },
    );
    Err((failure, Box::new(seen)))
}

/// What is left of an attempt is rarely a round number: milliseconds are enough for a person.
fn after(limit: Option<Duration>) -> String {
    let limit = limit.unwrap_or_default();
    format!("after {:?}", Duration::from_millis(limit.as_millis().try_into().unwrap_or(u64::MAX)))
}

async fn within<T>(
    limit: Option<Duration>,
    future: impl Future<Output = T>,
) -> Result<T, tokio::time::error::Elapsed> {
    match limit {
        Some(limit) => timeout(limit, future).await,
        None => Ok(future.await),
    }
}
