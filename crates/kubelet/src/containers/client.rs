//! The connection to containerd: one lazy channel; every request carries our namespace.

use std::path::PathBuf;

use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::diff_client::DiffClient;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::introspection_client::IntrospectionClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::namespaces_client::NamespacesClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::version_client::VersionClient;
use hyper_util::rt::TokioIo;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

use super::error::{Result, RuntimeError};

/// A channel that puts each request into a containerd namespace.
pub(crate) type NamespacedChannel = InterceptedService<Channel, InNamespace>;

/// Largest message accepted from containerd (lists of containers include their specs).
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// Adds the namespace, and a lease if there is one, to a request's metadata.
#[derive(Clone)]
pub(crate) struct InNamespace {
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
}

impl Interceptor for InNamespace {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        if let Some(lease) = &self.lease {
            request.metadata_mut().insert("containerd-lease", lease.clone());
        }
        Ok(request)
    }
}

/// Clients of containerd's services. tonic connects on the first call, and reconnects when needed.
#[derive(Clone)]
pub(crate) struct Containerd {
    channel: NamespacedChannel,
    raw: Channel,
    namespace: String,
    interceptor: InNamespace,
}

macro_rules! service {
    ($(#[$doc:meta])* $name:ident, $client:ident) => {
        $(#[$doc])*
        pub(crate) fn $name(&self) -> $client<NamespacedChannel> {
            $client::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
        }
    };
}

impl Containerd {
    /// A client for the socket at `endpoint` (a path, or `unix://` and a path). Does not connect
    /// yet.
    pub(crate) fn new(endpoint: &str, namespace: &str) -> Result<Self> {
        let path = PathBuf::from(endpoint.strip_prefix("unix://").unwrap_or(endpoint));
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let raw = Endpoint::from_static("http://containerd").connect_with_connector_lazy(connector);
        let interceptor = InNamespace {
            namespace: namespace.parse().map_err(|_| RuntimeError::InvalidConfig {
                message: format!("containerd namespace {namespace:?} is not valid"),
            })?,
            lease: None,
        };
        Ok(Containerd {
            channel: InterceptedService::new(raw.clone(), interceptor.clone()),
            raw,
            namespace: namespace.to_string(),
            interceptor,
        })
    }

    /// The same connection; a lease holds what its calls create.
    pub(crate) fn with_lease(&self, lease: &str) -> Self {
        let interceptor = InNamespace { lease: lease.parse().ok(), ..self.interceptor.clone() };
        Containerd {
            channel: InterceptedService::new(self.raw.clone(), interceptor.clone()),
            raw: self.raw.clone(),
            namespace: self.namespace.clone(),
            interceptor,
        }
    }

    /// The namespace.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    service!(containers, ContainersClient);
    service!(content, ContentClient);
    service!(diff, DiffClient);
    service!(events, EventsClient);
    service!(images, ImagesClient);
    service!(introspection, IntrospectionClient);
    service!(leases, LeasesClient);
    service!(namespaces, NamespacesClient);
    service!(snapshots, SnapshotsClient);
    service!(tasks, TasksClient);
    service!(version, VersionClient);
}
