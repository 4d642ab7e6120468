//! The certificates that a snapshot uses, as they are told outside it: in the admin endpoint, in a plan, in a metric.
//!
//! What is shown and what is trusted, but not the system's own roots; never a key.

use std::collections::BTreeSet;

use jiff::Timestamp;
use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::hash::MessageDigest;
use openssl::x509::{X509, X509Ref};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Protocol, Snapshot, TargetTls};
use crate::diagnose::{name_text, names_of};
use crate::upstream::{Roots, Trust, Verification};

/// A certificate, and who uses it for what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Certificate {
    /// What it is used for.
    #[serde(rename = "use")]
    pub usage: Usage,
    /// Whose it is, by its place in the file: `listeners.web` or `upstreams.app`. A route that overrides the TLS of its
    /// upstream adds to what is told of that upstream.
    pub owner: String,
    /// Its subject.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Its alternative names.
    pub names: Vec<String>,
    /// Its serial number in hex.
    pub serial: String,
    /// When its time begins, as RFC 3339 has it.
    pub not_before: String,
    /// When its time ends.
    pub not_after: String,
    /// SHA-256 of the whole certificate in hex.
    pub sha256: String,
}

/// What a certificate is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Usage {
    /// A listener shows it to its clients.
    Listener,
    /// It is shown to an upstream.
    ClientCertificate,
    /// The other side's certificate is signed by it: a client's at a listener, or the upstream's.
    Ca,
}

impl Snapshot {
    /// Every certificate that is shown or trusted, once for each owner and use, in the order of the owners' names. Of a
    /// chain, the first alone.
    pub fn certificates(&self) -> Vec<Certificate> {
        let mut all = Vec::new();
        for listener in &self.listeners {
            if let Protocol::Https(https) = &listener.protocol {
                let owner = format!("listeners.{}", listener.name);
                all.extend(https.leaves.iter().map(|leaf| of(Usage::Listener, &owner, leaf)));
                all.extend(https.authorities.iter().map(|ca| of(Usage::Ca, &owner, ca)));
            }
        }
        for (upstream, tls) in self.upstream_tls() {
            let owner = format!("upstreams.{upstream}");
            let settings = &tls.policy.settings;
            let leaf = settings.identity.as_ref().and_then(|identity| identity.chain.first());
            all.extend(leaf.map(|leaf| of(Usage::ClientCertificate, &owner, leaf)));
            if let Verification::On(Trust { roots: Roots::Given(roots), .. }) = &settings.verification {
                all.extend(roots.iter().map(|ca| of(Usage::Ca, &owner, ca)));
            }
        }
        let mut seen = BTreeSet::new();
        all.retain(|it| seen.insert((it.usage, it.owner.clone(), it.sha256.clone())));
        all.sort_by(|a, b| (&a.owner, a.usage).cmp(&(&b.owner, b.usage)));
        all
    }

    /// Each upstream as each route reaches it over TLS, in the order of the routes.
    pub fn upstream_tls(&self) -> impl Iterator<Item = (&str, &TargetTls)> {
        let targets = self.routes.iter().flat_map(|route| match &route.action {
            Action::Forward { targets, .. } => targets.as_slice(),
            Action::Respond { .. } | Action::Redirect(_) => &[],
        });
        targets.filter_map(|target| Some((target.upstream.name.as_str(), target.tls.as_ref()?)))
    }
}

impl Usage {
    /// As it stands in JSON and in the metric.
    pub fn code(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::ClientCertificate => "client_certificate",
            Self::Ca => "ca",
        }
    }
}

impl Certificate {
    /// When its time ends; nothing where that is no time.
    pub fn ends(&self) -> Option<Timestamp> {
        self.not_after.parse().ok()
    }
}

fn of(usage: Usage, owner: &str, certificate: &X509) -> Certificate {
    let certificate: &X509Ref = certificate;
    let serial = certificate.serial_number().to_bn().and_then(|number| number.to_hex_str());
    let digest = certificate.digest(MessageDigest::sha256());
    Certificate {
        usage,
        owner: owner.to_owned(),
        subject: name_text(certificate.subject_name()),
        issuer: name_text(certificate.issuer_name()),
        names: names_of(certificate),
        serial: serial.map(|hex| hex.to_lowercase()).unwrap_or_default(),
        not_before: date(certificate.not_before()),
        not_after: date(certificate.not_after()),
        sha256: digest.map(|it| it.iter().map(|byte| format!("{byte:02x}")).collect()).unwrap_or_default(),
    }
}

/// RFC 3339.
pub(crate) fn date(time: &Asn1TimeRef) -> String {
    let since = Asn1Time::from_unix(0).and_then(|epoch| epoch.diff(time));
    let seconds = since.map(|since| i64::from(since.days) * 86_400 + i64::from(since.secs));
    let stamp = seconds.ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    // A year beyond 9999.
    stamp.map_or_else(|| time.to_string(), |stamp| stamp.to_string())
}
