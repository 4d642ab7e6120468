//! From what OpenSSL says to a cause: by reason codes, alert numbers and verify results, never by message texts.

use std::error::Error as StdError;

use openssl::error::ErrorStack;
use openssl::ssl;
use openssl::x509::{X509, X509NameRef, X509Ref, X509VerifyResult};

use super::{Cause, Failure};

/// What is known of a handshake that failed.
pub struct HandshakeFacts<'a> {
    /// The SNI that was sent.
    pub sni: Option<&'a str>,
    /// The names any of which would have satisfied; empty where nothing is verified.
    pub names: Vec<String>,
    /// What verification said, where it refused.
    pub refusal: Option<Refusal<'a>>,
    /// The certificates that came, the upstream's own first; empty where it came to none.
    pub presented: &'a [X509],
    /// Whether the upstream asked for a client certificate.
    pub asked: bool,
    /// Whether one was there to be shown.
    pub shows_certificate: bool,
    /// Whether the file narrows the ciphers or curves that are offered.
    pub narrows_ciphers: bool,
}

/// Why a certificate was refused.
pub struct Refusal<'a> {
    /// OpenSSL's rule; 50, which is the application's own, stands for a pin.
    pub result: X509VerifyResult,
    /// The certificate that is at fault.
    pub certificate: &'a X509Ref,
    /// How far up the chain it stands; 0 is the upstream's own.
    pub depth: u32,
}

// OpenSSL reports a received alert as reason 1000 + the alert's number (RFC 8446 section 6).
const ALERT: i32 = 1000;
const HANDSHAKE_FAILURE: i32 = ALERT + 40;
const ACCESS_DENIED: i32 = ALERT + 49;
const DECRYPT_ERROR: i32 = ALERT + 51;
const PROTOCOL_VERSION: i32 = ALERT + 70;
const INSUFFICIENT_SECURITY: i32 = ALERT + 71;
const UNRECOGNIZED_NAME: i32 = ALERT + 112;
const CERTIFICATE_REQUIRED: i32 = ALERT + 116;
const NO_APPLICATION_PROTOCOL: i32 = ALERT + 120;
// SSL_R_WRONG_VERSION_NUMBER, SSL_R_PACKET_LENGTH_TOO_LONG, SSL_R_HTTP_REQUEST, SSL_R_RECORD_LAYER_FAILURE: the first
// bytes are no TLS record.
const NOT_TLS: [i32; 4] = [267, 198, 156, 313];
// SSL_R_UNSUPPORTED_PROTOCOL, SSL_R_NO_PROTOCOLS_AVAILABLE, SSL_R_UNKNOWN_SSL_VERSION
const NO_VERSION: [i32; 3] = [258, 191, 254];
// SSL_R_NO_CIPHERS_AVAILABLE, SSL_R_NO_SHARED_CIPHER, SSL_R_WRONG_CIPHER_RETURNED, SSL_R_UNKNOWN_CIPHER_RETURNED,
// SSL_R_DH_KEY_TOO_SMALL, SSL_R_NO_SUITABLE_KEY_SHARE, SSL_R_NO_SUITABLE_GROUPS, SSL_R_WRONG_CURVE
const NO_CIPHER: [i32; 8] = [181, 193, 261, 248, 394, 101, 295, 378];
// SSL_R_UNEXPECTED_EOF_WHILE_READING
const END_OF_STREAM: i32 = 294;

