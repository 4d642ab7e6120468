//! Counts the connections of one listener and their TLS handshakes.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::metrics::{counters, gauges};
use super::{due, names};
use crate::diagnose::Cause;

/// The families that tell of listeners.
pub(super) struct ListenerMetrics {
    open: IntGaugeVec,
    accepted: IntCounterVec,
    refused: IntCounterVec,
    received: IntCounterVec,
    sent: IntCounterVec,
    handshakes: IntCounterVec,
    failures: IntCounterVec,
    over_limit: IntCounterVec,
}

impl ListenerMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            open: gauges(registry, names::OPEN_CONNECTIONS, &["listener"]),
            accepted: counters(registry, names::CONNECTIONS, &["listener"]),
            refused: counters(registry, names::REFUSED_CONNECTIONS, &["listener", "cause"]),
            received: counters(registry, names::TCP_RECEIVED, &["listener"]),
            sent: counters(registry, names::TCP_SENT, &["listener"]),
            handshakes: counters(registry, names::LISTENER_HANDSHAKES, &["listener", "resumed"]),
            failures: counters(registry, names::LISTENER_HANDSHAKE_FAILURES, &["listener", "reason"]),
            over_limit: counters(registry, names::LISTENER_OVER_LIMIT, &["listener", "reason"]),
        }
    }

    pub(super) fn meter(&self, name: &str) -> ListenerMeter {
        ListenerMeter {
            name: name.to_owned(),
            open: self.open.with_label_values(&[name]),
            accepted: self.accepted.with_label_values(&[name]),
            refused: self.refused.clone(),
            refused_by: [const { OnceLock::new() }; Cause::COUNT],
            bytes: [self.received.clone(), self.sent.clone()],
            passed: [const { OnceLock::new() }; 2],
            handshakes: self.handshakes.clone(),
            resumed: [const { OnceLock::new() }; 2],
            failures: self.failures.clone(),
            failed: [const { OnceLock::new() }; HandshakeFailure::ALL.len()],
            over_limit: OverLimit::ALL.map(|it| self.over_limit.with_label_values(&[name, it.code()])),
            warned: AtomicU64::new(0),
        }
    }
}

/// Counts for one listener.
pub struct ListenerMeter {
    name: String,
    open: IntGauge,
    accepted: IntCounter,
    refused: IntCounterVec,
    refused_by: [OnceLock<IntCounter>; Cause::COUNT],
    /// What was received, and what was sent.
    bytes: [IntCounterVec; 2],
    passed: [OnceLock<IntCounter>; 2],
    handshakes: IntCounterVec,
    resumed: [OnceLock<IntCounter>; 2],
    failures: IntCounterVec,
    failed: [OnceLock<IntCounter>; HandshakeFailure::ALL.len()],
    over_limit: [IntCounter; OverLimit::ALL.len()],
    /// When a client over a limit was last told of in the log.
    warned: AtomicU64,
}

impl ListenerMeter {
    /// Counts a connection as accepted, and as open for as long as what is returned lives.
    pub fn enter(&self) -> OpenConnection {
        self.accepted.inc();
        self.open.inc();
        OpenConnection(self.open.clone())
    }

    /// A connection was closed before anybody had served it.
    pub fn refused(&self, cause: Cause) {
        let make = || self.refused.with_label_values(&[self.name.as_str(), cause.code()]);
        self.refused_by[cause as usize].get_or_init(make).inc();
    }

    /// So many bytes of a client, and of an upstream, have been read to be passed through.
    pub fn passed(&self, received: u64, sent: u64) {
        for ((counter, family), count) in self.passed.iter().zip(&self.bytes).zip([received, sent]) {
            let counter = counter.get_or_init(|| family.with_label_values(&[self.name.as_str()]));
            if count > 0 {
                counter.inc_by(count);
            }
        }
    }

    /// A TLS handshake succeeded.
    pub fn shook_hands(&self, resumed: bool) {
        let label = if resumed { "true" } else { "false" };
        let make = || self.handshakes.with_label_values(&[self.name.as_str(), label]);
        self.resumed[usize::from(resumed)].get_or_init(make).inc();
    }

