//! TLS towards clients: the certificate is chosen by SNI from each certificate's own names, h2 or http/1.1 by ALPN.

use std::collections::HashMap;

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sha::Sha256;
use openssl::ssl::{
    AlpnError, NameType, SniError, SslAcceptor, SslContext, SslMethod, SslOptions, SslSessionCacheMode,
    SslVerifyMode, SslVersion, select_next_proto,
};
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509Ref};

use super::terms::ClientTerms;

/// A certificate chain, leaf first, and its key.
pub struct Certificate {
    /// Leaf first.
    pub chain: Vec<X509>,
    /// The leaf's.
    pub key: PKey<Private>,
}

/// Which client certificates are accepted.
pub struct ClientCheck {
    /// The CAs.
    pub roots: Vec<X509>,
    /// Whether a client without one is refused.
    pub required: bool,
}

impl ClientCheck {
    /// The same, to be compared.
    ///
    /// # Errors
    /// OpenSSL cannot write a certificate that it has read.
    pub fn terms(&self) -> Result<ClientTerms, ErrorStack> {
        let mut roots = Sha256::new();
        for root in &self.roots {
            roots.update(&root.digest(MessageDigest::sha256())?);
        }
        Ok(ClientTerms { roots: roots.finish(), required: self.required })
    }
}

/// What accepts the handshakes of one listener. The first certificate serves clients that send no SNI or an unknown
/// one.
///
/// # Errors
/// OpenSSL does not take a certificate or a key.
pub fn acceptor(
    certificates: &[Certificate],
    clients: Option<&ClientCheck>,
    min: SslVersion,
) -> Result<SslAcceptor, ErrorStack> {
    let mut contexts: HashMap<String, SslContext> = HashMap::new();
    for certificate in certificates.iter().rev() {
        let context = context(certificate, clients, min)?.build().into_context();
        let names = certificate.chain.first().map(names_of).unwrap_or_default();
        contexts.extend(names.into_iter().map(|name| (name, context.clone())));
    }
    let first = certificates.first().ok_or_else(ErrorStack::get)?;
    let mut builder = context(first, clients, min)?;
    builder.set_servername_callback(move |ssl, _alert| {
        let name =
            ssl.servername(NameType::HOST_NAME).map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        match name.and_then(|name| serving(&contexts, &name)) {
            Some(context) => ssl.set_ssl_context(context).map_err(|_| SniError::ALERT_FATAL),
            None => Ok(()),
        }
    });
    Ok(builder.build())
}

fn context(
    certificate: &Certificate,
    clients: Option<&ClientCheck>,
    min: SslVersion,
) -> Result<openssl::ssl::SslAcceptorBuilder, ErrorStack> {
    // Mozilla's "intermediate" recommendation, version 5: TLS 1.2 with AEAD ciphers, and TLS 1.3.
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    builder.set_min_proto_version(Some(min))?;
    for (position, certificate) in certificate.chain.iter().enumerate() {
        match position {
            0 => builder.set_certificate(certificate)?,
            _ => builder.add_extra_chain_cert(certificate.clone())?,
        }
    }
    builder.set_private_key(&certificate.key)?;
    builder.set_alpn_select_callback(|_, offered| {
        select_next_proto(b"\x02h2\x08http/1.1", offered).ok_or(AlpnError::NOACK)
    });
    match clients {
        None => builder.set_verify(SslVerifyMode::NONE),
        Some(check) => {
            let mut store = X509StoreBuilder::new()?;
            let mut subjects = Stack::new()?;
            for root in &check.roots {
                subjects.push(root.subject_name().to_owned()?)?;
                store.add_cert(root.clone())?;
            }
            builder.set_verify_cert_store(store.build())?;
            builder.set_client_ca_list(subjects);
            let refuse =
                if check.required { SslVerifyMode::FAIL_IF_NO_PEER_CERT } else { SslVerifyMode::empty() };
            builder.set_verify(SslVerifyMode::PEER | refuse);
            // A resumed handshake asks for no certificate (CVE-2025-23419 is such a bypass), so none is resumed here.
            builder.set_options(SslOptions::NO_TICKET);
            builder.set_session_cache_mode(SslSessionCacheMode::OFF);
            builder.set_num_tickets(0)?;
        }
    }
    Ok(builder)
}

/// The certificate whose own name this is, or whose wildcard covers it: one label, the leftmost (RFC 9525 section 6.3).
fn serving<'a>(contexts: &'a HashMap<String, SslContext>, name: &str) -> Option<&'a SslContext> {
    contexts.get(name).or_else(|| contexts.get(&format!("*.{}", name.split_once('.')?.1)))
}

fn names_of(certificate: &X509) -> Vec<String> {
    let certificate: &X509Ref = certificate;
    let names = certificate.subject_alt_names();
    names.iter().flatten().filter_map(|name| name.dnsname().map(str::to_ascii_lowercase)).collect()
}
