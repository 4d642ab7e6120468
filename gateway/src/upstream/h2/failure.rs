//! From what the HTTP/2 library says to an error of the engine with a cause in it.

use h2::Reason;
use pingora_core::{Error, ErrorType};

use crate::diagnose::{Cause, Failure};

/// Why an upstream has certainly done nothing of a request, which may hence be sent again whatever its method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unserved {
    /// The connection was about to close (RFC 9113 section 6.8): nothing that speaks against the endpoint.
    Closing,
    /// The upstream has refused this one stream (section 8.7).
    Refused,
    /// The upstream wants HTTP/1.1 for this request (section 7).
    WantsHttp1,
    /// Nothing was sent: the pool gave a connection that was made for something else.
    Misplaced,
}

impl Unserved {
    const ALL: [Self; 4] = [Self::Closing, Self::Refused, Self::WantsHttp1, Self::Misplaced];

    fn code(self) -> &'static str {
        match self {
            Self::Closing => "h2_closing",
            Self::Refused => "h2_refused",
            Self::WantsHttp1 => "h2_wants_http1",
            Self::Misplaced => "misplaced_connection",
        }
    }
}

/// Whether the upstream has certainly done nothing of the request that failed so, and why.
pub fn unserved(error: &Error) -> Option<Unserved> {
    let ErrorType::Custom(code) = error.etype else { return None };
    Unserved::ALL.into_iter().find(|unserved| unserved.code() == code)
}

/// The error of an attempt that got a connection which was made for something else.
pub fn misplaced() -> Box<Error> {
    let detail = "a kept connection has this one's key and another TLS policy, name or address; it is closed";
    unserved_error(Unserved::Misplaced, Cause::Internal, detail)
}

/// The error of one stream. `noted` is what the connection's own reads and writes failed with: the library keeps a
/// kind and a text of it.
pub fn of_stream(error: &h2::Error, noted: Option<&Failure>) -> Box<Error> {
    let remote = error.is_remote();
    match error.reason() {
        Some(Reason::REFUSED_STREAM) if error.is_reset() && remote => unserved_error(
            Unserved::Refused,
            Cause::UpstreamReset,
            "REFUSED_STREAM: the upstream takes no more requests",
        ),
        Some(Reason::HTTP_1_1_REQUIRED) if remote => unserved_error(
            Unserved::WantsHttp1,
            Cause::AlpnMismatch,
            "the upstream wants HTTP/1.1 for this request (HTTP_1_1_REQUIRED)",
        ),
        // Told to streams above the last one that the upstream took on, and to none else.
        Some(_) if error.is_go_away() && remote => {
            unserved_error(Unserved::Closing, Cause::UpstreamGoingAway, "GOAWAY before this request")
        }
        Some(reason) if remote => {
            Failure::new(Cause::UpstreamReset, format!("RST_STREAM {reason:?}: {}", reason.description()))
                .into_error()
        }
        Some(reason) => Failure::new(
            Cause::UpstreamInvalidResponse,
            format!("not legal HTTP/2: {reason:?}: {}", reason.description()),
        )
        .into_error(),
        None => of_connection(error, noted),
    }
}

/// The error of a connection that broke.
fn of_connection(error: &h2::Error, noted: Option<&Failure>) -> Box<Error> {
    if let Some(Failure { cause, detail }) = noted {
        return Failure::new(*cause, detail.clone()).into_error();
    }
    // Without a cause of its own: whether the connection was a kept one decides.
    let words = error
        .get_io()
        .map_or_else(|| error.to_string(), |io| io.get_ref().map_or(io.to_string(), ToString::to_string));
    let mut error = Error::because(ErrorType::ReadError, "", std::io::Error::other(words));
    error.as_up();
    error
}

/// The failure of a connection that ended before it could carry a request.
pub(super) fn of_preface(error: Option<&h2::Error>, noted: Option<&Failure>) -> Failure {
    if let Some(Failure { cause, detail }) = noted {
        return Failure::new(*cause, detail.clone());
    }
    let words = match error {
        None => "end of stream".to_owned(),
        Some(error) => error.to_string(),
    };
    Failure::new(Cause::UpstreamReset, format!("no HTTP/2 SETTINGS: {words}"))
}

fn unserved_error(unserved: Unserved, cause: Cause, detail: &str) -> Box<Error> {
    let mut error = Error::because(ErrorType::Custom(unserved.code()), "", Failure::new(cause, detail));
    error.as_up();
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose;

    #[test]
    fn a_failure_that_the_connection_noted_comes_before_the_librarys_words() {
        let noted = Failure::new(Cause::TlsClientCertificateRequired, "alert 116");
        let broken = h2::Error::from(Reason::PROTOCOL_ERROR);
        assert_eq!(cause(&of_stream(&broken, Some(&noted))), Cause::UpstreamInvalidResponse);
        assert_eq!(of_preface(None, Some(&noted)).cause, Cause::TlsClientCertificateRequired);
        assert_eq!(of_preface(None, None).cause, Cause::UpstreamReset);
    }

    #[test]
    fn only_what_certainly_reached_nobody_is_unserved() {
        for unserved_by in Unserved::ALL {
            let error = unserved_error(unserved_by, Cause::UpstreamReset, "");
            assert_eq!(unserved(&error), Some(unserved_by));
        }
        assert_eq!(unserved(&Failure::new(Cause::UpstreamReset, "").into_error()), None);
        assert_eq!(unserved(&Error::explain(ErrorType::ReadError, "")), None);
    }

    fn cause(error: &Error) -> Cause {
        diagnose::of_error(error, false).cause
    }
}
