//! From what an upstream answered to a cause, where the answer itself tells of a mistake in the file: by its first
//! bytes, its status, or the words that a server puts into a 400. Pure; a failure to answer is not looked at here.

use super::{Cause, Failure};

/// What an upstream is to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1, and 1.0.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What is said of the first bytes that came on a connection.
pub fn of_first_bytes(bytes: &[u8], expected: HttpVersion, is_tls: bool) -> Option<Failure> {
    let (cause, told) = match (bytes, expected) {
        // RFC 8446 section 5.1: a record's type, alert or handshake, then a version that begins with 3.
        ([0x15 | 0x16, 0x03, ..], _) if !is_tls => (Cause::PlainToTlsPort, "it answers with a TLS record"),
        // RFC 9113 section 4.1: a length, a type, flags, a stream. A server begins with SETTINGS, or with GOAWAY, on
        // stream 0.
        ([0, _, _, 4 | 7, _, 0, 0, 0, 0, ..], HttpVersion::Http1) => {
            (Cause::AlpnMismatch, "it answers HTTP/1.1 in HTTP/2 frames")
        }
        (bytes, HttpVersion::Http2) if bytes.starts_with(b"HTTP/1.") => {
            (Cause::AlpnMismatch, "it answers HTTP/2 in HTTP/1.1")
        }
        _ => return None,
    };
    Some(Failure::new(cause, told))
}

/// What is said of a final status by itself. `host` is the one that was sent, as an SNI is written;
/// `identity` is the SNI, or the address verified in its stead, and nothing where there was no TLS.
pub fn of_status(status: u16, host: &str, identity: Option<&str>) -> Option<Failure> {
    match (status, identity) {
        (426, _) => Some(Failure::new(Cause::Upstream426, "")),
        (421, Some(identity)) if identity != host => {
            let sni = if identity.is_empty() { "no SNI".to_owned() } else { format!("SNI `{identity}`") };
            Some(Failure::new(Cause::HostSniMismatch, format!("Host `{host}`, {sni}")))
        }
        (421, _) => Some(Failure::new(Cause::Upstream421, format!("Host `{host}`"))),
        _ => None,
    }
}

/// How the answer to a plain request at a TLS port reads: nginx, Go, Apache httpd, Tomcat.
const WANTS_TLS: [&str; 4] = [
    "The plain HTTP request was sent to HTTPS port",
    "Client sent an HTTP request to an HTTPS server",
    "speaking plain HTTP to an SSL-enabled server port",
    "This combination of host and port requires TLS",
];
/// nginx lets a handshake without a good client certificate succeed, and answers 400 inside it.
const WANTS_CERTIFICATE: &str = "No required SSL certificate was sent";
const REFUSES_CERTIFICATE: &str = "The SSL certificate error";

/// What is said of a 400 by the first piece of its body. No status, header or alert tells these: the words do.
pub fn of_refusal(body: &[u8], is_tls: bool) -> Option<Failure> {
    // These pages are a few hundred bytes; what an application writes further down is its own affair.
    let text = String::from_utf8_lossy(body.get(..1024).unwrap_or(body));
    let says = |words: &&str| text.contains(*words);
    let (cause, words) = match is_tls {
        false => (Cause::PlainToTlsPort, *WANTS_TLS.iter().find(|words| says(words))?),
        true if says(&WANTS_CERTIFICATE) => (Cause::TlsClientCertificateRequired, WANTS_CERTIFICATE),
        true if says(&REFUSES_CERTIFICATE) => (Cause::TlsClientCertificateRejected, REFUSES_CERTIFICATE),
        true => return None,
    };
    Some(Failure::new(cause, format!("it answered 400, {words}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(failure: Option<Failure>) -> Option<Cause> {
        failure.map(|failure| failure.cause)
    }

    #[test]
    fn the_first_bytes_tell_tls_and_http_2_from_http_1() {
        let alert = [0x15, 3, 1, 0, 2, 2, 70];
        let settings = [0, 0, 18, 4, 0, 0, 0, 0, 0, 0, 3];
        use HttpVersion::{Http1, Http2};
        for (bytes, version, is_tls, expected) in [
            (&alert[..], Http1, false, Some(Cause::PlainToTlsPort)),
            (&alert, Http2, false, Some(Cause::PlainToTlsPort)),
            (&alert, Http1, true, None),
            (&settings, Http1, false, Some(Cause::AlpnMismatch)),
            (&settings, Http1, true, Some(Cause::AlpnMismatch)),
            (&settings, Http2, true, None),
            (&settings[..3], Http1, false, None),
            (b"HTTP/1.1 200 OK\r\n", Http1, false, None),
            (b"HTTP/1.1 400 Bad Request\r\n", Http2, false, Some(Cause::AlpnMismatch)),
            (b"\x15", Http1, false, None),
            (b"", Http1, false, None),
        ] {
            assert_eq!(cause(of_first_bytes(bytes, version, is_tls)), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_421_is_about_the_sni_only_where_that_is_not_the_host() {
        for (status, host, identity, expected) in [
            (421, "a.test", None, Some(Cause::Upstream421)),
            (421, "a.test", Some("a.test"), Some(Cause::Upstream421)),
            (421, "a.test", Some("b.test"), Some(Cause::HostSniMismatch)),
            (421, "a.test", Some(""), Some(Cause::HostSniMismatch)),
            (426, "a.test", Some("b.test"), Some(Cause::Upstream426)),
            (404, "a.test", Some("b.test"), None),
        ] {
            assert_eq!(cause(of_status(status, host, identity)), expected, "{status} {host} {identity:?}");
        }
    }

    #[test]
    fn a_servers_words_count_only_on_the_kind_of_connection_that_they_are_about() {
        for words in WANTS_TLS {
            assert_eq!(cause(of_refusal(words.as_bytes(), false)), Some(Cause::PlainToTlsPort));
            assert_eq!(cause(of_refusal(words.as_bytes(), true)), None);
        }
        let page = format!("<html><head><title>400 {WANTS_CERTIFICATE}</title></head>");
        assert_eq!(cause(of_refusal(page.as_bytes(), true)), Some(Cause::TlsClientCertificateRequired));
        assert_eq!(cause(of_refusal(page.as_bytes(), false)), None);
        let far = format!("{}{REFUSES_CERTIFICATE}", " ".repeat(1024));
        assert_eq!(
            cause(of_refusal(REFUSES_CERTIFICATE.as_bytes(), true)),
            Some(Cause::TlsClientCertificateRejected)
        );
        assert_eq!(cause(of_refusal(far.as_bytes(), true)), None);
    }
}
