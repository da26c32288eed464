//! A certificate authority in two files, which are read for every signature: whoever replaces them
//! changes the authority without a restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::certificates::{CERTIFICATE_LABEL, Request, UsageBits, usage};
use api::pem;
use jiff::{SignedDuration, Timestamp};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::SignatureScheme;
use rustls::sign::SigningKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};

use api::der;

/// How long before it was issued a certificate begins, for clocks that are behind.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
/// Certificates of which so little is left that the end is not moved with the start.
const SHORT: Duration = Duration::from_secs(8 * 3_600);
const SERIAL_BYTES: usize = 16;

const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const ALTERNATIVE_NAME: &[u64] = &[2, 5, 29, 17];
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const AUTHORITY_KEY: &[u64] = &[2, 5, 29, 35];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];

/// How an authority may sign, and how a certificate says that it did. RSA has parameters: none.
const ALGORITHMS: &[(SignatureScheme, &[u64], &[u8])] = &[
    (SignatureScheme::ECDSA_NISTP256_SHA256, &[1, 2, 840, 10_045, 4, 3, 2], &[]),
    (SignatureScheme::ECDSA_NISTP384_SHA384, &[1, 2, 840, 10_045, 4, 3, 3], &[]),
    (SignatureScheme::ED25519, &[1, 3, 101, 112], &[]),
    (SignatureScheme::RSA_PKCS1_SHA256, &[1, 2, 840, 113_549, 1, 1, 11], &[5, 0]),
];

/// Why an authority does not sign.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} has no certificate", path.display())]
    Certificate { path: PathBuf },
    #[error("{} has no private key that can sign", path.display())]
    Key { path: PathBuf },
    #[error("the private key in {} is not that of the certificate in {}", key.display(), certificate.display())]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("the certificate authority has expired")]
    Expired,
    #[error("unknown usage {0:?}")]
    Usage(String),
    #[error("cannot sign")]
    Sign,
}

/// The files of an authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// An authority as it is now.
pub struct Authority {
    certificate: Vec<u8>,
    key: Arc<dyn SigningKey>,
}

impl AuthorityFiles {
    /// # Errors
    /// When a file cannot be read, or the two do not belong together.
    pub fn load(&self) -> Result<Authority, AuthorityError> {
        let blocks = read(&self.certificate)?;
        let block = pem::blocks(&blocks).find(|block| block.label == CERTIFICATE_LABEL);
        let missing = || AuthorityError::Certificate { path: self.certificate.clone() };
        let certificate = block.ok_or_else(missing)?.der;
        let parsed = X509Certificate::from_der(&certificate).map_err(|_| missing())?.1;
        let missing = || AuthorityError::Key { path: self.key.clone() };
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?).map_err(|_| missing())?;
        let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|_| missing())?;
        let public = key.public_key().ok_or_else(missing)?;
        if &*public != parsed.tbs_certificate.subject_pki.raw {
            let (certificate, key) = (self.certificate.clone(), self.key.clone());
            return Err(AuthorityError::Mismatch { certificate, key });
        }
        Ok(Authority { certificate, key })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, AuthorityError> {
    std::fs::read(path).map_err(|source| AuthorityError::Read { path: path.to_owned(), source })
}

impl Authority {
    /// A certificate in PEM for what a request asks for: its subject, names and key, the usages
    /// given, and no other extensions.
    ///
    /// # Errors
    /// When a usage is unknown, or the authority has expired.
    pub fn sign(
        &self,
        request: &Request,
        usages: &[String],
        life: Duration,
        now: Timestamp,
    ) -> Result<String, AuthorityError> {
        let (_, own) =
            X509Certificate::from_der(&self.certificate).map_err(|_| AuthorityError::Sign)?;
        let validity = validity(&own, life, now)?;
        let schemes: Vec<_> = ALGORITHMS.iter().map(|(scheme, ..)| *scheme).collect();
        let signer = self.key.choose_scheme(&schemes).ok_or(AuthorityError::Sign)?;
        let algorithm = ALGORITHMS.iter().find(|(scheme, ..)| *scheme == signer.scheme());
        let (_, arcs, parameters) = algorithm.ok_or(AuthorityError::Sign)?;
        let algorithm = der::sequence(&[der::object_identifier(arcs), parameters.to_vec()]);
        let signed = der::sequence(&[
            der::element(0xa0, &der::element(der::INTEGER, &[2])),
            der::element(der::INTEGER, &serial()?),
            algorithm.clone(),
            own.subject().as_raw().to_vec(),
            validity,
            request.subject.clone(),
            request.public_key.clone(),
            der::element(0xa3, &der::sequence(&extensions(&own, request, usages)?)),
        ]);
        let signature = signer.sign(&signed).map_err(|_| AuthorityError::Sign)?;
        let whole = der::sequence(&[signed, algorithm, der::bit_string(&signature)]);
        Ok(pem::encode(CERTIFICATE_LABEL, &whole))
    }
}

