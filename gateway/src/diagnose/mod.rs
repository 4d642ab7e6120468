//! One table: why an attempt failed, under which code it is logged, and what mends it.
//!
//! Read by the access log, the warning in the log and the error replies' status. Nothing here does I/O.

mod tls;

use std::fmt;

use pingora_core::{Error, ErrorType};

pub use tls::{HandshakeFacts, of_handshake, of_read};

/// Why an attempt at an upstream failed. The code is stable: it stands in access logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The endpoint's name has no address.
    DnsNotFound,
    /// Nobody listens at the address.
    ConnectRefused,
    /// The address did not answer in time.
    ConnectTimeout,
    /// The address could not be reached.
    ConnectFailed,
    /// The upstream ended the handshake and no SNI had been sent.
    TlsSniMissing,
    /// The upstream does not know the SNI (alert 112).
    TlsSniUnrecognized,
    /// The certificate is for other names.
    TlsNameMismatch,
    /// The chain does not lead to a trusted CA.
    TlsUnknownIssuer,
    /// The certificate is signed by itself.
    TlsSelfSigned,
    /// The certificate's time is over.
    TlsExpired,
    /// The certificate's time has not begun.
    TlsNotYetValid,
    /// The certificate cannot be accepted for another reason.
    TlsCertificateInvalid,
    /// The upstream wants a client certificate and none was shown.
    TlsClientCertificateRequired,
    /// The upstream does not accept the client certificate.
    TlsClientCertificateRejected,
    /// No TLS version in common.
    TlsProtocolVersion,
    /// The upstream does not speak TLS on this port.
    TlsPlaintextPeer,
    /// The handshake took too long.
    TlsHandshakeTimeout,
    /// The upstream closed the connection during the handshake.
    TlsPeerReset,
    /// The handshake failed in another way.
    TlsHandshakeFailed,
    /// A pooled connection had been closed by the upstream.
    UpstreamClosedIdle,
    /// The upstream closed the connection before it had answered.
    UpstreamReset,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// What came back was not a legal HTTP/1.1 response.
    UpstreamInvalidResponse,
    /// The upstream answered with a status that counts as a failure here.
    UpstreamStatus,
    /// The client went away first.
    ClientClosed,
    /// A request that is not legal HTTP.
    RequestInvalid,
    /// No route matched.
    NoRoute,
    /// The gateway itself failed.
    Internal,
}

