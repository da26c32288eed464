//! The kubelet's server. Its gRPC service is for the apiserver and administrators: logs, exec,
//! attach, port forwarding, statistics, metrics, image loading. What upstream's kubelet serves
//! over HTTP besides sessions is served over HTTP here too.

mod attach;
mod exec;
mod frames;
mod identity;
mod images;
mod logs;
mod metrics;
mod pages;
pub mod pod_resources;
mod port_forward;
mod service;
mod service_proxy;
mod stats;
mod system_logs;
mod target;
mod web;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use rpc::incoming::ServerPem;
use rpc::kubelet_v1::kubelet_server::KubeletServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::config::Flags;
use crate::pod::context::Context;
use crate::pod::manager::PodManager;
use service::Service;
use service_proxy::ServiceProxy;

/// Flow-control window of a connection, in bytes: large enough that a stream whose pod does not
/// read never blocks the others.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;

/// Concurrent calls per connection. An apiserver has one connection to each node, and every
/// followed log and open session is a call on it; further ones would have to wait.
const MAX_STREAMS: u32 = 10_000;

/// The parts that the server uses.
pub struct ServerParts {
    service: Arc<Service>,
    address: SocketAddr,
    pem: watch::Receiver<Arc<ServerPem>>,
}

impl ServerParts {
    /// # Errors
    /// If the service proxy's socket is not a valid path.
    pub fn new(
        context: &Arc<Context>,
        pods: &PodManager,
        flags: &Flags,
        pem: watch::Receiver<Arc<ServerPem>>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            service: Arc::new(Service {
                context: Arc::clone(context),
                pods: pods.clone(),
                configuration: pages::configuration(flags),
                service_proxy: flags.proxy_socket.as_deref().map(ServiceProxy::new).transpose()?,
            }),
            address: SocketAddr::new(flags.bind_address, flags.port),
            pem,
        })
    }
}

/// Listens, and serves until `shutdown`. Returns the port.
pub async fn start(parts: ServerParts, shutdown: CancellationToken) -> anyhow::Result<u16> {
    let listener = TcpListener::bind(parts.address)
        .await
        .with_context(|| format!("listen on {}", parts.address))?;
    let port = listener.local_addr()?.port();
    // A client without a certificate needs a token: see `web`.
    let incoming = rpc::incoming::incoming(listener, parts.pem)?;
    let service = KubeletServer::from_arc(Arc::clone(&parts.service))
        .max_decoding_message_size(rpc::MAX_MESSAGE_BYTES);
    let clock = Arc::clone(&parts.service.context.clock);
    let check = move |request| identity::check(request, clock.now());
    let service = tonic::service::interceptor::InterceptedService::new(service, check);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<KubeletServer<Service>>().await;
    let routes = Routes::new(health)
        .add_service(service)
        .into_axum_router()
        .fallback(move |request| web::answer(Arc::clone(&parts.service), request));
    let server = Server::builder()
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .accept_http1(true)
        .add_routes(Routes::from(routes));
    tokio::spawn(async move {
        let served =
            server.serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "the server failed");
        }
    });
    Ok(port)
}
