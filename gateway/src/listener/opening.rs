//! The first bytes of a connection, read before anybody serves it: a PROXY header where a proxy stands in front, a
//! ClientHello where the name in it decides who serves.
//!
//! Bounded in time and in bytes; nothing is held for a client that says nothing. What is read here is read again by
//! whoever takes the connection.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use ipnet::IpNet;
use pingora_core::protocols::l4::socket::SocketAddr as EngineAddress;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::{GetSocketDigest, SocketDigest};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::client_hello::{Peek, peek};
use super::handshake::LONGEST;
use super::proxy_protocol::{Addresses, Fault, Parsed, parse, signature};
use crate::diagnose::{Cause, Failure};
use crate::snapshot::{Listener, Protocol};

/// A read's worth: most headers and hellos fit.
const READ: usize = 2048;

/// Whose word on the client's address is taken, by the PROXY protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Proxies {
    /// Nobody's: clients connect by themselves.
    #[default]
    None,
    /// Everybody's: all connections come by a proxy.
    All,
    /// That of these: from elsewhere, clients connect by themselves.
    From(Vec<IpNet>),
}

/// What a client says first, where that may be a ClientHello.
#[derive(Debug, PartialEq, Eq)]
pub enum Hello {
    /// It asks for this name.
    Named(String),
    /// It asks for none.
    Nameless,
    /// It does not speak TLS.
    NotTls,
}

/// A connection that nobody serves as yet.
pub struct Opening {
    stream: TcpStream,
    read: Vec<u8>,
    peer: SocketAddr,
    /// What the proxy in front has told.
    told: Option<Addresses>,
    deadline: Instant,
}

impl Opening {
    /// A connection that has just been accepted.
    ///
    /// # Errors
    /// The client is gone already.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        let peer = canonical(stream.peer_addr()?);
        Ok(Self { stream, read: Vec::new(), peer, told: None, deadline: Instant::now() + LONGEST })
    }

    /// Who connected: the client, or a proxy in front of it.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The client's address.
    pub fn client(&self) -> IpAddr {
        self.told.map_or(self.peer, |told| canonical(told.source)).ip()
    }

    /// Where the client's connection comes from and went to, as far as is known.
    ///
    /// # Errors
    /// As the system tells them.
    pub fn addresses(&self) -> io::Result<Addresses> {
        match self.told {
            Some(told) => Ok(told),
            None => Ok(Addresses { source: self.peer, destination: canonical(self.stream.local_addr()?) }),
        }
    }

    /// Reads the PROXY header where there has to be one, and sees to it that there is none where there must not be one.
    ///
    /// # Errors
    /// There is none, it is not legal, it comes from elsewhere, or nothing comes in time.
    pub async fn announce(&mut self, listener: &Listener) -> Result<(), Failure> {
        match &listener.proxies {
            Proxies::None => Ok(()),
            Proxies::From(proxies) if !proxies.iter().any(|proxy| proxy.contains(&self.peer.ip())) => {
                self.refuse_header(listener).await
            }
            Proxies::All | Proxies::From(_) => self.take_header().await,
        }
    }

    async fn take_header(&mut self) -> Result<(), Failure> {
        loop {
            match parse(&self.read) {
                Ok(Parsed::Incomplete { needed }) => self.fill(needed, self.deadline).await?,
                Ok(Parsed::Header { length, addresses }) => {
                    self.read.drain(..length);
                    self.told = addresses;
                    return Ok(());
                }
                Err(Fault::Missing) => return Err(Failure::new(Cause::ProxyHeaderMissing, "")),
                Err(Fault::Broken(why)) => return Err(Failure::new(Cause::ProxyHeaderInvalid, why)),
            }
        }
    }

    /// A client that could tell another address than its own would be let pass wherever that one may.
    async fn refuse_header(&mut self, listener: &Listener) -> Result<(), Failure> {
        let deadline = match &listener.protocol {
            // As long as such a client may take to begin its first request.
            Protocol::Http => self.deadline.max(Instant::now() + listener.idle_timeout),
            _ => self.deadline,
        };
        loop {
            match signature(&self.read) {
                Ok(None) => self.fill(self.read.len() + 1, deadline).await?,
                Ok(Some(_)) => return Err(Failure::new(Cause::ProxyHeaderUntrusted, "")),
                Err(_) => return Ok(()),
            }
        }
    }

    /// Reads the ClientHello, if it is one.
    ///
    /// # Errors
    /// It is not legal, or does not come in time.
    pub async fn hello(&mut self) -> Result<Hello, Failure> {
        loop {
            return match peek(&self.read) {
                Peek::Incomplete { needed } => {
                    self.fill(needed, self.deadline).await?;
                    continue;
                }
                Peek::ClientHello { sni: Some(name) } => Ok(Hello::Named(name)),
                Peek::ClientHello { sni: None } => Ok(Hello::Nameless),
                Peek::NotTls => Ok(Hello::NotTls),
                Peek::Malformed(why) => Err(Failure::new(Cause::ClientHelloInvalid, why)),
            };
        }
    }

    /// The connection, and what of it was read and belongs to whoever takes it.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.read)
    }

    /// The same for the engine, which reads that again by itself.
    pub fn into_engine(self) -> Stream {
        let digest = SocketDigest::from_raw_fd(self.stream.as_raw_fd());
        if let Some(told) = self.told {
            // It is empty as yet.
            let _ = digest.peer_addr.set(Some(EngineAddress::Inet(told.source)));
        }
        let mut stream = Stream::from(self.stream);
        stream.set_socket_digest(digest);
        stream.rewind(&self.read);
        stream
    }

    /// Reads until there are so many bytes.
    async fn fill(&mut self, needed: usize, deadline: Instant) -> Result<(), Failure> {
        while self.read.len() < needed {
            let closed = |error: &dyn ToString| Failure::new(Cause::ClientClosed, error.to_string());
            match timeout_at(deadline, self.stream.readable()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(closed(&error)),
                Err(_) => {
                    return Err(Failure::new(Cause::ClientSilent, format!("{} bytes came", self.read.len())));
                }
            }
            self.read.reserve(READ.max(needed - self.read.len()));
            match self.stream.try_read_buf(&mut self.read) {
                Ok(0) => return Err(closed(&"before it was served")),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(closed(&error)),
            }
        }
        Ok(())
    }
}

/// A v4 client of a v6 socket is told by its v4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
