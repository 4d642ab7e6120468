//! TLS towards clients: the certificate that they are shown and the one that they are asked for go by SNI, h2 or http/1.1
//! by ALPN.
//!
//! All is chosen when the ClientHello has come, since OpenSSL looks for a session to resume before it calls back for the
//! server's name: a session that was made under one policy would be resumed under another (CVE-2025-23419). Besides, a
//! resumed handshake verifies nothing, neither that a certificate has expired nor that it is revoked. So a connection
//! that is asked for a certificate neither resumes a session nor leaves one, and any other resumes those of its own
//! name alone.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sha::{Sha256, sha256};
use openssl::ssl::{
    AlpnError, ClientHelloResponse, Ssl, SslAcceptor, SslAcceptorBuilder, SslContext, SslMethod, SslOptions,
    SslRef, SslVerifyMode, SslVersion, select_next_proto,
};
use openssl::stack::Stack;
use openssl::x509::{X509, X509Ref};

use super::ffi;
use super::policies::Policies;
use super::terms::ClientTerms;
use crate::upstream::{self, Crl, Roots, Trust};

/// A certificate chain, leaf first, and its key.
pub struct Certificate {
    /// Leaf first.
    pub chain: Vec<X509>,
    /// The leaf's.
    pub key: PKey<Private>,
}

/// Which client certificates are accepted.
#[derive(Clone)]
pub struct ClientCheck {
    /// The CAs.
    pub roots: Vec<X509>,
    /// Revocation lists; where there is any, each CA of the chain needs one.
    pub crls: Vec<Crl>,
    /// How many CAs may stand between the certificate and the trusted one; `None` is any number.
    pub depth: Option<u32>,
    /// Whether a client without one is refused.
    pub required: bool,
}

impl ClientCheck {
    /// The same, to be compared.
    ///
    /// # Errors
    /// OpenSSL cannot write a certificate that it has read.
    pub fn terms(&self) -> Result<ClientTerms, ErrorStack> {
        let mut trust = Sha256::new();
        for root in &self.roots {
            trust.update(b"ca");
            trust.update(&root.digest(MessageDigest::sha256())?);
        }
        for crl in &self.crls {
            trust.update(b"crl");
            trust.update(&sha256(crl.der()));
        }
        trust.update(format!("depth {:?}", self.depth).as_bytes());
        Ok(ClientTerms { trust: trust.finish(), required: self.required })
    }

    fn mode(&self) -> SslVerifyMode {
        let refuse = if self.required { SslVerifyMode::FAIL_IF_NO_PEER_CERT } else { SslVerifyMode::empty() };
        SslVerifyMode::PEER | refuse
    }
}

/// What accepts the handshakes of one listener. The first certificate serves clients that send no SNI or an unknown
/// one. There is a check, or none, for each policy in its order.
///
/// # Errors
/// OpenSSL does not take a certificate or a key.
pub fn acceptor(
    certificates: &[Certificate],
    policies: &Arc<Policies>,
    checks: &[Option<ClientCheck>],
    min: SslVersion,
) -> Result<SslAcceptor, ErrorStack> {
    let first = certificates.first().ok_or_else(ErrorStack::get)?;
    let default = checks.first().and_then(Option::as_ref);
    let choice = Choice::new(certificates, policies, checks, min)?;
    let mut builder = context(first, default, min)?;
    builder.set_client_hello_callback(move |ssl, _alert| {
        choice.make(ssl).map(|()| ClientHelloResponse::SUCCESS)
    });
    Ok(builder.build())
}

/// Under which of the policies the handshake was made. Nothing where it did not come to what that policy asks: OpenSSL
/// has seen to it by then, and nobody is let in should it ever not have.
pub fn policy(ssl: &SslRef, policies: &Policies) -> Option<usize> {
    let policy = *ssl.ex_data((*POLICY)?)?;
    let is_met = match &policies.all().get(policy)?.clients {
        None => true,
        Some(terms) => !ssl.session_reused() && (!terms.required || ssl.peer_certificate().is_some()),
    };
    is_met.then_some(policy)
}

/// By its index among the listener's.
static POLICY: LazyLock<Option<Index<Ssl, usize>>> = LazyLock::new(|| Ssl::new_ex_index().ok());

/// What may become of a ClientHello.
struct Choice {
    policies: Arc<Policies>,
    /// The certificates' own names, each with its certificate.
    names: HashMap<String, usize>,
    demands: Vec<Demand>,
    /// Which of them is each policy's.
    of_policy: Vec<usize>,
}

/// What policies that differ in nothing but their names have in common.
struct Demand {
    check: Option<ClientCheck>,
    /// For each certificate.
    contexts: Vec<SslContext>,
}

