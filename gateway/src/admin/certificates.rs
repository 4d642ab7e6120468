//! `/certificates`: what is shown and trusted, and how long it lasts.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use crate::snapshot::Snapshot;
use crate::snapshot::certificates::Certificate;

const DAY: i64 = 24 * 60 * 60;

/// The whole page.
#[derive(Serialize, JsonSchema)]
pub struct Certificates<'a> {
    /// The hash of the configuration that runs.
    config: &'a str,
    /// In the order of the owners' names.
    certificates: Vec<CertificateRow>,
}

#[derive(Serialize, JsonSchema)]
struct CertificateRow {
    #[serde(flatten)]
    certificate: Certificate,
    /// Whole days that are left; below 0 where its time is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in_days: Option<i64>,
}

/// Those of the running snapshot.
pub fn told(snapshot: &Snapshot) -> Certificates<'_> {
    let now = Timestamp::now();
    let rows = snapshot.certificates().into_iter().map(|certificate| {
        let expires_in_days =
            certificate.ends().map(|ends| (ends.as_second() - now.as_second()).div_euclid(DAY));
        CertificateRow { certificate, expires_in_days }
    });
    Certificates { config: &snapshot.hash, certificates: rows.collect() }
}
