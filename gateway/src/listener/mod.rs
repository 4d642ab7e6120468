//! Where clients connect: addresses are held by `sockets`, connections accepted up to a limit, and each is handed to what
//! its listener speaks.

pub mod client_hello;
mod ffi;
mod handshake;
mod http2;
mod name;
mod policies;
pub mod proxy_protocol;
mod shown;
pub mod sockets;
mod stream;
mod tcp;
mod terms;
mod tls;

use std::fmt;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use http::HeaderValue;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{ALPN, GetProxyDigest, GetSocketDigest, IO, SocketDigest, Ssl};
use pingora_http::ResponseHeader;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

pub use name::ListenerIds;
pub use policies::{Policies, Policy};
pub use shown::rfc4514;
pub use stream::Heads;
pub use terms::{AllTerms, ClientTerms, Spoken, Terms, TermsKey};
pub use tls::{Certificate, ClientCheck, acceptor};

use crate::diagnose::Cause;
use crate::engine::Engine;
use crate::observe::{AccessLog, HandshakeFailure, Line, access_log};
use crate::proxy::ctx::{Client, RequestId};
use crate::snapshot::live::Live;
use crate::snapshot::{Listener, Protocol};

/// How many seconds a client may take to begin its only request, where the listener keeps no connection.
const FIRST_REQUEST: u64 = 10;

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

/// What every listener needs to serve its connections.
#[derive(Clone)]
pub struct Services {
    /// Serves HTTP.
    pub engine: Arc<Engine>,
    /// For connections that are passed through; requests are logged by the engine.
    pub log: Arc<AccessLog>,
    /// What is in force.
    pub live: Arc<Live>,
    /// Each connection holds a clone for as long as it lives, so that a stop can wait for the last one.
    pub open: mpsc::Sender<()>,
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
        terms: listener.terms[0].clone(),
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
        Protocol::Https(https) => {
            let mut stream = match handshake::accept(&https.acceptor, stream).await {
                Ok(stream) => stream,
                Err((reason, words)) => {
                    listener.meter.handshake_failed(reason);
                    return log::debug!("listener `{}`, {peer}: {words}", listener.name);
                }
            };
            let Some(policy) = tls::policy(stream.ssl(), &https.policies) else {
                listener.meter.handshake_failed(HandshakeFailure::Other);
                return log::debug!("listener `{}`, {peer}: no handshake of its policy", listener.name);
            };
            listener.meter.shook_hands(stream.ssl().session_reused());
            client.terms = listener.terms[policy].clone();
            client.certificate = shown::client_certificate(stream.ssl());
            let client = Arc::new(client);
            if let Some(mark) = mark(&client) {
                // A TLS stream of the engine's ignores what is set on itself.
                stream.get_mut().set_proxy_digest(mark);
                match stream.selected_alpn_proto() {
                    Some(ALPN::H2) => http2::http_2(stream, &client, &services).await,
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
    let over = client.terms.over();
    let stream = stream::Stream::new(stream, heads.clone(), id);
    let mut session = ServerSession::new_http1(Box::new(stream));
    // A connection that takes one request only is yet to be waited for.
    session.set_keepalive(Some(listener.kept_seconds().unwrap_or(FIRST_REQUEST)));
    loop {
        heads.next();
        let reused = services.engine.process_new_http(session, &over).await;
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
    let snapshot = services.live.pin();
    snapshot.metrics.refused(&client.listener.name, status);
    services.log.write(&Line {
        time: access_log::told(jiff::Timestamp::now()),
        request_id: id.as_str(),
        listener: &client.listener.name,
        client_ip: client.ip,
        status: Some(status),
        cause: Some(Cause::RequestInvalid.code()),
        config: &snapshot.hash,
        ..Line::default()
    });
}

/// Leaves the client with the stream: the engine hands it to each request's hooks.
fn mark(client: &Arc<Client>) -> Option<ProxyDigest> {
    let blank = ResponseHeader::build(200, Some(0)).ok()?;
    Some(ProxyDigest::new(Box::new(blank), Some(Box::new(client.clone()))))
}
