use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;

use super::*;

struct Signer {
    pair: EcdsaKeyPair,
    keys: Vec<Key>,
}

impl Signer {
    fn new(id: &str) -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
        let point = pair.public_key().as_ref();
        let set = json!({"keys": [{"kty": "oct", "k": "x"}, {"kid": id, "kty": "EC", "crv": "P-256",
            "x": BASE64.encode(&point[1..33]), "y": BASE64.encode(&point[33..])}]});
        Self { keys: key_set(set.to_string().as_bytes(), 8).unwrap(), pair }
    }

    fn sign(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
        let signed = self.pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", BASE64.encode(signed.as_ref()))
    }
}

#[test]
fn only_what_the_named_key_has_signed_is_believed() {
    let (own, other) = (Signer::new("a"), Signer::new("a"));
    assert_eq!(own.keys.len(), 1, "keys of other kinds are left out");
    let good = own.sign(r#"{"alg":"ES256","kid":"a"}"#, r#"{"iss":"i"}"#);
    let jwt = Jwt::parse(&good).unwrap();
    assert!(jwt.is_signed_by(&own.keys) && !jwt.is_signed_by(&other.keys));
    assert_eq!((jwt.claimed_issuer(), jwt.algorithm()), ("i", "ES256"));
    for header in [
        r#"{"alg":"ES256","kid":"b"}"#,
        r#"{"alg":"none","kid":"a"}"#,
        r#"{"alg":"HS256","kid":"a"}"#,
        r#"{"alg":"ES384","kid":"a"}"#,
        r#"{"alg":"RS256","kid":"a"}"#,
    ] {
        let token = own.sign(header, "{}");
        assert!(!Jwt::parse(&token).unwrap().is_signed_by(&own.keys), "{header}");
    }
    let anonymous = own.sign(r#"{"alg":"ES256"}"#, "{}");
    assert!(Jwt::parse(&anonymous).unwrap().is_signed_by(&own.keys));
    let (message, _) = good.rsplit_once('.').unwrap();
    assert!(!Jwt::parse(&format!("{message}.")).unwrap().is_signed_by(&own.keys));
}

#[test]
fn other_forms_are_no_tokens() {
    let own = Signer::new("a");
    for token in [
        String::new(),
        "a.b".to_owned(),
        "a.b.c.d".to_owned(),
        own.sign("[]", "{}"),
        own.sign(r#"{"kid":"a"}"#, "{}"),
        own.sign(r#"{"alg":1}"#, "{}"),
        own.sign(r#"{"alg":"ES256","crit":["x"]}"#, "{}"),
        own.sign(r#"{"alg":"ES256","alg":"none"}"#, "{}"),
        own.sign(r#"{"alg":"ES256"}"#, r#"{"sub":"a","sub":"b"}"#),
        own.sign(r#"{"alg":"ES256"}"#, &format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_BYTES))),
    ] {
        assert!(Jwt::parse(&token).is_err(), "{token}");
    }
    assert!(key_set(b"[]", 1).is_err());
}

#[test]
fn the_largest_curve_is_verified_too() {
    use p521::ecdsa::signature::Signer as _;
    let key = p521::ecdsa::SigningKey::random(&mut p521::elliptic_curve::rand_core::OsRng);
    let point = p521::ecdsa::VerifyingKey::from(&key).to_encoded_point(false);
    let set = json!({"keys": [{"kid": "a", "kty": "EC", "crv": "P-521",
        "x": BASE64.encode(point.x().unwrap()), "y": BASE64.encode(point.y().unwrap())}]});
    let keys = key_set(set.to_string().as_bytes(), 8).unwrap();
    let message =
        format!("{}.{}", BASE64.encode(r#"{"alg":"ES512","kid":"a"}"#), BASE64.encode("{}"));
    let signature: p521::ecdsa::Signature = key.sign(message.as_bytes());
    let mut bytes = signature.to_bytes().to_vec();
    let signed = |bytes: &[u8]| {
        let token = format!("{message}.{}", BASE64.encode(bytes));
        Jwt::parse(&token).unwrap().is_signed_by(&keys)
    };
    assert!(signed(&bytes));
    bytes[100] ^= 1;
    assert!(!signed(&bytes));
    assert!(!signed(&bytes[..131]) && !signed(&[]));
}
