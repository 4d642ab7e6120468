use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::rsa::{Padding, Rsa};
use openssl::sign::{RsaPssSaltlen, Signer};
use serde_json::json;

use super::keys::Algorithm;
use super::*;
use crate::Identity;
use crate::testing::{INFO, ROUTE, Silent, get, plugins_of_doc_in, refusal as refused};

const NOW: f64 = 1_000_000.0;

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

struct Issuer {
    rsa: PKey<Private>,
    p256: PKey<Private>,
    p384: PKey<Private>,
    ed: PKey<Private>,
}

impl Issuer {
    fn new() -> Self {
        let ec = |curve| {
            let group = EcGroup::from_curve_name(curve).unwrap();
            PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
        };
        Self {
            rsa: PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap(),
            p256: ec(Nid::X9_62_PRIME256V1),
            p384: ec(Nid::SECP384R1),
            ed: PKey::generate_ed25519().unwrap(),
        }
    }

    fn jwks(&self) -> Value {
        let rsa = self.rsa.rsa().unwrap();
        let ec = |key: &PKey<Private>, curve: &str| {
            let key = key.ec_key().unwrap();
            let (mut x, mut y) = (openssl::bn::BigNum::new().unwrap(), openssl::bn::BigNum::new().unwrap());
            let mut ctx = openssl::bn::BigNumContext::new().unwrap();
            key.public_key().affine_coordinates(key.group(), &mut x, &mut y, &mut ctx).unwrap();
            json!({ "kty": "EC", "crv": curve, "kid": curve, "x": b64(x.to_vec()), "y": b64(y.to_vec()) })
        };
        json!({ "keys": [
            { "kty": "RSA", "kid": "rsa", "use": "sig", "n": b64(rsa.n().to_vec()), "e": b64(rsa.e().to_vec()) },
            ec(&self.p256, "P-256"),
            ec(&self.p384, "P-384"),
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "alg": "EdDSA", "x": b64(self.ed.raw_public_key().unwrap()) },
            { "kty": "oct", "kid": "secret", "k": b64("secret") },
            { "kty": "RSA", "kid": "enc", "use": "enc", "n": b64(rsa.n().to_vec()), "e": b64(rsa.e().to_vec()) },
            { "kty": "new" },
            7,
        ] })
    }

    fn keys(&self) -> Keys {
        Keys::parse(self.jwks().to_string().as_bytes()).unwrap_or_else(|why| panic!("{why}"))
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let name = header["alg"].as_str().unwrap();
        let (key, digest) = match name {
            "RS256" | "PS256" => (&self.rsa, Some(MessageDigest::sha256())),
            "RS384" | "PS384" => (&self.rsa, Some(MessageDigest::sha384())),
            "RS512" | "PS512" => (&self.rsa, Some(MessageDigest::sha512())),
            "ES256" => (&self.p256, Some(MessageDigest::sha256())),
            "ES384" => (&self.p384, Some(MessageDigest::sha384())),
            _ => (&self.ed, None),
        };
        let mut signer = match digest {
            Some(digest) => Signer::new(digest, key).unwrap(),
            None => Signer::new_without_digest(key).unwrap(),
        };
        if name.starts_with("PS") {
            signer.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
            signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).unwrap();
        }
        let mut signature = signer.sign_oneshot_to_vec(signed.as_bytes()).unwrap();
        if key.id() == Id::EC {
            let half = if name == "ES256" { 32 } else { 48 };
            let parsed = EcdsaSig::from_der(&signature).unwrap();
            signature = parsed.r().to_vec_padded(half).unwrap();
            signature.extend(parsed.s().to_vec_padded(half).unwrap());
        }
        format!("{signed}.{}", b64(signature))
    }
}

fn judged(token: &str, keys: &Keys) -> Result<Map<String, Value>, Flaw> {
    verify(&Token::parse(token)?, keys)
}

#[test]
fn the_yaml_of_the_module_doc_loads() {
    let setting = Setting { outbound: &Silent, ..ROUTE };
    assert_eq!(plugins_of_doc_in(include_str!("mod.rs"), &setting).len(), 1);
}

