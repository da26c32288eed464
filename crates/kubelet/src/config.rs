//! Flags, named as in upstream's kubelet, and the layout of the root directory.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Parser;
use runtime::flags::CommonFlags;

use crate::devices::topology;
use crate::image::VerificationPolicy;

/// Command line of `skiff-kubelet`.
#[derive(Clone, Debug, Parser)]
#[command(name = "skiff-kubelet", version, about = "Runs the pods that are bound to its node")]
pub struct Flags {
    #[command(flatten)]
    pub common: CommonFlags,

    /// Kubeconfig with the apiserver's address and this node's client certificate.
    #[arg(long)]
    pub kubeconfig: PathBuf,

    /// Name of the Node object.
    #[arg(long)]
    pub node_name: String,

    /// Address at which others reach this node.
    #[arg(long)]
    pub node_ip: IpAddr,

    /// Where volumes, namespaces, logs and allocations are kept.
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub root_dir: PathBuf,

    /// Folder with the manifests of static pods, or one manifest.
    #[arg(long, value_name = "PATH")]
    pub pod_manifest_path: Option<PathBuf>,

    /// containerd's socket.
    #[arg(long, default_value = "unix:///run/containerd/containerd.sock")]
    pub container_runtime_endpoint: String,

    /// Address that the kubelet's own gRPC server listens on.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,

    /// Port that the kubelet's own gRPC server listens on; 0 takes a free one.
    #[arg(long, default_value_t = 10250)]
    pub port: u16,

    /// Kubeconfig to ask for the first certificate with, if --kubeconfig has none that is valid.
    #[arg(long, value_name = "FILE")]
    pub bootstrap_kubeconfig: Option<PathBuf>,

    /// Where the certificates that the cluster issues are kept. Default: pki, below --root-dir.
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,

    /// Ask for a new client certificate before the current one expires.
    #[arg(long, num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub rotate_certificates: bool,

    /// Ask for a serving certificate, and for a new one before it expires (upstream's
    /// serverTLSBootstrap).
    #[arg(long, num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub rotate_server_certificates: bool,

    /// Serving certificate. Without it the kubelet signs one itself, until one is issued.
    #[arg(long, requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,

    /// Key of the serving certificate.
    #[arg(long, requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,

    /// CA that must have signed client certificates.
    #[arg(long)]
    pub client_ca_file: PathBuf,

    /// Address of the cluster's DNS server, for pods (repeatable).
    #[arg(long)]
    pub cluster_dns: Vec<IpAddr>,

    /// Domain of the cluster.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,

    /// cgroup below which the pods' cgroups are created.
    #[arg(long, default_value = "/")]
    pub cgroup_root: String,

    /// Maximum number of pods on the node.
    #[arg(long, default_value_t = 110)]
    pub max_pods: u32,

    /// Unix socket at which this node's service proxy shows what its tables contain; without it,
    /// /serviceproxy is not served.
    #[arg(long, value_name = "PATH")]
    pub proxy_socket: Option<PathBuf>,

    /// Registry (host:port) that may be accessed without TLS (repeatable).
    #[arg(long)]
    pub insecure_registry: Vec<String>,

    /// For which images that are on the node a pod's credentials are verified.
    #[arg(long, value_enum, default_value_t)]
    pub image_pull_credentials_verification_policy: VerificationPolicy,

    /// Images whose use is never verified, if the policy says so: names without tag or digest, or
    /// prefixes that end in /*, separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub preloaded_images_verification_allowlist: Vec<String>,

    /// Sysctls that pods may set in addition to the safe ones: names, or prefixes that end in *,
    /// separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub allowed_unsafe_sysctls: Vec<String>,

    /// How devices of a pod are kept close together.
    #[arg(long, value_enum, default_value_t)]
    pub topology_manager_policy: topology::Policy,

    /// What is kept close together: each container's devices, or those of the whole pod.
    #[arg(long, value_enum, default_value_t)]
    pub topology_manager_scope: topology::Scope,

    /// Labels to register the node with: key=value, separated by commas.
    #[arg(long, value_delimiter = ',', value_parser = label)]
    pub node_labels: Vec<(String, String)>,

    /// resolv.conf for pods that use the node's DNS settings.
    #[arg(long, default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,

    /// containerd namespace of this node's containers.
    #[arg(long, default_value = "k8s.io")]
    pub containerd_namespace: String,

    /// containerd snapshotter for root file systems.
    #[arg(long, default_value = "overlayfs")]
    pub snapshotter: String,

    /// Evict pods when less memory than this is available.
    #[arg(long, default_value = "100Mi")]
    pub eviction_memory_available: String,

    /// Evict pods when less than this percentage of the disk is available.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=99))]
    pub eviction_nodefs_available_percent: u8,

    /// Evict pods when less than this percentage of inodes is available.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=99))]
    pub eviction_nodefs_inodes_free_percent: u8,

    /// Garbage-collect unused images when the disk is fuller than this percentage.
    #[arg(long, default_value_t = 85, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub image_gc_high_threshold: u8,

    /// Garbage-collect unused images until the disk is less full than this percentage.
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub image_gc_low_threshold: u8,
}

impl Flags {
    /// Where issued certificates are.
    pub fn certificates(&self) -> PathBuf {
        self.cert_dir.clone().unwrap_or_else(|| self.root_dir.join("pki"))
    }

    /// The node's own labels from `--node-labels`.
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.node_labels.iter().cloned().collect()
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    let mut errors = api::names::qualified_name(key);
    errors.extend(api::names::label_value(value));
    match errors.first() {
        None => Ok((key.to_owned(), value.to_owned())),
        Some(error) => Err(error.clone()),
    }
}

/// The layout of the root directory. The container layer adds `pods/<uid>/ns` and `shm`.
#[derive(Clone, Debug)]
pub struct Directories {
    root: PathBuf,
}

impl Directories {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `<root>/pods`.
    pub fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// Everything of one pod.
    pub fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }

    /// The pod's volumes: below it a directory per plugin, then per volume, as upstream has it.
    pub fn volumes(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("volumes")
    }

    /// Files of one container: termination messages and sub-path mounts.
    pub fn container(&self, uid: &str, container: &str) -> PathBuf {
        self.pod(uid).join("containers").join(container)
    }

    /// Container logs, a directory per pod.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// The volumes on demand that this node keeps.
    pub fn local_path(&self) -> PathBuf {
        self.root.join("local-path")
    }

    /// Sockets of device plugins, and what they have allocated.
    pub fn device_plugins(&self) -> PathBuf {
        self.root.join("device-plugins")
    }

    /// The socket at which agents ask what pods have.
    pub fn pod_resources(&self) -> PathBuf {
        self.root.join("pod-resources")
    }

    /// The pod network's allocations.
    pub fn network(&self) -> PathBuf {
        self.root.join("network")
    }
}
