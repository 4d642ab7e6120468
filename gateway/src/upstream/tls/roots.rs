//! The store of trusted CAs that a policy verifies by.

use std::sync::LazyLock;

use openssl::error::ErrorStack;
use openssl::x509::X509;
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::verify::X509VerifyFlags;

use super::ffi;
use super::settings::{Roots, Trust};

/// Builds it, revocation lists included.
pub fn store(trust: &Trust) -> Result<X509Store, ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    // A CA file may hold an intermediate, or the certificate itself: what the user trusts is trusted.
    let mut flags = X509VerifyFlags::PARTIAL_CHAIN;
    if !trust.crls.is_empty() {
        flags |= X509VerifyFlags::CRL_CHECK | X509VerifyFlags::CRL_CHECK_ALL;
    }
    store.set_flags(flags)?;
    for certificate in trust.roots.certificates() {
        store.add_cert(certificate.clone())?;
    }
    for crl in &trust.crls {
        let list = crl.list()?;
        ffi::add_crl(&mut store, &list)?;
    }
    Ok(store.build())
}

impl Roots {
    /// The certificates themselves.
    pub fn certificates(&self) -> &[X509] {
        match self {
            Self::System => &SYSTEM_ROOTS,
            Self::Given(certificates) => certificates,
        }
    }
}

/// The system's roots, read once: the vendored OpenSSL does not know where this system keeps them.
static SYSTEM_ROOTS: LazyLock<Vec<X509>> = LazyLock::new(|| {
    let probe = openssl_probe::probe();
    let file = probe.cert_file.and_then(|file| std::fs::read(file).ok());
    let certificates = file.and_then(|pem| X509::stack_from_pem(&pem).ok()).unwrap_or_default();
    if certificates.is_empty() {
        log::warn!(
            "this system has no root certificates: every upstream needs `tls: {{ verify: {{ ca: FILE }} }}`"
        );
    }
    certificates
});
