//! A token as it comes (RFC 7519, in the compact form of RFC 7515), and what its claims have to say. No key is known here.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::keys::Algorithm;
use crate::claims;

/// A token that has been taken apart, and not been verified.
#[derive(Debug)]
pub(super) struct Token<'a> {
    pub(super) algorithm: Algorithm,
    /// The name of the key that is to have signed it.
    pub(super) key: Option<String>,
    /// What is signed.
    pub(super) signed: &'a str,
    pub(super) signature: Vec<u8>,
    payload: &'a str,
}

/// What claims have to say.
pub(super) struct Rules {
    pub(super) issuer: String,
    /// One of these.
    pub(super) audiences: Vec<String>,
    /// In seconds.
    pub(super) leeway: f64,
    /// Each with the values of which it has one at least.
    pub(super) required: Vec<(String, Vec<String>)>,
}

/// What is wrong with a token, in words that may be told to who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    TooLong,
    Malformed,
    Algorithm,
    Critical,
    UnknownKey,
    Signature,
    NoExpiry,
    Expired,
    NotYetValid,
    Issuer,
    Audience,
    /// It is good, and not enough.
    Insufficient,
}

/// More than any issuer's token, which has to fit into a header.
pub(super) const LONGEST: usize = 16 * 1024;

impl<'a> Token<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, Flaw> {
        if text.len() > LONGEST {
            return Err(Flaw::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Flaw::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Flaw::Malformed)?;
        let header = object(header).ok_or(Flaw::Malformed)?;
        // RFC 7515 section 4.1.11: what must be understood, and is not, refuses the token. Nothing is understood here.
        if header.contains_key("crit") {
            return Err(Flaw::Critical);
        }
        let name = header.get("alg").and_then(Value::as_str).ok_or(Flaw::Malformed)?;
        let algorithm = Algorithm::parse(name).ok_or(Flaw::Algorithm)?;
        let key = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(Flaw::Malformed),
        };
        let signature = decoded(signature).ok_or(Flaw::Malformed)?;
        Ok(Self { algorithm, key, signed, signature, payload })
    }

    /// The claims, of a token whose signature is good.
    pub(super) fn claims(&self) -> Result<Map<String, Value>, Flaw> {
        object(self.payload).ok_or(Flaw::Malformed)
    }
}

impl Rules {
    /// Whether these claims say what they have to at `now`, in seconds since 1970.
    pub(super) fn check(&self, given: &Map<String, Value>, now: f64) -> Result<(), Flaw> {
        // A time that is no number is none, and must not pass for one that is absent.
        let time = |name: &str| match given.get(name) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or(Flaw::Malformed),
        };
        let expiry = time("exp")?.ok_or(Flaw::NoExpiry)?;
        if now >= expiry + self.leeway {
            return Err(Flaw::Expired);
        }
        if time("nbf")?.is_some_and(|from| now + self.leeway < from) {
            return Err(Flaw::NotYetValid);
        }
        if given.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(Flaw::Issuer);
        }
        let is_ours = |audience: &Value| {
            audience.as_str().is_some_and(|audience| self.audiences.iter().any(|ours| ours == audience))
        };
        let audience = given.get("aud").is_some_and(|audience| match audience {
            Value::Array(several) => several.iter().any(is_ours),
            one => is_ours(one),
        });
        if !audience {
            return Err(Flaw::Audience);
        }
        for (name, wanted) in &self.required {
            let values = claims::find(given, name).and_then(claims::texts).unwrap_or_default();
            if !values.iter().any(|value| wanted.iter().any(|wanted| wanted == value)) {
                return Err(Flaw::Insufficient);
            }
        }
        Ok(())
    }
}

impl Flaw {
    /// In words, without a quotation mark: it goes into a header.
    pub(super) fn told(self) -> &'static str {
        match self {
            Self::TooLong => "the token is too long",
            Self::Malformed => "the token is malformed",
            Self::Algorithm => "the algorithm of the token is not accepted",
            Self::Critical => "the token has an extension that is not understood",
            Self::UnknownKey => "no known key has signed the token",
            Self::Signature => "the signature of the token is wrong",
            Self::NoExpiry => "the token has no expiry",
            Self::Expired => "the token has expired",
            Self::NotYetValid => "the token is not valid yet",
            Self::Issuer => "the token is of another issuer",
            Self::Audience => "the token is for another audience",
            Self::Insufficient => "the token lacks a claim that is required here",
        }
    }
}

/// Base64 as RFC 7515 section 2 has it: no padding, no other alphabet, no bits left over.
pub(super) fn decoded(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn object(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&decoded(text)?).ok()
}
