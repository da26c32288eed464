//! Certificates of pods: what a kubelet asks for, and what a signer may answer
//! (`certificates.k8s.io/v1` PodCertificateRequest).

use k8s_openapi::api::certificates::v1::PodCertificateRequest;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521,
    OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::{DENIED, FAILED, curve};

/// The condition of a request that has its certificate.
pub const ISSUED: &str = "Issued";
/// The conditions after which nothing of a request's status changes.
pub const TERMINAL: [&str; 3] = [ISSUED, DENIED, FAILED];

/// The kinds of keys that a pod may have.
pub const KEY_TYPES: [&str; 6] =
    ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];

/// The shortest life that may be asked for, and that a certificate may have.
pub const MIN_SECONDS: i32 = 60 * 60;
/// The longest life that may be asked for.
pub const MAX_SECONDS: i32 = 91 * 24 * 60 * 60;
/// The longest life that Kubernetes' own signers grant, and what is asked for by default.
pub const DEFAULT_SECONDS: i32 = 24 * 60 * 60;

/// The longest life that a signer may be asked for.
pub fn max_seconds(signer: &str) -> i32 {
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    let own = domain == "kubernetes.io" || domain.ends_with(".kubernetes.io");
    if own { DEFAULT_SECONDS } else { MAX_SECONDS }
}

/// The condition of a type that holds.
pub fn condition<'a>(request: &'a PodCertificateRequest, type_: &str) -> Option<&'a Condition> {
    let mut all = request.status.iter().flat_map(|status| status.conditions.iter().flatten());
    all.find(|condition| condition.type_ == type_ && condition.status == "True")
}

/// The condition that has ended the request.
pub fn outcome(request: &PodCertificateRequest) -> Option<&Condition> {
    TERMINAL.iter().find_map(|type_| condition(request, type_))
}

/// What kind of key a SubjectPublicKeyInfo in DER has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// Bits of the modulus, in whole bytes.
    Rsa(usize),
    /// A curve that Kubernetes takes.
    Curve,
    /// Its object identifier.
    OtherCurve(String),
    Ed25519,
    Other,
}

/// Reads the kind of a key.
pub fn key(der: &[u8]) -> Key {
    let Ok((_, info)) = SubjectPublicKeyInfo::from_der(der) else {
        return Key::Other;
    };
    let algorithm = &info.algorithm.algorithm;
    if *algorithm == OID_SIG_ED25519 {
        return Key::Ed25519;
    }
    if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let known = [OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521];
        return match curve(&info) {
            Some(curve) if known.contains(&curve) => Key::Curve,
            curve => Key::OtherCurve(curve.map(|it| it.to_id_string()).unwrap_or_default()),
        };
    }
    match info.parsed() {
        Ok(PublicKey::RSA(key)) if *algorithm == OID_PKCS1_RSAENCRYPTION => {
            let zeros = key.modulus.iter().take_while(|byte| **byte == 0).count();
            Key::Rsa((key.modulus.len() - zeros) * 8)
        }
        _ => Key::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signers_of_kubernetes_have_a_shorter_limit() {
        for (signer, expected) in [
            ("example.com/a", MAX_SECONDS),
            ("kubernetes.io/a", DEFAULT_SECONDS),
            ("a.kubernetes.io/b", DEFAULT_SECONDS),
            ("notkubernetes.io/b", MAX_SECONDS),
        ] {
            assert_eq!(max_seconds(signer), expected, "{signer}");
        }
    }
}
