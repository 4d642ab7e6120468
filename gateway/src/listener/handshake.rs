//! A client's TLS handshake, and in a word why it failed.

use std::time::Duration;

use openssl::ssl::{self, ErrorCode, SslAcceptor};
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::tls::SslStream;
use pingora_core::protocols::tls::server::prepare_tls_stream;
use tokio::time::timeout;

use crate::observe::HandshakeFailure;

/// How long a client may take for its side of it, and then for that of HTTP/2.
pub(super) const LONGEST: Duration = Duration::from_secs(10);

// By the names of OpenSSL's `sslerr.h`, without their `SSL_R_`.
const PEER_DID_NOT_RETURN_A_CERTIFICATE: i32 = 199;
const CERTIFICATE_VERIFY_FAILED: i32 = 134;
// UNSUPPORTED_PROTOCOL, VERSION_TOO_LOW, VERSION_TOO_HIGH, NO_PROTOCOLS_AVAILABLE
const NO_VERSION: [i32; 4] = [258, 396, 166, 191];
// NO_SHARED_CIPHER, NO_SHARED_GROUP, NO_SUITABLE_KEY_SHARE, NO_SUITABLE_SIGNATURE_ALGORITHM
const NO_CIPHER: [i32; 4] = [193, 410, 101, 118];
const UNEXPECTED_EOF_WHILE_READING: i32 = 294;
// A received alert is 1000 and its number (RFC 8446 section 6).
const ALERT: i32 = 1000;
const PROTOCOL_VERSION: i32 = ALERT + 70;

/// Shakes hands.
///
/// # Errors
/// The reason, for the metric, and words for the log.
pub(super) async fn accept(
    acceptor: &SslAcceptor,
    stream: Stream,
) -> Result<SslStream<Stream>, (HandshakeFailure, String)> {
    let mut stream =
        prepare_tls_stream(acceptor, stream).map_err(|error| (HandshakeFailure::Other, error.to_string()))?;
    match timeout(LONGEST, stream.accept()).await {
        Ok(Ok(())) => Ok(stream),
        Ok(Err(error)) => Err(match reason(&error) {
            HandshakeFailure::BadCertificate => {
                let words = format!("{error}: {}", stream.ssl().verify_result().error_string());
                (HandshakeFailure::BadCertificate, words)
            }
            reason => (reason, error.to_string()),
        }),
        Err(_) => Err((HandshakeFailure::Timeout, format!("no TLS handshake in {LONGEST:?}"))),
    }
}

fn reason(error: &ssl::Error) -> HandshakeFailure {
    if matches!(error.code(), ErrorCode::SYSCALL | ErrorCode::ZERO_RETURN) {
        return HandshakeFailure::Closed;
    }
    // What is found first is the cause, what stands behind it follows from it.
    let code = error.ssl_error().and_then(|stack| Some(stack.errors().first()?.reason_code()));
    match code {
        Some(PEER_DID_NOT_RETURN_A_CERTIFICATE) => HandshakeFailure::NoCertificate,
        Some(CERTIFICATE_VERIFY_FAILED) => HandshakeFailure::BadCertificate,
        Some(UNEXPECTED_EOF_WHILE_READING) => HandshakeFailure::Closed,
        Some(PROTOCOL_VERSION) => HandshakeFailure::ProtocolVersion,
        Some(code) if NO_VERSION.contains(&code) => HandshakeFailure::ProtocolVersion,
        Some(code) if NO_CIPHER.contains(&code) => HandshakeFailure::NoSharedCipher,
        Some(code) if code > ALERT => HandshakeFailure::ClientAlert,
        _ => HandshakeFailure::Other,
    }
}
