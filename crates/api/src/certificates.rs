//! Certificate signing requests: what one asks for, and which signers there are
//! (`k8s.io/kubernetes/pkg/apis/certificates`).

pub mod kubelet;
pub mod pod;

use std::net::IpAddr;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use p521::ecdsa::signature::Verifier;
use p521::ecdsa::{Signature, VerifyingKey};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{
    OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P521, OID_SIG_ECDSA_WITH_SHA512, Oid,
};
use x509_parser::prelude::FromDer;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Name};

use crate::pem;

pub const GROUP: &str = "certificates.k8s.io";

/// Client certificates for the apiserver, for whoever somebody approves.
pub const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// Client certificates of kubelets.
pub const KUBELET_CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Serving certificates of kubelets.
pub const KUBELET_SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";
/// Serving certificates of apiservers, which are signed elsewhere: whom to trust about them.
pub const APISERVER_SERVING_SIGNER: &str = "kubernetes.io/kube-apiserver-serving";
/// What `certificates.k8s.io/v1` does not allow any more.
pub const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";

pub const APPROVED: &str = "Approved";
pub const DENIED: &str = "Denied";
pub const FAILED: &str = "Failed";

pub const DIGITAL_SIGNATURE: &str = "digital signature";
pub const KEY_ENCIPHERMENT: &str = "key encipherment";
pub const CLIENT_AUTH: &str = "client auth";
pub const SERVER_AUTH: &str = "server auth";

/// The label of a request's PEM block.
pub const REQUEST_LABEL: &str = "CERTIFICATE REQUEST";
pub const CERTIFICATE_LABEL: &str = "CERTIFICATE";

/// What a usage means in a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageBits {
    /// A bit of KeyUsage, as RFC 5280 numbers them.
    Key(u8),
    /// The identifier of a purpose in ExtendedKeyUsage.
    Extended(&'static [u64]),
}

use UsageBits::{Extended, Key};

/// Every usage that a request may name, sorted.
pub const USAGES: &[(&str, UsageBits)] = &[
    ("any", Extended(&[2, 5, 29, 37, 0])),
    ("cert sign", Key(5)),
    (CLIENT_AUTH, Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 2])),
    ("code signing", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 3])),
    ("content commitment", Key(1)),
    ("crl sign", Key(6)),
    ("data encipherment", Key(3)),
    ("decipher only", Key(8)),
    (DIGITAL_SIGNATURE, Key(0)),
    ("email protection", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 4])),
    ("encipher only", Key(7)),
    ("ipsec end system", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 5])),
    ("ipsec tunnel", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 6])),
    ("ipsec user", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 7])),
    ("key agreement", Key(4)),
    (KEY_ENCIPHERMENT, Key(2)),
    ("microsoft sgc", Extended(&[1, 3, 6, 1, 4, 1, 311, 10, 3, 3])),
    ("netscape sgc", Extended(&[2, 16, 840, 1, 113_730, 4, 1])),
    ("ocsp signing", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 9])),
    ("s/mime", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 4])),
    (SERVER_AUTH, Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 1])),
    ("signing", Key(0)),
    ("timestamping", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 8])),
];

/// What a usage means; `None` for one that is not known.
pub fn usage(name: &str) -> Option<UsageBits> {
    USAGES.iter().find(|(known, _)| *known == name).map(|(_, bits)| *bits)
}

/// Why bytes are not a request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("PEM block type must be {REQUEST_LABEL}")]
    Label,
    #[error("x509: malformed certificate request")]
    Malformed,
    #[error("x509: certificate request has an invalid subject alternative name")]
    AlternativeName,
    #[error("x509: signature over certificate request error: {0}")]
    Signature(String),
}

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The subject, as DER.
    pub subject: Vec<u8>,
    /// Empty if there is none; of several, the last.
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub ip_addresses: Vec<IpAddr>,
    pub email_addresses: Vec<String>,
    pub uris: Vec<String>,
    /// The SubjectPublicKeyInfo, as DER.
    pub public_key: Vec<u8>,
}

