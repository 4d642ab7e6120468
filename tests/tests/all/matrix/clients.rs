//! What is wrong with the client certificate that the gateway shows.

use super::world::Fault;
use super::{BOTH, EVERY, Peer, Row, row};

const NOBODY: &str = "tls: { verify: { ca: <ca> } }";
const ME: &str = "tls: { verify: { ca: <ca> }, client_certificate: <me> }";
const STRANGER: &str = "tls: { verify: { ca: <ca> }, client_certificate: <stranger> }";
const EXPIRED: &str = "tls: { verify: { ca: <ca> }, client_certificate: <expired-me> }";

/// They end the handshake, or the connection after it.
const ALERTING: &[Peer] = &[Peer::HaProxy, Peer::Envoy, Peer::OpenSsl];
/// It lets the handshake succeed and answers 400.
const ANSWERING: &[Peer] = &[Peer::Nginx];

const TABLE: &[Row] = &[
    row(EVERY, BOTH, Fault::WantsCertificate, ME, "").status(200),
    row(ALERTING, BOTH, Fault::WantsCertificate, NOBODY, "tls_client_certificate_required"),
    row(ALERTING, BOTH, Fault::WantsCertificate, STRANGER, "tls_client_certificate_rejected"),
    row(ALERTING, BOTH, Fault::WantsCertificate, EXPIRED, "tls_client_certificate_rejected"),
    row(ANSWERING, BOTH, Fault::WantsCertificate, NOBODY, "tls_client_certificate_required").status(400),
    row(ANSWERING, BOTH, Fault::WantsCertificate, STRANGER, "tls_client_certificate_rejected").status(400),
    row(ANSWERING, BOTH, Fault::WantsCertificate, EXPIRED, "tls_client_certificate_rejected").status(400),
];

#[test]
fn each_fault_of_a_client_certificate_has_its_cause() {
    super::check(TABLE);
}