#[test]
fn every_algorithm_verifies_what_its_key_has_signed() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    for (algorithm, kid) in [
        ("RS256", "rsa"),
        ("RS384", "rsa"),
        ("RS512", "rsa"),
        ("PS256", "rsa"),
        ("PS384", "rsa"),
        ("PS512", "rsa"),
        ("ES256", "P-256"),
        ("ES384", "P-384"),
        ("EdDSA", "ed"),
    ] {
        for header in [json!({ "alg": algorithm, "kid": kid }), json!({ "alg": algorithm, "typ": "JWT" })] {
            let token = issuer.token(&header, &json!({ "sub": "a" }));
            assert_eq!(judged(&token, &issuer.keys()).unwrap()["sub"], "a", "{header}");
            assert_eq!(judged(&token, &other.keys()), Err(Flaw::Signature), "{header}");
            let (head, signature) = token.rsplit_once('.').unwrap();
            let (first, _) = head.split_once('.').unwrap();
            let tampered = format!("{first}.{}.{signature}", b64(json!({ "sub": "b" }).to_string()));
            assert_eq!(judged(&tampered, &issuer.keys()), Err(Flaw::Signature), "{header}");
            assert_eq!(judged(&format!("{head}."), &issuer.keys()), Err(Flaw::Signature), "{header}");
        }
    }
}

#[test]
fn a_key_is_used_by_no_algorithm_that_is_not_its_own() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let claims = b64(json!({ "sub": "admin" }).to_string());
    let forged = |header: Value, signature: &str| format!("{}.{claims}.{signature}", b64(header.to_string()));
    for name in ["none", "None", "NONE", "HS256", "HS384", "HS512", "ES512", "", "rs256"] {
        assert_eq!(judged(&forged(json!({ "alg": name }), ""), &keys), Err(Flaw::Algorithm), "{name}");
    }
    // The public key as the shared secret: the classic confusion.
    let header = b64(json!({ "alg": "HS256", "kid": "rsa" }).to_string());
    let secret = PKey::hmac(&issuer.rsa.public_key_to_pem().unwrap()).unwrap();
    let signed = format!("{header}.{claims}");
    let mut signer = Signer::new(MessageDigest::sha256(), &secret).unwrap();
    let mac = b64(signer.sign_oneshot_to_vec(signed.as_bytes()).unwrap());
    assert_eq!(judged(&format!("{signed}.{mac}"), &keys), Err(Flaw::Algorithm));
    for (algorithm, kid) in
        [("ES256", "rsa"), ("RS256", "P-256"), ("ES384", "P-256"), ("RS256", "ed"), ("RS256", "enc")]
    {
        let token = issuer.token(&json!({ "alg": algorithm, "kid": kid }), &json!({}));
        assert_eq!(judged(&token, &keys), Err(Flaw::UnknownKey), "{algorithm} by {kid}");
    }
    assert!(!keys.has(Some("secret"), Algorithm::Rs256));
    // DER instead of two numbers, and numbers that are zero.
    for signature in [vec![0; 64], vec![0x30, 6, 2, 1, 1, 2, 1, 1]] {
        let token = forged(json!({ "alg": "ES256" }), &b64(signature));
        assert_eq!(judged(&token, &keys), Err(Flaw::Signature));
    }
}

#[test]
fn what_is_no_token_is_told_so() {
    let long = "a".repeat(token::LONGEST + 1);
    let head = |header: Value| format!("{}.{}.", b64(header.to_string()), b64("{}"));
    for (text, flaw) in [
        ("".to_owned(), Flaw::Malformed),
        ("a.b".into(), Flaw::Malformed),
        ("a.b.c.d.e".into(), Flaw::Malformed),
        ("e30.e30.".into(), Flaw::Malformed),
        ("[].e30.".into(), Flaw::Malformed),
        (long, Flaw::TooLong),
        (head(json!({ "alg": "RS256", "crit": ["b64"], "b64": false })), Flaw::Critical),
        (head(json!({ "alg": "RS256", "crit": [] })), Flaw::Critical),
        (head(json!({ "alg": "RS256", "kid": 7 })), Flaw::Malformed),
        (head(json!({ "alg": ["RS256"] })), Flaw::Malformed),
        (format!("{}=.e30.", b64(json!({ "alg": "RS256" }).to_string())), Flaw::Malformed),
    ] {
        assert_eq!(Token::parse(&text).unwrap_err(), flaw, "{text:.60}");
    }
}

