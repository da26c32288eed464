//! Certificates of X.509 version 1: without extensions, so neither an authority nor restricted to a
//! purpose. `openssl x509 -req` makes them unless it is given extensions, and Go's verifier,
//! hence Kubernetes, accepts them for clients; webpki does not parse them.
//!
//! Only what a trusted authority itself has signed is accepted: no intermediates.

use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use super::{BAD_SIGNATURE, EXPIRED, NOT_YET_VALID, UNKNOWN_AUTHORITY};

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// Whether a certificate is one of version 1.
pub fn is(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate)
        .is_ok_and(|(_, certificate)| certificate.version() == X509Version::V1)
}

/// Verifies that one of `roots` has signed the certificate, and that it is valid now.
///
/// # Errors
/// What is wrong with it.
pub fn verify(
    certificate: &CertificateDer<'_>,
    roots: &[CertificateDer<'_>],
    algorithms: &[&dyn SignatureVerificationAlgorithm],
    now: Timestamp,
) -> Result<(), String> {
    let malformed = || "it cannot be parsed".to_owned();
    let signed = Signed::parse(certificate).ok_or_else(malformed)?;
    let (rest, own) = X509Certificate::from_der(certificate).map_err(|_| malformed())?;
    let tbs = &own.tbs_certificate;
    if !rest.is_empty()
        || own.version() != X509Version::V1
        || !own.extensions().is_empty()
        || tbs.signature != own.signature_algorithm
    {
        return Err(malformed());
    }
    let issuers = roots.iter().filter_map(|root| {
        let (_, root) = X509Certificate::from_der(root).ok()?;
        let issues = root.subject().as_raw() == own.issuer().as_raw() && may_sign(&root);
        issues.then(|| PublicKey::parse(root.tbs_certificate.subject_pki.raw)).flatten()
    });
    let issuers: Vec<PublicKey<'_>> = issuers.collect();
    if issuers.is_empty() {
        return Err(UNKNOWN_AUTHORITY.to_owned());
    }
    if !algorithms.iter().any(|algorithm| signed.is_by(*algorithm)) {
        return Err("its signature algorithm is not supported".to_owned());
    }
    let verified = issuers.iter().any(|issuer| {
        algorithms.iter().any(|algorithm| {
            signed.is_by(*algorithm)
                && issuer.is_for(*algorithm)
                && issuer.verify(*algorithm, signed.message, signed.signature)
        })
    });
    if !verified {
        return Err(BAD_SIGNATURE.to_owned());
    }
    let validity = own.validity();
    match now.as_second() {
        now if now < validity.not_before.timestamp() => Err(NOT_YET_VALID.to_owned()),
        now if now > validity.not_after.timestamp() => Err(EXPIRED.to_owned()),
        _ => Ok(()),
    }
}

/// Whether a root is an authority for what has no names to constrain. One of version 1 says nothing
/// about that, and is trusted because it is configured.
fn may_sign(root: &X509Certificate<'_>) -> bool {
    if root.version() != X509Version::V3 {
        return true;
    }
    let authority = root.basic_constraints().ok().flatten();
    let usage = root.key_usage();
    authority.is_some_and(|constraints| constraints.value.ca)
        && usage.is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()))
        && root.name_constraints().is_ok_and(|names| names.is_none())
}

/// The parts of a certificate that its signature is about.
struct Signed<'a> {
    message: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signed<'a> {
    fn parse(certificate: &'a [u8]) -> Option<Self> {
        let (whole, after) = element(SEQUENCE, certificate)?;
        let (_, rest) = element(SEQUENCE, whole)?;
        let message = &whole[..whole.len() - rest.len()];
        let (algorithm, rest) = element(SEQUENCE, rest)?;
        let (bits, rest) = element(BIT_STRING, rest)?;
        let signature = bits.strip_prefix(&[0])?;
        (after.is_empty() && rest.is_empty()).then_some(Self { message, algorithm, signature })
    }

    fn is_by(&self, algorithm: &dyn SignatureVerificationAlgorithm) -> bool {
        *algorithm.signature_alg_id() == *self.algorithm
    }
}

/// A SubjectPublicKeyInfo.
pub struct PublicKey<'a> {
    algorithm: &'a [u8],
    key: &'a [u8],
}

impl<'a> PublicKey<'a> {
    pub fn parse(info: &'a [u8]) -> Option<Self> {
        let (whole, after) = element(SEQUENCE, info)?;
        let (algorithm, rest) = element(SEQUENCE, whole)?;
        let (bits, rest) = element(BIT_STRING, rest)?;
        let key = bits.strip_prefix(&[0])?;
        (after.is_empty() && rest.is_empty()).then_some(Self { algorithm, key })
    }

    /// Whether a key is of the kind that an algorithm verifies with.
    pub fn is_for(&self, algorithm: &dyn SignatureVerificationAlgorithm) -> bool {
        *algorithm.public_key_alg_id() == *self.algorithm
    }

    pub fn verify(
        &self,
        algorithm: &dyn SignatureVerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        algorithm.verify_signature(self.key, message, signature).is_ok()
    }
}

/// The content of a DER element with a tag, and what follows it. Only the shortest form of a length
/// is DER.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = der.split_first()?;
    let (&length, rest) = rest.split_first()?;
    if first != tag {
        return None;
    }
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81 => match rest.split_first()? {
            (&length @ 0x80.., rest) => (usize::from(length), rest),
            _ => return None,
        },
        0x82 => match rest {
            [high, low, rest @ ..] if *high > 0 => {
                (usize::from(*high) << 8 | usize::from(*low), rest)
            }
            _ => return None,
        },
        _ => return None,
    };
    rest.split_at_checked(length)
}
