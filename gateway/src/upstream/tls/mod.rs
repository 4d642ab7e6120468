//! The TLS policy of a route towards its upstream: built once at load, shared by all that have the same one.

mod ffi;
mod key_log;
mod name;
mod policies;
mod roots;
mod settings;
mod verify;

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions, SslRef, SslSessionCacheMode, SslVerifyMode,
};
use openssl::x509::X509;

use super::session::{SessionKey, Sessions};
use key_log::KeyLog;

pub use ffi::is_ca;
pub use name::VerifiedName;
pub use policies::Policies;
pub use roots::store;
pub use settings::{
    Alpn, Ciphers, ClientIdentity, Crl, Pin, Roots, Settings, Trust, Verification, Version, knows_curve,
};
pub use verify::{HOSTNAME_MISMATCH, PIN_MISMATCH, Refused};

/// Everything that decides whether two connections may stand in for each other, but for the name that is asked for,
/// which the engine's pool and the session store add to their own keys.
pub struct TlsPolicy {
    /// The first 64 bits of a SHA-256 over the settings: equal only if they are.
    pub key: u64,
    /// What the policy was made of.
    pub settings: Settings,
    context: SslContext,
    checks: Arc<Checks>,
    sessions: Arc<Sessions>,
}

/// What OpenSSL does not verify by itself.
#[derive(Debug, Default)]
struct Checks {
    pins: Vec<Pin>,
    common_name: bool,
}

impl fmt::Debug for TlsPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsPolicy").field("key", &self.key).finish_non_exhaustive()
    }
}

/// What the callbacks of one handshake need to know, and what they saw.
pub struct Handshake {
    names: Vec<VerifiedName>,
    session: SessionKey,
    checks: Arc<Checks>,
    presented: OnceLock<Vec<X509>>,
    refused: OnceLock<Refused>,
    asked: AtomicBool,
}

/// What a handshake showed of the upstream, whether it ended well or not.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The certificates as the upstream sent them, its own first; empty if it came to none.
    pub presented: Vec<X509>,
    /// Why verification refused them.
    pub refused: Option<Refused>,
    /// Whether the upstream asked for a client certificate.
    pub asked: bool,
    /// Whose client certificates it says it accepts; empty where it does not say.
    pub accepted_issuers: Vec<String>,
}

static HANDSHAKE: LazyLock<Option<Index<Ssl, Handshake>>> = LazyLock::new(|| Ssl::new_ex_index().ok());

impl TlsPolicy {
    /// Builds a policy that nobody shares; `Policies::intern` is for those that are.
    ///
    /// # Errors
    /// What OpenSSL said, when it does not take a setting.
    pub fn new(settings: Settings) -> Result<Self, String> {
        let told = |error: ErrorStack| error.to_string();
        let key = settings.key().map_err(told)?;
        let sessions = Arc::new(Sessions::default());
        let context = context(&settings, &sessions).map_err(told)?;
        let checks = match &settings.verification {
            Verification::Off => Checks::default(),
            Verification::On(trust) => {
                Checks { pins: trust.pins.clone(), common_name: trust.allow_common_name }
            }
        };
        Ok(Self { key, settings, context, checks: Arc::new(checks), sessions })
    }

    /// An `Ssl` ready to connect: SNI, names to verify and a session to resume in place. `identity` is the SNI, or
    /// an IP address, which is verified but never sent as SNI (RFC 6066 section 3); empty where there is neither.
    ///
    /// # Errors
    /// OpenSSL does not take the name.
    pub fn prepare(&self, identity: &str, session: SessionKey) -> Result<Ssl, ErrorStack> {
        let mut ssl = Ssl::new(&self.context)?;
        if is_name(identity) {
            ssl.set_hostname(identity)?;
        }
        if self.settings.session_reuse
            && let Some(kept) = self.sessions.newest(&session)
        {
            // SAFETY: the session was made by a context of this very policy, which `SSL_set_session` asks for.
            unsafe { ssl.set_session(&kept)? };
        }
        if let Some(index) = *HANDSHAKE {
            let handshake = Handshake {
                names: self.names_for(identity),
                session,
                checks: self.checks.clone(),
                presented: OnceLock::new(),
                refused: OnceLock::new(),
                asked: AtomicBool::new(false),
            };
            ssl.set_ex_data(index, handshake);
        }
        Ok(ssl)
    }

