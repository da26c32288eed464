//! Dispatches requests to the services, for etcd-client's in-process channel and for sockets.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use etcd_client::proto::{
    PbClusterServer, PbKvServer, PbLeaseServer, PbMaintenanceServer, PbWatchServer,
};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tonic::{Status, body::Body, service::Routes};
use tower::{BoxError, Service};

use super::{
    check::REQUEST_MAX_BYTES, cluster::ClusterService, engine::Engine, kv::KvService,
    lease_service::LeaseService, maintenance::MaintenanceService, watch::WatchService,
};

/// The largest message that is decoded. Above the largest request, so that one that is too large
/// gets etcd's error.
const MESSAGE_MAX_BYTES: usize = REQUEST_MAX_BYTES + (512 << 10);

/// All services of one store. Clones share it.
#[derive(Clone)]
pub(super) struct Dispatch {
    kv: PbKvServer<KvService>,
    watch: PbWatchServer<WatchService>,
    lease: PbLeaseServer<LeaseService>,
    maintenance: PbMaintenanceServer<MaintenanceService>,
    cluster: PbClusterServer<ClusterService>,
}

impl Dispatch {
    pub(super) fn new(
        engine: &Arc<Engine>,
        progress_interval: Duration,
        urls: Arc<Mutex<Vec<String>>>,
    ) -> Dispatch {
        Dispatch {
            kv: PbKvServer::new(KvService(engine.clone()))
                .max_decoding_message_size(MESSAGE_MAX_BYTES),
            watch: PbWatchServer::new(WatchService { engine: engine.clone(), progress_interval }),
            lease: PbLeaseServer::new(LeaseService(engine.clone())),
            maintenance: PbMaintenanceServer::new(MaintenanceService(engine.clone())),
            cluster: PbClusterServer::new(ClusterService { engine: engine.clone(), urls }),
        }
    }

    /// The services as routes of a gRPC server. Other services, notably Auth, are reported as
    /// unimplemented.
    pub(super) fn routes(self) -> Routes {
        Routes::new(self.kv)
            .add_service(self.watch)
            .add_service(self.lease)
            .add_service(self.maintenance)
            .add_service(self.cluster)
            .prepare()
    }
}

impl Service<http::Request<Body>> for Dispatch {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<http::Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = request.uri().path().split('/').nth(1);
        let answer = match service {
            Some("etcdserverpb.KV") => self.kv.call(request),
            Some("etcdserverpb.Watch") => self.watch.call(request),
            Some("etcdserverpb.Lease") => self.lease.call(request),
            Some("etcdserverpb.Maintenance") => self.maintenance.call(request),
            Some("etcdserverpb.Cluster") => self.cluster.call(request),
            service => {
                let service = service.unwrap_or_default();
                let status = Status::unimplemented(format!("unknown service {service}"));
                Box::pin(std::future::ready(Ok(status.into_http())))
            }
        };
        Box::pin(async move {
            let Ok(response): Result<_, Infallible> = answer.await;
            Ok(response)
        })
    }
}
