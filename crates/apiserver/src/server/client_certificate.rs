//! Client certificates: a client with an invalid one gets a Status, as from Kubernetes, and not a
//! failed handshake.
//!
//! TLS only verifies that the client holds the key of its certificate. Whether the certificate is
//! valid is checked once per connection ([`ClientCertificates::peer`]).

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rpc::tls::CertificateIdentity;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConnection,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::user::User;

/// The authority that client certificates are verified against.
#[derive(Clone, Debug)]
pub struct ClientCertificates(Arc<dyn ClientCertVerifier>);

impl ClientCertificates {
    /// Trusts what `roots` have signed.
    ///
    /// # Errors
    /// When there are no roots.
    pub fn new(roots: RootCertStore) -> anyhow::Result<Self> {
        let verifier =
            WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build()?;
        Ok(Self(verifier))
    }

    /// The client of a connection. `None`: its certificate is not valid.
    pub fn peer(&self, session: &ServerConnection, now: Timestamp) -> Option<Peer> {
        let (own, intermediates) = session.peer_certificates()?.split_first()?;
        let now = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or_default());
        let now = UnixTime::since_unix_epoch(now);
        if let Err(error) = self.0.verify_client_cert(own, intermediates, now) {
            tracing::debug!(%error, "client certificate refused");
            return None;
        }
        let identity = rpc::tls::certificate_identity(own)?;
        let (name, groups) = (identity.name.clone(), identity.groups.clone());
        Some(Peer { user: Arc::new(User::authenticated(name, groups)), identity })
    }
}

/// The user of a connection, as long as the certificate is valid.
#[derive(Clone, Debug)]
pub struct Peer {
    user: Arc<User>,
    identity: CertificateIdentity,
}

impl Peer {
    /// The user; `None` once the certificate has expired: a connection may outlive it.
    pub fn user(&self, now: Timestamp) -> Option<Arc<User>> {
        self.identity.is_valid_at(now.as_second()).then(|| self.user.clone())
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
        self.0.root_hint_subjects()
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
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
