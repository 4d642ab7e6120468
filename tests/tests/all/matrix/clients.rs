//! What is wrong with the client certificate that the gateway shows.

use super::world::Fault;
use super::{BOTH, EVERY, Peer, Row, row};

const NOBODY: &str = "tls: { verify: { ca: <ca> } }";
const ME: &str = "tls: { verify: { ca: <ca> }, client_certificate: <me> }";
const STRANGER: &str = "tls: { verify: { ca: <ca> }, client_certificate: <stranger> }";
const EXPIRED: &str = "tls: { verify: { ca: <ca> }, client_certificate: <expired-me> }";

const LARGE: usize = 1024 * 1024;

/// They end the handshake, or the connection after it.
const ALERTING: &[Peer] = &[Peer::HaProxy, Peer::Envoy, Peer::OpenSsl];
/// Those of them that know POST.
const POSTED: &[Peer] = &[Peer::HaProxy, Peer::Envoy];
/// It lets the handshake succeed and answers 400.
const ANSWERING: &[Peer] = &[Peer::Nginx];

const TABLE: &[Row] = &[
    row(EVERY, BOTH, Fault::WantsCertificate, ME, "").status(200),
    row(ALERTING, BOTH, Fault::WantsCertificate, NOBODY, "tls_client_certificate_required"),
    row(ALERTING, BOTH, Fault::WantsCertificate, STRANGER, "tls_client_certificate_rejected"),
    row(ALERTING, BOTH, Fault::WantsCertificate, EXPIRED, "tls_client_certificate_rejected"),
    // Under TLS 1.3 they have closed the connection while the request is still written.
    row(POSTED, BOTH, Fault::WantsCertificate, NOBODY, "tls_client_certificate_required").posting(LARGE),
    row(POSTED, BOTH, Fault::WantsCertificate, STRANGER, "tls_client_certificate_rejected").posting(LARGE),
    row(ANSWERING, BOTH, Fault::WantsCertificate, NOBODY, "tls_client_certificate_required").status(400),
    row(ANSWERING, BOTH, Fault::WantsCertificate, STRANGER, "tls_client_certificate_rejected").status(400),
    row(ANSWERING, BOTH, Fault::WantsCertificate, EXPIRED, "tls_client_certificate_rejected").status(400),
];

#[test]
fn each_fault_of_a_client_certificate_has_its_cause() {
    super::check(TABLE);
}

#[test]
fn each_fault_of_a_client_certificate_has_its_cause_over_http2() {
    super::check_over_h2(TABLE);
}
