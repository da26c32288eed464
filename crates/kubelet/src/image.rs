//! Images in containerd's stores: pulled from registries by our own code, loaded from archives,
//! listed, removed, garbage-collected.
//!
//! Entry point: [`ImageService::new`]. Image records in containerd are named as every other client
//! names them (`docker.io/library/busybox:1.36`, `docker.io/library/busybox@sha256:...`, and the
//! bare `sha256:...` of the image's configuration), so `ctr images ls` shows what the node has.

mod archive;
mod content;
mod credentials;
mod error;
mod gc;
mod manifest;
mod pull;
mod pull_records;
mod reference;
mod registry;
mod service;
mod store;
mod unpack;

pub use error::{ImageError, Result};
pub use gc::{GcPolicy, GcReport};
pub use manifest::ImageConfig;
pub use pull_records::{SecretSource, Verification, VerificationPolicy};
pub use service::ImageService;
pub(crate) use store::{Contents, ImageStore};

/// An image on this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Image {
    /// `sha256:...` of its configuration, however it got here.
    pub id: String,
    /// Names with tags, such as `docker.io/library/busybox:1.36`.
    pub repo_tags: Vec<String>,
    /// Names with digests, such as `docker.io/library/busybox@sha256:...`.
    pub repo_digests: Vec<String>,
    /// Size of its compressed layers and configuration.
    pub size_bytes: u64,
    /// USER of its configuration, as written.
    pub user: String,
}

/// A user name and password (or token) for a registry, from an image pull secret.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct RegistryCredential {
    /// The key of the entry in the secret: `registry.example.com`, `https://index.docker.io/v1/`,
    /// `*.example.com:5000/team`. Matched as Kubernetes matches it.
    pub registry: String,
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
    /// Identity or registry token, sent as a bearer token if there is no user name.
    pub token: String,
    /// The Secret it is from; `None` if it is the node's own, and so for every pod.
    pub source: Option<SecretSource>,
}

impl std::fmt::Debug for RegistryCredential {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("RegistryCredential")
            .field("registry", &self.registry)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}