    /// The names any of which satisfies, for a connection that asks for `identity`. None at all refuses every
    /// certificate, where one is verified.
    pub fn names_for(&self, identity: &str) -> Vec<VerifiedName> {
        match &self.settings.verification {
            Verification::Off => Vec::new(),
            Verification::On(Trust { names: Some(names), .. }) => names.clone(),
            Verification::On(_) => VerifiedName::of_identity(identity).into_iter().collect(),
        }
    }
}

impl Handshake {
    fn note_asked(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }
}

impl Seen {
    /// What this connection's handshake showed.
    pub fn of(ssl: &SslRef) -> Self {
        let Some(handshake) = handshake_of(ssl) else { return Self::default() };
        Self {
            presented: handshake.presented.get().cloned().unwrap_or_default(),
            refused: handshake.refused.get().cloned(),
            asked: handshake.asked.load(Ordering::Relaxed),
            accepted_issuers: ffi::accepted_issuers(ssl),
        }
    }
}

/// Whether this identity can be sent as SNI: a name, neither empty nor an address.
pub fn is_name(identity: &str) -> bool {
    !identity.is_empty() && identity.parse::<IpAddr>().is_err()
}

fn context(settings: &Settings, sessions: &Arc<Sessions>) -> Result<SslContext, ErrorStack> {
    let mut builder = SslContext::builder(SslMethod::tls_client())?;
    let (lowest, highest) = settings.versions;
    if lowest < Version::Tls12 {
        // OpenSSL's level 1 and above refuse the signatures of TLS 1.0 and 1.1, so the version alone would say nothing.
        builder.set_security_level(0);
    }
    builder.set_min_proto_version(Some(lowest.of_openssl()))?;
    builder.set_max_proto_version(Some(highest.of_openssl()))?;
    if let Some(list) = &settings.ciphers.tls12 {
        builder.set_cipher_list(list)?;
    }
    if let Some(list) = &settings.ciphers.tls13 {
        builder.set_ciphersuites(list)?;
    }
    if let Some(list) = &settings.curves {
        builder.set_groups_list(list)?;
    }
    // Halves the reads of a record: its header and its body come in one.
    builder.set_read_ahead(true);
    builder.set_alpn_protos(settings.alpn.wire())?;
    match &settings.verification {
        Verification::Off => builder.set_verify_callback(SslVerifyMode::NONE, verify::look),
        Verification::On(trust) => {
            builder.set_cert_store(roots::store(trust)?);
            if let Some(depth) = trust.depth {
                builder.set_verify_depth(depth);
            }
            builder.set_verify_callback(SslVerifyMode::PEER, verify::verify);
        }
    }
    if let Some(identity) = &settings.identity {
        show(&mut builder, identity)?;
    }
    ffi::note_certificate_requests(&mut builder);
    if let Some(path) = &settings.key_log {
        let log = KeyLog::new(path.clone());
        builder.set_keylog_callback(move |_, line| log.write(line));
    }
    if settings.session_reuse {
        let kept = sessions.clone();
        builder.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
        builder.set_new_session_callback(move |ssl, session| {
            if let Some(handshake) = handshake_of(ssl) {
                kept.keep(&handshake.session, &session);
            }
        });
    } else {
        builder.set_session_cache_mode(SslSessionCacheMode::OFF);
        builder.set_options(SslOptions::NO_TICKET);
    }
    Ok(builder.build())
}

fn show(builder: &mut SslContextBuilder, identity: &ClientIdentity) -> Result<(), ErrorStack> {
    for (position, certificate) in identity.chain.iter().enumerate() {
        match position {
            0 => builder.set_certificate(certificate)?,
            _ => builder.add_extra_chain_cert(certificate.clone())?,
        }
    }
    builder.set_private_key(&identity.key)
}

fn handshake_of(ssl: &SslRef) -> Option<&Handshake> {
    ssl.ex_data((*HANDSHAKE)?)
}

#[cfg(test)]
mod tests {
    use super::ffi::Compare;
    use super::*;
    use openssl::pkey::{PKey, Private};

