//! Versions of TLS that are out of use.

use vestibule_plugins::Problem;

use super::Subject;
use crate::config::UpstreamTlsVersion;

/// Each `min_version` below 1.2: RFC 8996 has put the others out of use.
pub fn versions(subject: &Subject<'_>, warnings: &mut Vec<Problem>) {
    warnings.extend(subject.tls_blocks().filter_map(|(at, tls)| {
        let version = tls.min_version.filter(|version| *version < UpstreamTlsVersion::Tls12)?;
        let version = if version == UpstreamTlsVersion::Tls11 { "1.1" } else { "1.0" };
        let message =
            format!("TLS {version} can be broken: who is in between may read and change what is said");
        Some(Problem::new(at.key("min_version"), message).hint("ask who runs the upstream for TLS 1.2"))
    }));
}
