//! Mutual TLS: channels to a server, server settings, and identities from certificates.

use std::time::Duration;

use tonic::transport::{
    Certificate, Channel, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig,
};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Keep-alive of idle gRPC connections: finds a dead peer within about half a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Headers and trailers of an answer, in bytes: a `Status` may be long.
const HEADERS_BYTES: u32 = 1 << 20;
/// Flow-control window of a stream, in bytes: large lists must not wait for window updates.
const WINDOW_BYTES: u32 = 4 << 20;
/// Flow-control window of a connection, in bytes: as many streams as there may be, so that those
/// whose reader is slow (a paused log) never stop the others.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;

/// PEM of a certificate chain and its key.
#[derive(Clone)]
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
    fn identity(&self) -> Identity {
        Identity::from_pem(&self.certificate_pem, &self.key_pem)
    }
}

/// Where and as whom to connect.
#[derive(Clone, Debug)]
pub struct Dial {
    /// `https://host:port`
    pub url: String,
    /// The authority that the server's certificate must come from; `None`: no TLS, for tests.
    pub ca_pem: Option<Vec<u8>>,
    pub key_pair: Option<KeyPair>,
    /// Name the certificate must be valid for, when it is not the host of `url`.
    pub server_name: Option<String>,
}

/// A channel that connects on first use and again after failures.
///
/// # Errors
/// When the address or the PEM cannot be read.
pub fn channel(dial: &Dial) -> Result<Channel, tonic::transport::Error> {
    let mut endpoint = Endpoint::from_shared(dial.url.clone())?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .http2_max_header_list_size(HEADERS_BYTES)
        .tcp_nodelay(true);
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

/// Settings of a tonic server that lets in only clients with a certificate of `client_ca_pem`.
pub fn server(pair: &KeyPair, client_ca_pem: &[u8]) -> ServerTlsConfig {
    ServerTlsConfig::new()
        .identity(pair.identity())
        .client_ca_root(Certificate::from_pem(client_ca_pem))
}

/// Who a client certificate says its holder is: common name, and organizations as groups
/// (Kubernetes' x509 authentication).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateIdentity {
    pub name: String,
    pub groups: Vec<String>,
    /// The last second of its validity, since 1970.
    pub not_after: i64,
}

/// Reads the identity from a DER certificate that TLS has verified. `None`: no common name.
pub fn certificate_identity(der: &[u8]) -> Option<CertificateIdentity> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject
        .iter_organization()
        .filter_map(|organization| organization.as_str().ok().map(str::to_owned))
        .collect();
    Some(CertificateIdentity {
        name,
        groups,
        not_after: certificate.validity().not_after.timestamp(),
    })
}
