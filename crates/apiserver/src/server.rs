//! The port: TLS, then REST or gRPC by content type.

mod client_certificate;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{SockRef, TcpKeepalive};
use store::embedded::Embedded;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service;

use self::client_certificate::ClientCertificates;
use crate::connect::PeerAddress;
use crate::core::Core;
use crate::grpc::{self, Grpc};
use crate::pipeline::Pipeline;
use crate::rest::{Body, BodyError, Rest};
use crate::user::ClientCertificate;

/// How long a connection may be open before its first request.
const SILENCE: Duration = Duration::from_secs(32);
/// How long an HTTP/1.1 connection may be idle, or take to send the headers of a request.
const IDLE: Duration = Duration::from_secs(90);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// TCP keepalive: after how long, and how often a silent connection is probed. Watches and sessions
/// of clients that have vanished must end.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// How long open requests may take after the signal to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// Flow-control window of an HTTP/2 stream, in bytes.
const WINDOW_BYTES: u32 = 4 << 20;
/// Flow-control window of a connection, in bytes: large enough that a stream which is not read
/// never stalls the others.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
/// Headers and path of one HTTP/2 request, in bytes: selectors may be long.
const MAX_HEADER_BYTES: u32 = 128 << 10;
/// Streams of one HTTP/2 connection.
const MAX_STREAMS: u32 = 1_000;

/// The certificates and key of the port, in PEM.
pub struct Tls {
    pub certificate_pem: Vec<u8>,
    pub key_pem: Vec<u8>,
    pub client_ca_pem: Vec<u8>,
}

/// A running server.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    accepting: JoinHandle<()>,
    /// The state that its requests share.
    pub core: Arc<Core>,
    embedded: Option<Embedded>,
}

impl Running {
    /// Waits until the server has stopped, after a request to.
    pub async fn finished(self) {
        if let Err(error) = self.accepting.await {
            tracing::error!(%error, "the server's task failed");
        }
        if let Some(embedded) = self.embedded
            && let Err(error) = embedded.stop().await
        {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the embedded store did not stop cleanly"
            );
        }
    }
}

/// Opens the port.
///
/// # Errors
/// When it is in use.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// Serves both doors on `listener` until `shutdown`.
///
/// # Errors
/// When the certificates cannot be used.
pub fn serve(
    listener: TcpListener,
    tls: Tls,
    core: Arc<Core>,
    pipeline: Pipeline,
    embedded: Option<Embedded>,
    shutdown: CancellationToken,
) -> anyhow::Result<Running> {
    let certificates = client_certificates(&tls)?;
    let config = server_config(&tls, certificates.clone())?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let doors = Doors {
        certificates,
        rest: Rest::new(pipeline.clone(), core.clock.clone()),
        grpc: grpc::routes(pipeline, core.clock.clone()),
        core: core.clone(),
    };
    let address = listener.local_addr()?;
    let accepting = tokio::spawn(accept(listener, acceptor, doors, shutdown));
    tracing::info!(%address, "serving");
    Ok(Running { address, accepting, core, embedded })
}

fn client_certificates(tls: &Tls) -> anyhow::Result<ClientCertificates> {
    let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&tls.client_ca_pem).collect();
    ClientCertificates::new(roots.context("cannot parse the client CA")?)
}

fn server_config(tls: &Tls, certificates: ClientCertificates) -> anyhow::Result<ServerConfig> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&tls.certificate_pem).collect();
    let key =
        PrivateKeyDer::from_pem_slice(&tls.key_pem).context("cannot parse the serving key")?;
    let mut config = ServerConfig::builder()
        .with_client_cert_verifier(Arc::new(certificates))
        .with_single_cert(chain.context("cannot parse the serving certificate")?, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

#[derive(Clone)]
struct Doors {
    certificates: ClientCertificates,
    rest: Rest,
    grpc: Grpc,
    core: Arc<Core>,
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    doors: Doors,
    shutdown: CancellationToken,
) {
    let connections = tokio_util::task::TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection =
                    connection(stream, acceptor.clone(), doors.clone(), shutdown.clone());
                connections.spawn(connection);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::info!("closing connections that are still open");
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    doors: Doors,
    shutdown: CancellationToken,
) {
    let alive = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE_INTERVAL);
    let options =
        stream.set_nodelay(true).and_then(|()| SockRef::from(&stream).set_tcp_keepalive(&alive));
    if let Err(error) = options {
        tracing::debug!(%error, "cannot set socket options");
    }
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let session = stream.get_ref().1;
    let peer = doors.certificates.peer(session, doors.core.clock.now());
    let address = stream.get_ref().0.peer_addr().map(PeerAddress).ok();
    let spoken = Arc::new(AtomicBool::new(false));
    let heard = spoken.clone();
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        spoken.store(true, Ordering::Relaxed);
        let (doors, peer) = (doors.clone(), peer.clone());
        if let Some(address) = address {
            request.extensions_mut().insert(address);
        }
        async move {
            let now = doors.core.clock.now();
            Ok::<_, std::convert::Infallible>(doors.answer(request, peer.at(now)).await)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buf_size(1 << 20);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE).pipeline_flush(true);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut silence = std::pin::pin!(tokio::time::sleep(SILENCE));
    let mut patient = true;
    let served = loop {
        tokio::select! {
            served = connection.as_mut() => break served,
            () = &mut silence, if patient => {
                patient = false;
                if !heard.load(Ordering::Relaxed) {
                    return tracing::debug!("closing a connection without a request");
                }
            }
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                break connection.await;
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(error = %error, "connection ended");
    }
}

impl Doors {
    async fn answer(
        mut self,
        mut request: http::Request<Incoming>,
        certificate: ClientCertificate,
    ) -> http::Response<Body> {
        request.extensions_mut().insert(certificate);
        let is_grpc = request
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        if is_grpc {
            match self.grpc.call(request).await {
                Ok(response) => response.map(erased),
                Err(never) => match never {},
            }
        } else {
            self.rest.serve(request).await
        }
    }
}

/// Converts tonic's body.
fn erased<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    body.map_err(Into::into).boxed_unsync()
}
