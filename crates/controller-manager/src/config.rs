//! Flags, read once and validated.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use ipnet::IpNet;
use runtime::flags::CommonFlags;

/// Flags of `skiff-controller-manager`; names are Kubernetes'.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "skiff-controller-manager", version, about = "Runs the cluster's controllers.")]
pub struct Flags {
    #[command(flatten)]
    pub common: CommonFlags,

    /// Kubeconfig with the apiserver's address and our credentials.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: PathBuf,

    /// Range that nodes' pod ranges are cut from; two, separated by a comma, for dual stack.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub cluster_cidr: Vec<IpNet>,

    /// Prefix length of a node's pod range (IPv4).
    #[arg(long, default_value_t = 24)]
    pub node_cidr_mask_size: u8,

    /// Prefix length of a node's pod range (IPv6).
    #[arg(long, default_value_t = 64)]
    pub node_cidr_mask_size_ipv6: u8,

    /// CA bundle published to every namespace as ConfigMap kube-root-ca.crt.
    #[arg(long, value_name = "FILE")]
    pub root_ca_file: Option<PathBuf>,

    /// Act only while holding the Lease kube-system/kube-controller-manager.
    #[arg(long, num_args = 0..=1, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub leader_elect: bool,

    /// How long a node may be silent before it is marked unknown.
    #[arg(long, value_name = "DURATION", default_value = "40s", value_parser = duration)]
    pub node_monitor_grace_period: Duration,

    /// Finished pods that are kept before the oldest are deleted; 0: no limit.
    #[arg(long, default_value_t = 12_500)]
    pub terminated_pod_gc_threshold: usize,
}

/// The settings of the controllers.
#[derive(Clone, Debug)]
pub struct Settings {
    pub cluster_cidrs: Vec<NodeRange>,
    pub root_ca_pem: Option<String>,
    pub node_monitor_grace_period: Duration,
    pub terminated_pod_gc_threshold: usize,
}

/// A cluster range and the size of a node's part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeRange {
    pub cluster: IpNet,
    pub node_prefix: u8,
}

impl Flags {
    /// # Errors
    /// When a file cannot be read or a range is invalid.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let mut cluster_cidrs = Vec::new();
        for cluster in &self.cluster_cidr {
            let node_prefix = match cluster {
                IpNet::V4(_) => self.node_cidr_mask_size,
                IpNet::V6(_) => self.node_cidr_mask_size_ipv6,
            };
            anyhow::ensure!(
                node_prefix >= cluster.prefix_len() && node_prefix <= cluster.max_prefix_len(),
                "a node's prefix length {node_prefix} does not fit --cluster-cidr {cluster}"
            );
            anyhow::ensure!(
                node_prefix - cluster.prefix_len() <= 16,
                "--cluster-cidr {cluster} has more than 65,536 parts of /{node_prefix}"
            );
            cluster_cidrs.push(NodeRange { cluster: cluster.trunc(), node_prefix });
        }
        let root_ca_pem = match &self.root_ca_file {
            None => None,
            Some(file) => Some(
                std::fs::read_to_string(file)
                    .with_context(|| format!("--root-ca-file {}", file.display()))?,
            ),
        };
        Ok(Settings {
            cluster_cidrs,
            root_ca_pem,
            node_monitor_grace_period: self.node_monitor_grace_period,
            terminated_pod_gc_threshold: self.terminated_pod_gc_threshold,
        })
    }
}

/// `40s`, `1m30s`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|error| format!("{error}"))?;
    Duration::try_from(span).map_err(|_| "must not be negative".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn parse(arguments: &[&str]) -> anyhow::Result<Settings> {
        let all = ["x", "--kubeconfig", "k"].iter().chain(arguments);
        Flags::try_parse_from(all)?.settings()
    }

    #[test]
    fn ranges_and_durations() {
        let settings = parse(&[
            "--cluster-cidr",
            "10.244.0.9/16,fd00::/56",
            "--node-monitor-grace-period",
            "1m30s",
        ])
        .unwrap();
        let shown: Vec<_> = settings
            .cluster_cidrs
            .iter()
            .map(|range| format!("{} /{}", range.cluster, range.node_prefix))
            .collect();
        assert_eq!(shown, ["10.244.0.0/16 /24", "fd00::/56 /64"]);
        assert_eq!(settings.node_monitor_grace_period, Duration::from_secs(90));
        assert!(parse(&["--cluster-cidr", "10.0.0.0/28"]).is_err());
        assert!(parse(&["--node-monitor-grace-period", "soon"]).is_err());
        assert!(parse(&["--leader-elect=false"]).is_ok() && parse(&["--leader-elect"]).is_ok());
    }
}
