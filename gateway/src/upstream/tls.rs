//! The TLS policy of a route towards its upstream: built once at load, shared by all that have the same one.

use std::collections::HashMap;
use std::ffi::CString;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, Weak};

use arc_swap::ArcSwap;
use foreign_types_shared::ForeignTypeRef;
use openssl::ex_data::Index;
use openssl::pkey::{PKey, Private};
use openssl::sha::Sha256;
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslMethod, SslSessionCacheMode, SslVerifyMode, SslVersion,
};
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::verify::X509VerifyFlags;
use openssl::x509::{X509, X509Ref, X509StoreContext, X509StoreContextRef, X509VerifyResult};

use super::session::{SessionKey, Sessions};

/// Whether and against what the upstream's certificate is verified.
#[derive(Clone, Debug)]
pub enum Verification {
    /// Not at all: the file says so.
    Off,
    /// By these roots, for any one of these names; `None` means the name that is asked for.
    On {
        /// The trusted CAs.
        roots: Roots,
        /// DNS names and IP addresses.
        names: Option<Vec<String>>,
    },
}

/// Trusted CAs.
#[derive(Clone, Debug)]
pub enum Roots {
    /// Those of the system.
    System,
    /// Just these.
    Given(Vec<X509>),
}

/// A certificate, the rest of its chain, and its key.
#[derive(Clone)]
pub struct ClientIdentity {
    /// Leaf first.
    pub chain: Vec<X509>,
    /// The leaf's key.
    pub key: PKey<Private>,
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientIdentity({} certificates)", self.chain.len())
    }
}

/// Everything that decides whether two connections may stand in for each other, but for the name that is asked for,
/// which the engine's pool and the session store add to their own keys.
pub struct TlsPolicy {
    /// The first 64 bits of a SHA-256 over the whole policy: equal only if the policy is.
    pub key: u64,
    /// Built once; an `Ssl` is made from it for each connection.
    pub context: SslContext,
    /// What satisfies verification; `None` means the name that is asked for.
    pub names: Option<Vec<String>>,
    /// Whether the certificate is verified at all.
    pub verifies: bool,
    /// Whether a client certificate is there to be shown.
    pub shows_certificate: bool,
    sessions: Arc<Sessions>,
}

impl fmt::Debug for TlsPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsPolicy")
            .field("key", &self.key)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

/// What the callbacks of one handshake need to know.
pub struct Handshake {
    /// Any one of these satisfies; empty where nothing is verified.
    pub names: Vec<String>,
    /// Under which key a session is kept.
    pub session: SessionKey,
    /// The upstream's certificate, as soon as it has come.
    pub certificate: OnceLock<Option<X509>>,
}

static HANDSHAKE: LazyLock<Option<Index<Ssl, Handshake>>> = LazyLock::new(|| Ssl::new_ex_index().ok());

impl TlsPolicy {
    fn new(key: u64, verification: &Verification, identity: Option<&ClientIdentity>) -> Result<Self, String> {
        let told = |error: openssl::error::ErrorStack| error.to_string();
        let mut builder = SslContext::builder(SslMethod::tls_client()).map_err(told)?;
        builder.set_min_proto_version(Some(SslVersion::TLS1_2)).map_err(told)?;
        // Halves the reads of a record: its header and its body come in one.
        builder.set_read_ahead(true);
        builder.set_alpn_protos(b"\x08http/1.1").map_err(told)?;
        let names = match verification {
            Verification::Off => {
                builder.set_verify(SslVerifyMode::NONE);
                None
            }
            Verification::On { roots, names } => {
                builder.set_cert_store(store(roots).map_err(told)?);
                builder.set_verify_callback(SslVerifyMode::PEER, verify);
                names.clone()
            }
        };
        if let Some(identity) = identity {
            show(&mut builder, identity).map_err(told)?;
        }
        let sessions = Arc::new(Sessions::default());
        let kept = sessions.clone();
        builder.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
        builder.set_new_session_callback(move |ssl, session| {
            if let Some(handshake) = handshake_of(ssl) {
                kept.keep(&handshake.session, &session);
            }
        });
        Ok(Self {
            key,
            context: builder.build(),
            names,
            verifies: matches!(verification, Verification::On { .. }),
            shows_certificate: identity.is_some(),
            sessions,
        })
    }

