//! Where the files of a cluster are: paths below its data folder, and the names that it uses on the
//! machine. Pure: nothing here accesses the file system.

use std::path::{Path, PathBuf};

/// Paths and machine-wide names of one cluster.
#[derive(Clone, Debug)]
pub struct Layout {
    name: String,
    root: PathBuf,
}

impl Layout {
    /// The layout of the cluster `name` whose data is below `root`, an absolute path.
    pub fn new(name: &str, root: PathBuf) -> Self {
        Self { name: name.to_owned(), root }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The options the cluster was created with.
    pub fn options_file(&self) -> PathBuf {
        self.root.join("cluster.json")
    }

    /// The scheduler's configuration, if it was given one.
    pub fn scheduler_config(&self) -> PathBuf {
        self.root.join("scheduler.yaml")
    }

    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// A file of the PKI, by its path below `pki/`, such as `apiserver.crt`.
    pub fn pki_file(&self, name: &str) -> PathBuf {
        self.pki().join(name)
    }

    /// The kubeconfig of one identity, such as `scheduler` or `kubelet-node-1`.
    pub fn kubeconfig(&self, identity: &str) -> PathBuf {
        self.root.join("kubeconfig").join(format!("{identity}.yaml"))
    }

    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// The log of one process.
    pub fn log(&self, process: &str) -> PathBuf {
        self.logs().join(format!("{process}.log"))
    }

    /// Sockets, and records of running processes.
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// The embedded store's folder.
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// The real etcd's folder.
    pub fn etcd(&self) -> PathBuf {
        self.root.join("etcd")
    }

    pub fn node(&self, node: &str) -> PathBuf {
        self.root.join("nodes").join(node)
    }

    pub fn containerd(&self, node: &str) -> PathBuf {
        self.node(node).join("containerd")
    }

    pub fn containerd_config(&self, node: &str) -> PathBuf {
        self.containerd(node).join("config.toml")
    }

    pub fn containerd_socket(&self, node: &str) -> PathBuf {
        self.containerd(node).join("containerd.sock")
    }

    pub fn kubelet(&self, node: &str) -> PathBuf {
        self.node(node).join("kubelet")
    }

    /// The manifests of a node's static pods.
    pub fn manifests(&self, node: &str) -> PathBuf {
        self.node(node).join("manifests")
    }

    /// The socket through which the kubelet of a node reads its service proxy's tables.
    pub fn proxy_socket(&self, node: &str) -> PathBuf {
        self.node(node).join("proxy.sock")
    }

    /// The pinned network namespace of one node.
    pub fn node_namespace(&self, node: &str) -> PathBuf {
        self.namespace(node)
    }

    /// The pinned network namespace that holds the bridge between nodes and machine.
    pub fn fabric_namespace(&self) -> PathBuf {
        self.namespace("fabric")
    }

    /// What the file names of this cluster's pinned namespaces begin with.
    pub fn namespace_prefix(&self) -> String {
        format!("skiff.{}.", self.name)
    }

    fn namespace(&self, last: &str) -> PathBuf {
        Path::new(NAMESPACES).join(format!("{}{last}", self.namespace_prefix()))
    }

    /// The machine's link into the fabric.
    pub fn machine_link(&self) -> String {
        format!("sk-{}", self.name)
    }

    /// The nft table (family `ip`) of the machine that belongs to this cluster.
    pub fn nft_table(&self) -> String {
        format!("skiff-{}", self.name)
    }

    /// The cgroup of the cluster, below each hierarchy's root.
    pub fn cgroup(&self) -> String {
        format!("/skiff/{}", self.name)
    }

    /// The cgroup of one node.
    pub fn node_cgroup(&self, node: &str) -> String {
        format!("{}/{node}", self.cgroup())
    }
}

/// Where network namespaces are pinned, as `ip netns` does, so that its commands work on them.
pub const NAMESPACES: &str = "/run/netns";
