//! The file names one version of HTTP, and the upstream speaks the other.

use super::world::Fault;
use super::{BOTH, EVERY, NGINX, ONCE, OPENSSL, Peer, Row, row};

const WITH_CA: &str = "tls: { verify: { ca: <ca> } }";
const H2: &str = "protocol: h2\ntls: { verify: { ca: <ca> } }";
const AUTO: &str = "protocol: auto\ntls: { verify: { ca: <ca> } }";

/// On a port of HTTP/2 alone, nginx begins with a frame; these wait for one and close.
const SILENT: &[Peer] = &[Peer::HaProxy, Peer::Envoy];

const TABLE: &[Row] = &[
    // nginx sends alert 120; the others agree on no protocol at all.
    row(EVERY, BOTH, Fault::None, H2, "alpn_mismatch"),
    row(EVERY, BOTH, Fault::None, AUTO, "").status(200),
    // It agrees on h2 and does not speak it, so there is nothing to mend in the file.
    row(OPENSSL, BOTH, Fault::H2Alone, WITH_CA, "alpn_mismatch").incurable(),
    row(NGINX, ONCE, Fault::H2cPort, "", "alpn_mismatch"),
    row(SILENT, ONCE, Fault::H2cPort, "", "upstream_reset").incurable(),
    row(&[Peer::Nginx, Peer::HaProxy, Peer::Envoy], ONCE, Fault::H2cPort, "protocol: h2c", "").status(200),
    row(&[Peer::Nginx, Peer::Envoy], ONCE, Fault::PlainPort, "protocol: h2c", "alpn_mismatch"),
    // HAProxy knows the preface of HTTP/2 on any port without TLS.
    row(&[Peer::HaProxy], ONCE, Fault::PlainPort, "protocol: h2c", "").status(200),
];

#[test]
fn each_wrong_version_of_http_has_its_cause() {
    super::check(TABLE);
}