    /// An `Ssl` ready to connect: SNI, names to verify and a session to resume in place. `identity` is the SNI, or
    /// an IP address, which is verified but never sent as SNI (RFC 6066 section 3); empty where there is neither.
    pub fn prepare(&self, identity: &str, session: SessionKey) -> Result<Ssl, openssl::error::ErrorStack> {
        let mut ssl = Ssl::new(&self.context)?;
        if is_name(identity) {
            ssl.set_hostname(identity)?;
        }
        if let Some(kept) = self.sessions.newest(&session) {
            // SAFETY: the session was made by a context of this very policy, which `SSL_set_session` asks for.
            unsafe { ssl.set_session(&kept)? };
        }
        if let Some(index) = *HANDSHAKE {
            let names = self.names_for(identity);
            ssl.set_ex_data(index, Handshake { names, session, certificate: OnceLock::new() });
        }
        Ok(ssl)
    }

    /// The names any of which satisfies, for a connection that asks for `identity`.
    pub fn names_for(&self, identity: &str) -> Vec<String> {
        match (self.verifies, &self.names) {
            (false, _) => Vec::new(),
            (true, Some(names)) => names.clone(),
            // No identity at all satisfies nothing: an empty list of names refuses every certificate.
            (true, None) => {
                Some(identity).filter(|it| !it.is_empty()).map(str::to_owned).into_iter().collect()
            }
        }
    }
}

/// Whether this identity can be sent as SNI: a name, neither empty nor an address.
pub fn is_name(identity: &str) -> bool {
    !identity.is_empty() && identity.parse::<IpAddr>().is_err()
}

/// What the callbacks know of this connection's handshake.
pub fn handshake_of(ssl: &openssl::ssl::SslRef) -> Option<&Handshake> {
    ssl.ex_data((*HANDSHAKE)?)
}

/// Called by OpenSSL for each certificate of the chain, the leaf last, and for each thing that is wrong.
fn verify(chain_is_good: bool, context: &mut X509StoreContextRef) -> bool {
    let Some(satisfied) = checked(chain_is_good, context) else { return false };
    if chain_is_good && !satisfied {
        // SAFETY: 62 is X509_V_ERR_HOSTNAME_MISMATCH, a value that the type knows.
        context.set_error(unsafe { X509VerifyResult::from_raw(62) });
    }
    satisfied
}

fn checked(chain_is_good: bool, context: &X509StoreContextRef) -> Option<bool> {
    let handshake = handshake_of(context.ex_data(X509StoreContext::ssl_idx().ok()?)?)?;
    // OpenSSL gives a refused certificate to nobody else, and the diagnosis names what it holds.
    let leaf = handshake.certificate.get_or_init(|| {
        let first = context.chain().and_then(|chain| chain.get(0).map(ToOwned::to_owned));
        first.or_else(|| context.current_cert().map(ToOwned::to_owned))
    });
    if !chain_is_good || context.error_depth() != 0 {
        return Some(chain_is_good);
    }
    let leaf = leaf.as_ref()?;
    Some(handshake.names.iter().any(|name| certifies(leaf, name)))
}

/// Whether the certificate is for this DNS name or IP address, by its alternative names alone (RFC 9525 section 6).
fn certifies(certificate: &X509Ref, name: &str) -> bool {
    let Ok(text) = CString::new(name) else { return false };
    if name.parse::<IpAddr>().is_ok() {
        // SAFETY: both pointers live through the call; the text ends in a zero byte.
        return unsafe { openssl_sys::X509_check_ip_asc(certificate.as_ptr(), text.as_ptr(), 0) == 1 };
    }
    let flags =
        openssl_sys::X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | openssl_sys::X509_CHECK_FLAG_NEVER_CHECK_SUBJECT;
    // SAFETY: as above; the length leaves the zero byte out, and no name is asked back.
    unsafe {
        openssl_sys::X509_check_host(
            certificate.as_ptr(),
            text.as_ptr(),
            name.len(),
            flags,
            std::ptr::null_mut(),
        ) == 1
    }
}

fn store(roots: &Roots) -> Result<X509Store, openssl::error::ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    // A CA file may hold an intermediate, or the certificate itself: what the user trusts is trusted.
    store.set_flags(X509VerifyFlags::PARTIAL_CHAIN)?;
    match roots {
        Roots::Given(certificates) => {
            for certificate in certificates {
                store.add_cert(certificate.clone())?;
            }
        }
        Roots::System => {
            for certificate in SYSTEM_ROOTS.iter() {
                store.add_cert(certificate.clone())?;
            }
        }
    }
    Ok(store.build())
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

fn show(
    builder: &mut SslContextBuilder,
    identity: &ClientIdentity,
) -> Result<(), openssl::error::ErrorStack> {
    for (position, certificate) in identity.chain.iter().enumerate() {
        match position {
            0 => builder.set_certificate(certificate)?,
            _ => builder.add_extra_chain_cert(certificate.clone())?,
        }
    }
    builder.set_private_key(&identity.key)
}

