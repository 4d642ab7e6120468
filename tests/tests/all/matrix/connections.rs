//! What is wrong with the address, with the kind of port behind it, or with the time that is left.

use super::world::Fault;
use super::{BOTH, ENVOY, NGINX, ONCE, Peer, Row, SCRIPTED, row};

const WITH_CA: &str = "tls: { verify: { ca: <ca> } }";
const REAL: &[Peer] = &[Peer::Nginx, Peer::HaProxy, Peer::Envoy];

const SILENT_H2C: &[Peer] = &[Peer::HaProxy, Peer::Envoy];
const SILENT_TLS: &[Peer] = &[Peer::HaProxy, Peer::Envoy, Peer::OpenSsl];

const TABLE: &[Row] = &[
    // First, since it takes the longest to start.
    row(&[Peer::Go], ONCE, Fault::None, "", "plain_to_tls_port").status(400),
    row(SCRIPTED, ONCE, Fault::Unresolved, WITH_CA, "dns_not_found").incurable(),
    row(SCRIPTED, ONCE, Fault::Refused, WITH_CA, "connect_refused").incurable(),
    row(SCRIPTED, ONCE, Fault::Unanswered, "connect_timeout: 500ms", "connect_timeout")
        .status(504)
        .incurable(),
    row(SCRIPTED, ONCE, Fault::Silent, "tls: {}\nconnect_timeout: 500ms", "tls_handshake_timeout")
        .status(504)
        .incurable(),
    row(SCRIPTED, ONCE, Fault::NeverAnswers, "", "upstream_timeout")
        .route("timeouts: { attempt: 500ms }")
        .status(504)
        .incurable(),
    // Made good by another try; the cause stays in the line. A connection of doctor's own is never an idle one.
    row(SCRIPTED, ONCE, Fault::ClosesIdle, "", "upstream_closed_idle")
        .path("/again")
        .status(200)
        .doctor("")
        .incurable(),
    // TLS to a port that does not speak it.
    row(REAL, ONCE, Fault::PlainPort, WITH_CA, "tls_plaintext_peer"),
    row(REAL, ONCE, Fault::PlainPort, "", "").status(200),
    // A port for HTTP/2 alone: nginx begins with a frame, the others wait for one and close.
    row(NGINX, ONCE, Fault::H2cPort, WITH_CA, "tls_plaintext_peer"),
    row(SILENT_H2C, ONCE, Fault::H2cPort, WITH_CA, "tls_peer_reset").incurable(),
    // Plain HTTP to a port that speaks TLS: nginx says so, as Go does.
    row(NGINX, BOTH, Fault::None, "", "plain_to_tls_port").status(400),
    // The others close without a byte, which is all that the log can say; doctor shakes hands on the same port.
    row(SILENT_TLS, BOTH, Fault::None, "", "upstream_reset").doctor("plain_to_tls_port"),
    // BoringSSL knows the methods of old and closes; at any other it takes the bytes for a record, and sends an alert.
    row(ENVOY, BOTH, Fault::None, "", "plain_to_tls_port").method("OPTIONS"),
];

#[test]
fn each_fault_of_a_connection_has_its_cause() {
    super::check(TABLE);
}