impl Choice {
    fn new(
        certificates: &[Certificate],
        policies: &Arc<Policies>,
        checks: &[Option<ClientCheck>],
        min: SslVersion,
    ) -> Result<Self, ErrorStack> {
        let mut names = HashMap::new();
        for (position, certificate) in certificates.iter().enumerate().rev() {
            let own = certificate.chain.first().map(names_of).unwrap_or_default();
            names.extend(own.into_iter().map(|name| (name, position)));
        }
        let (mut demands, mut of_policy) = (Vec::new(), Vec::new());
        let mut known: HashMap<&Option<ClientTerms>, usize> = HashMap::new();
        for (policy, check) in policies.all().iter().zip(checks) {
            let position = match known.get(&policy.clients) {
                Some(position) => *position,
                None => {
                    let contexts = certificates.iter().map(|certificate| {
                        Ok(context(certificate, check.as_ref(), min)?.build().into_context())
                    });
                    let contexts = contexts.collect::<Result<_, ErrorStack>>()?;
                    demands.push(Demand { check: check.clone(), contexts });
                    known.insert(&policy.clients, demands.len() - 1);
                    demands.len() - 1
                }
            };
            of_policy.push(position);
        }
        Ok(Self { policies: policies.clone(), names, demands, of_policy })
    }

    /// Made once for each connection: the context that is chosen has no such callback, so a second ClientHello (RFC 8446
    /// section 4.1.2) changes nothing.
    fn make(&self, ssl: &mut SslRef) -> Result<(), ErrorStack> {
        let name = ffi::server_name(ssl).and_then(host_name).unwrap_or_default();
        let policy = self.policies.find(&name);
        let demand = &self.demands[self.of_policy[policy]];
        ssl.set_ssl_context(&demand.contexts[self.certificate(&name)])?;
        match &demand.check {
            None => {
                ssl.set_verify(SslVerifyMode::NONE);
                ffi::set_session_context(ssl, &sha256(name.as_bytes()))?;
            }
            Some(check) => {
                // The context brings the CAs along, but neither of these.
                ssl.set_verify(check.mode());
                if let Some(depth) = check.depth.and_then(|depth| i32::try_from(depth).ok()) {
                    ssl.param_mut().set_depth(depth);
                }
                ffi::set_session_context(ssl, b"")?;
                ffi::set_options(ssl, SslOptions::NO_TICKET);
                ssl.set_num_tickets(0)?;
            }
        }
        ssl.set_ex_data((*POLICY).ok_or_else(ErrorStack::get)?, policy);
        Ok(())
    }

    /// The certificate whose own name this is, or whose wildcard covers it: one label, the leftmost (RFC 9525 section
    /// 6.3).
    fn certificate(&self, name: &str) -> usize {
        let wildcard = || self.names.get(&format!("*.{}", name.split_once('.')?.1));
        self.names.get(name).or_else(wildcard).copied().unwrap_or(0)
    }
}

/// The one name in a `server_name` extension, in lower case and without a dot at its end; nothing where it is not of the
/// form of RFC 6066 section 3, which OpenSSL refuses by itself.
fn host_name(extension: &[u8]) -> Option<String> {
    let [_, _, 0, high, low, name @ ..] = extension else { return None };
    let is_whole = usize::from(u16::from_be_bytes([*high, *low])) == name.len();
    let name = std::str::from_utf8(name).ok().filter(|_| is_whole)?;
    Some(name.trim_end_matches('.').to_ascii_lowercase())
}

fn context(
    certificate: &Certificate,
    clients: Option<&ClientCheck>,
    min: SslVersion,
) -> Result<SslAcceptorBuilder, ErrorStack> {
    // Mozilla's "intermediate" recommendation, version 5: TLS 1.2 with AEAD ciphers, and TLS 1.3.
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    builder.set_min_proto_version(Some(min))?;
    builder.set_options(SslOptions::NO_RENEGOTIATION);
    // The order of that list counts, but a client that puts ChaCha20 first gets it: it has no AES in hardware.
    builder.set_options(SslOptions::CIPHER_SERVER_PREFERENCE | SslOptions::PRIORITIZE_CHACHA);
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
    // That the name was used is said to the client.
    builder.set_servername_callback(|_, _| Ok(()));
    match clients {
        None => builder.set_verify(SslVerifyMode::NONE),
        Some(check) => {
            let mut subjects = Stack::new()?;
            for root in &check.roots {
                subjects.push(root.subject_name().to_owned()?)?;
            }
            builder.set_verify_cert_store(upstream::store(&Trust {
                roots: Roots::Given(check.roots.clone()),
                crls: check.crls.clone(),
                ..Trust::default()
            })?)?;
            builder.set_client_ca_list(subjects);
            builder.set_verify(check.mode());
        }
    }
    Ok(builder)
}

fn names_of(certificate: &X509) -> Vec<String> {
    let certificate: &X509Ref = certificate;
    let names = certificate.subject_alt_names();
    names.iter().flatten().filter_map(|name| name.dnsname().map(str::to_ascii_lowercase)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_name_is_read_in_its_one_form_alone() {
        let of = |name: &[u8]| {
            let length = |length: usize| u16::try_from(length).unwrap().to_be_bytes();
            [&length(name.len() + 3)[..], &[0], &length(name.len()), name].concat()
        };
        assert_eq!(host_name(&of(b"API.a.test.")).as_deref(), Some("api.a.test"));
        let good = of(b"a.test");
        for cut in 0..good.len() {
            assert_eq!(host_name(&good[..cut]), None, "{cut}");
        }
        assert_eq!(host_name(&[&good[..], b"x"].concat()), None);
        assert_eq!(host_name(&of(b"\xff.test")), None);
        let mut other_kind = good;
        other_kind[2] = 1;
        assert_eq!(host_name(&other_kind), None);
    }
}
