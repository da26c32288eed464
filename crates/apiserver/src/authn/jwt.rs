//! JSON Web Tokens of other issuers than this cluster: their form and their signatures.
//!
//! A token is not believed before [`Jwt::is_signed_by`] has said so; what it says of itself only
//! chooses who is asked for keys.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// Longest token that is accepted, in bytes.
const MAX_BYTES: usize = 16 << 10;
/// Bytes of an RSA modulus, at most: larger ones cost too much.
const MODULUS_BYTES: usize = 1_024;

/// The signing algorithms that can be verified, by their names in tokens.
pub const ALGORITHMS: &[&str] =
    &["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"];

/// Why a token is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("oidc: malformed jwt: {0}")]
pub struct Malformed(&'static str);

/// A JSON object without repeated members: of two, readers may choose different ones.
struct Unique(Map<String, Value>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Unique;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Unique, A::Error> {
                let mut map = Map::new();
                while let Some((name, value)) = access.next_entry::<String, Value>()? {
                    if map.insert(name, value).is_some() {
                        return Err(A::Error::custom("a member is there twice"));
                    }
                }
                Ok(Unique(map))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A token, not verified.
pub struct Jwt<'a> {
    message: &'a str,
    signature: Vec<u8>,
    algorithm: String,
    key_id: Option<String>,
    claims: Map<String, Value>,
}

impl<'a> Jwt<'a> {
    /// # Errors
    /// When it has not the form of a signed token.
    pub fn parse(token: &'a str) -> Result<Self, Malformed> {
        if token.len() > MAX_BYTES {
            return Err(Malformed("too long"));
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Malformed("not three parts"));
        };
        let object = |part: &str| {
            let json = BASE64.decode(part).map_err(|_| Malformed("not base64"))?;
            serde_json::from_slice::<Unique>(&json)
                .map(|unique| unique.0)
                .map_err(|_| Malformed("no object, or one with repeated members"))
        };
        let (mut header_map, claims) = (object(header)?, object(payload)?);
        if header_map.contains_key("crit") || header_map.contains_key("b64") {
            return Err(Malformed("unsupported critical header"));
        }
        let mut text = |name: &str| match header_map.remove(name) {
            Some(Value::String(text)) => Ok(Some(text)),
            None => Ok(None),
            Some(_) => Err(Malformed("a header that is no string")),
        };
        Ok(Self {
            algorithm: text("alg")?.ok_or(Malformed("no algorithm"))?,
            key_id: text("kid")?,
            message: &token[..header.len() + 1 + payload.len()],
            signature: BASE64.decode(signature).map_err(|_| Malformed("not base64"))?,
            claims,
        })
    }

    /// The issuer that it claims to be of.
    pub fn claimed_issuer(&self) -> &str {
        self.claims.get("iss").and_then(Value::as_str).unwrap_or_default()
    }

    pub fn algorithm(&self) -> &str {
        &self.algorithm
    }

    /// The claims; nobody has signed them until [`Self::is_signed_by`] says so.
    pub fn claims(self) -> Map<String, Value> {
        self.claims
    }

    /// Whether one of the keys has signed it: the one that it names, or any if it names none.
    pub fn is_signed_by(&self, keys: &[Key]) -> bool {
        let named = |key: &&Key| self.key_id.as_ref().is_none_or(|id| *id == key.id);
        keys.iter().filter(named).any(|key| {
            key.material.verify(&self.algorithm, self.message.as_bytes(), &self.signature)
        })
    }
}

/// A key of a JSON Web Key Set.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    id: String,
    material: Material,
}

#[derive(Debug, PartialEq, Eq)]
enum Material {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// An uncompressed point.
    P256(Vec<u8>),
    P384(Vec<u8>),
    P521(Vec<u8>),
}

impl Material {
    fn verify(&self, algorithm: &str, message: &[u8], signed: &[u8]) -> bool {
        let rsa = |modulus: &Vec<u8>, exponent: &Vec<u8>, parameters| {
            let key = RsaPublicKeyComponents { n: modulus, e: exponent };
            key.verify(parameters, message, signed).is_ok()
        };
        match (self, algorithm) {
            (Self::P256(point), "ES256") => {
                let key = UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point);
                key.verify(message, signed).is_ok()
            }
            (Self::P384(point), "ES384") => {
                let key = UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point);
                key.verify(message, signed).is_ok()
            }
            // This curve is not one of ring's.
            (Self::P521(point), "ES512") => {
                let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(point);
                let signature = p521::ecdsa::Signature::from_slice(signed);
                key.ok().zip(signature.ok()).is_some_and(|(key, signature)| {
                    p521::ecdsa::signature::Verifier::verify(&key, message, &signature).is_ok()
                })
            }
            (Self::Rsa { modulus, exponent }, name) => {
                let parameters = match name {
                    "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                    "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
                    "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                rsa(modulus, exponent, parameters)
            }
            _ => false,
        }
    }
}

#[derive(Deserialize)]
struct JsonKey {
    #[serde(default)]
    kid: String,
    #[serde(default)]
    kty: String,
    #[serde(default, rename = "use")]
    purpose: String,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
}

impl JsonKey {
    /// The key; `None` for one of another kind, or that is not for signatures.
    fn read(self) -> Option<Key> {
        if !matches!(&*self.purpose, "" | "sig") {
            return None;
        }
        let bytes = |text: &str| BASE64.decode(text.trim_end_matches('=')).ok();
        let point = |size: usize| {
            let (x, y) = (bytes(&self.x)?, bytes(&self.y)?);
            (x.len() == size && y.len() == size).then(|| [&[4][..], &x, &y].concat())
        };
        let material = match (&*self.kty, &*self.crv) {
            ("RSA", _) => {
                let strip = |mut bytes: Vec<u8>| {
                    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
                    bytes.drain(..zeros);
                    bytes
                };
                let (modulus, exponent) = (strip(bytes(&self.n)?), strip(bytes(&self.e)?));
                if modulus.len() > MODULUS_BYTES {
                    return None;
                }
                Material::Rsa { modulus, exponent }
            }
            ("EC", "P-256") => Material::P256(point(32)?),
            ("EC", "P-384") => Material::P384(point(48)?),
            ("EC", "P-521") => Material::P521(point(66)?),
            _ => return None,
        };
        Some(Key { id: self.kid, material })
    }
}

/// The keys of a JSON Web Key Set that can be used here, `most` at most.
///
/// # Errors
/// When it is none.
pub fn key_set(json: &[u8], most: usize) -> Result<Vec<Key>, String> {
    #[derive(Deserialize)]
    struct KeySet {
        keys: Vec<Value>,
    }
    let set: KeySet = serde_json::from_slice(json)
        .map_err(|_| "oidc: failed to decode keys: no JSON Web Key Set".to_owned())?;
    let keys = set.keys.into_iter().filter_map(|key| {
        let key: JsonKey = serde_json::from_value(key).ok()?;
        key.read()
    });
    Ok(keys.take(most).collect())
}

#[cfg(test)]
mod tests;
