//! What a TLS policy is made of, and the key that is equal only where all of it is.

use std::fmt;
use std::path::PathBuf;

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::sha::Sha256;
use openssl::ssl::{SslContext, SslMethod, SslVersion};
use openssl::x509::{X509, X509Crl, X509CrlRef, X509Ref};

use super::name::VerifiedName;

/// Everything that a route says of the TLS to its upstream, but for the SNI, which may differ by request.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether and against what the upstream's certificate is verified.
    pub verification: Verification,
    /// What is shown to the upstream.
    pub identity: Option<ClientIdentity>,
    /// The lowest and the highest version offered.
    pub versions: (Version, Version),
    /// Which ciphers are offered; OpenSSL's default where absent.
    pub ciphers: Ciphers,
    /// OpenSSL's list of key exchange groups; its default where absent.
    pub curves: Option<String>,
    /// Whether sessions are kept and resumed.
    pub session_reuse: bool,
    /// Where the secrets of each connection are written to.
    pub key_log: Option<PathBuf>,
    /// Which protocols are offered inside TLS.
    pub alpn: Alpn,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            verification: Verification::On(Trust::default()),
            identity: None,
            versions: (Version::Tls12, Version::Tls13),
            ciphers: Ciphers::default(),
            curves: None,
            session_reuse: true,
            key_log: None,
            alpn: Alpn::Http1,
        }
    }
}

/// Whether and against what the upstream's certificate is verified.
#[derive(Clone, Debug)]
pub enum Verification {
    /// Not at all: the file says so.
    Off,
    /// By this.
    On(Trust),
}

/// What a certificate has to satisfy.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// The trusted CAs.
    pub roots: Roots,
    /// Any one of them satisfies; `None` means the name that is asked for.
    pub names: Option<Vec<VerifiedName>>,
    /// Revocation lists; where there is any, each CA of the chain needs one.
    pub crls: Vec<Crl>,
    /// How many CAs may stand between the certificate and the trusted one; `None` is any number.
    pub depth: Option<u32>,
    /// The public key is one of these, unless there are none.
    pub pins: Vec<Pin>,
    /// Whether a certificate without alternative names is matched by its common name.
    pub allow_common_name: bool,
}

/// Trusted CAs.
#[derive(Clone, Debug, Default)]
pub enum Roots {
    /// Those of the system.
    #[default]
    System,
    /// Just these.
    Given(Vec<X509>),
}

/// A revocation list (RFC 5280 section 5).
#[derive(Clone, PartialEq, Eq)]
pub struct Crl {
    der: Vec<u8>,
}

impl Crl {
    /// Keeps a list.
    ///
    /// # Errors
    /// OpenSSL cannot write it as DER.
    pub fn new(crl: &X509CrlRef) -> Result<Self, ErrorStack> {
        Ok(Self { der: crl.to_der()? })
    }

    /// The list as DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The list.
    ///
    /// # Errors
    /// OpenSSL cannot read what it wrote.
    pub fn list(&self) -> Result<X509Crl, ErrorStack> {
        X509Crl::from_der(&self.der)
    }
}

impl fmt::Debug for Crl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crl({} bytes)", self.der.len())
    }
}

/// The SHA-256 of a public key in its `SubjectPublicKeyInfo` form (RFC 7469 section 2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin(pub [u8; 32]);

impl Pin {
    /// From `sha256/BASE64`; nothing if it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = openssl::base64::decode_block(text.strip_prefix("sha256/")?).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// The pin of a certificate's public key.
    ///
    /// # Errors
    /// The key is of a kind that OpenSSL does not know.
    pub fn of(certificate: &X509Ref) -> Result<Self, ErrorStack> {
        Ok(Self(openssl::sha::sha256(&certificate.public_key()?.public_key_to_der()?)))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256/{}", openssl::base64::encode_block(&self.0))
    }
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

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// RFC 2246.
    Tls10,
    /// RFC 4346.
    Tls11,
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl Version {
    /// All of them, the lowest first.
    pub const ALL: [Self; 4] = [Self::Tls10, Self::Tls11, Self::Tls12, Self::Tls13];

    /// As the file spells it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Tls10 => "1.0",
            Self::Tls11 => "1.1",
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
    }

    pub(super) fn of_openssl(self) -> SslVersion {
        match self {
            Self::Tls10 => SslVersion::TLS1,
            Self::Tls11 => SslVersion::TLS1_1,
            Self::Tls12 => SslVersion::TLS1_2,
            Self::Tls13 => SslVersion::TLS1_3,
        }
    }
}

/// Cipher lists, known to OpenSSL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ciphers {
    /// For TLS 1.2 and before, in OpenSSL's cipher list format.
    pub tls12: Option<String>,
    /// For TLS 1.3.
    pub tls13: Option<String>,
}

