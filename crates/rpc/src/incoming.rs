//! A server's TLS connections, for clients of HTTP/2 and of HTTP/1.1.
//!
//! tonic's own offers HTTP/2 alone; a port that others than gRPC clients use needs both.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;

use crate::tls::KeyPair;

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that wait to be served.
const BACKLOG: usize = 16;
/// Pause after a failed accept: the process may be out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a stream of connections cannot be made from.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file has no certificate or key in it that can be read.
    #[error("read PEM: {0}")]
    Pem(#[from] rustls_pki_types::pem::Error),
    /// The key does not go with the certificate, or is of an unknown kind.
    #[error(transparent)]
    Pair(#[from] rustls::Error),
    /// There is no authority to check clients against.
    #[error("client CA: {0}")]
    Authority(#[from] rustls::server::VerifierBuilderError),
}

/// Connections to `listener` whose handshake has succeeded. A client may show a certificate of
/// `client_ca_pem`; one that shows another is turned away. It ends when the stream is dropped.
///
/// # Errors
/// When the certificates cannot be used.
pub fn incoming(
    listener: TcpListener,
    pair: &KeyPair,
    client_ca_pem: &[u8],
) -> Result<ReceiverStream<io::Result<TlsStream<TcpStream>>>, TlsError> {
    let acceptor = TlsAcceptor::from(Arc::new(config(pair, client_ca_pem)?));
    let (sender, receiver) = mpsc::channel(BACKLOG);
    tokio::spawn(accept(listener, acceptor, sender));
    Ok(ReceiverStream::new(receiver))
}

fn config(pair: &KeyPair, client_ca_pem: &[u8]) -> Result<ServerConfig, TlsError> {
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
    acceptor: TlsAcceptor,
    sender: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = sender.closed() => return,
        };
        match accepted {
            Ok((stream, _)) => {
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
        tracing::debug!(%error, "socket options");
    }
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            if sender.send(Ok(stream)).await.is_err() {
                tracing::debug!("the server has ended");
            }
        }
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake took too long"),
    }
}
