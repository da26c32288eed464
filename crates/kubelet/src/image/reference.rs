//! Image references, normalised as docker does.

/// A normalised reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageReference {
    /// `docker.io`, `localhost:5000`.
    pub registry: String,
    /// `library/busybox`.
    pub repository: String,
    /// `latest`.
    pub tag: Option<String>,
    /// `sha256:...`.
    pub digest: Option<String>,
}