impl Ciphers {
    /// Sorts names into the two lists.
    ///
    /// # Errors
    /// The first name that OpenSSL does not know: it would pass such a name over in silence.
    pub fn parse<'a>(names: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let (mut tls12, mut tls13) = (Vec::new(), Vec::new());
        for name in names {
            let scratch = SslContext::builder(SslMethod::tls_client());
            let known = scratch.and_then(|mut context| match name.starts_with("TLS_") {
                true => context.set_ciphersuites(name),
                // `!`, `-` and `+` act on what stands before them; `@` sets a strength or a security level.
                false if name.starts_with('@') => context.set_cipher_list(&format!("ALL:{name}")),
                false => context.set_cipher_list(name.trim_start_matches(['!', '-', '+'])),
            });
            if known.is_err() {
                return Err(name.to_owned());
            }
            if name.starts_with("TLS_") { tls13.push(name) } else { tls12.push(name) }
        }
        let list = |names: Vec<&str>| (!names.is_empty()).then(|| names.join(":"));
        Ok(Self { tls12: list(tls12), tls13: list(tls13) })
    }
}

/// Whether OpenSSL knows a key exchange group by this name.
pub fn knows_curve(name: &str) -> bool {
    SslContext::builder(SslMethod::tls_client())
        .is_ok_and(|mut context| context.set_groups_list(name).is_ok())
}

/// Which protocols are offered inside TLS (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// `http/1.1`.
    Http1,
    /// `h2`.
    H2,
    /// Both, `h2` first.
    Both,
}

impl Alpn {
    pub(super) fn wire(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"\x08http/1.1",
            Self::H2 => b"\x02h2",
            Self::Both => b"\x02h2\x08http/1.1",
        }
    }
}

impl Settings {
    /// The first 64 bits of a SHA-256 over all of it.
    ///
    /// # Errors
    /// What OpenSSL said to a certificate that it cannot write as DER.
    pub fn key(&self) -> Result<u64, ErrorStack> {
        let mut hash = Sha256::new();
        // Each part goes in with its length before it, so that no two lists of parts give the same bytes.
        let mut part = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        match &self.verification {
            Verification::Off => part(b"off"),
            Verification::On(trust) => {
                part(b"on");
                match &trust.roots {
                    Roots::System => part(b"system"),
                    Roots::Given(certificates) => {
                        part(b"given");
                        for certificate in certificates {
                            part(&certificate.to_der()?);
                        }
                    }
                }
                part(if trust.names.is_some() { b"listed" } else { b"asked" });
                for name in trust.names.iter().flatten() {
                    // The kind of name is a part of it: a URI is no DNS name.
                    part(format!("{name:?}").as_bytes());
                }
                part(b"crl");
                for crl in &trust.crls {
                    part(&crl.der);
                }
                part(format!("depth {:?}", trust.depth).as_bytes());
                part(b"pins");
                for pin in &trust.pins {
                    part(&pin.0);
                }
                part(format!("common name {}", trust.allow_common_name).as_bytes());
            }
        }
        part(b"identity");
        for certificate in self.identity.iter().flat_map(|identity| &identity.chain) {
            part(&certificate.to_der()?);
        }
        let Self { versions, ciphers, curves, session_reuse, key_log, alpn, .. } = self;
        part(format!("{versions:?} {ciphers:?} {curves:?} {session_reuse} {key_log:?} {alpn:?}").as_bytes());
        // A SHA-256 digest has 32 bytes.
        Ok(hash.finish().iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cipher_that_openssl_does_not_know_is_named() {
        let parse = |list: &str| Ciphers::parse(list.split(':'));
        assert_eq!(
            parse("ECDHE+AESGCM:!aNULL:TLS_AES_128_GCM_SHA256:@SECLEVEL=1"),
            Ok(Ciphers {
                tls12: Some("ECDHE+AESGCM:!aNULL:@SECLEVEL=1".into()),
                tls13: Some("TLS_AES_128_GCM_SHA256".into()),
            })
        );
        for unknown in ["AES-GMC", "!aNUL", "TLS_AES_999", "@SECLEVEL=high"] {
            assert_eq!(parse(&format!("ECDHE+AESGCM:{unknown}")), Err(unknown.to_owned()));
        }
    }

    #[test]
    fn a_pin_is_written_as_it_is_read() {
        let text = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        assert_eq!(Pin::parse(text).unwrap().to_string(), text);
        for wrong in ["sha1/AAAA", "sha256/AAAA", "AAAA", "sha256/****"] {
            assert_eq!(Pin::parse(wrong), None, "{wrong}");
        }
    }
}
