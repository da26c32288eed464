//! Errors of the container layer, with messages fit for a pod's status.

use std::io;
use std::path::PathBuf;

/// Errors of [`super::Runtime`].
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// containerd does not answer (it may be restarting); try again.
    #[error("containerd is not reachable: {message}")]
    Unavailable {
        /// The transport's message.
        message: String,
    },
    /// A containerd call failed.
    #[error("{operation}: {message}")]
    Containerd {
        /// The call and its subject.
        operation: String,
        /// containerd's message.
        message: String,
        /// gRPC status code.
        code: tonic::Code,
    },
    /// The container does not exist.
    #[error("container {id} does not exist")]
    NotFound {
        /// Container id.
        id: String,
    },
    /// The container is not running.
    #[error("container {id} is not running")]
    NotRunning {
        /// Container id.
        id: String,
    },
    /// The image is not on this node: pull it first.
    #[error("image {image:?} is not present")]
    ImageMissing {
        /// The requested image.
        image: String,
    },
    /// The configuration is not valid (`CreateContainerConfigError`).
    #[error("{message}")]
    InvalidConfig {
        /// What is wrong.
        message: String,
    },
    /// The AppArmor profile cannot be enforced (`CreateContainerError`).
    #[error("{message}")]
    AppArmor {
        /// Why.
        message: String,
    },
    /// `runAsNonRoot` is set and the container would run as root (`CreateContainerConfigError`).
    #[error("container has runAsNonRoot and image will run as root")]
    RunAsNonRoot,
    /// `runAsNonRoot` is set together with `runAsUser: 0` (`CreateContainerConfigError`).
    #[error("container's runAsUser breaks non-root policy")]
    RunAsUserRoot,
    /// `runAsNonRoot` is set and the image's user is a name (`CreateContainerConfigError`).
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root"
    )]
    NonNumericUser {
        /// The image's USER.
        user: String,
    },
    /// The process could not be started: a missing command, a bad working directory
    /// (`RunContainerError`).
    #[error("failed to start container {id}: {message}")]
    Start {
        /// Container id.
        id: String,
        /// The OCI runtime's message.
        message: String,
    },
    /// A command in a container ran longer than allowed.
    #[error("command {command:?} timed out after {timeout:?}")]
    ExecTimeout {
        /// The command.
        command: String,
        /// The timeout.
        timeout: std::time::Duration,
    },
    /// A command could not be run in a container.
    #[error("failed to exec in container {id}: {message}")]
    Exec {
        /// Container id.
        id: String,
        /// The OCI runtime's message.
        message: String,
    },
    /// A file or mount operation failed.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A namespace could not be created or pinned.
    #[error("namespaces of pod {pod}: {step}")]
    Namespace {
        /// Pod uid.
        pod: String,
        /// What was tried.
        step: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Cgroups.
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::CgroupError),
}

/// Whether containerd did not answer, or the connection broke while it did. Only errors that arise
/// on our side of the connection have a source.
pub(crate) fn is_unreachable(status: &tonic::Status) -> bool {
    status.code() == tonic::Code::Unavailable || std::error::Error::source(status).is_some()
}

/// A result with this error.
pub type Result<T> = std::result::Result<T, RuntimeError>;

impl RuntimeError {
    /// The waiting reason in a container's status when creating or starting it failed with this
    /// error.
    pub fn waiting_reason(&self) -> &'static str {
        match self {
            RuntimeError::InvalidConfig { .. }
            | RuntimeError::RunAsNonRoot
            | RuntimeError::RunAsUserRoot
            | RuntimeError::NonNumericUser { .. } => "CreateContainerConfigError",
            RuntimeError::Start { .. } => "RunContainerError",
            RuntimeError::ImageMissing { .. } => "ErrImageNeverPull",
            _ => "CreateContainerError",
        }
    }

    /// Whether `runAsNonRoot` keeps the container from starting.
    pub fn is_root_refused(&self) -> bool {
        matches!(
            self,
            RuntimeError::RunAsNonRoot
                | RuntimeError::RunAsUserRoot
                | RuntimeError::NonNumericUser { .. }
        )
    }

    /// Whether it makes sense to try again.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, RuntimeError::Unavailable { .. })
    }

    /// Wraps an I/O error.
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| RuntimeError::Io { operation, path, source }
    }

    /// Maps a containerd status, telling an unreachable containerd from a failed call.
    pub(crate) fn from_status(operation: impl Into<String>, status: &tonic::Status) -> Self {
        if is_unreachable(status) {
            return RuntimeError::Unavailable { message: status.message().to_string() };
        }
        RuntimeError::Containerd {
            operation: operation.into(),
            message: status.message().to_string(),
            code: status.code(),
        }
    }

    /// The gRPC code of a failed containerd call.
    pub fn code(&self) -> Option<tonic::Code> {
        match self {
            RuntimeError::Containerd { code, .. } => Some(*code),
            _ => None,
        }
    }
}
