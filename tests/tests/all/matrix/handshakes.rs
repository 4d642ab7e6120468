//! What keeps a handshake from coming to a certificate: the SNI, the version, the cipher, the curve.

use super::world::Fault;
use super::{BOTH, ENVOY, EVERY, Peer, Row, TLS12, TLS13, row};

const NO_SNI: &str = "tls: { sni: none, verify: { ca: <ca>, name: app.test } }";
const OTHER_SNI: &str = "tls: { sni: other.test, verify: { ca: <ca>, name: app.test } }";
const WITH_CA: &str = "tls: { verify: { ca: <ca> } }";
const AES_256: &str = "ECDHE-ECDSA-AES256-GCM-SHA384";
const AES_128: &str =
    "tls: { verify: { ca: <ca> }, ciphers: ECDHE-ECDSA-AES128-GCM-SHA256, max_version: \"1.2\" }";
const TLS_AES_256: &str = "TLS_AES_256_GCM_SHA384";
const TLS_AES_128: &str = "tls: { verify: { ca: <ca> }, ciphers: TLS_AES_128_GCM_SHA256 }";

const TABLE: &[Row] = &[
    // nginx and HAProxy send alert 112; Envoy closes without a word, which leaves the SNI itself as the evidence.
    row(&[Peer::Nginx, Peer::HaProxy, Peer::Envoy], BOTH, Fault::StrictSni, NO_SNI, "tls_sni_missing"),
    row(
        &[Peer::Nginx, Peer::HaProxy, Peer::OpenSsl],
        BOTH,
        Fault::StrictSni,
        OTHER_SNI,
        "tls_sni_unrecognized",
    ),
    row(ENVOY, BOTH, Fault::StrictSni, OTHER_SNI, "tls_peer_reset"),
    row(EVERY, BOTH, Fault::StrictSni, WITH_CA, "").status(200),
    // Ours too high, ours too low.
    row(
        EVERY,
        TLS12,
        Fault::None,
        "tls: { verify: { ca: <ca> }, min_version: \"1.3\" }",
        "tls_protocol_version",
    ),
    row(
        EVERY,
        TLS13,
        Fault::None,
        "tls: { verify: { ca: <ca> }, max_version: \"1.2\" }",
        "tls_protocol_version",
    ),
    row(EVERY, TLS12, Fault::OneCipher(AES_256), AES_128, "tls_no_shared_cipher"),
    row(EVERY, TLS12, Fault::OneCipher(AES_256), WITH_CA, "").status(200),
    // Envoy cannot be limited to a cipher of TLS 1.3.
    row(
        &[Peer::Nginx, Peer::HaProxy, Peer::OpenSsl],
        TLS13,
        Fault::OneCipher(TLS_AES_256),
        TLS_AES_128,
        "tls_no_shared_cipher",
    ),
    row(
        EVERY,
        BOTH,
        Fault::OneCurve("X25519"),
        "tls: { verify: { ca: <ca> }, curves: P-256 }",
        "tls_no_shared_cipher",
    ),
];

#[test]
fn each_fault_of_a_handshake_has_its_cause() {
    super::check(TABLE);
}

#[test]
fn each_fault_of_a_handshake_has_its_cause_over_http2() {
    super::check_over_h2(TABLE);
}
