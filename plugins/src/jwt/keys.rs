//! A set of public keys (RFC 7517), and the signatures that they verify (RFC 7518): OpenSSL does it. No key of a set is
//! ever a shared secret, so no token can be signed with what is public.

use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Public};
use openssl::rsa::{Padding, Rsa};
use openssl::sign::{RsaPssSaltlen, Verifier};
use serde_json::{Map, Value};

use super::token::decoded;

/// The keys of an issuer.
pub(super) struct Keys(Vec<Key>);

struct Key {
    id: Option<String>,
    /// The one algorithm that it is for, where the set says so.
    algorithm: Option<Algorithm>,
    kind: Kind,
    public: PKey<Public>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// An algorithm by which a token may be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

/// A set that is larger is not an issuer's.
const MOST_KEYS: usize = 100;
/// RFC 7518 section 3.3 asks for 2048 bits; what is larger than this costs too much to verify.
const RSA_BITS: std::ops::RangeInclusive<u32> = 2048..=8192;

impl Keys {
    /// The keys of a set that can verify a token. The others are passed over, as RFC 7517 section 5 asks.
    ///
    /// # Errors
    /// It is no such set, or no key of it is of use.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let set: Value = serde_json::from_slice(bytes).map_err(|_| "is not JSON")?;
        let listed = set.get("keys").and_then(Value::as_array).ok_or("has no list of `keys`")?;
        if listed.len() > MOST_KEYS {
            return Err("has more than 100 keys");
        }
        let keys: Vec<Key> = listed.iter().filter_map(|key| Key::parse(key.as_object()?)).collect();
        match keys.is_empty() {
            true => Err("has no key that could verify a token: RSA from 2048 bits, P-256, P-384 or Ed25519"),
            false => Ok(Self(keys)),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether some key may be the one that a token names. A set whose keys have no names serves every token.
    pub(super) fn has(&self, id: Option<&str>, algorithm: Algorithm) -> bool {
        self.candidates(id, algorithm).next().is_some()
    }

    /// Whether the signature is that of one of these keys.
    pub(super) fn verify(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        signed: &[u8],
        signature: &[u8],
    ) -> bool {
        self.candidates(id, algorithm).any(|key| verify(key, algorithm, signed, signature).unwrap_or(false))
    }

    fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &Key> {
        let named = move |key: &&Key| match (id, &key.id) {
            (Some(wanted), Some(id)) => wanted == id,
            _ => true,
        };
        self.0.iter().filter(named).filter(move |key| {
            key.kind == algorithm.kind() && key.algorithm.is_none_or(|only| only == algorithm)
        })
    }
}

impl Key {
    fn parse(key: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        if text("use").is_some_and(|usage| usage != "sig") {
            return None;
        }
        if let Some(operations) = key.get("key_ops").and_then(Value::as_array)
            && !operations.iter().any(|operation| operation == "verify")
        {
            return None;
        }
        let algorithm = match text("alg") {
            None => None,
            Some(name) => Some(Algorithm::parse(name)?),
        };
        let number = |name: &str| BigNum::from_slice(&decoded(text(name)?)?).ok();
        let (kind, public) = match (text("kty")?, text("crv")) {
            ("RSA", _) => {
                let rsa = Rsa::from_public_components(number("n")?, number("e")?).ok()?;
                let bits = rsa.size().checked_mul(8)?;
                // An even exponent, or 1, verifies what nobody has signed.
                let sound = rsa.e().is_bit_set(0) && rsa.e().num_bits() > 1;
                if !RSA_BITS.contains(&bits) || !sound {
                    return None;
                }
                (Kind::Rsa, PKey::from_rsa(rsa).ok()?)
            }
            ("EC", Some(curve)) => {
                let (kind, curve) = match curve {
                    "P-256" => (Kind::P256, Nid::X9_62_PRIME256V1),
                    "P-384" => (Kind::P384, Nid::SECP384R1),
                    _ => return None,
                };
                let group = EcGroup::from_curve_name(curve).ok()?;
                // Refuses a point that is not on the curve.
                let key = EcKey::from_public_key_affine_coordinates(&group, &*number("x")?, &*number("y")?);
                (kind, PKey::from_ec_key(key.ok()?).ok()?)
            }
            ("OKP", Some("Ed25519")) => {
                let point = decoded(text("x")?)?;
                (Kind::Ed25519, PKey::public_key_from_raw_bytes(&point, Id::ED25519).ok()?)
            }
            _ => return None,
        };
        if algorithm.is_some_and(|algorithm| algorithm.kind() != kind) {
            return None;
        }
        Some(Self { id: text("kid").map(str::to_owned), algorithm, kind, public })
    }
}

impl Algorithm {
    /// By its name in a token or a set; `none` and the algorithms of shared secrets have none here.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            // RFC 9864 names the curve.
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return None,
        })
    }

    fn kind(self) -> Kind {
        match self {
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => Kind::Rsa,
            Self::Es256 => Kind::P256,
            Self::Es384 => Kind::P384,
            Self::EdDsa => Kind::Ed25519,
        }
    }

    /// None for EdDSA, which hashes by itself.
    fn digest(self) -> Option<MessageDigest> {
        match self {
            Self::Rs256 | Self::Ps256 | Self::Es256 => Some(MessageDigest::sha256()),
            Self::Rs384 | Self::Ps384 | Self::Es384 => Some(MessageDigest::sha384()),
            Self::Rs512 | Self::Ps512 => Some(MessageDigest::sha512()),
            Self::EdDsa => None,
        }
    }
}

fn verify(key: &Key, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> Result<bool, ErrorStack> {
    let mut verifier = match algorithm.digest() {
        Some(digest) => Verifier::new(digest, &key.public)?,
        None => Verifier::new_without_digest(&key.public)?,
    };
    match algorithm {
        Algorithm::Rs256 | Algorithm::Rs384 | Algorithm::Rs512 => verifier.set_rsa_padding(Padding::PKCS1)?,
        Algorithm::Ps256 | Algorithm::Ps384 | Algorithm::Ps512 => {
            verifier.set_rsa_padding(Padding::PKCS1_PSS)?;
            verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
        }
        Algorithm::Es256 | Algorithm::Es384 => {
            // RFC 7518 section 3.4: two numbers of a fixed length; OpenSSL takes them as DER.
            let half = if algorithm == Algorithm::Es256 { 32 } else { 48 };
            if signature.len() != 2 * half {
                return Ok(false);
            }
            let (r, s) = signature.split_at(half);
            let signature =
                EcdsaSig::from_private_components(BigNum::from_slice(r)?, BigNum::from_slice(s)?)?;
            return verifier.verify_oneshot(&signature.to_der()?, signed);
        }
        Algorithm::EdDsa => {}
    }
    verifier.verify_oneshot(signature, signed)
}
