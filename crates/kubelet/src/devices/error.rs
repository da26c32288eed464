//! Errors about devices, with upstream's messages.

use std::io;
use std::path::PathBuf;

/// See the module documentation.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("cannot allocate unregistered device {0}")]
    Unregistered(String),
    #[error("no healthy devices present; cannot allocate unhealthy devices {0}")]
    NoneHealthy(String),
    #[error(
        "requested number of devices unavailable for {resource}. Requested: {requested}, Available: {available}"
    )]
    TooFew { resource: String, requested: usize, available: usize },
    #[error(
        "pod {pod:?} container {container:?} changed request for resource {resource:?} from {had} to {wanted}"
    )]
    RequestChanged { pod: String, container: String, resource: String, had: usize, wanted: usize },
    #[error("Resources cannot be allocated with Topology locality")]
    Topology,
    #[error("endpoint {0} has been stopped")]
    Stopped(String),
    #[error("no containers return in allocation response of {0}")]
    NoResponse(String),
    #[error("rpc error: code = {:?} desc = {}", .0.code(), .0.message())]
    Allocate(tonic::Status),
    #[error("device plugin GetPreferredAllocation rpc failed with err: {}", .0.message())]
    Preferred(tonic::Status),
    #[error("device plugin PreStartContainer rpc failed with err: {}", .0.message())]
    PreStart(tonic::Status),
    #[error("failed to get device plugin options: {}", .0.message())]
    Options(tonic::Status),
    #[error("cannot connect to the device plugin of {resource}: {source}")]
    Connect {
        resource: String,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("CDI device {0:?} cannot be injected: the Container Device Interface is not supported")]
    Cdi(String),
    #[error("{operation} {}: {source}", .path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a checkpoint: {message}", .path.display())]
    Checkpoint { path: PathBuf, message: String },
}

impl DeviceError {
    pub(super) fn file(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { operation, path, source }
    }
}
