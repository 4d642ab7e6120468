//! What is wrong with the certificate that the server shows, or with what the file wants of it.

use super::world::Fault;
use super::{BOTH, EVERY, Row, row};

const TABLE: &[Row] = &[
    row(EVERY, BOTH, Fault::None, "tls: { verify: { ca: <ca> } }", "").status(200),
    row(EVERY, BOTH, Fault::None, "tls: { verify: { ca: <ca>, name: other.test } }", "tls_name_mismatch"),
    // The CA is not in the file, or not in the system's.
    row(EVERY, BOTH, Fault::None, "tls: { verify: { ca: <other> } }", "tls_unknown_issuer"),
    row(EVERY, BOTH, Fault::None, "tls: {}", "tls_unknown_issuer"),
    // The upstream's own omission: on the wire, the same as a CA that is not in the file.
    row(EVERY, BOTH, Fault::OmitsIntermediate, "tls: { verify: { ca: <ca> } }", "tls_unknown_issuer"),
    row(EVERY, BOTH, Fault::ShowsRoot, "tls: { verify: { ca: <other> } }", "tls_unknown_issuer"),
    row(EVERY, BOTH, Fault::ShowsRoot, "tls: { verify: { ca: <ca> } }", "").status(200),
    row(EVERY, BOTH, Fault::ShowsIntermediate, "tls: { verify: { ca: <other> } }", "tls_unknown_issuer"),
    row(
        EVERY,
        BOTH,
        Fault::ShowsIntermediate,
        "tls: { verify: { ca: <ca>, depth: 0 } }",
        "tls_chain_too_long",
    ),
    row(EVERY, BOTH, Fault::ShowsIntermediate, "tls: { verify: { ca: <ca>, depth: 1 } }", "").status(200),
    row(EVERY, BOTH, Fault::ShowsSelfSigned, "tls: { verify: { ca: <ca> } }", "tls_self_signed"),
    row(EVERY, BOTH, Fault::ShowsExpired, "tls: { verify: { ca: <ca> } }", "tls_expired").incurable(),
    row(EVERY, BOTH, Fault::ShowsNotYetValid, "tls: { verify: { ca: <ca> } }", "tls_not_yet_valid")
        .incurable(),
    row(EVERY, BOTH, Fault::ShowsRevoked, "tls: { verify: { ca: <ca>, crl: <list> } }", "tls_revoked")
        .incurable(),
    row(EVERY, BOTH, Fault::None, "tls: { verify: { ca: <ca>, crl: <list> } }", "").status(200),
    row(EVERY, BOTH, Fault::None, "tls: { verify: { ca: <ca>, crl: <old-list> } }", "tls_crl_unusable")
        .incurable(),
    row(
        EVERY,
        BOTH,
        Fault::None,
        "tls: { verify: { ca: <both>, crl: <list-of-other> } }",
        "tls_crl_unusable",
    )
    .incurable(),
    // The root's list is there, the intermediate's is not.
    row(
        EVERY,
        BOTH,
        Fault::ShowsIntermediate,
        "tls: { verify: { ca: <ca>, crl: <list> } }",
        "tls_crl_unusable",
    )
    .incurable(),
    row(
        EVERY,
        BOTH,
        Fault::None,
        "tls: { verify: { ca: <ca>, pins: [<pin-of-another>] } }",
        "tls_pin_mismatch",
    ),
    row(EVERY, BOTH, Fault::None, "tls: { verify: { ca: <ca>, pins: [<pin-of-another>, <pin>] } }", "")
        .status(200),
];

#[test]
fn each_fault_of_a_certificate_has_its_cause() {
    super::check(TABLE);
}

#[test]
fn each_fault_of_a_certificate_has_its_cause_over_http2() {
    super::check_over_h2(TABLE);
}
