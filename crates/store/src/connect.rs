//! Opening a connection to an etcd cluster.

use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};

use crate::{Error, Result, Revision};

/// How long to wait for a TCP and TLS connection to one member.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for the response to one request (including a range over a large store).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a connection is pinged, and how long the response may take. etcd rejects pings more
/// frequent than every five seconds.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A client certificate with its key, both in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The certificate, followed by its intermediates.
    pub certificate_pem: Vec<u8>,
    /// The private key.
    pub key_pem: Vec<u8>,
}

impl std::fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientIdentity").finish_non_exhaustive()
    }
}

/// The address of an etcd cluster and the credentials for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EtcdConfig {
    /// Client URLs of the members, `http://host:port` or `https://host:port`.
    pub endpoints: Vec<String>,
    /// The certificate authority of the members, in PEM. Required for `https`.
    pub ca_pem: Option<Vec<u8>>,
    /// The client certificate, if the members require one.
    pub identity: Option<ClientIdentity>,
}

impl EtcdConfig {
    /// A configuration for members at these URLs, without TLS.
    pub fn plain(endpoints: impl IntoIterator<Item = impl Into<String>>) -> EtcdConfig {
        EtcdConfig {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            ..EtcdConfig::default()
        }
    }

    fn validate(&self) -> Result<()> {
        let reason = if self.endpoints.is_empty() {
            "no etcd server is configured".to_owned()
        } else if let Some(bad) = self.endpoints.iter().find(|url| !url.contains("://")) {
            format!("{bad:?} is not a URL (http://host:port or https://host:port)")
        } else if self.ca_pem.is_some()
            && self.endpoints.iter().any(|url| url.starts_with("http://"))
        {
            "a certificate authority is configured, but the URL of a server is http, not https"
                .to_owned()
        } else if self.ca_pem.as_ref().is_some_and(|pem| !has_certificate(pem)) {
            "the configured certificate authority contains no certificate".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::Configuration { reason })
    }

    /// Creates the client. It connects on first use; no server needs to be up yet.
    pub(crate) async fn client(&self) -> Result<Client> {
        self.validate()?;
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_timeout(REQUEST_TIMEOUT)
            .with_keep_alive(KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT);
        if self.ca_pem.is_some() || self.identity.is_some() {
            let mut tls = TlsOptions::new();
            if let Some(ca) = &self.ca_pem {
                tls = tls.ca_certificate(Certificate::from_pem(ca));
            }
            if let Some(identity) = &self.identity {
                tls =
                    tls.identity(Identity::from_pem(&identity.certificate_pem, &identity.key_pem));
            }
            options = options.with_tls(tls);
        }
        Client::connect(&self.endpoints, Some(options)).await.map_err(|error| match error {
            etcd_client::Error::TransportError(cause) => {
                Error::Configuration { reason: format!("TLS: {}", root_cause(&cause)) }
            }
            other => Error::from_wire(other, Revision::NONE),
        })
    }
}

/// Without this check, PEM without a certificate would be accepted as an empty list of authorities,
/// against which nothing can be verified.
fn has_certificate(pem: &[u8]) -> bool {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    pem.windows(BEGIN.len()).any(|window| window == BEGIN)
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
