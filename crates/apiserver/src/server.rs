//! The port: TLS, then REST or gRPC by content type.

mod client_certificate;
mod connections;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use rpc::incoming::ServerPem;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{SockRef, TcpKeepalive};
use store::embedded::Embedded;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service;

use self::client_certificate::ClientCertificates;
use self::connections::{Activity, Connections, Place, Watched};
use crate::aggregation::RequestHeaders;
use crate::answer::hold;
use crate::connect::PeerAddress;
use crate::core::Core;
use crate::grpc::{self, Gate, Grpc};
use crate::inflight::Seat;
use crate::pipeline::Pipelines;
use crate::rest::{AUDIT_ID, Body, BodyError, Rest, add_flow, audit_id, client_info};
use crate::user::{ClientCertificate, Proof};

/// How long a connection may be open before its first request.
const SILENCE: Duration = Duration::from_secs(32);
/// How long an HTTP/1.1 connection may be idle between requests: longer than clients keep idle
/// connections (90 s), so that none sends a request on one that is just being closed.
const IDLE: Duration = Duration::from_secs(120);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// TCP keepalive: after how long, and how often a silent connection is probed. Watches and sessions
/// of clients that have vanished must end.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// How long open requests may take after the signal to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// Streams of one HTTP/2 connection, and the flow-control window of each, in bytes (upstream's).
const MAX_STREAMS: u32 = 250;
const WINDOW_BYTES: u32 = 256 << 10;
/// Flow-control window of a connection: a stream that is not read never stalls the others.
const CONNECTION_WINDOW_BYTES: u32 = MAX_STREAMS * WINDOW_BYTES;
/// What one HTTP/2 stream may have in the send buffer of its connection, in bytes.
const SEND_BYTES: usize = 64 << 10;
/// In whose share the connections of front proxies are.
const FRONT_PROXY: &str = "front-proxy";
/// Headers and path of one request, in bytes: selectors may be long. An HTTP/1.1 connection has
/// buffers of this size.
const MAX_HEADER_BYTES: u32 = 64 << 10;

/// The certificates of the port, ready for use, and the PEM that they are from.
pub struct Tls {
    pub pem: ServerPem,
    /// The authority of front proxies, in PEM, and the headers that they may send.
    pub proxies: Option<(Vec<u8>, RequestHeaders)>,
    acceptor: TlsAcceptor,
    certificates: ClientCertificates,
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        let authority = |tls: &Self| tls.proxies.as_ref().map(|(pem, _)| pem.clone());
        self.pem == other.pem && authority(self) == authority(other)
    }
}

impl Tls {
    /// # Errors
    /// When something cannot be parsed, or certificate and key do not belong together.
    pub fn new(pem: ServerPem, proxies: Option<(Vec<u8>, RequestHeaders)>) -> anyhow::Result<Self> {
        let certificates = client_certificates(&pem.client_ca_pem, proxies.as_ref())?;
        let config = server_config(&pem, certificates.clone())?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { pem, proxies, acceptor, certificates })
    }
}

/// The certificates that there are now.
pub type CurrentTls = watch::Receiver<Arc<Tls>>;

/// A running server.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    accepting: JoinHandle<()>,
    /// The state that its requests share.
    pub core: Arc<Core>,
    /// Its own store, if it is not etcd.
    pub embedded: Option<Embedded>,
}