/// From when to when: never longer than the authority itself.
fn validity(
    own: &X509Certificate<'_>,
    life: Duration,
    now: Timestamp,
) -> Result<Vec<u8>, AuthorityError> {
    let last = Timestamp::from_second(own.validity().not_after.timestamp());
    let last = last.map_err(|_| AuthorityError::Sign)?;
    if last <= now {
        return Err(AuthorityError::Expired);
    }
    let life = SignedDuration::try_from(life).unwrap_or(SignedDuration::MAX);
    let moved = if life < SignedDuration::try_from(SHORT).unwrap_or_default() {
        SignedDuration::ZERO
    } else {
        BACKDATE
    };
    let end = now.checked_add(life - moved).unwrap_or(last).min(last);
    let start = now.checked_sub(BACKDATE).unwrap_or(now);
    Ok(der::sequence(&[der::time(start), der::time(end)]))
}

/// A positive number that no other certificate has.
fn serial() -> Result<Vec<u8>, AuthorityError> {
    let mut bytes = [0; SERIAL_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| AuthorityError::Sign)?;
    // Positive, and of a fixed length.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(bytes.to_vec())
}

fn extensions(
    own: &X509Certificate<'_>,
    request: &Request,
    usages: &[String],
) -> Result<Vec<Vec<u8>>, AuthorityError> {
    let (mut bits, mut purposes) = (Vec::new(), Vec::new());
    for name in usages {
        match usage(name).ok_or_else(|| AuthorityError::Usage(name.clone()))? {
            UsageBits::Key(bit) => bits.push(bit),
            UsageBits::Extended(arcs) => {
                let purpose = der::object_identifier(arcs);
                if !purposes.contains(&purpose) {
                    purposes.push(purpose);
                }
            }
        }
    }
    let mut all = Vec::new();
    if !bits.is_empty() {
        all.push(extension(KEY_USAGE, true, &der::named_bits(&bits)));
    }
    if !purposes.is_empty() {
        all.push(extension(EXTENDED_KEY_USAGE, false, &der::sequence(&purposes)));
    }
    // Not an authority.
    all.push(extension(BASIC_CONSTRAINTS, true, &der::sequence(&[])));
    let key = own.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(key) => Some(key.0),
        _ => None,
    });
    if let Some(key) = key {
        let identifier = der::sequence(&[der::element(0x80, key)]);
        all.push(extension(AUTHORITY_KEY, false, &identifier));
    }
    let names = names(request);
    if !names.is_empty() {
        let nameless = request.subject == der::sequence(&[]);
        all.push(extension(ALTERNATIVE_NAME, nameless, &der::sequence(&names)));
    }
    Ok(all)
}

fn names(request: &Request) -> Vec<Vec<u8>> {
    let texts = |tag: u8, texts: &[String]| -> Vec<Vec<u8>> {
        texts.iter().map(|text| der::element(tag, text.as_bytes())).collect()
    };
    let addresses = request.ip_addresses.iter().map(|address| match address {
        std::net::IpAddr::V4(four) => der::element(0x87, &four.octets()),
        std::net::IpAddr::V6(six) => der::element(0x87, &six.octets()),
    });
    let mut all = texts(0x82, &request.dns_names);
    all.extend(texts(0x81, &request.email_addresses));
    all.extend(addresses);
    all.extend(texts(0x86, &request.uris));
    all
}

fn extension(arcs: &[u64], critical: bool, content: &[u8]) -> Vec<u8> {
    let mut parts = vec![der::object_identifier(arcs)];
    if critical {
        parts.push(vec![0x01, 0x01, 0xff]);
    }
    parts.push(der::octets(content));
    der::sequence(&parts)
}
