//! Where clients connect: addresses are held by `sockets`, connections accepted up to a limit, and each is handed to what
//! its listener speaks.

mod chunked;
pub mod client_hello;
pub mod crowd;
mod ffi;
mod frames;
mod handshake;
mod head;
mod http2;
mod name;
mod opening;
mod policies;
pub mod proxy_protocol;
mod relay;
mod shown;
pub mod sockets;
mod stream;
mod tcp;
mod terms;
mod tls;
mod udp;

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;
use openssl::ssl::NameType;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{ALPN, GetProxyDigest, IO, Ssl};
use pingora_http::ResponseHeader;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};

pub use head::{Fault, RequestLimits};
pub use name::ListenerIds;
pub use opening::Proxies;
pub use policies::{Policies, Policy};
pub use shown::rfc4514;
pub use stream::Heads;
pub use terms::{AllTerms, ClientTerms, OpeningTerms, Spoken, Terms, TermsKey};
pub use tls::{Certificate, ClientCheck, acceptor};

use self::crowd::Crowd;
use self::opening::Opening;
use self::tcp::Passage;
use crate::diagnose::{Cause, Failure};
use crate::engine::Engine;
use crate::observe::{AccessLog, HandshakeFailure, Line, OverLimit, access_log, due};
use crate::proxy::ctx::{Client, RequestId};
use crate::snapshot::live::Live;
use crate::snapshot::{Listener, PassThrough, Protocol};
use crate::upstream::Upstream;

/// How many seconds a client may take to begin its only request, where the listener keeps no connection.
const FIRST_REQUEST: u64 = 10;

