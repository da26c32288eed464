//! Errors of volumes, with messages fit for a FailedMount event.

use std::path::PathBuf;

/// Errors of volumes.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("MountVolume.SetUp failed for volume {volume:?} : {source}")]
    SetUp {
        volume: String,
        #[source]
        source: Box<VolumeError>,
    },
    #[error("configmap {0:?} not found")]
    NoConfigMap(String),
    #[error("secret {0:?} not found")]
    NoSecret(String),
    #[error("clustertrustbundle {0:?} not found")]
    NoTrustBundle(String),
    #[error("combination of signerName and labelSelector matched zero ClusterTrustBundles")]
    NoTrustBundles,
    #[error("references non-existent {kind} key: {key}")]
    NoKey { kind: &'static str, key: String },
    #[error(transparent)]
    Field(#[from] crate::pod::downward_api::FieldError),
    #[error("the path {0:?} leaves its volume")]
    BadPath(String),
    #[error("its files are larger than {max_bytes} bytes together")]
    TooLarge { max_bytes: u64 },
    #[error(
        "medium HugePages: hugePages storage requested, but there is no resource request for huge pages"
    )]
    NoHugePages,
    #[error("medium HugePages can't be used if multiple huge page sizes are requested")]
    PageSizes,
    #[error("unknown storage medium {0:?}")]
    Medium(String),
    #[error("the NFS server {server:?} {problem}")]
    NfsServer { server: String, problem: String },
    #[error("the NFS export {0:?} must be an absolute path without control characters")]
    NfsExport(String),
    #[error("hostPath type check failed: {path} is not {wanted}")]
    HostPathType { path: String, wanted: &'static str },
    #[error("unknown hostPath type {0:?}")]
    HostPathKind(String),
    #[error("persistentvolumeclaim {0:?} not found")]
    NoClaim(String),
    #[error("persistentvolumeclaim {0:?} is not bound")]
    Unbound(String),
    #[error("persistentvolume {volume:?} cannot be used by this pod: {why}")]
    Volume { volume: String, why: String },
    #[error("volume {volume} has volumeMode {mode}, but is specified in {field}")]
    Mode { volume: String, mode: &'static str, field: &'static str },
    #[error("the contents of the volume are gone: {} does not exist", .0.display())]
    Vanished(PathBuf),
    #[error("path {0:?} does not exist")]
    NoPath(PathBuf),
    #[error("{0} is in use")]
    InUse(String),
    #[error("{name}: {message}")]
    Program { name: String, message: String },
    #[error("volume plugin {0} is not supported by this node")]
    Unsupported(&'static str),
    #[error("the volume has no source")]
    NoSource,
    #[error("credential bundle is not issued yet")]
    CertificatePending,
    #[error(
        "PodCertificateRequest was permanently {outcome}: reason={reason:?} message={message:?}"
    )]
    CertificateRefused { outcome: &'static str, reason: String, message: String },
    #[error("{what}: {source}")]
    CertificateRequest {
        what: &'static str,
        #[source]
        source: Box<client::Error>,
    },
    #[error(transparent)]
    Key(#[from] super::pod_certificate::KeyError),
    #[error("failed to fetch token: {0}")]
    Token(#[source] client::Error),
    #[error("{0}")]
    Api(#[from] client::Error),
    #[error("{operation} {}: {source}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the task was cancelled")]
    Cancelled,
}

impl VolumeError {
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }

    /// A file was not there, or no longer.
    pub(crate) fn is_missing_file(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }

    /// The node's disk has no room.
    pub(crate) fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull)
    }

    /// Adds the name of the volume.
    pub(crate) fn of(self, volume: &str) -> Self {
        Self::SetUp { volume: volume.to_owned(), source: Box::new(self) }
    }
}
