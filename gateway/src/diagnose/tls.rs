//! From what OpenSSL says to a cause: by reason codes, alert numbers and verify results, never by message texts.

use std::error::Error as StdError;

use openssl::error::ErrorStack;
use openssl::ssl;
use openssl::x509::{X509Ref, X509VerifyResult};

use super::{Cause, Failure};

/// What is known of a handshake that failed.
pub struct HandshakeFacts<'a> {
    /// The SNI that was sent.
    pub sni: Option<&'a str>,
    /// The names any of which would have satisfied; empty where nothing is verified.
    pub names: &'a [String],
    /// What verification said.
    pub verify_result: X509VerifyResult,
    /// The upstream's certificate, where it came so far.
    pub certificate: Option<&'a X509Ref>,
    /// Whether a client certificate was there to be shown.
    pub shows_certificate: bool,
}

// OpenSSL reports a received alert as reason 1000 + the alert's number (RFC 8446 section 6).
const ALERT: i32 = 1000;
const HANDSHAKE_FAILURE: i32 = ALERT + 40;
const BAD_CERTIFICATE: i32 = ALERT + 42;
const ACCESS_DENIED: i32 = ALERT + 49;
const PROTOCOL_VERSION: i32 = ALERT + 70;
const UNRECOGNIZED_NAME: i32 = ALERT + 112;
const CERTIFICATE_REQUIRED: i32 = ALERT + 116;
// SSL_R_WRONG_VERSION_NUMBER, SSL_R_PACKET_LENGTH_TOO_LONG, SSL_R_HTTP_REQUEST: the first bytes are no TLS record.
const NOT_TLS: [i32; 3] = [267, 198, 156];
// SSL_R_UNSUPPORTED_PROTOCOL, SSL_R_NO_PROTOCOLS_AVAILABLE
const NO_VERSION: [i32; 2] = [258, 191];

/// The cause of a failed handshake.
pub fn of_handshake(error: &ssl::Error, facts: &HandshakeFacts<'_>) -> Failure {
    if facts.verify_result != X509VerifyResult::OK && facts.certificate.is_some() {
        return of_verification(facts);
    }
    let Some(reason) = error.ssl_error().and_then(reason) else {
        let words = error.io_error().map_or_else(|| "end of stream".to_owned(), ToString::to_string);
        return Failure::new(closed_by_peer(facts), with_sni(facts, words));
    };
    // The certificate is sent only after the SNI was accepted, so an alert that follows it is about ours.
    let named = facts.certificate.is_some();
    let cause = match reason {
        CERTIFICATE_REQUIRED => Cause::TlsClientCertificateRequired,
        HANDSHAKE_FAILURE..=ACCESS_DENIED if named && facts.shows_certificate => {
            Cause::TlsClientCertificateRejected
        }
        HANDSHAKE_FAILURE | BAD_CERTIFICATE if named => Cause::TlsClientCertificateRequired,
        PROTOCOL_VERSION => Cause::TlsProtocolVersion,
        UNRECOGNIZED_NAME if facts.sni.is_some() => Cause::TlsSniUnrecognized,
        UNRECOGNIZED_NAME | HANDSHAKE_FAILURE if facts.sni.is_none() => Cause::TlsSniMissing,
        _ if NOT_TLS.contains(&reason) => Cause::TlsPlaintextPeer,
        _ if NO_VERSION.contains(&reason) => Cause::TlsProtocolVersion,
        // SSL_R_UNEXPECTED_EOF_WHILE_READING
        294 => closed_by_peer(facts),
        _ => Cause::TlsHandshakeFailed,
    };
    Failure::new(cause, with_sni(facts, words(error)))
}

