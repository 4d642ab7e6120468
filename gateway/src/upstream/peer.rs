//! From a picked endpoint to the engine's peer: the only file that names `HttpPeer`'s parts.

use std::sync::LazyLock;
use std::time::Duration;

use pingora_core::Result;
use pingora_core::protocols::ALPN;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::tls::CustomALPN;
use pingora_core::upstreams::peer::{H1UpgradePolicy, HttpPeer};

use super::Protocol;
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

/// A custom ALPN makes the engine ask our connector for the connection, which reads off it what is to be spoken; what
/// is offered to the upstream is the policy's. The engine refuses the names of real protocols here.
static OURS: LazyLock<[(Protocol, ALPN); 4]> = LazyLock::new(|| {
    let ours = |protocol: Protocol| (protocol, ALPN::Custom(CustomALPN::new(format!("{protocol:?}").into())));
    [Protocol::Http1, Protocol::H2, Protocol::H2c, Protocol::Auto].map(ours)
});

/// The group key of plain HTTP/2, which shares an address with plain HTTP/1.1 but no connection.
const H2C: u64 = 2;

/// The engine's peer for one attempt. `identity` is the SNI, or the IP address verified in its stead; empty where
/// there is neither. It and the policy's key are part of the pool's key, and so is the address.
///
/// # Errors
/// A unix path that is too long for a socket address.
pub fn peer(
    address: &Address,
    protocol: Protocol,
    tls: Option<(&TlsPolicy, &str)>,
    limits: Limits,
) -> Result<Box<HttpPeer>> {
    let identity = tls.map(|(_, identity)| identity).unwrap_or_default().to_owned();
    let mut peer = match &address.target {
        // The address is resolved already, so `HttpPeer::new`, which would block to look a name up, does not.
        Target::Tcp(socket) => HttpPeer::new(*socket, tls.is_some(), identity),
        Target::Unix(path) => HttpPeer::new_uds(&path.to_string_lossy(), tls.is_some(), identity)?,
    };
    // What ALPN may choose is a part of the policy, and so of its key.
    peer.group_key = match tls {
        Some((policy, _)) => policy.key,
        None if protocol == Protocol::H2c => H2C,
        None => 0,
    };
    if let Some((_, ours)) = OURS.iter().find(|(ours, _)| *ours == protocol) {
        peer.options.alpn = ours.clone();
    }
    peer.options.connection_timeout = limits.connect;
    peer.options.total_connection_timeout = limits.attempt;
    peer.options.read_timeout = limits.io;
    peer.options.write_timeout = limits.io;
    peer.options.idle_timeout = Some(limits.idle);
    Ok(Box::new(peer))
}

/// Has the engine pass a request to upgrade, whatever it upgrades to; else it passes WebSocket only. It strips nothing of
/// such a request then.
pub fn pass_upgrade(peer: &mut HttpPeer) {
    peer.options.http_upstream_request_policy.h1_upgrade = H1UpgradePolicy::Preserve;
}

/// What is to be spoken to this peer.
pub fn protocol_of(peer: &HttpPeer) -> Protocol {
    let ours = OURS.iter().find(|(_, ours)| *ours == peer.options.alpn);
    ours.map_or(Protocol::Http1, |(protocol, _)| *protocol)
}

/// What a connection is for. The pools find one by a hash of 64 bits that is not made to withstand anybody, and a part
/// of what is hashed may be the client's Host: so each connection is looked at once more before it is used.
#[derive(Clone, Debug, Default)]
pub struct Purpose {
    address: Option<SocketAddr>,
    /// The TLS policy, and what is spoken.
    group: u64,
    identity: Box<str>,
}

/// What an attempt asks of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a>(&'a HttpPeer);

impl<'a> Wanted<'a> {
    /// What this peer stands for.
    pub fn of(peer: &'a HttpPeer) -> Self {
        Self(peer)
    }

    /// The purpose of a connection that is made for it.
    pub fn purpose(self) -> Purpose {
        let HttpPeer { _address, group_key, sni, .. } = self.0;
        Purpose { address: Some(_address.clone()), group: *group_key, identity: sni.as_str().into() }
    }

    /// Whether a connection of this purpose will do.
    pub fn is(self, purpose: &Purpose) -> bool {
        let HttpPeer { _address, group_key, sni, .. } = self.0;
        purpose.group == *group_key
            && *purpose.identity == **sni
            && purpose.address.as_ref() == Some(_address)
    }
}

#[cfg(test)]
mod tests {
    use pingora_core::upstreams::peer::Peer;

    use super::*;
    use crate::upstream::Settings;

    #[test]
    fn each_protocol_has_connections_of_its_own() {
        let address = Address::tcp("127.0.0.1:80".parse().unwrap());
        let limits = Limits { connect: None, attempt: None, io: None, idle: Duration::ZERO };
        let [http1, h2c] =
            [Protocol::Http1, Protocol::H2c].map(|protocol| peer(&address, protocol, None, limits).unwrap());
        assert_ne!(http1.reuse_hash(), h2c.reuse_hash());
        assert_eq!([protocol_of(&http1), protocol_of(&h2c)], [Protocol::Http1, Protocol::H2c]);
    }

    #[test]
    fn a_connection_serves_only_what_it_was_made_for() {
        let policies = [Settings::default(), Settings { session_reuse: false, ..Settings::default() }]
            .map(|settings| TlsPolicy::new(settings).unwrap());
        let limits = Limits { connect: None, attempt: None, io: None, idle: Duration::ZERO };
        let to = |address: &Address, protocol, tls| peer(address, protocol, tls, limits).unwrap();
        let [one, other] = ["127.0.0.1:1", "127.0.0.1:2"].map(|it| Address::tcp(it.parse().unwrap()));
        let [unix, other_unix] = ["/a", "/b"].map(|path| Address::unix(path.into()));
        let peers = [
            to(&one, Protocol::Http1, None),
            to(&other, Protocol::Http1, None),
            to(&unix, Protocol::Http1, None),
            to(&other_unix, Protocol::Http1, None),
            to(&one, Protocol::H2c, None),
            to(&one, Protocol::Http1, Some((&policies[0], "a.test"))),
            to(&one, Protocol::Http1, Some((&policies[0], "b.test"))),
            to(&one, Protocol::Http1, Some((&policies[0], ""))),
            to(&one, Protocol::Http1, Some((&policies[1], "a.test"))),
        ];
        for (made, of) in peers.iter().enumerate() {
            let purpose = Wanted::of(of).purpose();
            for (asked, peer) in peers.iter().enumerate() {
                assert_eq!(Wanted::of(peer).is(&purpose), asked == made, "{peer} on one for {of}");
            }
        }
    }
}