/// The cause of a failed handshake.
pub fn of_handshake(error: &ssl::Error, facts: &HandshakeFacts<'_>) -> Failure {
    if let Some(refusal) = &facts.refusal {
        return of_verification(refusal, facts);
    }
    let Some(reason) = error.ssl_error().and_then(reason) else {
        let words = error.io_error().map_or_else(|| "end of stream".to_owned(), ToString::to_string);
        return Failure::new(closed_by_peer(facts), with_sni(facts, words));
    };
    let cause = match reason {
        CERTIFICATE_REQUIRED => Cause::TlsClientCertificateRequired,
        // An upstream that asked for a certificate and has shown its own has accepted all that was said before.
        HANDSHAKE_FAILURE..=ACCESS_DENIED | DECRYPT_ERROR if facts.asked => about_our_certificate(facts),
        PROTOCOL_VERSION => Cause::TlsProtocolVersion,
        INSUFFICIENT_SECURITY => Cause::TlsNoSharedCipher,
        NO_APPLICATION_PROTOCOL => Cause::AlpnMismatch,
        UNRECOGNIZED_NAME if facts.sni.is_some() => Cause::TlsSniUnrecognized,
        UNRECOGNIZED_NAME => Cause::TlsSniMissing,
        // RFC 8446 section 6.2: no acceptable set of parameters. Servers that insist on SNI say it too.
        HANDSHAKE_FAILURE if facts.sni.is_none() && !facts.narrows_ciphers => Cause::TlsSniMissing,
        HANDSHAKE_FAILURE => Cause::TlsNoSharedCipher,
        END_OF_STREAM => closed_by_peer(facts),
        _ if NOT_TLS.contains(&reason) => Cause::TlsPlaintextPeer,
        _ if NO_VERSION.contains(&reason) => Cause::TlsProtocolVersion,
        _ if NO_CIPHER.contains(&reason) => Cause::TlsNoSharedCipher,
        _ => Cause::TlsHandshakeFailed,
    };
    Failure::new(cause, with_sni(facts, words(error)))
}

/// The cause of a failed read or write on an established connection, where TLS knows it: with TLS 1.3 an upstream
/// refuses a client certificate only after the handshake (RFC 8446 section 4.4.2.4), so it shows at the first read.
/// `shows_certificate` tells whether there was one to refuse.
pub fn of_read(error: &(dyn StdError + 'static), shows_certificate: bool) -> Option<Failure> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        let inner = inner.map(|inner| inner as &(dyn StdError + 'static)).unwrap_or(error);
        if let Some(tls) = inner.downcast_ref::<ssl::Error>() {
            let cause = match tls.ssl_error().and_then(reason)? {
                CERTIFICATE_REQUIRED => Cause::TlsClientCertificateRequired,
                HANDSHAKE_FAILURE..=ACCESS_DENIED | DECRYPT_ERROR if shows_certificate => {
                    Cause::TlsClientCertificateRejected
                }
                HANDSHAKE_FAILURE..=ACCESS_DENIED => Cause::TlsClientCertificateRequired,
                _ => return None,
            };
            return Some(Failure::new(cause, words(tls)));
        }
        next = error.source();
    }
    None
}

fn about_our_certificate(facts: &HandshakeFacts<'_>) -> Cause {
    match facts.shows_certificate {
        true => Cause::TlsClientCertificateRejected,
        false => Cause::TlsClientCertificateRequired,
    }
}

fn closed_by_peer(facts: &HandshakeFacts<'_>) -> Cause {
    match (facts.sni, facts.presented) {
        _ if facts.asked => about_our_certificate(facts),
        (None, []) => Cause::TlsSniMissing,
        _ => Cause::TlsPeerReset,
    }
}

