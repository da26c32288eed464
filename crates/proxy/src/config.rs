//! Flags, read once and validated.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context;
use ipnet::IpNet;
use proxy::sync::Settings;
use runtime::flags::CommonFlags;

/// Flags of `skiff-proxy`; names are Kubernetes'.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "skiff-proxy",
    version,
    about = "Makes Services reachable on a node.",
    args_conflicts_with_subcommands = true
)]
pub struct Config {
    #[command(flatten)]
    pub common: CommonFlags,

    #[command(flatten)]
    pub serve: Serve,

    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Remove the nftables tables and routes that the proxy has created in this network namespace.
    Cleanup,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Serve {
    /// Kubeconfig with the apiserver's address and the credentials to use.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The name of this node.
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,

    /// The range of all pod addresses; for dual stack two, separated by a comma. Connections
    /// leaving it are masqueraded.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub cluster_cidr: Vec<IpNet>,

    /// The address of the DNS server on each node, for which no rules are created.
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub cluster_dns: Vec<IpAddr>,

    /// Pool of addresses for Services of type LoadBalancer, as for the controller manager; several
    /// ranges, separated by commas. One of the nodes on whose link an address is announces it.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub load_balancer_cidr: Vec<IpNet>,

    /// Where the node's kubelet reports its health. While it does not run, the node announces no
    /// addresses of load balancers.
    #[arg(long, value_name = "ADDRESS")]
    pub kubelet_health_address: Option<SocketAddr>,

    /// Unix socket at which this node's kubelet reads what the tables contain; not served if
    /// absent.
    #[arg(long, value_name = "PATH")]
    pub inspect_socket: Option<PathBuf>,
}

impl Serve {
    /// # Errors
    /// If a flag is missing, or two ranges are of the same family.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let node_name = self.node_name.clone().context("--node-name is required")?;
        let v4 = self.cluster_cidr.iter().filter(|range| matches!(range, IpNet::V4(_))).count();
        let v6 = self.cluster_cidr.len() - v4;
        anyhow::ensure!(
            v4 <= 1 && v6 <= 1,
            "--cluster-cidr accepts at most one range of each family"
        );
        Ok(Settings {
            node_name,
            cluster_cidrs: self.cluster_cidr.clone(),
            cluster_dns: self.cluster_dns.clone(),
            load_balancer_cidrs: self.load_balancer_cidr.iter().map(IpNet::trunc).collect(),
        })
    }
}