    /// A TLS handshake failed.
    pub fn handshake_failed(&self, reason: HandshakeFailure) {
        let make = || self.failures.with_label_values(&[self.name.as_str(), reason.code()]);
        self.failed[reason as usize].get_or_init(make).inc();
    }

    /// Whether something of its clients or their upstream may be told in the log: once a second at most.
    pub fn may_warn(&self) -> bool {
        due(&self.warned)
    }

    /// A client went over a limit and was refused or cut: counted, and told in the log once a second at most.
    pub fn over_limit(&self, limit: OverLimit, client: IpAddr) {
        self.over_limit[limit as usize].inc();
        if self.may_warn() {
            log::warn!("listener `{}`, {client}: {}: {}", self.name, limit.code(), limit.words());
        }
    }
}

/// Which limit a client went over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverLimit {
    /// `max_connections_per_client`.
    ConnectionsPerClient,
    /// `limits.http2.resets`.
    Http2Resets,
    /// `limits.http2.control_frames`.
    Http2ControlFrames,
    /// Requests that are not legal HTTP/2.
    Http2Malformed,
    /// What the `h2` crate bounds by itself.
    Http2Excess,
    /// `udp.max_sessions`.
    UdpSessions,
}

impl OverLimit {
    /// Each of them.
    pub const ALL: [Self; 6] = [
        Self::ConnectionsPerClient,
        Self::Http2Resets,
        Self::Http2ControlFrames,
        Self::Http2Malformed,
        Self::Http2Excess,
        Self::UdpSessions,
    ];

    /// As it stands in the metric.
    pub fn code(self) -> &'static str {
        match self {
            Self::ConnectionsPerClient => "connections_per_client",
            Self::Http2Resets => "http2_resets",
            Self::Http2ControlFrames => "http2_control_frames",
            Self::Http2Malformed => "http2_malformed",
            Self::Http2Excess => "http2_excess",
            Self::UdpSessions => "udp_sessions",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::ConnectionsPerClient => {
                "a connection more than `max_connections_per_client` allows is closed"
            }
            Self::Http2Resets => {
                "more streams reset in a second than `limits: { http2: { resets } }` allows: the connection is closed"
            }
            Self::Http2ControlFrames => {
                "more frames that ask for nothing in a second than `limits: { http2: { control_frames } }` allows: \
                 the connection is closed"
            }
            Self::UdpSessions => "a client more than `udp: { max_sessions }` allows is not served",
            Self::Http2Malformed => "too many requests that are not legal: the connection is closed",
            Self::Http2Excess => {
                "header blocks without an end, streams reset before they are served, or DATA in tiny pieces: the \
                 connection is closed"
            }
        }
    }
}

/// A connection that is counted as open.
pub struct OpenConnection(IntGauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Why a client's TLS handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// It took too long.
    Timeout,
    /// The client has to show a certificate and has shown none.
    NoCertificate,
    /// The certificate that it has shown is not accepted.
    BadCertificate,
    /// The client said no: it does not trust the listener's certificate, say.
    ClientAlert,
    /// No version that both speak.
    ProtocolVersion,
    /// No cipher or group that both have.
    NoSharedCipher,
    /// The client closed the connection.
    Closed,
    /// Anything else: plain HTTP, say.
    Other,
}

impl HandshakeFailure {
    /// Each of them.
    pub const ALL: [Self; 8] = [
        Self::Timeout,
        Self::NoCertificate,
        Self::BadCertificate,
        Self::ClientAlert,
        Self::ProtocolVersion,
        Self::NoSharedCipher,
        Self::Closed,
        Self::Other,
    ];

    /// As it stands in the metric.
    pub fn code(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::NoCertificate => "no_certificate",
            Self::BadCertificate => "bad_certificate",
            Self::ClientAlert => "client_alert",
            Self::ProtocolVersion => "protocol_version",
            Self::NoSharedCipher => "no_shared_cipher",
            Self::Closed => "closed",
            Self::Other => "other",
        }
    }
}