/// Every policy in use, found by its key. A reload that compiles the same policy again gets the one that is there,
/// with its sessions and, since the pool goes by the key, its connections.
#[derive(Debug, Default)]
pub struct Policies {
    by_key: ArcSwap<HashMap<u64, Weak<TlsPolicy>>>,
    writing: Mutex<()>,
}

impl Policies {
    /// The policy of this key, while any snapshot holds it.
    pub fn find(&self, key: u64) -> Option<Arc<TlsPolicy>> {
        self.by_key.load().get(&key)?.upgrade()
    }

    /// The policy of these settings, made anew only where there is none.
    ///
    /// # Errors
    /// What OpenSSL said, when it does not take a certificate or a key.
    pub fn intern(
        &self,
        verification: &Verification,
        identity: Option<&ClientIdentity>,
    ) -> Result<Arc<TlsPolicy>, String> {
        let key = key_of(verification, identity)?;
        // A poisoned lock guards no data of its own.
        let _writing = self.writing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(policy) = self.find(key) {
            return Ok(policy);
        }
        let policy = Arc::new(TlsPolicy::new(key, verification, identity)?);
        let mut by_key: HashMap<_, _> = self.by_key.load().as_ref().clone();
        by_key.retain(|_, policy| policy.strong_count() > 0);
        by_key.insert(key, Arc::downgrade(&policy));
        self.by_key.store(Arc::new(by_key));
        Ok(policy)
    }
}

fn key_of(verification: &Verification, identity: Option<&ClientIdentity>) -> Result<u64, String> {
    let told = |error: openssl::error::ErrorStack| error.to_string();
    let mut hash = Sha256::new();
    // Each part goes in with its length before it, so that no two lists of parts give the same bytes.
    let mut part = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    match verification {
        Verification::Off => part(b"off"),
        Verification::On { roots, names } => {
            match roots {
                Roots::System => part(b"system"),
                Roots::Given(certificates) => {
                    part(b"given");
                    for certificate in certificates {
                        part(&certificate.to_der().map_err(told)?);
                    }
                }
            }
            part(b"names");
            for name in names.iter().flatten() {
                part(name.as_bytes());
            }
            part(if names.is_some() { b"listed" } else { b"asked" });
        }
    }
    if let Some(identity) = identity {
        part(b"identity");
        for certificate in &identity.chain {
            part(&certificate.to_der().map_err(told)?);
        }
    }
    let digest = hash.finish();
    // A SHA-256 digest has 32 bytes.
    Ok(digest.iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_that_differ_in_one_part_have_different_keys() {
        let (ca, other) = (certificate("ca.test"), certificate("other.test"));
        let on = |roots: &Roots, names: Option<&[&str]>| Verification::On {
            roots: roots.clone(),
            names: names.map(|names| names.iter().map(|name| name.to_string()).collect()),
        };
        let identity = |(certificate, key): &(X509, PKey<Private>)| ClientIdentity {
            chain: vec![certificate.clone()],
            key: key.clone(),
        };
        let given = Roots::Given(vec![ca.0.clone()]);
        let settings = [
            (Verification::Off, None),
            (on(&Roots::System, None), None),
            (on(&given, None), None),
            (on(&Roots::Given(vec![other.0.clone()]), None), None),
            (on(&Roots::Given(vec![ca.0.clone(), other.0.clone()]), None), None),
            (on(&given, Some(&["a"])), None),
            (on(&given, Some(&["a", "b"])), None),
            (on(&given, Some(&["ab"])), None),
            (on(&given, None), Some(identity(&ca))),
            (on(&given, None), Some(identity(&other))),
        ];
        let policies = Policies::default();
        let made: Vec<_> = settings
            .iter()
            .map(|(verification, identity)| policies.intern(verification, identity.as_ref()).unwrap())
            .collect();
        let mut keys: Vec<_> = made.iter().map(|policy| policy.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), settings.len());
    }

    #[test]
    fn the_same_settings_give_the_same_policy_while_it_is_held() {
        let policies = Policies::default();
        let first = policies.intern(&Verification::Off, None).unwrap();
        assert!(Arc::ptr_eq(&first, &policies.intern(&Verification::Off, None).unwrap()));
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
            ("common", false),
        ] {
            assert_eq!(certifies(&certificate, name), expected, "{name}");
        }
    }

    fn certificate(name: &str) -> (X509, PKey<Private>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters =
            rcgen::CertificateParams::new(vec![name.to_owned(), "127.0.0.9".to_owned()]).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "common");
        let certificate = parameters.self_signed(&key).unwrap();
        let key = PKey::private_key_from_pem(key.serialize_pem().as_bytes()).unwrap();
        (X509::from_pem(certificate.pem().as_bytes()).unwrap(), key)
    }
}
