//! The TLS policy of a route towards an upstream, told by what it was made of.

use jiff::Timestamp;
use openssl::asn1::{Asn1Time, Asn1TimeRef};
use serde::Serialize;

use crate::listener::rfc4514;
use crate::upstream::{Roots, Settings, Trust, Verification};

/// The TLS policy of a route towards an upstream.
#[derive(Debug, Serialize)]
pub struct Tls {
    /// How the upstream's certificate is verified; absent where it is not.
    pub verify: Option<Verify>,
    /// What is shown to the upstream.
    pub client_certificate: Option<Certificate>,
    /// The lowest and the highest version offered.
    pub versions: (&'static str, &'static str),
    /// The ciphers offered, where the file names them: OpenSSL's lists, that of TLS 1.3 last.
    pub ciphers: Vec<String>,
    /// The key exchange groups, where the file names them.
    pub curves: Option<String>,
    /// Whether sessions are kept and resumed.
    pub session_reuse: bool,
    /// Where the secrets of each connection are written to.
    pub key_log: Option<String>,
}

/// How an upstream's certificate is verified, but for the names, which are each endpoint's.
#[derive(Debug, Serialize)]
pub struct Verify {
    /// The subjects of the trusted CAs; absent for the system's roots.
    pub ca: Option<Vec<String>>,
    /// How many revocation lists count.
    pub crls: usize,
    /// How many CAs may stand between the certificate and the trusted one; absent for any number.
    pub depth: Option<u32>,
    /// The public key has to be one of these, unless there are none.
    pub pins: Vec<String>,
    /// Whether a certificate without alternative names is matched by its common name.
    pub allow_common_name: bool,
}

/// A certificate.
#[derive(Debug, Serialize)]
pub struct Certificate {
    /// As RFC 4514 writes it.
    pub subject: String,
    /// The last moment at which it is valid, by RFC 3339.
    pub valid_to: String,
}

impl Tls {
    pub(super) fn of(settings: &Settings) -> Self {
        let ciphers = [&settings.ciphers.tls12, &settings.ciphers.tls13];
        let shown = settings.identity.as_ref().and_then(|identity| identity.chain.first());
        Self {
            verify: match &settings.verification {
                Verification::Off => None,
                Verification::On(trust) => Some(Verify::of(trust)),
            },
            client_certificate: shown.map(|certificate| Certificate {
                subject: rfc4514(certificate.subject_name()),
                valid_to: told(certificate.not_after()),
            }),
            versions: (settings.versions.0.text(), settings.versions.1.text()),
            ciphers: ciphers.into_iter().flatten().cloned().collect(),
            curves: settings.curves.clone(),
            session_reuse: settings.session_reuse,
            key_log: settings.key_log.as_ref().map(|path| path.display().to_string()),
        }
    }
}

impl Verify {
    fn of(trust: &Trust) -> Self {
        Self {
            ca: match &trust.roots {
                Roots::System => None,
                Roots::Given(cas) => Some(cas.iter().map(|ca| rfc4514(ca.subject_name())).collect()),
            },
            crls: trust.crls.len(),
            depth: trust.depth,
            pins: trust.pins.iter().map(ToString::to_string).collect(),
            allow_common_name: trust.allow_common_name,
        }
    }
}

/// By RFC 3339; empty where no calendar has the time.
fn told(time: &Asn1TimeRef) -> String {
    let since = |epoch: Asn1Time| epoch.diff(time).ok();
    let since = Asn1Time::from_unix(0).ok().and_then(since);
    let seconds = since.map(|since| i64::from(since.days) * 86_400 + i64::from(since.secs));
    seconds.and_then(|it| Timestamp::from_second(it).ok()).map_or_else(String::new, |time| time.to_string())
}
