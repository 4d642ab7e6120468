//! What a status tells of the request that was sent; the answer itself passes on.

use super::world::Fault;
use super::{NGINX, ONCE, Peer, Row, row};

const REAL: &[Peer] = &[Peer::Nginx, Peer::HaProxy, Peer::Envoy];
const WITH_CA: &str = "tls: { verify: { ca: <ca> } }";

const TABLE: &[Row] = &[
    row(REAL, ONCE, Fault::PlainPort, "", "upstream_426").path("/426").status(426).incurable(),
    row(REAL, ONCE, Fault::None, WITH_CA, "upstream_426").path("/426").status(426).incurable(),
    row(REAL, ONCE, Fault::PlainPort, "", "upstream_421").path("/421").status(421).incurable(),
    row(REAL, ONCE, Fault::None, WITH_CA, "upstream_421").path("/421").status(421).incurable(),
    // nginx of its own accord, where a client certificate was shown to one name and another is asked for.
    row(
        NGINX,
        ONCE,
        Fault::WantsCertificateStrictly,
        "host: other.test\ntls: { sni: app.test, verify: { ca: <ca> }, client_certificate: <me> }",
        "host_sni_mismatch",
    )
    .status(421),
];

#[test]
fn each_status_that_tells_of_a_mistake_is_a_cause_and_passes_on() {
    super::check(TABLE);
}

#[test]
fn each_status_that_tells_of_a_mistake_is_a_cause_over_http2_too() {
    let over_tls: Vec<Row> = TABLE.iter().filter(|row| row.upstream.contains("tls:")).copied().collect();
    super::check_over_h2(&over_tls);
}
