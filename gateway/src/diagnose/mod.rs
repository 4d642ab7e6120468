//! One table: why an attempt failed, under which code it is logged, and what mends it.
//!
//! Read by the access log, the warning in the log, metrics, the admin endpoint and the error replies' status. Nothing
//! here does I/O.

mod answer;
mod cause;
mod http1;
mod tls;

use std::fmt;

use pingora_core::{Error, ErrorType};

pub use answer::{HttpVersion, of_first_bytes, of_refusal, of_status};
pub use cause::Cause;
pub use http1::of_http1;
pub use tls::{HandshakeFacts, Refusal, name_text, names_of, of_handshake, of_read};

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
            ErrorType::ReadTimedout => Cause::ClientTooSlow,
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
