//! Client connections whose address, authority and certificate may change while they are in use:
//! whoever follows them takes the current ones for each new connection, and ends those that were
//! made with earlier ones.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tonic::codegen::{BoxFuture, Service, http::Uri};
use tonic::transport::{Channel, Endpoint};

use crate::incoming::TlsError;
use crate::tls::{CONNECT_TIMEOUT, Dial, endpoint};

/// The server and the credentials as they are now.
pub type Dials = watch::Receiver<Arc<Dial>>;

/// Settings that do not change.
pub fn fixed(dial: Dial) -> Dials {
    watch::channel(Arc::new(dial)).1
}

/// Whether the PEM of a dial can be used.
///
/// # Errors
/// When a certificate or a key cannot be parsed, or they do not belong together.
pub fn check(dial: &Dial) -> Result<(), TlsError> {
    client_config(dial, true).map(|_| ())
}

/// As [`tls::channel`](crate::tls::channel), following `dials`. Without `with_certificate` no
/// client certificate is presented.
///
/// # Errors
/// If the address or the PEM is invalid.
pub fn channel(dials: Dials, with_certificate: bool) -> Result<Channel, TlsError> {
    let dial = dials.borrow().clone();
    client_config(&dial, with_certificate)?;
    let url: Uri = dial.url.parse().map_err(|_| TlsError::Address(dial.url.clone()))?;
    // The connector does TLS itself; the address is that of the current dial.
    let plain = Endpoint::from_static("http://apiserver");
    let endpoint = endpoint(plain).origin(url);
    Ok(endpoint.connect_with_connector_lazy(Connector { dials, with_certificate }))
}

/// `None`: without TLS.
fn client_config(dial: &Dial, with_certificate: bool) -> Result<Option<ClientConfig>, TlsError> {
    let Some(authority) = &dial.ca_pem else {
        return Ok(None);
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let pair = dial.key_pair.as_ref().filter(|_| with_certificate);
    let mut config = match pair {
        None => config.with_no_client_auth(),
        Some(pair) => {
            let chain: Result<Vec<_>, _> =
                CertificateDer::pem_slice_iter(&pair.certificate_pem).collect();
            config.with_client_auth_cert(chain?, PrivateKeyDer::from_pem_slice(&pair.key_pem)?)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Some(config))
}

/// Connects with the current settings.
#[derive(Clone)]
struct Connector {
    dials: Dials,
    with_certificate: bool,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Ending>;
    type Error = io::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (mut dials, with_certificate) = (self.dials.clone(), self.with_certificate);
        Box::pin(async move {
            let dial = dials.borrow_and_update().clone();
            let connecting = connect(&dial, with_certificate);
            let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await??;
            Ok(TokioIo::new(Ending { stream, replaced: Box::pin(replaced(dials)) }))
        })
    }
}

async fn replaced(mut dials: Dials) {
    if dials.changed().await.is_err() {
        // They do not change any more.
        std::future::pending::<()>().await;
    }
}

async fn connect(dial: &Dial, with_certificate: bool) -> io::Result<Box<dyn Stream>> {
    let invalid = |_| io::Error::new(io::ErrorKind::InvalidInput, "the address is invalid");
    let url: Uri = dial.url.parse().map_err(invalid)?;
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_u16().unwrap_or(443);
    let config = client_config(dial, with_certificate).map_err(io::Error::other)?;
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    stream.set_nodelay(true)?;
    let Some(config) = config else {
        return Ok(Box::new(stream));
    };
    let name = dial.server_name.clone().unwrap_or(host);
    let name = ServerName::try_from(name).map_err(io::Error::other)?;
    Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection that ends when the settings it was made with are replaced.
struct Ending {
    stream: Box<dyn Stream>,
    replaced: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl AsyncRead for Ending {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.replaced.as_mut().poll(context).is_ready() {
            // The connection is not polled any more after this.
            self.replaced = Box::pin(std::future::ready(()));
            let why = "the credentials of the connection were replaced";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Ending {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