impl Cause {
    /// The code under which it is logged.
    pub fn code(self) -> &'static str {
        self.row().0
    }

    /// What happened, in a few words.
    pub fn what(self) -> &'static str {
        self.row().1
    }

    /// Which key mends it; empty where no key can.
    pub fn remedy(self) -> &'static str {
        self.row().2
    }

    /// The status that the client gets, if nothing better came.
    pub fn status(self) -> u16 {
        match self {
            Cause::ConnectTimeout | Cause::TlsHandshakeTimeout | Cause::UpstreamTimeout => 504,
            Cause::RequestInvalid => 400,
            Cause::NoRoute => 404,
            Cause::Internal => 500,
            _ => 502,
        }
    }

    fn row(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Cause::DnsNotFound => (
                "dns_not_found",
                "the endpoint's name has no address",
                "correct the name under `endpoints`, or the resolver of this machine",
            ),
            Cause::ConnectRefused => (
                "connect_refused",
                "nobody listens at the address",
                "start the upstream, or correct the port under `endpoints`",
            ),
            Cause::ConnectTimeout => (
                "connect_timeout",
                "the address did not answer in time",
                "check the address under `endpoints` and the firewalls between, or raise `connect_timeout`",
            ),
            Cause::ConnectFailed => {
                ("connect_failed", "the address could not be reached", "check the address under `endpoints`")
            }
            Cause::TlsSniMissing => (
                "tls_sni_missing",
                "the upstream ended the handshake, and no SNI was sent",
                "drop `sni: none` from the `tls` block, or write the name that the upstream serves: `tls: { sni: NAME }`",
            ),
            Cause::TlsSniUnrecognized => (
                "tls_sni_unrecognized",
                "the upstream serves no such name as the SNI",
                "write the name that the upstream serves: `tls: { sni: NAME }`",
            ),
            Cause::TlsNameMismatch => (
                "tls_name_mismatch",
                "the certificate is for other names than the one verified",
                "write a name that the certificate has: `tls: { verify: { name: NAME } }`",
            ),
            Cause::TlsUnknownIssuer => (
                "tls_unknown_issuer",
                "the certificate chain does not lead to a trusted CA",
                "name the file of the CA that signed it: `tls: { verify: { ca: FILE } }`",
            ),
            Cause::TlsSelfSigned => (
                "tls_self_signed",
                "the certificate is signed by itself",
                "trust just this certificate: save it and write `tls: { verify: { ca: FILE } }`",
            ),
            Cause::TlsExpired => {
                ("tls_expired", "the upstream's certificate has expired", "renew the upstream's certificate")
            }
            Cause::TlsNotYetValid => (
                "tls_not_yet_valid",
                "the upstream's certificate is not valid yet",
                "check the clocks of both machines, or the upstream's certificate",
            ),
            Cause::TlsCertificateInvalid => (
                "tls_certificate_invalid",
                "the upstream's certificate cannot be accepted",
                "renew the upstream's certificate",
            ),
            Cause::TlsClientCertificateRequired => (
                "tls_client_certificate_required",
                "the upstream wants a client certificate, and none was shown",
                "show one: `tls: { client_certificate: { cert: FILE, key: FILE } }`",
            ),
            Cause::TlsClientCertificateRejected => (
                "tls_client_certificate_rejected",
                "the upstream does not accept the client certificate",
                "show one that a CA of the upstream's signed, with its chain: `tls: { client_certificate: … }`",
            ),
            Cause::TlsProtocolVersion => (
                "tls_protocol_version",
                "the upstream speaks none of the TLS versions offered",
                "enable TLS 1.2 or 1.3 at the upstream",
            ),
            Cause::TlsPlaintextPeer => (
                "tls_plaintext_peer",
                "the upstream does not speak TLS on this port",
                "correct the port under `endpoints`, or drop the upstream's `tls` block",
            ),
            Cause::TlsHandshakeTimeout => (
                "tls_handshake_timeout",
                "the TLS handshake took too long",
                "check the upstream, or raise `connect_timeout`",
            ),
            Cause::TlsPeerReset => (
                "tls_peer_reset",
                "the upstream closed the connection during the TLS handshake",
                "check that the upstream serves the SNI that was sent: `tls: { sni: NAME }`",
            ),
            Cause::TlsHandshakeFailed => {
                ("tls_handshake_failed", "the TLS handshake failed", "see the detail in this line")
            }
            Cause::UpstreamClosedIdle => (
                "upstream_closed_idle",
                "the upstream had closed the idle connection that was reused",
                "keep connections for less time than the upstream does: `keepalive: { idle_timeout: … }`",
            ),
            Cause::UpstreamReset => (
                "upstream_reset",
                "the upstream closed the connection before it had answered",
                "see the upstream's own log",
            ),
            Cause::UpstreamTimeout => (
                "upstream_timeout",
                "the upstream did not answer in time",
                "see the upstream's own log, or raise the route's `timeouts`",
            ),
            Cause::UpstreamInvalidResponse => (
                "upstream_invalid_response",
                "what came back is not an HTTP/1.1 response",
                "check the port under `endpoints`; a port that speaks TLS wants a `tls` block",
            ),
            Cause::UpstreamStatus => (
                "upstream_status",
                "the upstream answered with a status that `retry_on` names",
                "see the upstream's own log",
            ),
            Cause::ClientClosed => {
                ("client_closed", "the client went away before the answer was complete", "")
            }
            Cause::RequestInvalid => ("request_invalid", "the request is not legal HTTP", ""),
            Cause::NoRoute => {
                ("no_route", "no route matches the request", "add a route, or widen one's `match`")
            }
            Cause::Internal => ("internal", "the gateway failed", "report this line"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A cause, and the particulars of this one case: names, addresses, the library's own words. Never a secret.
#[derive(Debug)]
pub struct Failure {
    /// The row of the table.
    pub cause: Cause,
    /// What is particular to this case.
    pub detail: String,
}

impl Failure {
    /// A failure with its particulars.
    pub fn new(cause: Cause, detail: impl Into<String>) -> Self {
        Self { cause, detail: detail.into() }
    }

    /// As the engine carries it, from the upstream's side.
    pub fn into_error(self) -> Box<Error> {
        let mut error = Error::because(ErrorType::Custom(self.cause.code()), "", self);
        error.as_up();
        error
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() {
            f.write_str(self.cause.what())
        } else {
            write!(f, "{}: {}", self.cause.what(), self.detail)
        }
    }
}

impl std::error::Error for Failure {}

/// Reads the cause off an error of the engine. `reused` tells whether the connection came from the pool.
pub fn of_error(error: &Error, reused: bool) -> Failure {
    let cause = error.cause.as_deref();
    // Our own stream wraps a failure into an I/O error; our own connector hands it over bare.
    let within = |cause: &'_ (dyn std::error::Error + Send + Sync + 'static)| -> Option<Failure> {
        let io = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let failure = cause.downcast_ref::<Failure>().or_else(|| io?.downcast_ref::<Failure>())?;
        Some(Failure::new(failure.cause, failure.detail.clone()))
    };
    if let Some(failure) = cause.and_then(within) {
        return failure;
    }
    if let Some(Failure { cause, detail }) = error.cause.as_ref().and_then(|cause| of_read(cause.as_ref())) {
        return Failure::new(cause, detail);
    }
    let upstream = matches!(error.esource, pingora_core::ErrorSource::Upstream);
    let cause = match error.etype {
        ErrorType::ConnectRefused => Cause::ConnectRefused,
        ErrorType::ConnectTimedout => Cause::ConnectTimeout,
        ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::SocketError
        | ErrorType::BindError => Cause::ConnectFailed,
        ErrorType::HTTPStatus(_) if upstream => Cause::UpstreamStatus,
        _ if matches!(error.esource, pingora_core::ErrorSource::Downstream) => match error.etype {
            ErrorType::InvalidHTTPHeader => Cause::RequestInvalid,
            _ => Cause::ClientClosed,
        },
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Cause::UpstreamTimeout,
        ErrorType::InvalidHTTPHeader | ErrorType::H1Error if upstream => Cause::UpstreamInvalidResponse,
        ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed if upstream && reused => {
            Cause::UpstreamClosedIdle
        }
        _ if upstream => Cause::UpstreamReset,
        _ => Cause::Internal,
    };
    Failure::new(cause, detail_of(error))
}

/// The root of the chain, in the library's words; the cause's own words say the rest.
fn detail_of(error: &Error) -> String {
    match (&error.cause, &error.context) {
        (Some(cause), _) => cause.to_string(),
        (None, Some(context)) => context.to_string(),
        (None, None) => String::new(),
    }
}
