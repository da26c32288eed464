//! TLS connections of a server, for both HTTP/2 and HTTP/1.1 clients.
//!
//! tonic's own acceptor offers HTTP/2 only; a port that also serves other clients needs both.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;

use crate::tls::KeyPair;

/// The maximum duration of a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The number of accepted connections that may wait to be served.
const BACKLOG: usize = 16;
/// The delay after a failed accept: the process may be out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The PEM contains no valid certificate or key.
    #[error("read PEM: {0}")]
    Pem(#[from] rustls_pki_types::pem::Error),
    /// The key does not match the certificate, or is of an unknown type.
    #[error(transparent)]
    Pair(#[from] rustls::Error),
    /// There is no certificate authority to verify clients against.
    #[error("client CA: {0}")]
    Authority(#[from] rustls::server::VerifierBuilderError),
    /// The server's address cannot be parsed.
    #[error("invalid address {0:?}")]
    Address(String),
}

/// What a server proves itself with, and the authority of its clients, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerPem {
    pub pair: KeyPair,
    pub client_ca_pem: Vec<u8>,
}

impl ServerPem {
    /// Whether it can be used.
    ///
    /// # Errors
    /// When something cannot be parsed, or certificate and key do not belong together.
    pub fn check(&self) -> Result<(), TlsError> {
        config(self).map(|_| ())
    }
}

/// Accepts connections and performs their handshakes, until the stream is dropped, with the
/// certificates that there are when a client connects. Client certificates are optional, but must
/// be issued by the authority.
///
/// # Errors
/// If the certificates are unusable.
pub fn incoming(
    listener: TcpListener,
    mut pem: watch::Receiver<Arc<ServerPem>>,
) -> Result<ReceiverStream<io::Result<TlsStream<TcpStream>>>, TlsError> {
    let config = config(&pem.borrow_and_update())?;
    let (sender, receiver) = mpsc::channel(BACKLOG);
    tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), pem, sender));
    Ok(ReceiverStream::new(receiver))
}

fn config(pem: &ServerPem) -> Result<ServerConfig, TlsError> {
    let ServerPem { pair, client_ca_pem } = pem;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(client_ca_pem) {
        roots.add(certificate?)?;
    }
    let verifier =
        WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build()?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pair.certificate_pem).collect();
    let mut config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain?, PrivateKeyDer::from_pem_slice(&pair.key_pem)?)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

async fn accept(
    listener: TcpListener,
    mut acceptor: TlsAcceptor,
    mut pem: watch::Receiver<Arc<ServerPem>>,
    sender: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = sender.closed() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                if pem.has_changed().unwrap_or_default() {
                    match config(&pem.borrow_and_update()) {
                        Ok(config) => acceptor = TlsAcceptor::from(Arc::new(config)),
                        Err(error) => tracing::error!(%error, "cannot use the new certificates"),
                    }
                }
                tokio::spawn(shake_hands(stream, acceptor.clone(), sender.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn shake_hands(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    sender: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            if sender.send(Ok(stream)).await.is_err() {
                tracing::debug!("the server has stopped");
            }
        }
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake timed out"),
    }
}
