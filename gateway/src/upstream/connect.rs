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

use super::endpoint::Target;
use super::session::SessionKey;
use super::stream::{Origin, Stream, Transport};
use super::tls::{Ciphers, Policies, Seen, TlsPolicy, is_name};
use crate::diagnose::{Cause, Failure, HandshakeFacts, Refusal, of_handshake};

/// Makes the connections of HTTP/1.1 upstreams in the engine's stead: the engine's own connector ties the verified
/// name to the SNI, verifies nothing without one, resumes no session, and bounds no attempt as a whole.
pub struct UpstreamConnector {
    policies: Arc<Policies>,
}

impl UpstreamConnector {
    /// Finds the policy of each peer by its group key.
    pub fn new(policies: Arc<Policies>) -> Self {
        Self { policies }
    }

    async fn connect(&self, peer: &HttpPeer) -> Result<Stream, Failure> {
        let target = match &peer._address {
            SocketAddr::Inet(address) => Target::Tcp(*address),
            SocketAddr::Unix(address) => {
                Target::Unix(address.as_pathname().unwrap_or("".as_ref()).to_owned())
            }
        };
        let began = Instant::now();
        // Each of the two steps may take as long as the file says, and no longer than what is left of the attempt.
        let limit = || {
            let left =
                peer.options.total_connection_timeout.map(|total| total.saturating_sub(began.elapsed()));
            [peer.options.connection_timeout, left].into_iter().flatten().min()
        };
        let origin = Arc::new(Origin::new());
        let mut stream = connect(&target, limit()).await?;
        // The engine hands this digest back with each request on the connection, pooled or not.
        let blank = ResponseHeader::build(200, Some(0));
        let blank = blank.map_err(|error| Failure::new(Cause::Internal, error.to_string()))?;
        stream.set_proxy_digest(ProxyDigest::new(Box::new(blank), Some(Box::new(origin.clone()))));
        if !peer.is_tls() {
            return Ok(Stream::new(Transport::Plain(Box::new(stream)), origin));
        }
        let policy = self.policies.find(peer.group_key);
        let policy = policy.ok_or_else(|| Failure::new(Cause::Internal, "a TLS peer without a policy"))?;
        let stream = handshake(stream, &policy, &target, &peer.sni, limit()).await;
        let stream = stream.map_err(|(failure, _)| failure)?;
        origin.note_handshake(stream.ssl().session_reused(), policy.settings.identity.is_some());
        Ok(Stream::new(Transport::Tls(stream), origin))
    }
}

#[async_trait]
impl Connector for UpstreamConnector {
    type Session = ();

    async fn get_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        peer: &P,
    ) -> Result<(Connection<()>, bool)> {
        let Some(peer) = (peer as &dyn Any).downcast_ref::<HttpPeer>() else {
            return Err(Failure::new(Cause::Internal, "a peer of another kind").into_error());
        };
        match self.connect(peer).await {
            Ok(stream) => Ok((Connection::Stream(Box::new(stream)), false)),
            Err(failure) => Err(failure.into_error()),
        }
    }

    async fn reused_http_session<P: Peer + Send + Sync + 'static>(&self, _peer: &P) -> Option<()> {
        // Streams go to and come from the engine's own HTTP/1.1 pool.
        None
    }

    async fn release_http_session<P: Peer + Send + Sync + 'static>(&self, _: (), _: &P, _: Option<Duration>) {
    }
}

/// A connection to this address, without delay for small packets, within the time given.
pub async fn connect(target: &Target, limit: Option<Duration>) -> Result<L4, Failure> {
    let connecting = async {
        match target {
            Target::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let fd = stream.as_raw_fd();
                std::io::Result::Ok((L4::from(stream), fd))
            }
            Target::Unix(path) => {
                let stream = UnixStream::connect(path).await?;
                let fd = stream.as_raw_fd();
                Ok((L4::from(stream), fd))
            }
        }
    };
    let Ok(connected) = within(limit, connecting).await else {
        return Err(Failure::new(Cause::ConnectTimeout, format!("after {:?}", limit.unwrap_or_default())));
    };
    let (mut stream, fd) = connected.map_err(|error| {
        let cause = match error.kind() {
            std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound => Cause::ConnectRefused,
            std::io::ErrorKind::TimedOut => Cause::ConnectTimeout,
            _ => Cause::ConnectFailed,
        };
        Failure::new(cause, error.to_string())
    })?;
    stream.set_socket_digest(SocketDigest::from_raw_fd(fd));
    Ok(stream)
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
            let late =
                Failure::new(Cause::TlsHandshakeTimeout, format!("after {:?}", limit.unwrap_or_default()));
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

async fn within<T>(
    limit: Option<Duration>,
    future: impl Future<Output = T>,
) -> Result<T, tokio::time::error::Elapsed> {
    match limit {
        Some(limit) => timeout(limit, future).await,
        None => Ok(future.await),
    }
}
