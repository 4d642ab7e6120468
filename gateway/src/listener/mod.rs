//! Where clients connect: an address is bound, connections are accepted up to a limit, and each is handed to what its
//! listener speaks.

mod stream;
mod tcp;
mod tls;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use pingora_core::apps::{HttpServerApp, ServerApp};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{ALPN, GetProxyDigest, GetSocketDigest, IO, SocketDigest, Ssl};
use pingora_http::ResponseHeader;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};

pub use stream::Heads;
pub use tls::{Certificate, ClientCheck, acceptor, rfc4514};

use crate::diagnose::Cause;
use crate::engine::Engine;
use crate::observe::{AccessLog, Line, Metrics, access_log};
use crate::proxy::ctx::{Client, RequestId};
use crate::snapshot::{Listener, Protocol};

/// How long a client may take for its side of a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How many seconds a client may take to begin its only request, where the listener keeps no connection.
const FIRST_REQUEST: u64 = 10;
/// How long accepting rests when the process has no file descriptor left.
const REST: Duration = Duration::from_millis(100);

impl Listener {
    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        match self.protocol {
            Protocol::Https(_) => "https",
            Protocol::Http | Protocol::Tcp { .. } => "http",
        }
    }

    /// How long a connection may wait for its next request, in the engine's whole seconds; `None` where it is to close
    /// after its answer.
    pub fn kept_seconds(&self) -> Option<u64> {
        let seconds = self.idle_timeout.as_millis().div_ceil(1000) as u64;
        (seconds > 0).then_some(seconds)
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.address)
    }
}

/// A listener that holds its address.
pub struct Bound {
    listener: Arc<Listener>,
    socket: TcpListener,
}

/// Takes the address. Within a tokio runtime.
///
/// # Errors
/// With the listener's name and the address in the message: the address is in use, or not this machine's, or its port
/// is one that only root may bind.
pub fn bind(listener: &Arc<Listener>) -> Result<Bound, String> {
    let socket = socket(&format!("listener `{}`", listener.name), listener.address)?;
    Ok(Bound { listener: listener.clone(), socket })
}

/// The same for any address; `who` stands in the message.
///
/// # Errors
/// As `bind`.
pub fn socket(who: &str, address: SocketAddr) -> Result<TcpListener, String> {
    let told = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => "\nhint: another program listens there: `ss -ltnp` names it",
            io::ErrorKind::PermissionDenied => {
                "\nhint: ports below 1024 are root's: use one above, such as 8080"
            }
            io::ErrorKind::AddrNotAvailable => {
                "\nhint: no interface of this machine has the address; 0.0.0.0 is all of them"
            }
            _ => "",
        };
        format!("{who} cannot listen on {address}: {error}{hint}")
    };
    let bound = std::net::TcpListener::bind(address).map_err(told)?;
    bound.set_nonblocking(true).map_err(told)?;
    TcpListener::from_std(bound).map_err(told)
}

/// What every listener needs to serve its connections.
#[derive(Clone)]
pub struct Services {
    /// Serves HTTP.
    pub engine: Arc<Engine>,
    /// For connections that are passed through; requests are logged by the engine.
    pub log: Arc<AccessLog>,
    /// For requests that the engine refuses by itself.
    pub metrics: Arc<Metrics>,
    /// The hash of the configuration, for the same log.
    pub config: Arc<str>,
    /// Turns true when the process is to stop.
    pub stop: watch::Receiver<bool>,
    /// Each connection holds a clone for as long as it lives, so that a stop can wait for the last one.
    pub open: mpsc::Sender<()>,
}

/// Accepts until the process is to stop.
pub async fn accept(bound: Bound, services: Services) {
    let Bound { listener, socket } = bound;
    let slots = Arc::new(Semaphore::new(listener.max_connections));
    let mut stop = services.stop.clone();
    loop {
        // Taken before accepting: past the limit, clients wait in the kernel's queue.
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = async {
                let slot = slots.clone().acquire_owned().await;
                (socket.accept().await, slot)
            } => accepted,
        };
        let (Ok((stream, _)), Ok(slot)) = accepted else {
            log::warn!(
                "listener `{}`: a connection cannot be accepted: {:?}",
                listener.name,
                accepted.0.err()
            );
            sleep(REST).await;
            continue;
        };
        let (listener, services) = (listener.clone(), services.clone());
        tokio::spawn(async move {
            let _open = listener.open.enter();
            serve(stream, listener.clone(), services).await;
            drop(slot);
        });
    }
}

