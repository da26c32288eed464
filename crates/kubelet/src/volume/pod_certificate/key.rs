//! New keys for pods, and the empty requests that are signed by them.

use api::{der, pem};
use p521::SecretKey;
use p521::ecdsa::signature::Signer;
use p521::ecdsa::{Signature, SigningKey};
use p521::elliptic_curve::rand_core::OsRng;
use p521::pkcs8::{EncodePrivateKey, EncodePublicKey};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rsa::RsaPrivateKey;

const LABEL: &str = "PRIVATE KEY";
const ECDSA_WITH_SHA512: &[u64] = &[1, 2, 840, 10_045, 4, 3, 4];
/// The attributes of a request.
const ATTRIBUTES: u8 = 0xa0;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("unknown key type {0:?}")]
    Type(String),
    #[error("while generating keypair: {0}")]
    Make(String),
}

/// A key, and the request that proves that somebody has it.
pub struct NewKey {
    /// PKCS#8.
    pub pem: String,
    /// PKCS#10 in DER, without names.
    pub request: Vec<u8>,
}

/// Makes a key of one of [`KEY_TYPES`](api::certificates::pod::KEY_TYPES). Takes seconds for RSA.
///
/// # Errors
/// For another type.
pub fn generate(key_type: &str) -> Result<NewKey, KeyError> {
    let key = match key_type {
        "RSA3072" => rsa(3072)?,
        "RSA4096" => rsa(4096)?,
        "ECDSAP256" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(made)?,
        "ECDSAP384" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).map_err(made)?,
        "ECDSAP521" => return p521(),
        "ED25519" => KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(made)?,
        other => return Err(KeyError::Type(other.to_owned())),
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(made)?.der().to_vec();
    Ok(NewKey { pem: pem::encode(LABEL, key.serialized_der()), request })
}

fn made(error: impl std::fmt::Display) -> KeyError {
    KeyError::Make(error.to_string())
}

fn rsa(bits: usize) -> Result<KeyPair, KeyError> {
    let key = RsaPrivateKey::new(&mut OsRng, bits).map_err(made)?;
    KeyPair::try_from(key.to_pkcs8_der().map_err(made)?.as_bytes()).map_err(made)
}

/// This curve is not one of ring's.
fn p521() -> Result<NewKey, KeyError> {
    let secret = SecretKey::random(&mut OsRng);
    let public = secret.public_key().to_public_key_der().map_err(made)?;
    let info = der::sequence(&[
        der::element(der::INTEGER, &[0]),
        der::sequence(&[]),
        public.as_bytes().to_vec(),
        der::element(ATTRIBUTES, &[]),
    ]);
    let signer = SigningKey::from_bytes(&secret.to_bytes()).map_err(made)?;
    let signature: Signature = signer.sign(&info);
    let signature = signature.to_der();
    let request = der::sequence(&[
        info,
        der::sequence(&[der::object_identifier(ECDSA_WITH_SHA512)]),
        der::bit_string(signature.as_bytes()),
    ]);
    let key = secret.to_pkcs8_der().map_err(made)?;
    Ok(NewKey { pem: pem::encode(LABEL, key.as_bytes()), request })
}

#[cfg(test)]
mod tests {
    use api::certificates::{self, pod};

    use super::*;

    #[test]
    fn every_type_of_key_signs_its_request() {
        for (key_type, expected) in [
            ("RSA3072", pod::Key::Rsa(3072)),
            ("RSA4096", pod::Key::Rsa(4096)),
            ("ECDSAP256", pod::Key::Curve),
            ("ECDSAP384", pod::Key::Curve),
            ("ECDSAP521", pod::Key::Curve),
            ("ED25519", pod::Key::Ed25519),
        ] {
            assert!(pod::KEY_TYPES.contains(&key_type));
            let made = generate(key_type).unwrap();
            let asked = certificates::parse_der(&made.request).unwrap();
            assert_eq!(pod::key(&asked.public_key), expected, "{key_type}");
            assert!(asked.common_name.is_empty() && asked.dns_names.is_empty());
            let key = pem::blocks(made.pem.as_bytes()).next().unwrap();
            assert_eq!(key.label, "PRIVATE KEY");
            // One bit of the signature changed.
            let mut forged = made.request.clone();
            *forged.last_mut().unwrap() ^= 1;
            assert!(certificates::parse_der(&forged).is_err(), "{key_type}");
        }
        assert!(matches!(generate("RSA1024"), Err(KeyError::Type(_))));
    }
}
