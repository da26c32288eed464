//! The scheduler's own server: it explains decisions to the apiserver.
//!
//! Where the leader serves is an annotation of its Lease, so that every apiserver finds it. Only the
//! apiserver's identity is authorized: it has checked what the user may do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use client::{Api, Client, PatchKind};
use clock::SharedClock;
use k8s_openapi::api::coordination::v1::Lease;
use rpc::incoming::ServerPem;
use rpc::scheduler_v1::scheduler_server::{Scheduler, SchedulerServer};
use rpc::scheduler_v1::{ExplainRequest, ExplainResponse};
use rpc::tls::certificate_identity;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::drive::Question;

/// The Lease that the leader holds, and without an election only annotates.
const NAMESPACE: &str = "kube-system";
const LEASE: &str = "kube-scheduler";
/// Annotation: `host:port` of the leader's server.
pub const ADDRESS: &str = "skiff.dev/address";
/// The user names of those who may ask: the apiserver's.
const APISERVER: &str = "kube-apiserver-kubelet-client";
/// Delay after a failure to announce the address.
const RETRY: Duration = Duration::from_secs(2);
/// Concurrent calls per connection; further ones wait.
const MAX_STREAMS: u32 = 64;

/// Where and as whom to serve.
pub struct Parts {
    pub address: SocketAddr,
    /// What to prove it with; may be replaced.
    pub pem: watch::Receiver<Arc<ServerPem>>,
}

struct Service {
    questions: mpsc::Sender<Question>,
    clock: SharedClock,
}

#[tonic::async_trait]
impl Scheduler for Service {
    async fn explain(
        &self,
        request: Request<ExplainRequest>,
    ) -> Result<Response<ExplainResponse>, Status> {
        self.check(&request)?;
        let (answer, explanations) = oneshot::channel();
        let question = Question { uid: request.into_inner().uid, answer };
        let ended = |_| Status::unavailable("the scheduler is ending");
        self.questions
            .send(question)
            .await
            .map_err(|_| Status::unavailable("the scheduler is ending"))?;
        let explanations = explanations.await.map_err(ended)?;
        Ok(Response::new(ExplainResponse { explanations }))
    }
}

impl Service {
    /// TLS has verified the certificate when the connection was made; it may have expired since.
    #[allow(clippy::result_large_err)]
    fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let certificates = request.peer_certs();
        let first = certificates.as_ref().and_then(|certificates| certificates.first());
        let identity = first.and_then(|certificate| certificate_identity(certificate).ok());
        match identity {
            Some(identity) if !identity.is_valid_at(self.clock.now().as_second()) => {
                Err(Status::unauthenticated("the certificate has expired"))
            }
            Some(identity) if identity.name == APISERVER => Ok(()),
            Some(identity) => Err(Status::permission_denied(format!(
                "{} may not ask the scheduler",
                identity.name
            ))),
            None => Err(Status::unauthenticated("a valid client certificate is required")),
        }
    }
}

/// Listens, and serves until `shutdown`. Returns the port.
///
/// # Errors
/// When the address cannot be bound, or the certificates are unusable.
pub async fn start(
    parts: Parts,
    questions: mpsc::Sender<Question>,
    clock: SharedClock,
    shutdown: CancellationToken,
) -> anyhow::Result<u16> {
    let listener = TcpListener::bind(parts.address)
        .await
        .with_context(|| format!("listen on {}", parts.address))?;
    let port = listener.local_addr()?.port();
    let server = Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .add_service(SchedulerServer::new(Service { questions, clock }));
    let incoming = rpc::incoming::incoming(listener, parts.pem);
    let incoming = incoming.context("cannot use the certificate")?;
    tokio::spawn(async move {
        let served =
            server.serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "the server failed");
        }
    });
    Ok(port)
}

/// Writes the address of the leader to its Lease, or removes the one of a former leader. Tries
/// until it succeeds or `shutdown` is cancelled.
pub async fn announce(client: &Client, address: Option<&str>, shutdown: &CancellationToken) {
    let leases: Api<Lease> = Api::namespaced(client, NAMESPACE);
    loop {
        match annotate(&leases, address).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "cannot announce the scheduler's address"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

async fn annotate(leases: &Api<Lease>, address: Option<&str>) -> Result<(), client::Error> {
    let patch = json!({"metadata": {"annotations": {ADDRESS: address}}});
    let missing = match leases.patch(LEASE, PatchKind::Merge, &patch).await {
        Ok(_) => return Ok(()),
        Err(error) if !error.is_not_found() => return Err(error),
        Err(_) => address,
    };
    let Some(address) = missing else {
        return Ok(());
    };
    let mut lease = Lease::default();
    lease.metadata.name = Some(LEASE.to_owned());
    lease.metadata.namespace = Some(NAMESPACE.to_owned());
    lease.metadata.annotations = Some([(ADDRESS.to_owned(), address.to_owned())].into());
    leases.create(&lease).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_caller_without_a_certificate_learns_nothing() {
        let (questions, mut asked) = mpsc::channel(1);
        let service = Service { questions, clock: clock::system() };
        let request = Request::new(ExplainRequest { uid: "u".to_owned() });
        let refused = service.explain(request).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unauthenticated);
        assert!(asked.try_recv().is_err(), "the engine is not asked");
    }
}
