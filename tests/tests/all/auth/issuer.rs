//! An issuer of tokens: OpenSSL signs them, and a scripted origin serves its keys.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use openssl::base64;
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::nid::Nid;
use openssl::pkey::Private;
use openssl::sha::sha256;
use serde_json::{Value, json};
use vestibule_tests::origin::{Origin, Reply};

/// A P-256 key with a name.
pub struct Issuer {
    key: EcKey<Private>,
    id: String,
}

fn url_safe(bytes: &[u8]) -> String {
    base64::encode_block(bytes).replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned()
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl Issuer {
    pub fn new(id: &str) -> Self {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        Self { key: EcKey::generate(&group).unwrap(), id: id.to_owned() }
    }

    /// Its key as a JSON Web Key Set.
    pub fn keys(&self) -> String {
        let (mut x, mut y) = (BigNum::new().unwrap(), BigNum::new().unwrap());
        let mut context = BigNumContext::new().unwrap();
        self.key.public_key().affine_coordinates(self.key.group(), &mut x, &mut y, &mut context).unwrap();
        let coordinate = |number: &BigNum| url_safe(&number.to_vec_padded(32).unwrap());
        json!({ "keys": [
            { "kty": "EC", "crv": "P-256", "kid": self.id, "use": "sig", "x": coordinate(&x), "y": coordinate(&y) },
        ] })
        .to_string()
    }

    /// A token for the audience `shop` that is good for an hour, with these claims over its own.
    pub fn token(&self, claims: &Value) -> String {
        let mut all = json!({ "iss": "idp", "aud": "shop", "sub": "alice", "exp": now() + 3600 });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let header = json!({ "alg": "ES256", "kid": self.id });
        let [header, claims] = [header, all].map(|part| url_safe(part.to_string().as_bytes()));
        let signed = format!("{header}.{claims}");
        let signature = EcdsaSig::sign(&sha256(signed.as_bytes()), &self.key).unwrap();
        let [r, s] = [signature.r(), signature.s()].map(|half| half.to_vec_padded(32).unwrap());
        format!("{signed}.{}", url_safe(&[r, s].concat()))
    }

    /// The header line that brings a token.
    pub fn bearer(&self, claims: &Value) -> String {
        format!("Authorization: Bearer {}", self.token(claims))
    }
}

/// Serves what stands in the cell: keys, or a 500 where it is empty.
pub fn server(keys: &Arc<Mutex<String>>) -> Origin {
    let keys = keys.clone();
    Origin::script(move |_| match keys.lock().unwrap().as_str() {
        "" => Reply::new(500, "no keys").into(),
        keys => Reply::ok(keys).into(),
    })
}
