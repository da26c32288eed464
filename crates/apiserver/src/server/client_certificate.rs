//! Client certificates: a client with an invalid one gets a Status with the reason, and not a failed
//! handshake.
//!
//! A certificate of the front proxies' authority proves nobody by itself: it lets its holder say in
//! headers whose request it forwards ([`RequestHeaders`]).
//!
//! TLS only verifies that the client holds the key of its certificate; that is never skipped.
//! Whether the certificate is valid is checked once per connection ([`ClientCertificates::peer`]),
//! by webpki. Certificates that webpki cannot parse are of X.509 version 1, as
//! `openssl x509 -req` makes them, which Kubernetes accepts ([`version_one`]), or are refused.

mod version_one;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use jiff::Timestamp;
use rpc::tls::CertificateIdentity;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved,
    RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use self::version_one::PublicKey;
use crate::aggregation::RequestHeaders;
use crate::user::{CREDENTIAL_ID, ClientCertificate, User};

/// The authorities that client certificates are verified against.
#[derive(Clone, Debug)]
pub struct ClientCertificates(Arc<Trusted>);

#[derive(Debug)]
struct Trusted {
    clients: Authorities,
    proxies: Option<Proxies>,
    /// The subjects of both.
    hints: Vec<DistinguishedName>,
}

/// Who may speak for others, and in which headers.
#[derive(Debug)]
struct Proxies {
    authorities: Authorities,
    headers: Arc<RequestHeaders>,
}

#[derive(Debug)]
struct Authorities {
    webpki: Arc<dyn ClientCertVerifier>,
    roots: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Authorities {
    fn new(roots: Vec<CertificateDer<'static>>) -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let mut store = RootCertStore::empty();
        for root in &roots {
            store.add(root.clone())?;
        }
        let webpki = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider)
            .allow_unauthenticated()
            .build()?;
        Ok(Self { webpki, roots, algorithms })
    }
}

impl ClientCertificates {
    /// Trusts what `roots` have signed, and front proxies that others have.
    ///
    /// # Errors
    /// When there are no roots, or one cannot be parsed.
    pub fn new(
        roots: Vec<CertificateDer<'static>>,
        proxies: Option<(Vec<CertificateDer<'static>>, RequestHeaders)>,
    ) -> anyhow::Result<Self> {
        let clients = Authorities::new(roots)?;
        let mut hints = clients.webpki.root_hint_subjects().to_vec();
        let proxies = proxies.map(|(roots, headers)| {
            let authorities = Authorities::new(roots)?;
            hints.extend_from_slice(authorities.webpki.root_hint_subjects());
            anyhow::Ok(Proxies { authorities, headers: Arc::new(headers) })
        });
        Ok(Self(Arc::new(Trusted { clients, proxies: proxies.transpose()?, hints })))
    }

    /// The proxy that a certificate proves, and the headers that it may send.
    fn proxy(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Option<(CertificateIdentity, Arc<RequestHeaders>)> {
        let proxies = self.0.proxies.as_ref()?;
        let identity = proxies.authorities.identify(own, intermediates, now).ok()?;
        proxies.headers.allows(&identity.name).then(|| (identity, proxies.headers.clone()))
    }

    /// The client of a connection, which has presented a chain.
    pub fn peer(&self, chain: Arc<[CertificateDer<'static>]>, now: Timestamp) -> Peer {
        Peer { proof: self.identify(&chain, now), chain, checked_by: self.clone() }
    }

    fn identify(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Proof {
        let Some((own, intermediates)) = chain.split_first() else {
            return Proof { certificate: ClientCertificate::Absent, identity: None, proxy: None };
        };
        let proxy = self.proxy(own, intermediates, now);
        match self.0.clients.identify(own, intermediates, now) {
            Ok(identity) => {
                let certificate = ClientCertificate::Valid(Arc::new(user(&identity, own)));
                Proof { certificate, identity: Some(identity), proxy }
            }
            Err(reason) => {
                tracing::debug!(reason, "client certificate refused");
                let certificate = ClientCertificate::Invalid(reason.into());
                Proof { certificate, identity: None, proxy }
            }
        }
    }
}

impl Authorities {
    /// Whom a certificate names, or why it is not valid.
    fn identify(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<CertificateIdentity, String> {
        if version_one::is(own) {
            version_one::verify(own, &self.roots, self.algorithms.all, now)?;
        } else {
            let seconds = u64::try_from(now.as_second()).unwrap_or_default();
            let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            let verified = self.webpki.verify_client_cert(own, intermediates, now);
            verified.map_err(|error| reason(&error))?;
        }
        rpc::tls::certificate_identity(own).map_err(|error| error.to_string())
    }

    /// Verifies the handshake's signature by the key of a certificate that webpki cannot parse, so
    /// that its client can be told what is wrong. The caller has restricted the algorithms to those
    /// of the scheme.
    fn verify_possession(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let (_, certificate) = X509Certificate::from_der(certificate)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let key = PublicKey::parse(certificate.tbs_certificate.subject_pki.raw)
            .ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let scheme = self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
        let (_, candidates) =
            scheme.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        // As webpki: TLS 1.2 has several candidates for a scheme, of which the key decides.
        let verified = candidates.iter().any(|algorithm| {
            key.is_for(*algorithm) && key.verify(*algorithm, message, signed.signature())
        });
        if verified {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::BadSignature))
        }
    }
}

/// The user whom a certificate names; which certificate it was is an extra field.
fn user(identity: &CertificateIdentity, certificate: &[u8]) -> User {
    let digest = Sha256::digest(certificate);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    User {
        uid: identity.uid.clone(),
        extra: BTreeMap::from([(CREDENTIAL_ID.to_owned(), vec![format!("X509SHA256={hex}")])]),
        ..User::authenticated(identity.name.clone(), identity.groups.clone())
    }
}

/// What is wrong with a certificate, for its owner.
fn reason(error: &Error) -> String {
    let Error::InvalidCertificate(error) = error else {
        return error.to_string();
    };
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => EXPIRED.to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            NOT_YET_VALID.to_owned()
        }
        CertificateError::UnknownIssuer => UNKNOWN_AUTHORITY.to_owned(),
        CertificateError::BadSignature => BAD_SIGNATURE.to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its extended key usage does not include client authentication".to_owned()
        }
        other => other.to_string(),
    }
}

