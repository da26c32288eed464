//! Mutual TLS: client channels, server settings, and identities from certificates.

use std::time::Duration;

use crate::incoming::TlsError;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tonic::transport::{
    Certificate, Channel, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig,
};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Keep-alive of idle gRPC connections: detects a dead peer within about half a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum size of response headers and trailers, in bytes: a `Status` may be long.
const HEADERS_BYTES: u32 = 1 << 20;
/// The flow-control window of a stream, in bytes: large lists must not wait for window updates.
const WINDOW_BYTES: u32 = 4 << 20;
/// The flow-control window of a connection, in bytes: the maximum, so that streams with a slow
/// reader (a paused log) never block the others.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;

/// A certificate chain and its key, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPair {
    pub certificate_pem: Vec<u8>,
    pub key_pem: Vec<u8>,
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyPair { .. }")
    }
}

impl KeyPair {
    /// Whether certificate and key can be used together.
    ///
    /// # Errors
    /// When one of them cannot be parsed, or they do not belong together.
    pub fn check(&self) -> Result<(), TlsError> {
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(&self.certificate_pem).collect();
        let key = PrivateKeyDer::from_pem_slice(&self.key_pem)?;
        let provider = rustls::crypto::ring::default_provider();
        CertifiedKey::from_der(chain?, key, &provider)?.keys_match()?;
        Ok(())
    }

    fn identity(&self) -> Identity {
        Identity::from_pem(&self.certificate_pem, &self.key_pem)
    }
}

/// The server to connect to, and the credentials to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dial {
    /// `https://host:port`
    pub url: String,
    /// The certificate authority of the server; `None` disables TLS, for tests.
    pub ca_pem: Option<Vec<u8>>,
    pub key_pair: Option<KeyPair>,
    /// The name that the certificate must be valid for, if it is not the host of `url`.
    pub server_name: Option<String>,
}

/// A channel that connects on first use and reconnects after failures.
///
/// # Errors
/// If the address or the PEM is invalid.
pub fn channel(dial: &Dial) -> Result<Channel, tonic::transport::Error> {
    let mut endpoint = endpoint(Endpoint::from_shared(dial.url.clone())?);
    if let Some(ca) = &dial.ca_pem {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
        if let Some(pair) = &dial.key_pair {
            tls = tls.identity(pair.identity());
        }
        if let Some(name) = &dial.server_name {
            tls = tls.domain_name(name.clone());
        }
        endpoint = endpoint.tls_config(tls)?;
    }
    Ok(endpoint.connect_lazy())
}

/// An endpoint with the settings that all connections have.
pub(crate) fn endpoint(of: Endpoint) -> Endpoint {
    of.connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .http2_max_header_list_size(HEADERS_BYTES)
        .tcp_nodelay(true)
}

/// TLS settings of a tonic server that accepts only clients with a certificate issued by
/// `client_ca_pem`.
pub fn server(pair: &KeyPair, client_ca_pem: &[u8]) -> ServerTlsConfig {
    ServerTlsConfig::new()
        .identity(pair.identity())
        .client_ca_root(Certificate::from_pem(client_ca_pem))
}

/// The attribute of a subject that is a user's uid.
const UID: &str = "1.3.6.1.4.1.57683.2";

/// The identity in a client certificate: the common name, the organizations as groups, and a uid
/// (Kubernetes' x509 authentication).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateIdentity {
    pub name: String,
    pub groups: Vec<String>,
    /// Empty: the subject has none.
    pub uid: String,
    /// Its validity, in seconds since the Unix epoch.
    not_before: i64,
    not_after: i64,
}

impl CertificateIdentity {
    /// Whether the certificate is valid at a time, in seconds since the Unix epoch. TLS checks it
    /// in the handshake only, and a connection may outlive it: check it with each request.
    pub fn is_valid_at(&self, unix_seconds: i64) -> bool {
        (self.not_before..=self.not_after).contains(&unix_seconds)
    }
}

/// Why a certificate names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("it is not a certificate")]
    Certificate,
    #[error("its subject has no common name")]
    CommonName,
    #[error("unable to parse UID into a string")]
    UidType,
    #[error("UID cannot be an empty string")]
    UidEmpty,
    #[error("expected 1 UID, but found multiple: [{}]", .0.join(" "))]
    Uids(Vec<String>),
}

/// Reads the identity from a DER certificate that TLS has verified.
///
/// # Errors
/// When it has no common name, or a uid that cannot be used.
pub fn certificate_identity(der: &[u8]) -> Result<CertificateIdentity, IdentityError> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|_| IdentityError::Certificate)?;
    let subject = certificate.subject();
    // Of several, Go takes the last.
    let name = subject.iter_common_name().last().and_then(|name| name.as_str().ok());
    let name = name.filter(|name| !name.is_empty()).ok_or(IdentityError::CommonName)?.to_owned();
    let groups = subject
        .iter_organization()
        .filter_map(|organization| organization.as_str().ok().map(str::to_owned))
        .collect();
    let uids = subject
        .iter_attributes()
        .filter(|attribute| attribute.attr_type().to_id_string() == UID)
        .map(|attribute| attribute.as_str().map(str::to_owned))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| IdentityError::UidType)?;
    let uid = match <[String; 1]>::try_from(uids) {
        Ok([uid]) if uid.is_empty() => return Err(IdentityError::UidEmpty),
        Ok([uid]) => uid,
        Err(none) if none.is_empty() => String::new(),
        Err(many) => return Err(IdentityError::Uids(many)),
    };
    let (not_before, not_after) = of_validity(&certificate);
    Ok(CertificateIdentity { name, groups, uid, not_before, not_after })
}

/// From when and until when a certificate is valid, in seconds since 1970; `None`: it is none.
pub fn validity(der: &[u8]) -> Option<(i64, i64)> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(of_validity(&certificate))
}

fn of_validity(certificate: &X509Certificate<'_>) -> (i64, i64) {
    let validity = certificate.validity();
    (validity.not_before.timestamp(), validity.not_after.timestamp())
}