#[test]
fn claims_have_to_say_what_the_rules_ask() {
    let rules = Rules {
        issuer: "idp".into(),
        audiences: vec!["shop".into(), "api".into()],
        leeway: 60.0,
        required: vec![
            ("groups".into(), vec!["dev".into(), "ops".into()]),
            ("ok".into(), vec!["true".into()]),
        ],
    };
    let good = json!({ "iss": "idp", "aud": "shop", "exp": NOW + 1.0, "groups": ["x", "dev"], "ok": true });
    let check = |change: Value, expected: Result<(), Flaw>| {
        let mut claims = good.as_object().unwrap().clone();
        for (name, value) in change.as_object().unwrap() {
            match value.is_null() {
                true => drop(claims.remove(name)),
                false => drop(claims.insert(name.clone(), value.clone())),
            }
        }
        assert_eq!(rules.check(&claims, NOW), expected, "{change}");
    };
    check(json!({}), Ok(()));
    check(json!({ "exp": NOW - 59.0 }), Ok(()));
    check(json!({ "exp": NOW - 60.0 }), Err(Flaw::Expired));
    check(json!({ "exp": null }), Err(Flaw::NoExpiry));
    check(json!({ "exp": "9999999999" }), Err(Flaw::Malformed));
    check(json!({ "nbf": NOW + 60.0 }), Ok(()));
    check(json!({ "nbf": NOW + 61.0 }), Err(Flaw::NotYetValid));
    check(json!({ "nbf": "now" }), Err(Flaw::Malformed));
    check(json!({ "iss": "idp/" }), Err(Flaw::Issuer));
    check(json!({ "iss": ["idp"] }), Err(Flaw::Issuer));
    check(json!({ "iss": null }), Err(Flaw::Issuer));
    check(json!({ "aud": ["other", "api"] }), Ok(()));
    check(json!({ "aud": "other" }), Err(Flaw::Audience));
    check(json!({ "aud": [] }), Err(Flaw::Audience));
    check(json!({ "aud": null }), Err(Flaw::Audience));
    check(json!({ "groups": "ops" }), Ok(()));
    check(json!({ "groups": ["x"] }), Err(Flaw::Insufficient));
    check(json!({ "ok": false }), Err(Flaw::Insufficient));
    check(json!({ "ok": null }), Err(Flaw::Insufficient));
}

/// A plugin by the keys of `issuer`, without a file.
fn plugin(issuer: &Issuer, forward: bool, place: Place) -> Jwt {
    Jwt {
        rules: Rules {
            issuer: "idp".into(),
            audiences: vec!["shop".into()],
            leeway: 0.0,
            required: Vec::new(),
        },
        source: Source::File(issuer.keys()),
        place,
        forward,
        headers: vec![
            (FieldName::parse("X-User").unwrap(), "sub".into()),
            (FieldName::parse("X-Role").unwrap(), "role".into()),
        ],
    }
}

#[test]
fn who_passes_is_told_to_those_behind_and_no_more() {
    let issuer = Issuer::new();
    let claims = json!({ "iss": "idp", "aud": "shop", "exp": now() + 3600.0, "sub": "alice" });
    let token = issuer.token(&json!({ "alg": "ES256" }), &claims);
    for forward in [false, true] {
        let identity = Identity::new();
        let mut head = get("/");
        head.insert_header("authorization", format!("Bearer {token}")).unwrap();
        head.insert_header("x-user", "admin").unwrap();
        head.insert_header("x-role", "admin").unwrap();
        let plugin = plugin(&issuer, forward, Place::Scheme("Bearer"));
        let verdict = plugin.request(&mut head, &RequestInfo { identity: &identity, ..INFO });
        assert!(matches!(verdict, Verdict::Continue));
        assert_eq!(head.headers.get_all("x-user").iter().collect::<Vec<_>>(), ["alice"]);
        assert!(!head.headers.contains_key("x-role"), "the client's own word");
        assert_eq!(head.headers.contains_key("authorization"), forward);
        assert_eq!(identity.user(), Some("alice"));
        assert_eq!(identity.claims().unwrap()["iss"], "idp");
    }
}

