//! Flags, read once and validated.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clock::SharedClock;
use dns::upstream::{UpstreamError, Upstreams};
use runtime::flags::CommonFlags;

const DNS_PORT: u16 = 53;

/// Flags of `skiff-dns`.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "skiff-dns", version, about = "Answers the DNS queries of a node's pods.")]
pub struct Config {
    #[command(flatten)]
    pub common: CommonFlags,

    /// Kubeconfig with the apiserver's address and the credentials to use.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: PathBuf,

    /// The address to listen on; it is assigned to `lo` while the server runs.
    #[arg(long, value_name = "IP", value_delimiter = ',', default_value = "10.96.0.10")]
    pub listen: Vec<IpAddr>,

    /// The UDP and TCP port to listen on.
    #[arg(long, default_value_t = DNS_PORT)]
    pub port: u16,

    /// The DNS domain of the cluster.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,

    /// Where to forward queries for other names: the address of a server (with a port, if not 53),
    /// or a file in the format of /etc/resolv.conf.
    #[arg(long, value_name = "FILE|IP", value_delimiter = ',', default_value = "/etc/resolv.conf")]
    pub upstream: Vec<String>,
}

impl Config {
    /// The upstream servers.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn upstreams(&self, clock: SharedClock) -> Result<Upstreams, UpstreamError> {
        let own = self.listen.iter().map(|ip| SocketAddr::new(*ip, self.port));
        Upstreams::new(&self.upstream, own.collect(), clock)
    }
}
