//! What requests run on: one immutable value compiled from the file.
//!
//! Nothing here knows YAML; `compile` is the only constructor.

mod admin;
mod answers;
pub mod certificates;
mod compile;
pub mod files;
#[cfg(test)]
mod golden;
mod kept;
pub mod limits;
mod lint;
mod listeners;
pub mod live;
mod outbound;
mod plugins;
pub mod problem;
pub mod reload;
mod routes;
pub mod sources;
mod tls;
mod upstreams;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use openssl::ssl::{SslAcceptor, SslVersion};
use openssl::x509::X509;
use pingora_http::ResponseHeader;
use vestibule_plugins::{Chain, Template};

pub use admin::{Admin, Token};
pub use compile::{Workshop, compile, load, load_noting};
pub(crate) use kept::UpstreamDefinition;
pub use limits::Limits;
pub use problem::{Places, Report, Warnings};
pub use reload::Reload;
pub(crate) use routes::{pattern, rule, unknown};
pub use sources::Sources;

use crate::config::AccessLogConfig;
use crate::listener::proxy_protocol::Version;
use crate::listener::{Policies, Proxies, Spoken, Terms};
use crate::observe::metrics::RequestMeter;
use crate::observe::{ListenerMeter, Metrics};
use crate::plan::Described;
use crate::route::normal::PathRules;
use crate::route::{ListenerId, Names, Table};
use crate::upstream::{TlsPolicy, Upstream};

/// The whole configuration as requests use it. A request loads it once and keeps it to its end.
pub struct Snapshot {
    /// The hash of the files that it came from and of those that they name: `config` in the access log, `$config` in
    /// templates.
    pub hash: String,
    /// What is read at start only.
    pub server: Server,
    /// What brings a changed file in force, and how.
    pub reload: Reload,
    /// Where and how requests are logged.
    pub access_log: AccessLogConfig,
    /// Where the gateway tells about itself, if anywhere.
    pub admin: Option<Arc<Admin>>,
    /// In the order of their names.
    pub listeners: Vec<Arc<Listener>>,
    /// Which route a request takes, by index into `routes`.
    pub table: Table,
    /// In the order of the file.
    pub routes: Vec<Route>,
    /// Every upstream, by name.
    pub upstreams: Vec<Arc<Upstream>>,
    /// What it says, for whoever may ask; nothing only while it is being compiled.
    pub described: Option<Box<Described>>,
    /// What the file may say and hardly means.
    pub warnings: Warnings,
    /// Where keys stand that may yet turn out wrong.
    pub places: Places,
    /// Counts requests that no route took.
    pub unrouted: RequestMeter,
    /// What every snapshot counts in.
    pub metrics: Arc<Metrics>,
}

/// What is read at start only.
#[derive(Clone, Debug)]
pub struct Server {
    /// Worker threads.
    pub threads: usize,
    /// At stop: how long requests in flight may go on.
    pub drain_timeout: Duration,
    /// Connections of clients open at once, at all listeners together.
    pub max_connections: u32,
    /// Idle upstream connections kept, in all.
    pub upstream_pool_size: NonZeroUsize,
}

/// One address that clients connect to.
pub struct Listener {
    /// The name in the file.
    pub name: String,
    /// The number of its name, the same in every snapshot.
    pub id: ListenerId,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whose word on a client's address is taken.
    pub proxies: Proxies,
    /// What is spoken there.
    pub protocol: Protocol,
    /// What is passed through of a listener that ends TLS, where there is such a thing.
    pub passes: Option<PassThrough>,
    /// On what terms it takes connections: by the policies of its TLS where it has any, else there is one.
    pub terms: Vec<Arc<Terms>>,
    /// Connections open at once.
    pub max_connections: usize,
    /// Those of one client; `None` where it may have all.
    pub max_connections_per_client: Option<NonZeroUsize>,
    /// What one client may ask.
    pub limits: Limits,
    /// What it makes of paths that can be read in more than one way.
    pub paths: PathRules,
    /// How long a connection without a request is kept.
    pub idle_timeout: Duration,
    /// Counts its connections and handshakes.
    pub meter: ListenerMeter,
    /// When a connection that could not be served was last told in the log, in seconds since the process began: one line
    /// a second is enough.
    pub warned: AtomicU64,
}

/// What is spoken at a listener.
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/1.1 or HTTP/2 over TLS.
    Https(Arc<Https>),
    /// Bytes, passed through to an upstream.
    Tcp(PassThrough),
    /// Datagrams, passed through to an upstream.
    Udp {
        /// Where they go.
        upstream: Arc<Upstream>,
        /// No datagram either way for so long ends a client's session.
        idle_timeout: Duration,
        /// Sessions at once.
        max_sessions: usize,
    },
}

/// How bytes are passed through.
pub struct PassThrough {
    /// Where they go by the name that the client asks for. Nothing is looked at where this is empty.
    pub by_sni: Names<Arc<Upstream>>,
    /// Where all others go.
    pub upstream: Option<Arc<Upstream>>,
    /// No byte either way for so long ends the connection; `None` never.
    pub idle_timeout: Option<Duration>,
    /// How the upstream is told whose connection it is.
    pub announce: Option<Version>,
}

