//! What is remembered of one request from its first hook to its last.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use vestibule_plugins::{ClientCertificate, Identity, RequestInfo};

use crate::diagnose::{Cause, Failure};
use crate::listener::{Heads, Terms};
use crate::reload::side::Side;
use crate::reload::stage::Stage;
use crate::snapshot::live::InForce;
use crate::snapshot::{Action, Listener, Route, Snapshot, Target};
use crate::tunnel::Tunnel;
use crate::upstream::{Lease, Pick, Tried, is_name};

/// One request.
pub struct Ctx {
    /// The configuration that it runs under, from its first hook to its end.
    pub snapshot: Arc<Snapshot>,
    /// The trial of a candidate that it takes part in, and on which side.
    pub stage: Option<(Arc<Stage>, Side)>,
    /// When its head had been read.
    pub started: Instant,
    /// The same by the calendar, for the access log.
    pub time: Timestamp,
    /// Under which id it is logged.
    pub request_id: RequestId,
    /// The connection that it came by.
    pub client: Option<Arc<Client>>,
    /// What the client asked for, before anything was rewritten.
    pub asked: Asked,
    /// Which of the snapshot's routes it takes.
    pub route: Option<usize>,
    /// Which of the route's targets.
    pub target: Option<usize>,
    /// How many bytes of the path the route's prefix matched.
    pub prefix: Option<usize>,
    /// When the whole must be over.
    pub deadline: Option<Instant>,
    /// The attempts at an upstream.
    pub attempt: Attempts,
    /// Why the gateway answered in the upstream's stead, or the last failed attempt failed.
    pub cause: Option<Cause>,
    /// What its plugins have found out about its client.
    pub identity: Identity,
    _in_flight: InFlight,
}

/// What the client asked for.
#[derive(Debug, Default)]
pub struct Asked {
    /// Without the port, in lower case.
    pub host: String,
    /// Without the query.
    pub path: String,
}

/// The attempts of one request.
#[derive(Debug, Default)]
pub struct Attempts {
    /// How many there were, the present one included.
    pub number: u32,
    /// How far the present one is.
    pub progress: Progress,
    /// Where the present one goes.
    pub pick: Option<Pick>,
    /// How many bytes of the request's body the present one has been given.
    pub body: u64,
    /// Where earlier ones went.
    pub tried: Tried,
    /// The SNI of the present one, or the address verified in its stead.
    pub identity: String,
    /// When the present one began.
    pub started: Option<Instant>,
    /// When it must be over.
    pub deadline: Option<Instant>,
    /// How long to wait before the next one.
    pub backoff: Duration,
    /// Whether its connection came from the pool.
    pub reused: bool,
    /// What the upstream last answered.
    pub status: Option<u16>,
    /// How long it took to answer so.
    pub took: Option<Duration>,
    /// Whether it is a 400 of which no piece of the body has come yet.
    pub refusal: bool,
    /// TLS towards the upstream: its version, and whether the session was resumed.
    pub tls: Option<(&'static str, bool)>,
    /// Its connection, with the deadline that was set on it.
    pub lease: Option<Lease>,
    /// What has become of it, where the protocol was changed.
    pub tunnel: Option<Arc<Tunnel>>,
}

/// How far an attempt is, until what came of it has been counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// There is none, or it is counted.
    #[default]
    Counted,
    /// It is to get an endpoint.
    Begun,
    /// It has one.
    Placed,
    /// The head of an answer has come.
    Answered,
}

/// A connection from a client, as its listener accepted it.
#[derive(Debug)]
pub struct Client {
    /// Where it came in.
    pub listener: Arc<Listener>,
    /// From whom.
    pub ip: Option<IpAddr>,
    /// The same as a header value.
    pub ip_text: http::HeaderValue,
    /// The certificate that it showed, verified.
    pub certificate: Option<ClientCertificate>,
    /// On what terms it was accepted.
    pub terms: Arc<Terms>,
    /// Told when a request's head is there, and when the next one may come.
    pub heads: Arc<Heads>,
}

/// 128 random bits in lower-case hex.
#[derive(Clone, Copy, Debug)]
pub struct RequestId([u8; 32]);

impl RequestId {
    /// A new one.
    pub fn new() -> Self {
        let bits = fastrand::u128(..);
        let digit = |place: usize| b"0123456789abcdef"[(bits >> (4 * place)) as usize & 15];
        Self(std::array::from_fn(digit))
    }

    /// All zeros: for a request that is only explained, so that the same explanation comes each time.
    pub fn zeros() -> Self {
        Self([b'0'; 32])
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        // Hex digits are ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

impl Ctx {
    /// A request that has just been read. Of a stage it is on the side of what runs, until its client is known.
    pub fn new(in_force: &InForce, requests: &Arc<AtomicUsize>) -> Self {
        Self {
            snapshot: in_force.running.clone(),
            stage: in_force.stage.clone().map(|stage| (stage, Side::Running)),
            started: Instant::now(),
            time: Timestamp::now(),
            request_id: RequestId::new(),
            client: None,
            asked: Asked::default(),
            route: None,
            target: None,
            prefix: None,
            deadline: None,
            attempt: Attempts::default(),
            cause: None,
            identity: Identity::new(),
            _in_flight: InFlight::enter(requests),
        }
    }

    /// The route, once it is found.
    pub fn route(&self) -> Option<&Route> {
        self.snapshot.routes.get(self.route?)
    }

    /// The upstream as the route reaches it, once it is chosen.
    pub fn target(&self) -> Option<&Target> {
        match &self.route()?.action {
            Action::Forward { targets, .. } => targets.get(self.target?),
            _ => None,
        }
    }

    /// What plugins are told; the endpoint and the SNI from the first attempt on.
    pub fn info(&self) -> RequestInfo<'_> {
        let client = self.client.as_deref();
        RequestInfo {
            scheme: client.map_or("http", |client| client.listener.scheme()),
            client_ip: client.and_then(|client| client.ip),
            request_id: self.request_id.as_str(),
            listener: client.map_or("", |client| &client.listener.name),
            route: self.route().map_or("", |route| &route.name),
            upstream: self.target().map_or("", |target| &target.upstream.name),
            matched_prefix: self.prefix.and_then(|length| self.asked.path.get(..length)),
            endpoint: self.attempt.pick.as_ref().map(|pick| &*pick.address.text),
            sni: self.sni(),
            config: &self.snapshot.hash,
            identity: &self.identity,
            client_certificate: client.and_then(|client| client.certificate.as_ref()),
        }
    }

    /// The SNI of the present attempt, where one is sent.
    pub fn sni(&self) -> Option<&str> {
        let tls = self.target().is_some_and(|target| target.tls.is_some());
        let identity = self.attempt.identity.as_str();
        (tls && is_name(identity)).then_some(identity)
    }

    /// How long is left of `limit` and of both deadlines; an error once a deadline has passed.
    pub fn remaining(&self, limit: Option<Duration>) -> Result<Option<Duration>, Failure> {
        let mut left = limit;
        for (deadline, key) in [(self.deadline, "request"), (self.attempt.deadline, "attempt")] {
            let Some(deadline) = deadline else { continue };
            let until = deadline.saturating_duration_since(Instant::now());
            if until.is_zero() {
                return Err(Failure::new(Cause::UpstreamTimeout, format!("`timeouts: {{ {key} }}` is over")));
            }
            left = Some(left.map_or(until, |left| left.min(until)));
        }
        Ok(left)
    }
}

/// Counts this request among those that a stop waits for, for as long as it lives.
struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    fn enter(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
