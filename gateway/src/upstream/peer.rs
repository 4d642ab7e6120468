//! From a picked endpoint to the engine's peer: the only file that names `HttpPeer`'s parts.

use std::sync::LazyLock;
use std::time::Duration;

use pingora_core::Result;
use pingora_core::protocols::ALPN;
use pingora_core::protocols::tls::CustomALPN;
use pingora_core::upstreams::peer::HttpPeer;

use super::endpoint::{Address, Target};
use super::tls::TlsPolicy;

/// How long each step of an attempt may take; `None` is no limit.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// TCP connect, and then the TLS handshake.
    pub connect: Option<Duration>,
    /// Both together: what is left of the attempt.
    pub attempt: Option<Duration>,
    /// Each read and each write.
    pub io: Option<Duration>,
    /// An idle pooled connection.
    pub idle: Duration,
}

/// A custom ALPN makes the engine ask our connector for the stream; what is offered is http/1.1.
static OURS: LazyLock<ALPN> = LazyLock::new(|| ALPN::Custom(CustomALPN::new(b"vestibule".to_vec())));

/// The engine's peer for one attempt. `identity` is the SNI, or the IP address verified in its stead; empty where
/// there is neither. It and the policy's key are part of the pool's key, and so is the address.
///
/// # Errors
/// A unix path that is too long for a socket address.
pub fn peer(address: &Address, tls: Option<(&TlsPolicy, &str)>, limits: Limits) -> Result<Box<HttpPeer>> {
    let identity = tls.map(|(_, identity)| identity).unwrap_or_default().to_owned();
    let mut peer = match &address.target {
        // The address is resolved already, so `HttpPeer::new`, which would block to look a name up, does not.
        Target::Tcp(socket) => HttpPeer::new(*socket, tls.is_some(), identity),
        Target::Unix(path) => HttpPeer::new_uds(&path.to_string_lossy(), tls.is_some(), identity)?,
    };
    if let Some((policy, _)) = tls {
        peer.group_key = policy.key;
    }
    peer.options.alpn = OURS.clone();
    peer.options.connection_timeout = limits.connect;
    peer.options.total_connection_timeout = limits.attempt;
    peer.options.read_timeout = limits.io;
    peer.options.write_timeout = limits.io;
    peer.options.idle_timeout = Some(limits.idle);
    Ok(Box::new(peer))
}
