//! Flags of `skiff-scheduler`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rpc::incoming::ServerPem;
use rpc::tls::KeyPair;
use runtime::flags::CommonFlags;
use scheduler::configuration::Configuration;
use scheduler::serve::Parts;
use tokio_util::sync::CancellationToken;

/// Assigns pods to nodes.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "skiff-scheduler", version)]
pub struct Config {
    #[command(flatten)]
    pub common: CommonFlags,

    /// KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1): profiles, plugins and their
    /// arguments.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Kubeconfig with the apiserver's address and our credentials.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Schedules the pods whose schedulerName is this; for more than one, use --config.
    #[arg(long, default_value = "default-scheduler", conflicts_with = "config")]
    scheduler_name: String,

    /// Bind only while holding the Lease kube-system/kube-scheduler; until then follow the cluster.
    /// Default: what --config says, or true.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    leader_elect: Option<bool>,

    /// Address on which the apiserver asks for explanations of decisions; served only with
    /// --tls-cert-file.
    #[arg(long, default_value = "0.0.0.0", value_name = "IP")]
    bind_address: IpAddr,

    /// Port on --bind-address.
    #[arg(long, default_value_t = 10260)]
    secure_port: u16,

    /// Host at which the apiservers reach --secure-port; default: --bind-address.
    #[arg(long, value_name = "HOST")]
    advertise_address: Option<String>,

    /// Certificate of the server, valid for kube-scheduler.
    #[arg(long, value_name = "FILE", requires_all = ["tls_private_key_file", "client_ca_file"])]
    tls_cert_file: Option<PathBuf>,

    #[arg(long, value_name = "FILE")]
    tls_private_key_file: Option<PathBuf>,

    /// Authority of the apiserver's client certificate.
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<PathBuf>,
}

/// The flags and the file of `--config`, read.
pub struct Settings {
    pub configuration: Configuration,
    pub kubeconfig: PathBuf,
    pub leader_elect: bool,
    /// `None`: decisions are not explained.
    pub server: Option<Parts>,
}

impl Config {
    /// # Errors
    /// When a file cannot be read or used, or a flag is missing.
    pub fn read(&self, shutdown: &CancellationToken) -> anyhow::Result<Settings> {
        let mut configuration = match &self.config {
            Some(path) => Configuration::load(path)?,
            None => Configuration::of_one(&self.scheduler_name),
        };
        let of_file = configuration.kubeconfig.take();
        let kubeconfig = self.kubeconfig.clone().or(of_file);
        let leader_elect = self.leader_elect.or(configuration.leader_elect).unwrap_or(true);
        Ok(Settings {
            kubeconfig: kubeconfig
                .context("--kubeconfig or clientConnection.kubeconfig is required")?,
            leader_elect,
            server: self.server(shutdown)?,
            configuration,
        })
    }

    fn server(&self, shutdown: &CancellationToken) -> anyhow::Result<Option<Parts>> {
        let files = (
            self.tls_cert_file.clone(),
            self.tls_private_key_file.clone(),
            self.client_ca_file.clone(),
        );
        let (Some(certificate), Some(key), Some(authority)) = files else {
            return Ok(None);
        };
        let address = SocketAddr::new(self.bind_address, self.secure_port);
        let paths = [certificate.clone(), key.clone(), authority.clone()];
        let pem = move || {
            let pair = KeyPair { certificate_pem: read(&certificate)?, key_pem: read(&key)? };
            let pem = ServerPem { pair, client_ca_pem: read(&authority)? };
            pem.check()?;
            Ok(pem)
        };
        let pem = runtime::files::follow(&paths, pem, shutdown.clone())?;
        Ok(Some(Parts { address, pem }))
    }

    /// `host:port` at which apiservers reach the server.
    pub fn advertised(&self, port: u16) -> String {
        match &self.advertise_address {
            Some(host) if host.contains(':') => format!("[{host}]:{port}"),
            Some(host) => format!("{host}:{port}"),
            None => SocketAddr::new(self.bind_address, port).to_string(),
        }
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
