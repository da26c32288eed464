//! The cgroup hierarchy of the node's pods, on cgroup v1 (hybrid included) and v2.
//!
//! ```text
//! <cgroup-root>/kubepods/pod<uid>/<container>                guaranteed
//! <cgroup-root>/kubepods/burstable/pod<uid>/<container>
//! <cgroup-root>/kubepods/besteffort/pod<uid>/<container>
//! ```
//! The OCI runtime creates the container's level; the levels above it are created here first. Every
//! function blocks on cgroupfs (up to about 20 ms): call them on a blocking thread. All are
//! idempotent.

mod hierarchy;
mod remove;
mod resources;
mod stats;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

pub use resources::{Resources, cpu_quota_us, cpu_shares, page_size_name};
pub use stats::CgroupStats;

/// Errors of cgroup operations.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// Neither a v1 nor a v2 hierarchy is mounted.
    #[error("no cgroup hierarchy under {}", .0.display())]
    NotMounted(PathBuf),
    /// A v1 hierarchy that pods need is not mounted.
    #[error("cgroup controller {0} is not available")]
    MissingController(&'static str),
    /// A file operation failed.
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
    /// Processes in the cgroup did not die in time.
    #[error("cgroup {0} still has processes")]
    Busy(CgroupPath),
}

/// A result with this error.
pub type Result<T> = std::result::Result<T, CgroupError>;

/// An absolute path inside the hierarchies, such as `/kubepods/burstable/pod1234`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct CgroupPath(String);

impl CgroupPath {
    /// Parses a path; slashes are normalised.
    pub fn new(text: &str) -> Self {
        let parts: Vec<&str> = text
            .split('/')
            .filter(|part| !part.is_empty() && *part != "." && *part != "..")
            .collect();
        CgroupPath(format!("/{}", parts.join("/")))
    }

    /// The path of a child.
    pub fn child(&self, name: &str) -> Self {
        CgroupPath::new(&format!("{}/{name}", self.0))
    }

    /// Without the leading slash, to join to a mount point.
    fn relative(&self) -> &str {
        self.0.trim_start_matches('/')
    }

    /// This path's ancestors below the root, outermost first, itself last.
    fn levels(&self) -> Vec<CgroupPath> {
        let mut levels = Vec::new();
        let mut current = String::new();
        for part in self.relative().split('/').filter(|part| !part.is_empty()) {
            current.push('/');
            current.push_str(part);
            levels.push(CgroupPath(current.clone()));
        }
        levels
    }
}

impl std::fmt::Display for CgroupPath {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A pod's quality-of-service class (computed by the caller).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QosClass {
    /// Every container has equal requests and limits.
    Guaranteed,
    /// Some request or limit.
    Burstable,
    /// None.
    BestEffort,
}

/// Which cgroup version the machine uses for resource control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupVersion {
    /// One hierarchy per controller; also the hybrid layout.
    V1,
    /// The unified hierarchy.
    V2,
}

/// The machine's cgroup hierarchies and where the pods live in them.
#[derive(Debug, Clone)]
pub struct Cgroups {
    version: CgroupVersion,
    mount: PathBuf,
    root: CgroupPath,
}

impl Cgroups {
    /// Detects the hierarchies under `/sys/fs/cgroup`; pods live under `cgroup_root`
    /// (`--cgroup-root`, `/` by default).
    pub fn detect(cgroup_root: &str) -> Result<Self> {
        Self::detect_at(PathBuf::from("/sys/fs/cgroup"), cgroup_root)
    }

    fn detect_at(mount: PathBuf, cgroup_root: &str) -> Result<Self> {
        let version = if mount.join("cgroup.controllers").exists() {
            CgroupVersion::V2
        } else if mount.join("memory").is_dir() {
            CgroupVersion::V1
        } else {
            return Err(CgroupError::NotMounted(mount));
        };
        Ok(Cgroups { version, mount, root: CgroupPath::new(cgroup_root) })
    }

    /// The version in use.
    pub fn version(&self) -> CgroupVersion {
        self.version
    }

    /// The cgroup of all pods.
    pub fn kubepods(&self) -> CgroupPath {
        self.root.child("kubepods")
    }

    /// The cgroup of a QoS class.
    pub fn qos_path(&self, qos: QosClass) -> CgroupPath {
        match qos {
            QosClass::Guaranteed => self.kubepods(),
            QosClass::Burstable => self.kubepods().child("burstable"),
            QosClass::BestEffort => self.kubepods().child("besteffort"),
        }
    }

    /// The cgroup of a pod.
    pub fn pod_path(&self, qos: QosClass, pod_uid: &str) -> CgroupPath {
        self.qos_path(qos).child(&format!("pod{pod_uid}"))
    }

    /// Creates the QoS levels, with the lowest CPU weight for best effort. `kubepods` limits all
    /// pods together (allocatable); `burstable` carries the sum of its pods' requests.
    pub fn ensure_qos(&self, kubepods: &Resources, burstable: &Resources) -> Result<()> {
        self.ensure(&self.kubepods(), kubepods)?;
        self.ensure(&self.qos_path(QosClass::Burstable), burstable)?;
        let best_effort =
            Resources { cpu_shares: Some(resources::MIN_SHARES), ..Resources::default() };
        self.ensure(&self.qos_path(QosClass::BestEffort), &best_effort)
    }

    /// The uids of pods that have a cgroup, with its path: to find what crashed pods have left.
    pub fn pods(&self) -> Result<Vec<(String, CgroupPath)>> {
        let mut found = Vec::new();
        for qos in [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort] {
            let parent = self.qos_path(qos);
            for name in self.children(&parent)? {
                if let Some(uid) = name.strip_prefix("pod") {
                    found.push((uid.to_string(), parent.child(&name)));
                }
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }
}
