//! Flags, named as kube-apiserver's.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

/// Skiff's apiserver: Kubernetes' API over REST and gRPC on one TLS port.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "skiff-apiserver", version)]
pub struct Config {
    #[command(flatten)]
    pub common: runtime::flags::CommonFlags,

    /// Address to listen on.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,

    /// Port to listen on; 0 chooses a free one.
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,

    /// Address at which pods reach the apiserver, for the `kubernetes` Service; default: the
    /// machine's own.
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,

    /// URLs of an etcd cluster's members.
    #[arg(long, value_delimiter = ',', value_name = "URL,URL")]
    pub etcd_servers: Vec<String>,
    #[arg(long)]
    pub etcd_cafile: Option<PathBuf>,
    #[arg(long)]
    pub etcd_certfile: Option<PathBuf>,
    #[arg(long)]
    pub etcd_keyfile: Option<PathBuf>,

    /// Directory of the embedded store, instead of --etcd-servers.
    #[arg(long, value_name = "DIR", conflicts_with = "etcd_servers")]
    pub embedded_store: Option<PathBuf>,
    /// Serve the embedded store's etcd v3 API on this address as well.
    #[arg(long, value_name = "ADDR", requires = "embedded_store")]
    pub embedded_store_listen: Option<SocketAddr>,

    #[arg(long)]
    pub tls_cert_file: PathBuf,
    #[arg(long)]
    pub tls_private_key_file: PathBuf,
    /// Certificate authority of client certificates.
    #[arg(long)]
    pub client_ca_file: PathBuf,

    /// Whether requests without credentials are those of `system:anonymous`, of the group
    /// `system:unauthenticated`. With `false` they are refused.
    #[arg(
        long,
        default_value_t = true,
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    pub anonymous_auth: bool,

    /// Whether profiles of this process are served, below `/debug/pprof`.
    #[arg(
        long,
        default_value_t = true,
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    pub profiling: bool,

    /// Whether Secrets of type bootstrap.kubernetes.io/token in kube-system authenticate new nodes.
    #[arg(
        long,
        default_value_t = false,
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    pub enable_bootstrap_token_auth: bool,

    /// Key that signs ServiceAccount tokens (P-256, PKCS#8 PEM).
    #[arg(long)]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// Keys that verify ServiceAccount tokens.
    #[arg(long)]
    pub service_account_key_file: Vec<PathBuf>,
    #[arg(long, default_value = "https://kubernetes.default.svc.cluster.local")]
    pub service_account_issuer: String,

    /// AdmissionConfiguration with the defaults and exemptions of Pod Security.
    #[arg(long, value_name = "FILE")]
    pub admission_control_config_file: Option<PathBuf>,

    #[arg(long, default_value = "10.96.0.0/12")]
    pub service_cluster_ip_range: IpNet,
    #[arg(long, default_value = "30000-32767", value_parser = port_range)]
    pub service_node_port_range: (u16, u16),

    /// Reads in flight at once, beside those of the system; 0: no limit.
    #[arg(long, default_value_t = 400)]
    pub max_requests_inflight: usize,
    /// Writes in flight at once, beside those of the system; 0: no limit.
    #[arg(long, default_value_t = 200)]
    pub max_mutating_requests_inflight: usize,

    /// Memory for the recent events that watches resume from, in MiB, of all resources together.
    #[arg(long, default_value_t = 32, value_name = "MIB")]
    pub watch_cache_window_mib: usize,

    #[arg(long)]
    pub kubelet_certificate_authority: Option<PathBuf>,
    #[arg(long)]
    pub kubelet_client_certificate: Option<PathBuf>,
    #[arg(long)]
    pub kubelet_client_key: Option<PathBuf>,
}

impl Config {
    /// The budget of the watch cache's events, in bytes.
    pub fn watch_cache_bytes(&self) -> usize {
        self.watch_cache_window_mib << 20
    }
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    let parse =
        |part: &str| part.trim().parse::<u16>().map_err(|error| format!("{part:?}: {error}"));
    let (from, to) = text.split_once('-').ok_or("a range looks like 30000-32767")?;
    let (from, to) = (parse(from)?, parse(to)?);
    if from == 0 || from > to {
        return Err(format!("{text} is not a range of ports"));
    }
    Ok((from, to))
}
