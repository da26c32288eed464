//! ServiceAccount tokens: JWTs signed with ES256, bound to an audience and, optionally, to a pod,
//! secret or node (`k8s.io/kubernetes/pkg/serviceaccount`).

use std::sync::Arc;
use std::time::Duration;

use api::Kind;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};

use crate::core::Core;
use crate::scan;
use crate::user::{CREDENTIAL_ID, User};

/// How long the result of a verification is cached.
const REMEMBER: Duration = Duration::from_secs(10);
/// Verified tokens in the cache.
const REMEMBERED: u64 = 10_000;
/// How far clocks may be apart (upstream's `jwt.DefaultLeeway`): a token is valid so much earlier and
/// later than it says. It also outlives the deletion of what it is bound to by as much, as a finalizer may
/// keep that for ever.
const LEEWAY: SignedDuration = SignedDuration::from_mins(1);
/// Longest token that is accepted, in bytes.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// Why a token is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("the token is not a JWT of this cluster")]
    Malformed,
    #[error("the token's signature does not match")]
    Signature,
    #[error("the token is for another issuer")]
    Issuer,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token has expired or is not valid yet")]
    Time,
    #[error("{kind} {name:?}, which the token is bound to, no longer exists")]
    Unbound { kind: &'static str, name: String },
    #[error("{kind} {name:?}, which the token is bound to, has been deleted")]
    Deleted { kind: &'static str, name: String },
    #[error("the signing key cannot be read: {0}")]
    Key(String),
    #[error("the apiserver has no key to sign tokens with")]
    NoSigningKey,
}

/// An object that a token is bound to: it is valid only while that object exists and is not being
/// deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundObject {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// The private claims of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesClaims {
    pub namespace: String,
    pub serviceaccount: BoundObject,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<BoundObject>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<BoundObject>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<BoundObject>,
}

/// The claims of a token. Times in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub aud: Vec<String>,
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    pub jti: String,
    pub nbf: i64,
    pub sub: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: KubernetesClaims,
}

impl Claims {
    /// Whether the token is valid at a time, give or take the leeway.
    fn are_timely(&self, now: Timestamp) -> bool {
        let (now, leeway) = (now.as_second(), LEEWAY.as_secs());
        let (latest, earliest) = (now.saturating_add(leeway), now.saturating_sub(leeway));
        self.nbf <= latest && self.iat <= latest && self.exp >= earliest
    }
}

/// Keys and issuer of tokens.
#[derive(Clone, Debug, Default)]
pub struct TokenConfig {
    pub issuer: String,
    /// PKCS#8 PEM of the key that signs new tokens.
    pub signing_key_pem: Option<Vec<u8>>,
    /// SubjectPublicKeyInfo PEM of keys whose tokens are accepted.
    pub public_keys_pem: Vec<Vec<u8>>,
}

/// Signs and verifies tokens.
pub struct ServiceAccountTokens {
    issuer: String,
    signer: Option<(EcdsaKeyPair, String)>,
    /// Uncompressed points with their key ids.
    verifiers: Vec<(UnparsedPublicKey<Vec<u8>>, String, Vec<u8>)>,
    random: SystemRandom,
    checked: moka::sync::Cache<String, Arc<(Claims, User)>>,
}

