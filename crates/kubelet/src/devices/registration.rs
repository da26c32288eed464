//! The socket at which plugins register.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use api::pod::is_extended_resource;
use rpc::deviceplugin_v1beta1::registration_server::{Registration, RegistrationServer};
use rpc::deviceplugin_v1beta1::{Empty, RegisterRequest};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::error::DeviceError;
use super::{DeviceManager, checkpoint, plugin};

/// The socket's name.
const SOCKET: &str = "kubelet.sock";
/// The version of the interface.
const VERSION: &str = "v1beta1";
/// As upstream.
const DIRECTORY_MODE: u32 = 0o750;
/// Registrations at the same time, per connection.
const MAX_CONCURRENT: usize = 16;

/// Creates the directory, and removes everything in it but the checkpoint.
pub(super) fn prepare(directory: &Path) -> Result<(), DeviceError> {
    let made = fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory);
    made.map_err(DeviceError::file("create", directory))?;
    let entries = fs::read_dir(directory).map_err(DeviceError::file("list", directory))?;
    for entry in entries.flatten() {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_directory || entry.file_name() == checkpoint::NAME {
            continue;
        }
        match fs::remove_file(entry.path()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(DeviceError::file("remove", entry.path())(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Listens, and serves until `shutdown`.
pub(super) fn serve(
    manager: DeviceManager,
    shutdown: CancellationToken,
) -> Result<(), DeviceError> {
    let path = manager.0.directory.join(SOCKET);
    let listener = UnixListener::bind(&path).map_err(DeviceError::file("listen on", &path))?;
    let server = Server::builder()
        .concurrency_limit_per_connection(MAX_CONCURRENT)
        .add_service(RegistrationServer::new(Service(manager)))
        .serve_with_incoming_shutdown(
            UnixListenerStream::new(listener),
            shutdown.cancelled_owned(),
        );
    tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "device plugins cannot register");
        }
    });
    Ok(())
}

struct Service(DeviceManager);

#[tonic::async_trait]
impl Registration for Service {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let RegisterRequest { version, endpoint, resource_name, .. } = request.into_inner();
        if version != VERSION {
            return Err(Status::unknown(format!(
                "requested API version {version:?} is not supported by kubelet. Supported version is [\"{VERSION}\"]"
            )));
        }
        if !is_extended_resource(&resource_name) {
            return Err(Status::unknown(format!("the ResourceName {resource_name:?} is invalid")));
        }
        let socket = self.0.0.directory.join(endpoint);
        let connected = plugin::connect(self.0.clone(), &resource_name, &socket).await;
        connected.map_err(|error| Status::unknown(runtime::errors::cause_chain(&error)))?;
        tracing::info!(resource = resource_name, "a device plugin has registered");
        Ok(Response::new(Empty {}))
    }
}