    #[test]
    fn policies_that_differ_in_one_part_have_different_keys() {
        let (ca, other) = (certificate("ca.test"), certificate("other.test"));
        let base = || Settings {
            verification: Verification::On(Trust {
                roots: Roots::Given(vec![ca.0.clone()]),
                ..Trust::default()
            }),
            ..Settings::default()
        };
        let with = |change: &dyn Fn(&mut Settings)| {
            let mut settings = base();
            change(&mut settings);
            settings
        };
        let trusting = |change: &dyn Fn(&mut Trust)| {
            with(&|settings| {
                let Verification::On(trust) = &mut settings.verification else { unreachable!() };
                change(trust);
            })
        };
        let named = |names: &[&str]| {
            let names: Vec<VerifiedName> = names.iter().map(|name| name.parse().unwrap()).collect();
            trusting(&move |trust| trust.names = Some(names.clone()))
        };
        let identity = |(certificate, key): &(X509, PKey<Private>)| ClientIdentity {
            chain: vec![certificate.clone()],
            key: key.clone(),
        };
        let settings = [
            base(),
            with(&|it| it.verification = Verification::Off),
            trusting(&|trust| trust.roots = Roots::System),
            trusting(&|trust| trust.roots = Roots::Given(vec![other.0.clone()])),
            trusting(&|trust| trust.roots = Roots::Given(vec![ca.0.clone(), other.0.clone()])),
            named(&["a"]),
            named(&["a", "b"]),
            named(&["ab"]),
            trusting(&|trust| trust.depth = Some(1)),
            trusting(&|trust| trust.depth = Some(2)),
            trusting(&|trust| trust.pins = vec![Pin([1; 32])]),
            trusting(&|trust| trust.pins = vec![Pin([2; 32])]),
            trusting(&|trust| trust.allow_common_name = true),
            with(&|it| it.identity = Some(identity(&ca))),
            with(&|it| it.identity = Some(identity(&other))),
            with(&|it| it.versions.0 = Version::Tls13),
            with(&|it| it.versions.1 = Version::Tls12),
            with(&|it| it.ciphers.tls12 = Some("AESGCM".into())),
            with(&|it| it.ciphers.tls13 = Some("TLS_AES_128_GCM_SHA256".into())),
            with(&|it| it.curves = Some("P-256".into())),
            with(&|it| it.session_reuse = false),
            with(&|it| it.key_log = Some("a".into())),
            with(&|it| it.alpn = Alpn::H2),
            with(&|it| it.alpn = Alpn::Both),
        ];
        let policies = Policies::default();
        let made: Vec<_> =
            settings.iter().map(|settings| policies.intern(settings.clone()).unwrap()).collect();
        let mut keys: Vec<_> = made.iter().map(|policy| policy.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), settings.len());
    }

    #[test]
    fn the_same_settings_give_the_same_policy_while_it_is_held() {
        let policies = Policies::default();
        let first = policies.intern(Settings::default()).unwrap();
        assert!(Arc::ptr_eq(&first, &policies.intern(Settings::default()).unwrap()));
        let key = first.key;
        drop(first);
        assert!(policies.find(key).is_none());
    }

    #[test]
    fn a_certificate_is_for_its_alternative_names_and_addresses_alone() {
        let (certificate, _) = certificate("www.a.test");
        for (name, expected) in [
            ("www.a.test", true),
            ("WWW.a.test", true),
            ("a.test", false),
            ("127.0.0.9", true),
            ("127.0.0.1", false),
            ("spiffe://a.test/app", true),
            ("spiffe://a.test/App", false),
            ("common", false),
        ] {
            let name: VerifiedName = name.parse().unwrap();
            assert_eq!(name.is_in(&certificate, Compare::AlternativeNames), expected, "{name}");
            assert_eq!(name.is_in(&certificate, Compare::CommonNameToo), expected, "{name}");
        }
    }

    #[test]
    fn a_common_name_counts_only_where_it_is_allowed_and_there_is_no_other() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "common.test");
        let certificate = parameters.self_signed(&key).unwrap();
        let certificate = X509::from_pem(certificate.pem().as_bytes()).unwrap();
        let name: VerifiedName = "common.test".parse().unwrap();
        assert!(!name.is_in(&certificate, Compare::AlternativeNames));
        assert!(name.is_in(&certificate, Compare::CommonNameToo));
    }

    fn certificate(name: &str) -> (X509, PKey<Private>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters =
            rcgen::CertificateParams::new(vec![name.to_owned(), "127.0.0.9".to_owned()]).unwrap();
        let uri = "spiffe://a.test/app".try_into().unwrap();
        parameters.subject_alt_names.push(rcgen::SanType::URI(uri));
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "common");
        let certificate = parameters.self_signed(&key).unwrap();
        let key = PKey::private_key_from_pem(key.serialize_pem().as_bytes()).unwrap();
        (X509::from_pem(certificate.pem().as_bytes()).unwrap(), key)
    }
}