fn of_verification(refusal: &Refusal<'_>, facts: &HandshakeFacts<'_>) -> Failure {
    let Refusal { result, certificate, depth } = refusal;
    let subject = name_text(certificate.subject_name());
    let issuer = name_text(certificate.issuer_name());
    let words = result.error_string();
    match result.as_raw() {
        // X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
        62 | 64 => Failure::new(
            Cause::TlsNameMismatch,
            match facts.names.is_empty() {
                true => format!("there is no name to verify, the certificate has {}", listed(certificate)),
                false => format!(
                    "verified `{}`, the certificate has {}",
                    facts.names.join("` or `"),
                    listed(certificate)
                ),
            },
        ),
        // X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
        18 => Failure::new(Cause::TlsSelfSigned, format!("subject `{subject}`")),
        // X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN
        19 => Failure::new(
            Cause::TlsUnknownIssuer,
            format!("the upstream's chain ends at `{subject}`, which is not among the trusted CAs"),
        ),
        // X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, …_GET_ISSUER_CERT_LOCALLY, …_VERIFY_LEAF_SIGNATURE
        2 | 20 | 21 => Failure::new(Cause::TlsUnknownIssuer, missing(*depth, &subject, &issuer)),
        // X509_V_ERR_CERT_CHAIN_TOO_LONG
        22 => Failure::new(
            Cause::TlsChainTooLong,
            format!("`{subject}` is CA number {depth}, of {} that were sent", facts.presented.len()),
        ),
        // X509_V_ERR_CERT_REVOKED
        23 => Failure::new(
            Cause::TlsRevoked,
            format!("`{subject}`, serial {}, by `{issuer}`", serial(certificate)),
        ),
        // X509_V_ERR_UNABLE_TO_GET_CRL, …_CRL_SIGNATURE_FAILURE, …_CRL_NOT_YET_VALID, …_CRL_HAS_EXPIRED,
        // …_UNABLE_TO_GET_CRL_ISSUER
        3 | 8 | 11 | 12 | 33 => {
            Failure::new(Cause::TlsCrlUnusable, format!("the list of `{issuer}`: {words}"))
        }
        10 => Failure::new(
            Cause::TlsExpired,
            format!("`{subject}` has been out of date since {}", certificate.not_after()),
        ),
        9 => Failure::new(
            Cause::TlsNotYetValid,
            format!("`{subject}` is not valid before {}", certificate.not_before()),
        ),
        // X509_V_ERR_APPLICATION_VERIFICATION
        50 => Failure::new(Cause::TlsPinMismatch, format!("the key of `{subject}` is another one")),
        _ => Failure::new(Cause::TlsCertificateInvalid, format!("`{subject}`: {words}")),
    }
}

/// Whose certificate is missing, and who lacks it.
fn missing(depth: u32, subject: &str, issuer: &str) -> String {
    match depth {
        0 => {
            format!("`{issuer}`, which signed it, is neither sent by the upstream nor among the trusted CAs")
        }
        _ => format!(
            "the upstream's chain ends at `{subject}`; `{issuer}`, which signed that, is not among the trusted CAs"
        ),
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

fn listed(certificate: &X509Ref) -> String {
    let names: Vec<String> = names_of(certificate).iter().map(|name| format!("`{name}`")).collect();
    match names.is_empty() {
        true => format!("no alternative names (subject `{}`)", name_text(certificate.subject_name())),
        false => names.join(", "),
    }
}

/// The alternative names of a certificate that can be verified: DNS names, IP addresses and URIs, in its order.
pub fn names_of(certificate: &X509Ref) -> Vec<String> {
    let ip = |bytes: &[u8]| match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|ip| std::net::IpAddr::from(ip).to_string()),
        _ => <[u8; 16]>::try_from(bytes).ok().map(|ip| std::net::IpAddr::from(ip).to_string()),
    };
    let names = certificate.subject_alt_names();
    let text = |name: &openssl::x509::GeneralNameRef| {
        let dns = name.dnsname().or_else(|| name.uri()).map(str::to_owned);
        dns.or_else(|| name.ipaddress().and_then(ip))
    };
    names.iter().flatten().filter_map(text).collect()
}

/// A subject or an issuer as `CN=a, O=b`, in its own order.
pub fn name_text(name: &X509NameRef) -> String {
    let parts = name.entries().map(|entry| {
        let key = entry.object().nid().short_name().unwrap_or("?").to_owned();
        let value = entry.data().to_string().unwrap_or_default();
        format!("{key}={value}")
    });
    parts.collect::<Vec<_>>().join(", ")
}

fn serial(certificate: &X509Ref) -> String {
    let hex = certificate
        .serial_number()
        .to_bn()
        .and_then(|number| number.to_hex_str().map(|hex| hex.to_lowercase()));
    hex.unwrap_or_default()
}