impl PassThrough {
    /// Every upstream that it may lead to; one more than once.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.by_sni.values().chain(&self.upstream)
    }
}

/// How a listener ends TLS.
pub struct Https {
    /// Accepts the handshakes.
    pub acceptor: SslAcceptor,
    /// The lowest version of TLS.
    pub min_version: SslVersion,
    /// Which client certificates are accepted, by name.
    pub policies: Arc<Policies>,
    /// The certificates that clients are shown, without the rest of their chains, in the order of the file.
    pub leaves: Vec<X509>,
    /// The CAs that may have signed a client's certificate, of all policies.
    pub authorities: Vec<X509>,
}

impl Protocol {
    /// What of it an open connection depends on, by its policy: the default's first.
    pub fn spoken(&self) -> Vec<Spoken> {
        match self {
            Self::Http => vec![Spoken::Http],
            Self::Https(https) => {
                let spoken = https.policies.all().iter().map(|policy| Spoken::Https {
                    from_version_1_3: https.min_version == SslVersion::TLS1_3,
                    names: policy.names.clone(),
                    clients: policy.clients.clone(),
                });
                spoken.collect()
            }
            Self::Tcp(_) => vec![Spoken::Tcp],
            Self::Udp { .. } => vec![Spoken::Udp],
        }
    }
}

/// One route.
pub struct Route {
    /// The name in the file, or `routes[N]`.
    pub name: String,
    /// What becomes of a request.
    pub action: Action,
    /// The common plugins and then the route's own.
    pub chain: Chain,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Identity and forwarding headers of the client that pass.
    pub trusted: TrustedHeaders,
    /// What its clients may change to.
    pub upgrades: Upgrades,
    /// Counts its requests.
    pub meter: RequestMeter,
}

/// What becomes of a request.
pub enum Action {
    /// One of these upstreams answers, each as often as its weight says.
    Forward {
        /// At least one.
        targets: Vec<Target>,
        /// The sum of the weights, from 1.
        total_weight: u32,
    },
    /// The gateway answers.
    Respond {
        /// With this head.
        head: ResponseHeader,
        /// And this body.
        body: Bytes,
    },
    /// The client is sent elsewhere.
    Redirect(Redirect),
}

/// An upstream as one route reaches it.
pub struct Target {
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// Its share among the route's targets.
    pub weight: u32,
    /// The Host that is sent.
    pub host: Host,
    /// TLS, unless the upstream is plain.
    pub tls: Option<TargetTls>,
    /// When a failure was last told in the log, in seconds since the process began: one line a second is enough.
    pub warned: AtomicU64,
}

/// The Host that is sent upstream.
pub enum Host {
    /// The client's, as plugins left it.
    Preserve,
    /// The endpoint's own.
    Endpoint,
    /// This.
    Template(Template),
}

/// The TLS of an upstream with the route's own keys over it.
pub struct TargetTls {
    /// CA, names, client certificate.
    pub policy: Arc<TlsPolicy>,
    /// The SNI.
    pub sni: Sni,
    /// The same policy but for ALPN, where that may choose HTTP/2 and a request needs HTTP/1.1.
    pub http1: Option<Http1>,
}

/// The way to HTTP/1.1 under `protocol: auto`.
pub struct Http1 {
    /// Offers `http/1.1` alone.
    pub policy: Arc<TlsPolicy>,
    /// Whether the upstream has said that it wants HTTP/1.1 for what it is asked here. Shared with the same route of
    /// later snapshots.
    pub required: Arc<AtomicBool>,
}

/// The SNI that is sent.
pub enum Sni {
    /// None at all.
    None,
    /// The Host that is sent, without its port.
    Host,
    /// This.
    Template(Template),
}

/// Where a client is sent; what is absent stays as the request has it.
#[derive(Clone, Debug)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// A host name.
    pub host: Option<String>,
    /// A port; the scheme's own is left out.
    pub port: Option<u16>,
    /// The path.
    pub path: RedirectPath,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// The path of a redirect.
#[derive(Clone, Debug)]
pub enum RedirectPath {
    /// As the request has it.
    Keep,
    /// This one.
    Full(String),
    /// This one in place of the prefix that the route matched by.
    ReplacePrefix(String),
}

/// How long things may take; `None` is no limit.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// All tries together, waiting between them included.
    pub request: Option<Duration>,
    /// Each try.
    pub attempt: Option<Duration>,
    /// Each wait for the upstream's next byte.
    pub idle: Option<Duration>,
}

/// Which protocols a route's clients may change to, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrades(pub Vec<Box<str>>);

impl Upgrades {
    /// Whether this element of an `Upgrade` field passes. RFC 9110 section 7.8: in any case of letters.
    pub fn contains(&self, token: &str) -> bool {
        self.0.iter().any(|allowed| token.eq_ignore_ascii_case(allowed))
    }
}

/// Which of the headers that name an identity or an origin a route lets through from its clients.
#[derive(Clone, Debug, Default)]
pub struct TrustedHeaders {
    /// Just these.
    pub names: Vec<HeaderName>,
    /// All that begin so.
    pub prefixes: Vec<String>,
}

impl TrustedHeaders {
    /// Whether this header passes.
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.names.contains(name)
            || self.prefixes.iter().any(|prefix| name.as_str().starts_with(prefix.as_str()))
    }
}