async fn serve(stream: TcpStream, listener: Arc<Listener>, services: Services) {
    let Ok(peer) = stream.peer_addr() else { return };
    let _ = stream.set_nodelay(true);
    let fd = stream.as_raw_fd();
    let mut stream = Stream::from(stream);
    stream.set_socket_digest(SocketDigest::from_raw_fd(fd));
    // A v4 client of a v6 socket is told by its v4 address.
    let ip = peer.ip().to_canonical();
    let ip_text =
        HeaderValue::from_str(&ip.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
    let mut client = Client {
        listener: listener.clone(),
        ip: Some(ip),
        ip_text,
        certificate: None,
        heads: Arc::default(),
    };
    match &listener.protocol {
        Protocol::Tcp { upstream, idle_timeout } => {
            tcp::pass_through(stream, upstream, *idle_timeout, &client, &services).await;
        }
        Protocol::Http => {
            let client = Arc::new(client);
            if let Some(mark) = mark(&client) {
                stream.set_proxy_digest(mark);
                http_1(stream, &client, &services).await;
            }
        }
        Protocol::Https(acceptor) => {
            let handshake = pingora_core::protocols::tls::server::handshake(acceptor, stream);
            let mut stream = match timeout(HANDSHAKE, handshake).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return log::debug!("listener `{}`, {peer}: {error}", listener.name),
                Err(_) => {
                    return log::debug!(
                        "listener `{}`, {peer}: no TLS handshake in {HANDSHAKE:?}",
                        listener.name
                    );
                }
            };
            client.certificate = tls::client_certificate(stream.ssl());
            let client = Arc::new(client);
            if let Some(mark) = mark(&client) {
                // A TLS stream of the engine's ignores what is set on itself.
                stream.get_mut().set_proxy_digest(mark);
                match stream.selected_alpn_proto() {
                    Some(ALPN::H2) => {
                        drop(services.engine.process_new(Box::new(stream), &services.stop).await)
                    }
                    _ => http_1(stream, &client, &services).await,
                }
            }
        }
    }
}

/// One request after the other, as the engine's own loop has it, but for the first: the engine waits a minute for that
/// one, whatever the listener's idle timeout is.
async fn http_1(stream: impl IO + 'static, client: &Client, services: &Services) {
    let (listener, heads, id) = (&client.listener, &client.heads, RequestId::new());
    let stream = stream::Stream::new(stream, heads.clone(), id);
    let mut session = ServerSession::new_http1(Box::new(stream));
    // A connection that takes one request only is yet to be waited for.
    session.set_keepalive(Some(listener.kept_seconds().unwrap_or(FIRST_REQUEST)));
    loop {
        heads.next();
        let reused = services.engine.process_new_http(session, &services.stop).await;
        if let Some(status) = heads.refused() {
            log_refused(client, &id, status, services);
        }
        let Some(reused) = reused else { return };
        let (stream, settings) = reused.consume();
        session = ServerSession::new_http1(stream);
        if let Some(settings) = settings {
            settings.apply_to_session(&mut session);
        }
    }
}

/// The count and the line of a request that no hook has seen, since its head is not legal HTTP or is too large.
fn log_refused(client: &Client, id: &RequestId, status: u16, services: &Services) {
    services.metrics.refused(&client.listener.name, status);
    services.log.write(&Line {
        time: access_log::told(jiff::Timestamp::now()),
        request_id: id.as_str(),
        listener: &client.listener.name,
        client_ip: client.ip,
        status: Some(status),
        cause: Some(Cause::RequestInvalid.code()),
        config: &services.config,
        ..Line::default()
    });
}

/// Leaves the client with the stream: the engine hands it to each request's hooks.
fn mark(client: &Arc<Client>) -> Option<ProxyDigest> {
    let blank = ResponseHeader::build(200, Some(0)).ok()?;
    Some(ProxyDigest::new(Box::new(blank), Some(Box::new(client.clone()))))
}