/// Reads a request in PEM, of which the first block counts, and verifies its signature: the sender
/// has the key.
///
/// # Errors
/// When it is not a request, or not signed by its key.
pub fn parse(text: &[u8]) -> Result<Request, RequestError> {
    let block = pem::blocks(text).next().filter(|block| block.label == REQUEST_LABEL);
    parse_der(&block.ok_or(RequestError::Label)?.der)
}

/// As [`parse`], for a request in DER.
///
/// # Errors
/// When it is not a request, or not signed by its key.
pub fn parse_der(der: &[u8]) -> Result<Request, RequestError> {
    let (rest, request) =
        X509CertificationRequest::from_der(der).map_err(|_| RequestError::Malformed)?;
    if !rest.is_empty() {
        return Err(RequestError::Malformed);
    }
    verify(&request).map_err(RequestError::Signature)?;
    let info = &request.certification_request_info;
    let mut parsed = Request {
        subject: info.subject.as_raw().to_vec(),
        common_name: texts(info.subject.iter_common_name()).pop().unwrap_or_default(),
        organizations: texts(info.subject.iter_organization()),
        public_key: info.subject_pki.raw.to_vec(),
        ..Request::default()
    };
    require_text(&info.subject)?;
    for extension in request.requested_extensions().into_iter().flatten() {
        match extension {
            ParsedExtension::SubjectAlternativeName(names) => {
                names.general_names.iter().try_for_each(|name| parsed.add(name))?;
            }
            ParsedExtension::ParseError { .. } => return Err(RequestError::Malformed),
            _ => {}
        }
    }
    Ok(parsed)
}

/// Whether the request is signed by its key; of all curves that Kubernetes takes.
fn verify(request: &X509CertificationRequest<'_>) -> Result<(), String> {
    let info = &request.certification_request_info;
    if curve(&info.subject_pki) != Some(OID_NIST_EC_P521)
        || request.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA512
    {
        return request.verify_signature().map_err(|error| error.to_string());
    }
    let key = VerifyingKey::from_sec1_bytes(&info.subject_pki.subject_public_key.data);
    let signature = Signature::from_der(&request.signature_value.data);
    let (Ok(key), Ok(signature)) = (key, signature) else {
        return Err("malformed key or signature".to_owned());
    };
    key.verify(info.raw, &signature).map_err(|error| error.to_string())
}

/// The curve of an elliptic key.
fn curve(key: &SubjectPublicKeyInfo<'_>) -> Option<Oid<'static>> {
    let of = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
    (key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY).then(|| of.to_owned())
}

fn texts<'a>(
    attributes: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
) -> Vec<String> {
    attributes.filter_map(|attribute| attribute.as_str().ok().map(str::to_owned)).collect()
}

/// What cannot be read as text here could be read by others: a group that nobody has checked.
fn require_text(subject: &X509Name<'_>) -> Result<(), RequestError> {
    let named = subject.iter_common_name().chain(subject.iter_organization());
    let mut unreadable = named.filter(|attribute| attribute.as_str().is_err());
    unreadable.next().map_or(Ok(()), |_| Err(RequestError::Malformed))
}

impl Request {
    fn add(&mut self, name: &GeneralName<'_>) -> Result<(), RequestError> {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::RFC822Name(name) => self.email_addresses.push((*name).to_owned()),
            GeneralName::URI(name) => self.uris.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                self.ip_addresses.push(address(bytes).ok_or(RequestError::AlternativeName)?);
            }
            GeneralName::Invalid(..) => return Err(RequestError::AlternativeName),
            // As Go: other forms are not copied to certificates.
            _ => {}
        }
        Ok(())
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// Whether a request has a condition of a type.
pub fn has_condition(request: &CertificateSigningRequest, type_: &str) -> bool {
    let conditions = request.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == type_)
}

/// Whether a request is approved, and not denied.
pub fn is_approved(request: &CertificateSigningRequest) -> bool {
    has_condition(request, APPROVED) && !has_condition(request, DENIED)
}

/// The certificate that was issued.
pub fn issued(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = request.status.as_ref()?.certificate.as_ref()?;
    Some(certificate.0.as_slice()).filter(|pem| !pem.is_empty())
}
