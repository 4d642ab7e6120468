//! TLS sessions kept for resumption: one store for each policy, so that none is ever offered under another.

use std::collections::HashMap;
use std::sync::Mutex;

use openssl::ssl::SslSession;

use super::endpoint::Target;

/// What a session was made with, besides the policy that owns the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey {
    /// Where the connection led.
    pub address: String,
    /// The SNI, or the address verified in its stead; empty where there is neither.
    pub identity: String,
}

impl SessionKey {
    /// The key of a connection.
    pub fn new(target: &Target, identity: &str) -> Self {
        let address = match target {
            Target::Tcp(address) => address.to_string(),
            Target::Unix(path) => path.display().to_string(),
        };
        Self { address, identity: identity.to_owned() }
    }
}

/// A bounded store. Locked for a look-up only, and only where a new connection is made: never on a pooled one.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<HashMap<SessionKey, Vec<Vec<u8>>>>);

/// Peers remembered for each policy; past that, the store starts anew.
const PEERS: usize = 1024;
/// Sessions remembered for each peer: a TLS 1.3 server hands out two.
const PER_PEER: usize = 4;

impl Sessions {
    /// Keeps a session. As DER, since OpenSSL marks the live object as not resumable when its connection ends badly.
    pub fn keep(&self, key: &SessionKey, session: &SslSession) {
        let Ok(der) = session.to_der() else { return };
        let Ok(mut store) = self.0.lock() else { return };
        if store.len() >= PEERS && !store.contains_key(key) {
            store.clear();
        }
        let sessions = store.entry(key.clone()).or_default();
        if sessions.len() >= PER_PEER {
            sessions.remove(0);
        }
        sessions.push(der);
    }

    /// The newest session of this peer. A ticket is used once where there is another (RFC 8446 appendix C.4).
    pub fn newest(&self, key: &SessionKey) -> Option<SslSession> {
        let der = {
            let mut store = self.0.lock().ok()?;
            let sessions = store.get_mut(key)?;
            if sessions.len() > 1 { sessions.pop()? } else { sessions.last()?.clone() }
        };
        SslSession::from_der(&der).ok()
    }
}
