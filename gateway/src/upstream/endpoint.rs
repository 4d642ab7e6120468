//! One endpoint of an upstream, and the addresses that its name has at present.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::observe::Record;

/// One endpoint as the file has it.
#[derive(Debug)]
pub struct Endpoint {
    /// As the file spells it.
    pub text: String,
    /// The Host that names this endpoint: its name, and its port unless that is the scheme's own.
    pub host: String,
    /// Its share of the requests, against those of the others.
    pub weight: u32,
    /// The name to be resolved and the port; `None` where the address is fixed.
    pub name: Option<(String, u16)>,
    /// What came of the attempts at it.
    pub record: Arc<Record>,
    /// Where it is at present, shared by the endpoints that are the same name and port.
    pub known: Arc<Known>,
}

/// The addresses of a name at present.
#[derive(Debug, Default)]
pub struct Known(ArcSwap<Vec<Address>>);

impl Known {
    /// The addresses.
    pub fn addresses(&self) -> arc_swap::Guard<Arc<Vec<Address>>> {
        self.0.load()
    }

    /// Puts the addresses that the name has now in place of the earlier ones.
    pub fn replace(&self, addresses: Vec<Address>) {
        self.0.store(Arc::new(addresses));
    }
}

impl Endpoint {
    /// An endpoint with fixed addresses, or with none as yet where it is a name.
    pub fn new(
        text: String,
        host: String,
        weight: u32,
        name: Option<(String, u16)>,
        fixed: Vec<Address>,
    ) -> Self {
        let known = Arc::new(Known(ArcSwap::from_pointee(fixed)));
        Self { text, host, weight, name, record: Arc::default(), known }
    }

    /// The addresses known at present.
    pub fn addresses(&self) -> arc_swap::Guard<Arc<Vec<Address>>> {
        self.known.addresses()
    }
}

/// An address that can be connected to, with the text under which it is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Where to connect.
    pub target: Target,
    /// The same as text.
    pub text: Arc<str>,
}

/// A TCP address or the path of a unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl Address {
    /// A TCP address.
    pub fn tcp(address: SocketAddr) -> Self {
        Self { target: Target::Tcp(address), text: address.to_string().into() }
    }

    /// A unix socket.
    pub fn unix(path: PathBuf) -> Self {
        Self { text: format!("unix:{}", path.display()).into(), target: Target::Unix(path) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