impl ServiceAccountTokens {
    /// Reads the keys.
    ///
    /// # Errors
    /// When a key is not an EC key on P-256.
    pub fn new(config: &TokenConfig) -> Result<Self, TokenError> {
        let random = SystemRandom::new();
        let mut verifiers = Vec::new();
        for pem in &config.public_keys_pem {
            verifiers.push(verifier(&public_point(pem)?));
        }
        let signer = match &config.signing_key_pem {
            None => None,
            Some(pem) => {
                use ring::signature::KeyPair;
                let der = pem_body(pem)?;
                let pair =
                    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random)
                        .map_err(|error| TokenError::Key(error.to_string()))?;
                let point = pair.public_key().as_ref().to_vec();
                let own = verifier(&point);
                let id = own.1.clone();
                if !verifiers.iter().any(|(_, other, _)| *other == id) {
                    verifiers.push(own);
                }
                Some((pair, id))
            }
        };
        Ok(Self { issuer: config.issuer.clone(), signer, verifiers, random, checked: checked() })
    }

    /// The issuer, which is also the audience of tokens for the apiserver.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The keys as a JSON Web Key Set.
    pub fn key_set(&self) -> serde_json::Value {
        let keys: Vec<_> = self
            .verifiers
            .iter()
            .filter(|(_, _, point)| point.len() == 65)
            .map(|(_, id, point)| {
                serde_json::json!({
                    "use": "sig", "kty": "EC", "kid": id, "crv": "P-256", "alg": "ES256",
                    "x": BASE64.encode(&point[1..33]), "y": BASE64.encode(&point[33..65]),
                })
            })
            .collect();
        serde_json::json!({ "keys": keys })
    }

    /// Signs claims.
    ///
    /// # Errors
    /// When there is no signing key.
    pub fn sign(&self, claims: &Claims) -> Result<String, TokenError> {
        let (pair, id) = self.signer.as_ref().ok_or(TokenError::NoSigningKey)?;
        let header = serde_json::json!({"alg": "ES256", "kid": id});
        let encode = |json: Vec<u8>| BASE64.encode(json);
        let body = serde_json::to_vec(claims).map_err(|_| TokenError::Malformed)?;
        let message = format!("{}.{}", encode(header.to_string().into_bytes()), encode(body));
        let signature = pair
            .sign(&self.random, message.as_bytes())
            .map_err(|_| TokenError::Key("signing failed".to_owned()))?;
        Ok(format!("{message}.{}", BASE64.encode(signature.as_ref())))
    }

    /// The user of a token for the apiserver itself.
    ///
    /// # Errors
    /// When the token is not valid now.
    pub async fn authenticate(&self, core: &Core, token: &str) -> Result<Arc<User>, TokenError> {
        let checked = self.check(core, token, &[]).await?;
        Ok(Arc::new(checked.1.clone()))
    }

    /// Verifies a token for any of `audiences` (empty: the apiserver's own).
    ///
    /// # Errors
    /// When the token is not valid now.
    pub async fn check(
        &self,
        core: &Core,
        token: &str,
        audiences: &[String],
    ) -> Result<Arc<(Claims, User)>, TokenError> {
        let checked = match self.checked.get(token) {
            Some(checked) => checked,
            None => {
                let claims = self.verify(token)?;
                let user = self.bound_user(core, &claims).await?;
                let checked = Arc::new((claims, user));
                self.checked.insert(token.to_owned(), checked.clone());
                checked
            }
        };
        let claims = &checked.0;
        if !claims.are_timely(core.clock.now()) {
            return Err(TokenError::Time);
        }
        let wanted = |audience: &String| {
            if audiences.is_empty() {
                *audience == self.issuer
            } else {
                audiences.contains(audience)
            }
        };
        if !claims.aud.iter().any(wanted) {
            return Err(TokenError::Audience);
        }
        Ok(checked)
    }

    fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, body) = message.split_once('.').ok_or(TokenError::Malformed)?;
        let decode = |part: &str| BASE64.decode(part).map_err(|_| TokenError::Malformed);
        #[derive(Deserialize)]
        struct Header {
            alg: String,
        }
        let header: Header =
            serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Malformed)?;
        if header.alg != "ES256" {
            return Err(TokenError::Malformed);
        }
        let signature = decode(signature)?;
        let valid = self
            .verifiers
            .iter()
            .any(|(key, _, _)| key.verify(message.as_bytes(), &signature).is_ok());
        if !valid {
            return Err(TokenError::Signature);
        }
        let claims: Claims =
            serde_json::from_slice(&decode(body)?).map_err(|_| TokenError::Malformed)?;
        if claims.iss != self.issuer {
            return Err(TokenError::Issuer);
        }
        Ok(claims)
    }

    async fn bound_user(&self, core: &Core, claims: &Claims) -> Result<User, TokenError> {
        let own = &claims.kubernetes;
        let namespace = own.namespace.as_str();
        bound::<ServiceAccount>(core, namespace, &own.serviceaccount).await?;
        let mut extra = std::collections::BTreeMap::new();
        extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={}", claims.jti)]);
        let mut tell = |kind: &str, object: &BoundObject| {
            for (what, value) in [("name", &object.name), ("uid", &object.uid)] {
                extra.insert(
                    format!("authentication.kubernetes.io/{kind}-{what}"),
                    vec![value.clone()],
                );
            }
        };
        if let Some(pod) = &own.pod {
            bound::<Pod>(core, namespace, pod).await?;
            tell("pod", pod);
        }
        if let Some(secret) = &own.secret {
            bound::<Secret>(core, namespace, secret).await?;
        }
        if let Some(node) = &own.node {
            if own.pod.is_none() {
                bound::<Node>(core, "", node).await?;
            }
            tell("node", node);
        }
        let mut user = User::authenticated(
            format!("system:serviceaccount:{namespace}:{}", own.serviceaccount.name),
            vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
            ],
        );
        user.uid.clone_from(&own.serviceaccount.uid);
        user.extra = extra;
        Ok(user)
    }
}

