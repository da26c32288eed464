//! One registered plugin: its connection, and the list of its devices.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rpc::deviceplugin_v1beta1 as pb;
use rpc::deviceplugin_v1beta1::device_plugin_client::DevicePluginClient;
use tokio::task::AbortHandle;
use tonic::Request;
use tonic::transport::{Channel, Endpoint, Uri};

use super::DeviceManager;
use super::checkpoint;
use super::choice::Candidates;
use super::error::DeviceError;

/// How long a plugin may take to answer on its socket, as upstream.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long `PreStartContainer` may take, as upstream.
const PRE_START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the other calls may take. A pod waits for them, and nothing else does.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A connected plugin. When the last copy is dropped, its list is no longer followed.
#[derive(Clone, Debug)]
pub(super) struct Plugin {
    /// Tells it from plugins of the same resource before and after it.
    pub(super) number: u64,
    pub(super) options: pb::DevicePluginOptions,
    client: DevicePluginClient<Channel>,
    _following: Arc<Following>,
}

#[derive(Debug)]
struct Following(AbortHandle);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Connects to a plugin at `socket`, and follows its list of devices for as long as it runs.
pub(super) async fn connect(
    manager: DeviceManager,
    resource: &str,
    socket: &Path,
) -> Result<(), DeviceError> {
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://plugin").connect_timeout(CONNECT_TIMEOUT);
    let channel = endpoint.connect_with_connector(connector).await;
    let channel =
        channel.map_err(|source| DeviceError::Connect { resource: resource.to_owned(), source })?;
    let mut client = DevicePluginClient::new(channel);
    let mut asked = Request::new(pb::Empty {});
    asked.set_timeout(CONNECT_TIMEOUT);
    let options = client.get_device_plugin_options(asked).await.map_err(DeviceError::Options)?;
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    // It waits for the lock, and so finds itself registered.
    let mut state = manager.0.state.lock();
    let following =
        tokio::spawn(follow(manager.clone(), resource.to_owned(), number, client.clone()));
    let plugin = Plugin {
        number,
        options: options.into_inner(),
        client,
        _following: Arc::new(Following(following.abort_handle())),
    };
    state.registered(resource, plugin);
    Ok(())
}

async fn follow(
    manager: DeviceManager,
    resource: String,
    number: u64,
    mut client: DevicePluginClient<Channel>,
) {
    let ended = match client.list_and_watch(pb::Empty {}).await {
        Ok(lists) => {
            let mut lists = lists.into_inner();
            loop {
                match lists.message().await {
                    Ok(Some(list)) => manager.listed(&resource, number, list.devices),
                    Ok(None) => break "the stream has ended".to_owned(),
                    Err(status) => break status.message().to_owned(),
                }
            }
        }
        Err(status) => status.message().to_owned(),
    };
    tracing::warn!(resource, ended, "a device plugin is gone");
    let now = clock::monotonic();
    if manager.0.state.lock().stopped(&resource, number, now) {
        manager.notify();
    }
}

impl DeviceManager {
    fn listed(&self, resource: &str, number: u64, devices: Vec<pb::Device>) {
        let count = devices.len();
        let mut state = self.0.state.lock();
        if !state.listed(resource, number, devices) {
            return;
        }
        // Only so that the resource is known after a restart; allocations are written when made.
        if let Err(error) = checkpoint::write(&self.0.directory, &state) {
            tracing::warn!(%error, "cannot write the checkpoint of devices");
        }
        drop(state);
        tracing::info!(resource, count, "a device plugin has listed its devices");
        self.notify();
    }
}

impl Plugin {
    /// Asks the plugin which of the candidates it prefers, if it has an opinion.
    pub(super) async fn preferred(
        &mut self,
        candidates: &Candidates,
        wanted: usize,
    ) -> Result<Vec<String>, DeviceError> {
        if !self.options.get_preferred_allocation_available || candidates.needed == 0 {
            return Ok(Vec::new());
        }
        let request = pb::ContainerPreferredAllocationRequest {
            available_device_i_ds: candidates.available(),
            must_include_device_i_ds: candidates.reused.iter().cloned().collect(),
            allocation_size: i32::try_from(wanted).unwrap_or(i32::MAX),
        };
        let request = within(
            CALL_TIMEOUT,
            pb::PreferredAllocationRequest { container_requests: vec![request] },
        );
        let response = self.client.get_preferred_allocation(request).await;
        let response = response.map_err(DeviceError::Preferred)?.into_inner();
        let first = response.container_responses.into_iter().next();
        Ok(first.map(|one| one.device_i_ds).unwrap_or_default())
    }

    /// Has the plugin prepare devices for a container.
    pub(super) async fn allocate(
        &mut self,
        resource: &str,
        ids: &BTreeSet<String>,
    ) -> Result<pb::ContainerAllocateResponse, DeviceError> {
        let request = pb::ContainerAllocateRequest { devices_ids: ids.iter().cloned().collect() };
        let request =
            within(CALL_TIMEOUT, pb::AllocateRequest { container_requests: vec![request] });
        let response = self.client.allocate(request).await.map_err(DeviceError::Allocate)?;
        let first = response.into_inner().container_responses.into_iter().next();
        first.ok_or_else(|| DeviceError::NoResponse(resource.to_owned()))
    }

    /// Has the plugin reset devices before a container starts, if it wants to.
    pub(super) async fn pre_start(&mut self, ids: BTreeSet<String>) -> Result<(), DeviceError> {
        if !self.options.pre_start_required {
            return Ok(());
        }
        let request = pb::PreStartContainerRequest { devices_ids: ids.into_iter().collect() };
        let response = self.client.pre_start_container(within(PRE_START_TIMEOUT, request)).await;
        response.map(drop).map_err(DeviceError::PreStart)
    }
}

fn within<T>(timeout: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}