/// The cause of a failed read or write on an established connection, where TLS knows it: with TLS 1.3 an upstream
/// refuses a client certificate only after the handshake (RFC 8446 section 4.4.2.4), so it shows at the first read.
pub fn of_read(error: &(dyn StdError + 'static)) -> Option<Failure> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        let inner = inner.map(|inner| inner as &(dyn StdError + 'static)).unwrap_or(error);
        if let Some(tls) = inner.downcast_ref::<ssl::Error>() {
            return match tls.ssl_error().and_then(reason)? {
                CERTIFICATE_REQUIRED => Some(Failure::new(Cause::TlsClientCertificateRequired, words(tls))),
                HANDSHAKE_FAILURE..=ACCESS_DENIED => {
                    Some(Failure::new(Cause::TlsClientCertificateRejected, words(tls)))
                }
                _ => None,
            };
        }
        next = error.source();
    }
    None
}

fn of_verification(facts: &HandshakeFacts<'_>) -> Failure {
    let subject = |certificate: &X509Ref| name_text(certificate.subject_name());
    let issuer = |certificate: &X509Ref| name_text(certificate.issuer_name());
    let Some(certificate) = facts.certificate else {
        return Failure::new(Cause::TlsCertificateInvalid, facts.verify_result.error_string());
    };
    match facts.verify_result.as_raw() {
        // X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
        62 | 64 => Failure::new(
            Cause::TlsNameMismatch,
            format!(
                "verified `{}`, the certificate has {}",
                facts.names.join("` or `"),
                names_of(certificate)
            ),
        ),
        // X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
        18 => Failure::new(Cause::TlsSelfSigned, format!("subject `{}`", subject(certificate))),
        // X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, …_SELF_SIGNED_CERT_IN_CHAIN, …_GET_ISSUER_CERT_LOCALLY, …_VERIFY_LEAF_SIGNATURE
        2 | 19 | 20 | 21 => Failure::new(
            Cause::TlsUnknownIssuer,
            format!("issuer `{}` ({})", issuer(certificate), facts.verify_result.error_string()),
        ),
        10 => Failure::new(Cause::TlsExpired, format!("since {}", certificate.not_after())),
        9 => Failure::new(Cause::TlsNotYetValid, format!("before {}", certificate.not_before())),
        _ => Failure::new(Cause::TlsCertificateInvalid, facts.verify_result.error_string()),
    }
}

fn closed_by_peer(facts: &HandshakeFacts<'_>) -> Cause {
    match (facts.sni, facts.certificate) {
        (None, None) => Cause::TlsSniMissing,
        _ => Cause::TlsPeerReset,
    }
}

fn with_sni(facts: &HandshakeFacts<'_>, words: String) -> String {
    match facts.sni {
        Some(sni) => format!("SNI `{sni}`, {words}"),
        None => format!("no SNI, {words}"),
    }
}

fn reason(stack: &ErrorStack) -> Option<i32> {
    stack.errors().first().map(openssl::error::Error::reason_code)
}

fn words(error: &ssl::Error) -> String {
    let stack = error.ssl_error().map(ErrorStack::errors).unwrap_or_default();
    stack.first().and_then(openssl::error::Error::reason).unwrap_or("unknown TLS error").to_owned()
}

/// The alternative names of a certificate, for people; its common name where it has none.
fn names_of(certificate: &X509Ref) -> String {
    let names: Vec<String> = certificate
        .subject_alt_names()
        .iter()
        .flatten()
        .filter_map(|name| {
            let ip = name.ipaddress().and_then(|bytes| match bytes.len() {
                4 => <[u8; 4]>::try_from(bytes).ok().map(|ip| std::net::IpAddr::from(ip).to_string()),
                _ => <[u8; 16]>::try_from(bytes).ok().map(|ip| std::net::IpAddr::from(ip).to_string()),
            });
            name.dnsname().map(str::to_owned).or(ip)
        })
        .map(|name| format!("`{name}`"))
        .collect();
    match names.is_empty() {
        true => format!("no alternative names (subject `{}`)", name_text(certificate.subject_name())),
        false => names.join(", "),
    }
}

fn name_text(name: &openssl::x509::X509NameRef) -> String {
    let parts = name.entries().map(|entry| {
        let key = entry.object().nid().short_name().unwrap_or("?").to_owned();
        let value = entry.data().to_string().unwrap_or_default();
        format!("{key}={value}")
    });
    parts.collect::<Vec<_>>().join(", ")
}