impl Listener {
    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        match self.protocol {
            Protocol::Https(_) => "https",
            Protocol::Http | Protocol::Tcp(_) | Protocol::Udp { .. } => "http",
        }
    }

    /// Where what asks for this name is passed through to, although other names are served.
    pub fn passed_on_to(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.passes.as_ref()?.by_sni.find(name)
    }

    /// What it passes through, if anything.
    pub fn pass_through(&self) -> Option<&PassThrough> {
        match &self.protocol {
            Protocol::Tcp(pass) => Some(pass),
            Protocol::Http | Protocol::Https(_) | Protocol::Udp { .. } => self.passes.as_ref(),
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
    /// Who has how many connections.
    pub crowd: Arc<Crowd>,
    /// Room for connections at all listeners together.
    pub room: Arc<Semaphore>,
    /// Each connection holds a clone for as long as it lives, so that a stop can wait for the last one.
    pub open: mpsc::Sender<()>,
}

async fn serve(stream: TcpStream, listener: Arc<Listener>, services: Services) {
    let _ = stream.set_nodelay(true);
    let Ok(mut opening) = Opening::new(stream) else { return };
    let announced = opening.announce(&listener).await;
    let ip = opening.client();
    let limit = listener.max_connections_per_client;
    let Some(_guest) = services.crowd.enter(listener.id, ip, limit) else {
        return listener.meter.over_limit(OverLimit::ConnectionsPerClient, ip);
    };
    let ip_text =
        HeaderValue::from_str(&ip.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
    let client = Client {
        listener: listener.clone(),
        ip: Some(ip),
        ip_text,
        certificate: None,
        terms: listener.terms[0].clone(),
        heads: Arc::default(),
    };
    if let Err(failure) = announced {
        return refuse(&failure, None, &client, &services);
    }
    // Each in a box of its own: a connection that passes through is to be no larger than it needs.
    match &listener.protocol {
        Protocol::Tcp(pass) => Box::pin(tcp::serve(opening, pass, &client, &services)).await,
        Protocol::Http | Protocol::Https(_) | Protocol::Udp { .. } => {
            Box::pin(serve_http(opening, client, &services)).await
        }
    }
}

async fn serve_http(mut opening: Opening, mut client: Client, services: &Services) {
    let listener = client.listener.clone();
    if let Some(pass) = &listener.passes {
        let hello = match opening.hello().await {
            Ok(hello) => hello,
            Err(failure) => return refuse(&failure, None, &client, services),
        };
        if let Some(upstream) = pass.named(&hello) {
            let passage = Passage { upstream, sni: hello.name(), pass };
            return Box::pin(tcp::pass_through(opening, passage, &client, services)).await;
        }
    }
    let peer = opening.peer();
    let mut stream = opening.into_engine();
    match &listener.protocol {
        // The one is served elsewhere, the other's socket accepts no connection.
        Protocol::Tcp(_) | Protocol::Udp { .. } => {}
        Protocol::Http => {
            let client = Arc::new(client);
            if let Some(mark) = mark(&client) {
                stream.set_proxy_digest(mark);
                http_1(stream, &client, services).await;
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
            // Whatever was peeked at: a name that is passed through is never served here.
            let asked = stream.ssl().servername(NameType::HOST_NAME);
            if asked.is_some_and(|name| listener.passed_on_to(name).is_some()) {
                return refuse(&Failure::new(Cause::HostPassedThrough, ""), None, &client, services);
            }
            listener.meter.shook_hands(stream.ssl().session_reused());
            client.terms = listener.terms[policy].clone();
            client.certificate = shown::client_certificate(stream.ssl());
            let client = Arc::new(client);
            if let Some(mark) = mark(&client) {
                // A TLS stream of the engine's ignores what is set on itself.
                stream.get_mut().set_proxy_digest(mark);
                match stream.selected_alpn_proto() {
                    Some(ALPN::H2) => http2::http_2(stream, &client, services).await,
                    _ => http_1(stream, &client, services).await,
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
    let stream = stream::Stream::new(stream, heads.clone(), id, listener.limits.requests);
    let mut session = ServerSession::new_http1(Box::new(stream));
    // A connection that takes one request only is yet to be waited for.
    session.set_keepalive(Some(listener.kept_seconds().unwrap_or(FIRST_REQUEST)));
    loop {
        heads.next();
        let reused = services.engine.process_new_http(session, &over).await;
        if let Some(fault) = heads.refused() {
            log_refused(client, &id, fault, services);
        }
        let Some(reused) = reused else { return };
        let (stream, settings) = reused.consume();
        session = ServerSession::new_http1(stream);
        if let Some(settings) = settings {
            settings.apply_to_session(&mut session);
        }
    }
}

/// A connection that is closed before anybody has served it: its line, its count, and once a second a word in the log.
fn refuse(failure: &Failure, sni: Option<&str>, client: &Client, services: &Services) {
    let Client { listener, ip, .. } = client;
    listener.meter.refused(failure.cause);
    // One that only looks whether somebody listens is nothing to be mended.
    if failure.cause != Cause::ClientClosed && due(&listener.warned) {
        log::warn!(
            "listener `{}`, {}: {}: {failure}\n  to mend it: {}",
            listener.name,
            ip.map_or_else(String::new, |ip| ip.to_string()),
            failure.cause.code(),
            failure.cause.remedy(),
        );
    }
    services.log.write(&Line {
        time: access_log::now(),
        listener: &listener.name,
        client_ip: *ip,
        sni,
        cause: Some(failure.cause.code()),
        config: &services.live.pin().hash,
        ..Line::default()
    });
}

/// The count and the line of a request that no hook has seen, since its head is not legal HTTP or exceeds a limit.
fn log_refused(client: &Client, id: &RequestId, fault: Fault, services: &Services) {
    let snapshot = services.live.pin();
    snapshot.metrics.refused(&client.listener.name, fault.status);
    log::debug!("request {}: {}: {}", id.as_str(), fault.cause().code(), fault.words);
    services.log.write(&Line {
        time: access_log::told(jiff::Timestamp::now()),
        request_id: id.as_str(),
        listener: &client.listener.name,
        client_ip: client.ip,
        status: Some(fault.status),
        cause: Some(fault.cause().code()),
        config: &snapshot.hash,
        ..Line::default()
    });
}

/// Leaves the client with the stream: the engine hands it to each request's hooks.
fn mark(client: &Arc<Client>) -> Option<ProxyDigest> {
    let blank = ResponseHeader::build(200, Some(0)).ok()?;
    Some(ProxyDigest::new(Box::new(blank), Some(Box::new(client.clone()))))
}
