//! PodResources: what containers have of the node, for agents that monitor devices. Upstream's
//! interface, on a socket of its own that only root may open.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use rpc::podresources_v1 as pb;
use rpc::podresources_v1::pod_resources_lister_server::{
    PodResourcesLister, PodResourcesListerServer,
};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::devices::{DeviceManager, KnownDevice};
use crate::pod::manager::PodManager;
use crate::pod::pod_ext::PodExt;

/// The socket's name.
const SOCKET: &str = "kubelet.sock";
/// As upstream.
const DIRECTORY_MODE: u32 = 0o750;
/// Requests at the same time, per connection.
const MAX_CONCURRENT: usize = 16;

/// Serves below `directory` until `shutdown`. A node runs without rather than not at all.
pub fn start(
    directory: &Path,
    pods: &PodManager,
    devices: &DeviceManager,
    shutdown: CancellationToken,
) {
    let listener = match listen(directory) {
        Ok(listener) => listener,
        Err(error) => {
            let path = directory.display();
            tracing::error!(%error, %path, "the resources of pods are not served");
            return;
        }
    };
    let service = Service { pods: pods.clone(), devices: devices.clone() };
    let server = Server::builder()
        .concurrency_limit_per_connection(MAX_CONCURRENT)
        .add_service(PodResourcesListerServer::new(service))
        .serve_with_incoming_shutdown(
            UnixListenerStream::new(listener),
            shutdown.cancelled_owned(),
        );
    tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "the resources of pods are no longer served");
        }
    });
}

fn listen(directory: &Path) -> io::Result<UnixListener> {
    fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
    let path = directory.join(SOCKET);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

struct Service {
    pods: PodManager,
    devices: DeviceManager,
}

impl Service {
    fn of_pod(&self, pod: &Pod) -> pb::PodResources {
        let mut has = self.devices.of_pod(pod.uid());
        let spec = pod.spec_ref();
        // What runs beside the others has its own; what runs before them gives it back.
        let sidecars =
            spec.init_containers.iter().flatten().filter(|one| api::pod::is_sidecar(one));
        let containers = sidecars.chain(&spec.containers).map(|container| pb::ContainerResources {
            name: container.name.clone(),
            devices: devices(has.remove(&container.name).unwrap_or_default()),
            ..Default::default()
        });
        pb::PodResources {
            name: pod.pod_name().to_owned(),
            namespace: pod.pod_namespace().to_owned(),
            containers: containers.collect(),
        }
    }
}

/// One entry per device, as upstream.
fn devices(known: Vec<KnownDevice>) -> Vec<pb::ContainerDevices> {
    let entry = |device: KnownDevice| {
        let nodes = device.numa_nodes.into_iter().map(|id| pb::NumaNode { id }).collect::<Vec<_>>();
        pb::ContainerDevices {
            resource_name: device.resource,
            device_ids: vec![device.id],
            topology: (!nodes.is_empty()).then_some(pb::TopologyInfo { nodes }),
        }
    };
    known.into_iter().map(entry).collect()
}

#[tonic::async_trait]
impl PodResourcesLister for Service {
    async fn list(
        &self,
        _: Request<pb::ListPodResourcesRequest>,
    ) -> Result<Response<pb::ListPodResourcesResponse>, Status> {
        let active = self.pods.all().into_iter().filter(|known| !known.pod.is_terminal());
        let pod_resources = active.map(|known| self.of_pod(&known.pod)).collect();
        Ok(Response::new(pb::ListPodResourcesResponse { pod_resources }))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<pb::AllocatableResourcesRequest>,
    ) -> Result<Response<pb::AllocatableResourcesResponse>, Status> {
        let devices = devices(self.devices.healthy());
        // No container has CPUs or memory of its own: none are allocatable so.
        Ok(Response::new(pb::AllocatableResourcesResponse { devices, ..Default::default() }))
    }

    async fn get(
        &self,
        request: Request<pb::GetPodResourcesRequest>,
    ) -> Result<Response<pb::GetPodResourcesResponse>, Status> {
        let pb::GetPodResourcesRequest { pod_name, pod_namespace } = request.into_inner();
        let known = self.pods.find(&pod_namespace, &pod_name, "").ok_or_else(|| {
            Status::unknown(format!("pod {pod_name} in namespace {pod_namespace} not found"))
        })?;
        let pod_resources = Some(self.of_pod(&known.pod));
        Ok(Response::new(pb::GetPodResourcesResponse { pod_resources }))
    }
}