async fn bound<K: Kind>(
    core: &Core,
    namespace: &str,
    object: &BoundObject,
) -> Result<(), TokenError> {
    let (kind, name) = (K::KIND, object.name.clone());
    let key = crate::request::object_key(K::ROW, namespace, &object.name);
    let found = core.find(K::ROW, &key).await.ok().flatten();
    match found.filter(|version| object.uid.is_empty() || *version.uid == *object.uid) {
        None => Err(TokenError::Unbound { kind, name }),
        Some(version) if is_deleted(&version.json, core.clock.now()) => {
            Err(TokenError::Deleted { kind, name })
        }
        Some(_) => Ok(()),
    }
}

/// Whether the object should have been gone for longer than the leeway. A pod's deletionTimestamp
/// is the end of its grace period, so that it may use its token until then.
fn is_deleted(json: &[u8], now: Timestamp) -> bool {
    let deleted = scan::at_path(json, "metadata.deletionTimestamp").map(scan::scalar);
    match deleted.filter(|text| !text.is_empty()).map(|text| text.parse::<Timestamp>()) {
        None => false,
        Some(Ok(at)) => now.duration_since(at) > LEEWAY,
        // The apiserver writes it itself.
        Some(Err(_)) => true,
    }
}

fn verifier(point: &[u8]) -> (UnparsedPublicKey<Vec<u8>>, String, Vec<u8>) {
    let digest = ring::digest::digest(&ring::digest::SHA256, point);
    let id = BASE64.encode(digest.as_ref());
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point.to_vec());
    (key, id, point.to_vec())
}

fn pem_body(pem: &[u8]) -> Result<Vec<u8>, TokenError> {
    let text = String::from_utf8_lossy(pem);
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    base64::engine::general_purpose::STANDARD
        .decode(body.trim())
        .map_err(|error| TokenError::Key(error.to_string()))
}

/// The uncompressed point of a P-256 key: the last 65 bytes of its SubjectPublicKeyInfo. Also works
/// for a private key in PKCS#8.
fn public_point(pem: &[u8]) -> Result<Vec<u8>, TokenError> {
    let der = pem_body(pem)?;
    if pem.windows(11).any(|window| window == b"PRIVATE KEY") {
        use ring::signature::KeyPair;
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &SystemRandom::new())
                .map_err(|error| TokenError::Key(error.to_string()))?;
        return Ok(pair.public_key().as_ref().to_vec());
    }
    let start = der.len().checked_sub(65).filter(|start| der[*start] == 4);
    start
        .map(|start| der[start..].to_vec())
        .ok_or_else(|| TokenError::Key("not a P-256 public key".to_owned()))
}

/// The tokens that have been verified.
fn checked() -> moka::sync::Cache<String, Arc<(Claims, User)>> {
    moka::sync::Cache::builder().max_capacity(REMEMBERED).time_to_live(REMEMBER).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_object_is_good_for_a_minute() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let table = [
            (r#"{"metadata":{"name":"a"}}"#, false),
            (r#"{"metadata":{"name":"a","deletionTimestamp":null}}"#, false),
            (r#"{"metadata":{"deletionTimestamp":"2026-01-01T00:11:00Z"}}"#, false),
            (r#"{"metadata":{"deletionTimestamp":"2026-01-01T00:09:00Z"}}"#, false),
            (r#"{"metadata":{"deletionTimestamp":"2026-01-01T00:08:59Z"}}"#, true),
            (r#"{"metadata":{"deletionTimestamp":"soon"}}"#, true),
            (r#"{"spec":{"deletionTimestamp":"2020-01-01T00:00:00Z"},"metadata":{}}"#, false),
        ];
        for (json, deleted) in table {
            assert_eq!(is_deleted(json.as_bytes(), now), deleted, "{json}");
        }
    }

    #[test]
    fn clocks_may_be_a_minute_apart() {
        let now = Timestamp::from_second(10_000).unwrap();
        // From, until, issued.
        let table = [
            ((10_000, 10_600, 10_000), true),
            ((10_060, 10_600, 10_060), true),
            ((10_061, 10_600, 10_000), false),
            ((10_000, 10_600, 10_061), false),
            ((9_000, 9_940, 9_000), true),
            ((9_000, 9_939, 9_000), false),
            ((i64::MIN, i64::MAX, i64::MIN), true),
            ((i64::MIN, i64::MIN, i64::MIN), false),
        ];
        for ((nbf, exp, iat), timely) in table {
            let claims = Claims { nbf, exp, iat, ..Claims::default() };
            assert_eq!(claims.are_timely(now), timely, "{nbf} {exp} {iat}");
        }
    }

    #[test]
    fn no_more_tokens_are_remembered_than_the_bound() {
        let checked = checked();
        let user = Arc::new((Claims::default(), User::authenticated("u", Vec::new())));
        for number in 0..2 * REMEMBERED {
            checked.insert(number.to_string(), user.clone());
        }
        checked.run_pending_tasks();
        let count = checked.entry_count();
        assert!(count > 0 && count <= REMEMBERED, "{count}");
    }
}