impl Running {
    /// Waits until the server has stopped, after a request to.
    pub async fn finished(self) {
        if let Err(error) = self.accepting.await {
            tracing::error!(%error, "the server's task failed");
        }
        if let Some(audit) = &self.core.audit {
            audit.stop().await;
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

/// Serves both front ends on `listener` until `shutdown`.
///
/// # Errors
/// When the certificates cannot be used.
pub fn serve(
    listener: TcpListener,
    tls: CurrentTls,
    core: Arc<Core>,
    pipelines: Pipelines,
    embedded: Option<Embedded>,
    shutdown: CancellationToken,
) -> anyhow::Result<Running> {
    let front_ends = FrontEnds {
        tls,
        rest: Rest::new(&pipelines, core.clone()),
        grpc: grpc::routes(&pipelines, core.clone()),
        gate: Gate::new(pipelines, core.clone()),
        core: core.clone(),
    };
    let address = listener.local_addr()?;
    let accepting = tokio::spawn(accept(listener, front_ends, shutdown));
    tracing::info!(%address, "serving");
    Ok(Running { address, accepting, core, embedded })
}

fn client_certificates(
    client_ca_pem: &[u8],
    proxies: Option<&(Vec<u8>, RequestHeaders)>,
) -> anyhow::Result<ClientCertificates> {
    let parse = |pem: &[u8]| CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let roots = parse(client_ca_pem).context("cannot parse the client CA")?;
    let proxies = proxies.map(|(pem, headers)| {
        let roots = parse(pem).context("cannot parse the front proxies' CA")?;
        anyhow::Ok((roots, headers.clone()))
    });
    ClientCertificates::new(roots, proxies.transpose()?)
}

fn server_config(
    pem: &ServerPem,
    certificates: ClientCertificates,
) -> anyhow::Result<ServerConfig> {
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(&pem.pair.certificate_pem).collect();
    let key =
        PrivateKeyDer::from_pem_slice(&pem.pair.key_pem).context("cannot parse the serving key")?;
    let mut config = ServerConfig::builder()
        .with_client_cert_verifier(Arc::new(certificates))
        .with_single_cert(chain.context("cannot parse the serving certificate")?, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

#[derive(Clone)]
struct FrontEnds {
    tls: CurrentTls,
    rest: Rest,
    gate: Gate,
    grpc: Grpc,
    core: Arc<Core>,
}

async fn accept(listener: TcpListener, front_ends: FrontEnds, shutdown: CancellationToken) {
    let tasks = tokio_util::task::TaskTracker::new();
    let connections = Arc::new(Connections::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => match connections.enter() {
                Some(place) => {
                    let shutdown = shutdown.clone();
                    tasks.spawn(connection(stream, place, front_ends.clone(), shutdown));
                }
                None => tracing::debug!("refused a connection: too many are open"),
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    tasks.close();
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        tracing::info!("closing connections that are still open");
    }
}

async fn connection(
    stream: TcpStream,
    place: Place,
    front_ends: FrontEnds,
    shutdown: CancellationToken,
) {
    let alive = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE_INTERVAL);
    let options =
        stream.set_nodelay(true).and_then(|()| SockRef::from(&stream).set_tcp_keepalive(&alive));
    if let Err(error) = options {
        tracing::debug!(%error, "cannot set socket options");
    }
    let evicted = place.evicted.clone();
    let acceptor = front_ends.tls.borrow().acceptor.clone();
    let handshake = tokio::select! {
        handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)) => handshake,
        () = evicted.cancelled() => return tracing::debug!("closing a connection for newer ones"),
    };
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let activity = Activity::new(place);
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let chain: Arc<[_]> = chain.iter().map(|one| one.clone().into_owned()).collect();
    let now = front_ends.core.clock.now();
    let peer = front_ends.certificates().peer(chain, now);
    match peer.at(now) {
        ClientCertificate::Valid(user) => activity.prove(&user.name),
        _ if peer.is_proxy() => activity.prove(FRONT_PROXY),
        _ => {}
    }
    let peer = Arc::new(Mutex::new(peer));
    let address = stream.get_ref().0.peer_addr().map(PeerAddress).ok();
    let active = activity.clone();
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        let ongoing = active.request(request.version());
        let (front_ends, peer, active) = (front_ends.clone(), peer.clone(), active.clone());
        if let Some(address) = address {
            request.extensions_mut().insert(address);
        }
        // A box is dropped with the end of the request; without one the body that follows, often that
        // of a watch, would keep the room of the largest state.
        Box::pin(async move {
            let now = front_ends.core.clock.now();
            let certificate = {
                let mut peer = peer.lock();
                // Whom the current authorities no longer vouch for is nobody.
                peer.recheck(&front_ends.certificates(), now);
                peer.of_request(request.headers(), now)
            };
            let proof = Proof::default();
            request.extensions_mut().insert(proof.clone());
            let response = front_ends.answer(request, certificate).await;
            if let Some(user) = proof.user() {
                active.prove(&user.name);
            }
            Ok::<_, std::convert::Infallible>(response.map(|body| hold(body, ongoing)))
        })
    });
    let builder = protocols();
    let stream = TokioIo::new(Watched::new(stream, activity.clone()));
    let mut connection = std::pin::pin!(builder.serve_connection_with_upgrades(stream, service));
    let mut silence = std::pin::pin!(tokio::time::sleep(SILENCE));
    let mut patient = true;
    let served = loop {
        tokio::select! {
            served = connection.as_mut() => break served,
            () = &mut silence, if patient => {
                patient = false;
                if !activity.has_spoken() {
                    return tracing::debug!("closing a connection without a request");
                }
            }
            () = activity.late() => {
                return tracing::debug!("closing a connection whose request does not arrive");
            }
            () = evicted.cancelled() => {
                return tracing::debug!("closing a connection for newer ones");
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

/// Both versions of HTTP, with their limits. Not with hyper's `pipeline_flush`: it buffers answers
/// without a limit.
fn protocols() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        // A client that ends resets all of its streams.
        .max_pending_accept_reset_streams(MAX_STREAMS as usize)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buf_size(SEND_BYTES);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(MAX_HEADER_BYTES as usize);
    builder
}

impl FrontEnds {
    fn certificates(&self) -> ClientCertificates {
        self.tls.borrow().certificates.clone()
    }

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
            let seat = Seat::default();
            request.extensions_mut().insert(seat.clone());
            let id = audit_id(request.headers());
            if self.core.audit.is_some() {
                let (parts, body) = request.into_parts();
                let client = Arc::new(client_info(&parts, &id));
                request = http::Request::from_parts(parts, body);
                request.extensions_mut().insert(client);
            }
            let mut response = match self.gate.admit(request).await {
                Ok(request) => match self.grpc.call(request).await {
                    Ok(response) => response.map(erased),
                    Err(never) => match never {},
                },
                Err(error) => {
                    let status = rpc::status::to_grpc(&error);
                    status.into_http::<tonic::body::Body>().map(erased)
                }
            };
            add_flow(&mut response, seat.flow().as_deref());
            response.headers_mut().insert(AUDIT_ID, id);
            response
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
