//! A device plugin: it speaks only the published interface, as vendors' plugins do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::Context;
use hyper_util::rt::TokioIo;
use rpc::deviceplugin_v1beta1 as pb;
use rpc::deviceplugin_v1beta1::device_plugin_server::{DevicePlugin, DevicePluginServer};
use rpc::deviceplugin_v1beta1::registration_client::RegistrationClient;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tonic::transport::{Endpoint, Server, Uri};
use tonic::{Request, Response, Status};

/// What the plugin was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Prefer { available: Vec<String>, must_include: Vec<String>, size: i32 },
    Allocate(Vec<String>),
    PreStart(Vec<String>),
}

/// Serves its devices; a copy is the same plugin.
#[derive(Clone)]
pub struct Plugin {
    directory: PathBuf,
    resource: String,
    /// Health by device id.
    devices: Arc<watch::Sender<BTreeMap<String, bool>>>,
    /// What a container gets with its devices; `Err`: none can be allocated.
    answer: Arc<Mutex<Result<pb::ContainerAllocateResponse, String>>>,
    calls: Arc<Mutex<Vec<Call>>>,
}

/// A running plugin; dropping it ends it.
pub struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Plugin {
    /// A plugin for a kubelet whose sockets are in `directory`.
    pub fn new(directory: &Path, resource: &str, devices: &[(&str, bool)]) -> Self {
        let devices = devices.iter().map(|(id, healthy)| ((*id).to_owned(), *healthy)).collect();
        Self {
            directory: directory.to_owned(),
            resource: resource.to_owned(),
            devices: Arc::new(watch::channel(devices).0),
            answer: Arc::new(Mutex::new(Ok(Default::default()))),
            calls: Arc::default(),
        }
    }

    pub fn answer(&self, answer: Result<pb::ContainerAllocateResponse, &str>) {
        *self.answer.lock().unwrap_or_else(|error| error.into_inner()) =
            answer.map_err(str::to_owned);
    }

    pub fn set_health(&self, id: &str, healthy: bool) {
        self.devices.send_modify(|devices| {
            devices.insert(id.to_owned(), healthy);
        });
    }

    /// The calls since the last time.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().unwrap_or_else(|error| error.into_inner()))
    }

    fn called(&self, call: Call) {
        self.calls.lock().unwrap_or_else(|error| error.into_inner()).push(call);
    }

    /// Listens on a socket of its own, and registers with the kubelet.
    ///
    /// # Errors
    /// When the kubelet is not there, or does not want it.
    pub async fn run(&self, version: &str) -> anyhow::Result<Running> {
        let name = format!("{}.sock", self.resource.replace('/', "-"));
        let path = self.directory.join(&name);
        if path.exists() {
            std::fs::remove_file(&path)?;
        }
        let listener = UnixListener::bind(&path).with_context(|| path.display().to_string())?;
        let server = Server::builder()
            .add_service(DevicePluginServer::new(self.clone()))
            .serve_with_incoming(UnixListenerStream::new(listener));
        let running = Running(tokio::spawn(server).abort_handle());
        let socket = self.directory.join("kubelet.sock");
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://kubelet");
        let channel = endpoint.connect_with_connector(connector).await?;
        let request = pb::RegisterRequest {
            version: version.to_owned(),
            endpoint: name,
            resource_name: self.resource.clone(),
            options: None,
        };
        RegistrationClient::new(channel).register(request).await?;
        Ok(running)
    }
}

#[tonic::async_trait]
impl DevicePlugin for Plugin {
    type ListAndWatchStream = std::pin::Pin<
        Box<dyn tokio_stream::Stream<Item = Result<pb::ListAndWatchResponse, Status>> + Send>,
    >;

    async fn get_device_plugin_options(
        &self,
        _request: Request<pb::Empty>,
    ) -> Result<Response<pb::DevicePluginOptions>, Status> {
        Ok(Response::new(pb::DevicePluginOptions {
            pre_start_required: true,
            get_preferred_allocation_available: true,
        }))
    }

    async fn list_and_watch(
        &self,
        _request: Request<pb::Empty>,
    ) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let list = |devices: BTreeMap<String, bool>| {
            let device = |(id, healthy): (String, bool)| pb::Device {
                id,
                health: if healthy { "Healthy" } else { "Unhealthy" }.to_owned(),
                topology: None,
            };
            Ok(pb::ListAndWatchResponse { devices: devices.into_iter().map(device).collect() })
        };
        let lists = WatchStream::new(self.devices.subscribe()).map(list);
        Ok(Response::new(Box::pin(lists)))
    }

    /// Prefers the last ones.
    async fn get_preferred_allocation(
        &self,
        request: Request<pb::PreferredAllocationRequest>,
    ) -> Result<Response<pb::PreferredAllocationResponse>, Status> {
        let mut response = pb::PreferredAllocationResponse::default();
        for asked in request.into_inner().container_requests {
            let mut device_i_ds = asked.available_device_i_ds.clone();
            device_i_ds.sort();
            device_i_ds.reverse();
            response
                .container_responses
                .push(pb::ContainerPreferredAllocationResponse { device_i_ds });
            self.called(Call::Prefer {
                available: asked.available_device_i_ds,
                must_include: asked.must_include_device_i_ds,
                size: asked.allocation_size,
            });
        }
        Ok(Response::new(response))
    }

    /// The devices' ids are in the environment.
    async fn allocate(
        &self,
        request: Request<pb::AllocateRequest>,
    ) -> Result<Response<pb::AllocateResponse>, Status> {
        let answer = self.answer.lock().unwrap_or_else(|error| error.into_inner()).clone();
        let answer = answer.map_err(Status::unknown)?;
        let mut response = pb::AllocateResponse::default();
        for asked in request.into_inner().container_requests {
            let mut one = answer.clone();
            one.envs.insert("WIDGETS".to_owned(), asked.devices_ids.join(","));
            response.container_responses.push(one);
            self.called(Call::Allocate(asked.devices_ids));
        }
        Ok(Response::new(response))
    }

    async fn pre_start_container(
        &self,
        request: Request<pb::PreStartContainerRequest>,
    ) -> Result<Response<pb::PreStartContainerResponse>, Status> {
        self.called(Call::PreStart(request.into_inner().devices_ids));
        Ok(Response::new(pb::PreStartContainerResponse {}))
    }
}