#[test]
fn who_does_not_pass_is_told_as_rfc_6750_has_it() {
    let issuer = Issuer::new();
    let plugin = plugin(&issuer, false, Place::Scheme("Bearer"));
    let expired = issuer.token(&json!({ "alg": "ES256" }), &json!({ "exp": 1 }));
    for (given, challenge) in [
        (vec![], "Bearer realm=\"vestibule\""),
        (vec!["Basic eA"], "Bearer realm=\"vestibule\""),
        (
            vec!["Bearer x"],
            "Bearer realm=\"vestibule\", error=\"invalid_token\", error_description=\"the token is malformed\"",
        ),
        (
            vec![&*format!("Bearer {expired}")],
            "Bearer realm=\"vestibule\", error=\"invalid_token\", error_description=\"the token has expired\"",
        ),
        (
            vec!["Bearer x", "Bearer x"],
            "Bearer realm=\"vestibule\", error=\"invalid_request\", error_description=\"there are several tokens\"",
        ),
    ] {
        let mut head = get("/");
        for value in &given {
            head.append_header("authorization", *value).unwrap();
        }
        let Verdict::Refuse(refusal) = plugin.request(&mut head, &INFO) else { panic!() };
        assert_eq!((refusal.status, refusal.why), (401, Why::Unauthenticated));
        assert_eq!(refusal.headers[0].1, challenge);
        assert!(!given.iter().any(|given| refusal.detail.contains(given)));
    }
}

#[test]
fn a_set_without_a_key_of_use_is_refused() {
    let weak = Rsa::generate(1024).unwrap();
    let weak = json!({ "keys": [{ "kty": "RSA", "n": b64(weak.n().to_vec()), "e": "AQAB" }] });
    let one =
        json!({ "keys": [{ "kty": "RSA", "n": b64(Rsa::generate(2048).unwrap().n().to_vec()), "e": "AQ" }] });
    let off_curve =
        json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": b64([1; 32]), "y": b64([1; 32]) }] });
    for set in [weak, one, off_curve, json!({ "keys": [] })] {
        let told = Keys::parse(set.to_string().as_bytes()).err().unwrap();
        assert!(told.starts_with("has no key"), "{told}");
    }
    for (text, told) in [("x", "is not JSON"), ("{}", "has no list"), ("{\"keys\": 1}", "has no list")] {
        assert!(Keys::parse(text.as_bytes()).err().unwrap().starts_with(told), "{text}");
    }
    let many = json!({ "keys": vec![7; 101] });
    assert_eq!(Keys::parse(many.to_string().as_bytes()).err(), Some("has more than 100 keys"));
}

#[test]
fn what_cannot_be_honoured_is_refused() {
    let base = "issuer: i, audience: a, jwks: { upstream: u, path: /k }";
    for (config, told) in [
        ("{ audience: a, jwks: { file: f } }", "issuer"),
        ("{ issuer: '', audience: a, jwks: { file: f } }", "issuer: an empty text"),
        ("{ issuer: i, audience: [], jwks: { file: f } }", "audience: there is no audience"),
        ("{ issuer: i, audience: a, jwks: {} }", "jwks: the keys come from a file"),
        ("{ issuer: i, audience: a, jwks: { file: f, path: /k } }", "jwks: the keys come from a file"),
        ("{ issuer: i, audience: a, jwks: { file: f } }", "jwks.file: `f` cannot be read"),
        (&format!("{{ {base} }}"), "jwks.upstream: no upstream is named `u`"),
        (&format!("{{ {base}, from: {{}} }}"), "from: just one place"),
        (&format!("{{ {base}, from: {{ cookie: a, query: b }} }}"), "from: just one place"),
        (&format!("{{ {base}, headers: {{ 'a b': sub }} }}"), "headers.a b: `a b` is not a header name"),
        (&format!("{{ {base}, required_claims: {{ a: [] }} }}"), "required_claims.a: no token has one"),
    ] {
        let refused = refused("jwt", config);
        assert!(refused.contains(told), "{config}: {refused}");
    }
}
