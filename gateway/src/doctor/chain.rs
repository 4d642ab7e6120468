//! The certificates that an upstream sent, as a person reads them, and what they lack.

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::hash::MessageDigest;
use openssl::x509::{X509, X509Ref};
use serde::Serialize;

use super::known::{Known, signed};
use crate::diagnose::{name_text, names_of};
use crate::upstream::{Pin, Roots, Settings, Trust, Verification};

/// One certificate of the chain.
#[derive(Clone, Debug, Serialize)]
pub struct Certificate {
    /// Its subject.
    pub subject: String,
    /// Its alternative names.
    pub names: Vec<String>,
    /// Who signed it.
    pub issuer: String,
    /// When its time begins, as RFC 3339 has it.
    pub not_before: String,
    /// When its time ends.
    pub not_after: String,
    /// Whole days until then; below 0, since.
    pub days_left: i64,
    /// The pin of its public key (RFC 7469).
    pub pin: String,
    /// SHA-256 of the whole certificate in hex.
    pub sha256: String,
    /// Whether the upstream sent it; else it is known from a file.
    pub sent: bool,
    /// The file by which it is trusted, or `system`.
    pub trusted_by: Option<String>,
    /// Whether its issuer is neither sent nor trusted, where anything is verified.
    pub issuer_is_missing: bool,
}

/// The chain as sent, the upstream's own certificate first, and behind it the trusted certificate that it leads to.
pub fn read(presented: &[X509], settings: Option<&Settings>, known: &Known) -> Vec<Certificate> {
    let chain = ordered(presented);
    let roots = match settings.map(|settings| &settings.verification) {
        Some(Verification::On(Trust { roots, .. })) => Some(roots),
        _ => None,
    };
    let trusted_by = |certificate: &X509Ref| -> Option<String> {
        let roots = roots?;
        roots.certificates().iter().any(|root| **root == *certificate).then(|| match roots {
            Roots::System => "system".to_owned(),
            Roots::Given(_) => {
                known.file_with(certificate).map_or("ca".to_owned(), |file| file.display().to_string())
            }
        })
    };
    let mut read: Vec<Certificate> =
        chain.iter().map(|certificate| one(certificate, true, trusted_by(certificate))).collect();
    let Some(top) = chain.last() else { return read };
    if read.iter().any(|certificate| certificate.trusted_by.is_some()) || signed(top, top) {
        return read;
    }
    let above = roots.and_then(|roots| roots.certificates().iter().find(|root| signed(root, top)));
    match above {
        Some(root) => read.push(one(root, false, trusted_by(root))),
        None => {
            if let Some(last) = read.last_mut() {
                last.issuer_is_missing = roots.is_some();
            }
        }
    }
    read
}

/// What leads from the upstream's own certificate upwards, in that order, whatever order it was sent in.
pub fn ordered(presented: &[X509]) -> Vec<X509> {
    let mut chain: Vec<X509> = presented.first().cloned().into_iter().collect();
    while let Some(top) = chain.last()
        && !signed(top, top)
        && let Some(next) = presented.iter().find(|it| signed(it, top) && !chain.contains(it))
    {
        chain.push(next.clone());
    }
    chain
}

fn one(certificate: &X509Ref, sent: bool, trusted_by: Option<String>) -> Certificate {
    Certificate {
        subject: name_text(certificate.subject_name()),
        names: names_of(certificate),
        issuer: name_text(certificate.issuer_name()),
        not_before: date(certificate.not_before()),
        not_after: date(certificate.not_after()),
        days_left: days_left(certificate),
        pin: Pin::of(certificate).map(|pin| pin.to_string()).unwrap_or_default(),
        sha256: fingerprint(certificate),
        sent,
        trusted_by,
        issuer_is_missing: false,
    }
}

/// Whole days until the certificate's time is over; below 0, since then.
pub fn days_left(certificate: &X509Ref) -> i64 {
    let left = Asn1Time::days_from_now(0).and_then(|now| now.diff(certificate.not_after()));
    left.map_or(0, |left| (i64::from(left.days) * 86_400 + i64::from(left.secs)).div_euclid(86_400))
}

/// SHA-256 of the whole certificate in hex.
pub fn fingerprint(certificate: &X509Ref) -> String {
    let digest = certificate.digest(MessageDigest::sha256());
    digest.map(|digest| digest.iter().map(|byte| format!("{byte:02x}")).collect()).unwrap_or_default()
}

fn date(time: &Asn1TimeRef) -> String {
    let since = Asn1Time::from_unix(0).and_then(|epoch| epoch.diff(time));
    let seconds = since.map(|since| i64::from(since.days) * 86_400 + i64::from(since.secs));
    let stamp = seconds.ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    stamp.map_or_else(|| time.to_string(), |stamp| stamp.to_string())
}