const EXPIRED: &str = "it has expired";
const NOT_YET_VALID: &str = "it is not valid yet";
const UNKNOWN_AUTHORITY: &str = "it is signed by an unknown authority";
const BAD_SIGNATURE: &str = "its signature does not match";

/// What a certificate proves.
#[derive(Clone, Debug)]
struct Proof {
    certificate: ClientCertificate,
    /// Of a valid certificate.
    identity: Option<CertificateIdentity>,
    /// Of a front proxy's certificate, and the headers that it may send.
    proxy: Option<(CertificateIdentity, Arc<RequestHeaders>)>,
}

/// The client of a connection, as long as its certificate is valid.
#[derive(Clone, Debug)]
pub struct Peer {
    proof: Proof,
    chain: Arc<[CertificateDer<'static>]>,
    checked_by: ClientCertificates,
}

impl Peer {
    /// Verifies the certificate again if the authorities have been replaced.
    pub fn recheck(&mut self, now_trusted: &ClientCertificates, now: Timestamp) {
        if !Arc::ptr_eq(&self.checked_by.0, &now_trusted.0) {
            self.proof = now_trusted.identify(&self.chain, now);
            self.checked_by = now_trusted.clone();
        }
    }

    /// What the certificate proves now: a connection may outlive it.
    pub fn at(&self, now: Timestamp) -> ClientCertificate {
        match &self.proof.identity {
            Some(identity) if !identity.is_valid_at(now.as_second()) => {
                ClientCertificate::Invalid(EXPIRED.into())
            }
            _ => self.proof.certificate.clone(),
        }
    }

    /// Whether it may say whose requests it forwards.
    pub fn is_proxy(&self) -> bool {
        self.proof.proxy.is_some()
    }

    /// Whose request it is, if the client is a front proxy that says so; otherwise as [`Self::at`].
    pub fn of_request(&self, headers: &HeaderMap, now: Timestamp) -> ClientCertificate {
        let valid = |(identity, _): &&(CertificateIdentity, Arc<RequestHeaders>)| {
            identity.is_valid_at(now.as_second())
        };
        let named = self.proof.proxy.as_ref().filter(valid);
        match named.and_then(|(_, names)| names.user(headers)) {
            Some(user) => ClientCertificate::Valid(user),
            None => self.at(now),
        }
    }
}

impl ClientCertVerifier for ClientCertificates {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.0.hints
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if ParsedCertificate::try_from(certificate).is_ok() {
            return self.0.clients.webpki.verify_tls12_signature(message, certificate, signed);
        }
        self.0.clients.verify_possession(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if ParsedCertificate::try_from(certificate).is_ok() {
            return self.0.clients.webpki.verify_tls13_signature(message, certificate, signed);
        }
        if !is_of_tls13(signed.scheme) {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        self.0.clients.verify_possession(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clients.webpki.supported_verify_schemes()
    }
}

/// TLS 1.3 has no PKCS #1 signatures in the handshake (RFC 8446, 4.2.3).
fn is_of_tls13(scheme: SignatureScheme) -> bool {
    !matches!(
        scheme,
        SignatureScheme::RSA_PKCS1_SHA1
            | SignatureScheme::RSA_PKCS1_SHA256
            | SignatureScheme::RSA_PKCS1_SHA384
            | SignatureScheme::RSA_PKCS1_SHA512
            | SignatureScheme::ECDSA_SHA1_Legacy
    )
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};
    use rpc::tls::{IdentityError, certificate_identity};

    use super::*;

    #[test]
    fn the_subject_may_have_one_uid() {
        let table: &[(Option<&str>, Result<&str, IdentityError>)] =
            &[(None, Ok("")), (Some("7"), Ok("7")), (Some(""), Err(IdentityError::UidEmpty))];
        for (uid, expected) in table {
            let mut params = CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, "bob");
            if let Some(uid) = uid {
                let of_uid = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57_683, 2]);
                params.distinguished_name.push(of_uid, *uid);
            }
            let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let found = certificate_identity(der.der());
            let uids = found.as_ref().map(|found| found.uid.as_str()).map_err(Clone::clone);
            assert_eq!(uids, *expected);
            let Ok(found) = found else { continue };
            let user = user(&found, der.der());
            assert_eq!((user.name.as_str(), user.uid), ("bob", found.uid));
            let digest = ring::digest::digest(&ring::digest::SHA256, der.der());
            let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(user.extra[CREDENTIAL_ID], [format!("X509SHA256={hex}")]);
        }
        let many = IdentityError::Uids(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(many.to_string(), "expected 1 UID, but found multiple: [a b]");
    }
}
