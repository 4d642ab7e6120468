//! Where requests go: endpoints, how one is picked, how it is connected to and as whom.

mod balance;
mod caller;
pub mod connect;
mod dns;
mod endpoint;
mod h2;
mod origin;
pub mod peer;
#[cfg(test)]
mod retirement_tests;
mod session;
mod standing;
mod stream;
mod tally;
mod tls;

use std::sync::Arc;
use std::time::Duration;

pub use balance::{Balance, Pick, Tried};
pub use caller::{Caller, CallerSni};
pub use dns::Resolver;
pub use endpoint::{Address, Endpoint, Known, Target};
pub(crate) use h2::{Facts, Pool, establish, of_stream};
pub use h2::{Unserved, misplaced, unserved};
pub use origin::{Lease, Origin};
pub use stream::{Stream, Transport};
pub use tls::{
    Alpn, Ciphers, ClientIdentity, Crl, HOSTNAME_MISMATCH, PIN_MISMATCH, Pin, Policies, Refused, Roots, Seen,
    Settings, TlsPolicy, Trust, Verification, VerifiedName, Version, is_ca, is_name, knows_curve, store,
};

use crate::observe::Record;
use crate::observe::metrics::UpstreamMeter;

/// A set of endpoints that answer alike.
#[derive(Debug)]
pub struct Upstream {
    /// The name in the file.
    pub name: String,
    /// The endpoints and whose turn it is.
    pub balance: Balance,
    /// What its endpoints speak.
    pub protocol: Protocol,
    /// TCP connect, and then the TLS handshake, may each take so long; `None` is no limit.
    pub connect_timeout: Option<Duration>,
    /// How long an idle connection is kept for reuse; zero is not at all.
    pub idle_timeout: Duration,
    /// Counts the attempts.
    pub meter: UpstreamMeter,
    /// What came of the attempts that got to no endpoint.
    pub unplaced: Arc<Record>,
}

/// What is spoken to an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1, with or without TLS.
    #[default]
    Http1,
    /// HTTP/2 over TLS.
    H2,
    /// HTTP/2 without TLS.
    H2c,
    /// HTTP/2 or HTTP/1.1 over TLS, as ALPN chooses.
    Auto,
}

impl Protocol {
    /// What is offered by ALPN.
    pub fn alpn(self) -> Alpn {
        match self {
            Self::Http1 | Self::H2c => Alpn::Http1,
            Self::H2 => Alpn::H2,
            Self::Auto => Alpn::Both,
        }
    }
}
