//! Flags, read once and validated.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use api::certificates::{CLIENT_SIGNER, KUBELET_CLIENT_SIGNER, KUBELET_SERVING_SIGNER};
use ipnet::IpNet;
use runtime::flags::CommonFlags;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::controllers::certificates::authority::AuthorityFiles;
use crate::controllers::certificates::sign::SigningSettings;
use crate::wire;

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

    /// How long a node that has never reported may be silent before it is marked unknown.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration)]
    pub node_startup_grace_period: Duration,

    /// Nodes per second that are evicted in a zone when they fail.
    #[arg(long, value_name = "RATE", default_value_t = 0.1, value_parser = rate)]
    pub node_eviction_rate: f64,

    /// Nodes per second that are evicted in a zone of which a large part is not ready. Zones with
    /// at most --large-cluster-size-threshold nodes then evict none.
    #[arg(long, value_name = "RATE", default_value_t = 0.01, value_parser = rate)]
    pub secondary_node_eviction_rate: f64,

    /// Number of nodes up to which a zone counts as small.
    #[arg(long, value_name = "NODES", default_value_t = 50)]
    pub large_cluster_size_threshold: usize,

    /// The part of a zone that must be not ready, at least three nodes, for the zone to count as
    /// unhealthy.
    #[arg(long, value_name = "FRACTION", default_value_t = 0.55, value_parser = fraction)]
    pub unhealthy_zone_threshold: f64,

    /// The controllers to run: `*` for all but token-cleaner-controller and
    /// bootstrap-signer-controller, `NAME` for one, `-NAME` for all but one.
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "*",
        allow_hyphen_values = true
    )]
    pub controllers: Vec<String>,

    /// Let every controller act as its own ServiceAccount in kube-system, with only the rights that
    /// it needs.
    #[arg(long, num_args = 0..=1, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub use_service_account_credentials: bool,

    /// Finished pods that are kept before the oldest are deleted; 0: no limit.
    #[arg(long, default_value_t = 12_500)]
    pub terminated_pod_gc_threshold: usize,

    #[command(flatten)]
    pub signing: SigningFlags,

    /// Approve what kubelets ask for to serve with, if it names nothing but the node's own name
    /// and addresses. Otherwise an administrator has to.
    #[arg(long, num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub approve_kubelet_serving_certificates: bool,

    /// Range of the Services' cluster IPs; two, separated by a comma, for dual stack. Only checked
    /// against other ranges.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub service_cluster_ip_range: Vec<IpNet>,

    /// Pool of addresses for Services of type LoadBalancer; several ranges, separated by commas. It
    /// must be known to the proxies, which announce the addresses.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub load_balancer_cidr: Vec<IpNet>,

    /// Whose addresses Services of type LoadBalancer get without an annotation. Without a pool and
    /// this flag, they get none.
    #[arg(long, value_enum, value_name = "SOURCE")]
    pub load_balancer_addresses: Option<AddressSource>,
}

/// Flags of the cluster's own signers; each may have an authority of its own.
#[derive(Clone, Debug, clap::Args)]
pub struct SigningFlags {
    /// Certificate of the authority that signs what the cluster's own signers issue. Without it
    /// and --cluster-signing-key-file, none of them issues anything.
    #[arg(long, value_name = "FILE")]
    pub cluster_signing_cert_file: Option<PathBuf>,

    /// Private key of the authority.
    #[arg(long, value_name = "FILE")]
    pub cluster_signing_key_file: Option<PathBuf>,

    /// How long certificates are valid that ask for no less.
    #[arg(long, value_name = "DURATION", default_value = "8760h", value_parser = duration)]
    pub cluster_signing_duration: Duration,

    /// Authority for kubernetes.io/kube-apiserver-client alone.
    #[arg(long, value_name = "FILE")]
    pub cluster_signing_kube_apiserver_client_cert_file: Option<PathBuf>,

    #[arg(long, value_name = "FILE")]
    pub cluster_signing_kube_apiserver_client_key_file: Option<PathBuf>,

    /// Authority for kubernetes.io/kube-apiserver-client-kubelet alone.
    #[arg(long, value_name = "FILE")]
    pub cluster_signing_kubelet_client_cert_file: Option<PathBuf>,

    #[arg(long, value_name = "FILE")]
    pub cluster_signing_kubelet_client_key_file: Option<PathBuf>,

    /// Authority for kubernetes.io/kubelet-serving alone.
    #[arg(long, value_name = "FILE")]
    pub cluster_signing_kubelet_serving_cert_file: Option<PathBuf>,

    #[arg(long, value_name = "FILE")]
    pub cluster_signing_kubelet_serving_key_file: Option<PathBuf>,
}

impl SigningFlags {
    /// # Errors
    /// When only one of two files is given, both the common and own ones are, or an authority
    /// cannot be read.
    fn settings(&self) -> anyhow::Result<SigningSettings> {
        let all = [
            (
                CLIENT_SIGNER,
                &self.cluster_signing_kube_apiserver_client_cert_file,
                &self.cluster_signing_kube_apiserver_client_key_file,
            ),
            (
                KUBELET_CLIENT_SIGNER,
                &self.cluster_signing_kubelet_client_cert_file,
                &self.cluster_signing_kubelet_client_key_file,
            ),
            (
                KUBELET_SERVING_SIGNER,
                &self.cluster_signing_kubelet_serving_cert_file,
                &self.cluster_signing_kubelet_serving_key_file,
            ),
        ];
        let common = pair(&self.cluster_signing_cert_file, &self.cluster_signing_key_file)?;
        let mut signers = Vec::new();
        for (signer, certificate, key) in all {
            let own = pair(certificate, key)?;
            anyhow::ensure!(
                own.is_none() || common.is_none(),
                "cannot specify --cluster-signing-{{cert,key}}-file and other --cluster-signing-*-file flags at the same time"
            );
            signers.extend(own.or_else(|| common.clone()).map(|files| (signer, files)));
        }
        for (signer, files) in &signers {
            files.load().with_context(|| format!("authority of {signer}"))?;
        }
        Ok(SigningSettings { signers, life: self.cluster_signing_duration })
    }
}

fn pair(
    certificate: &Option<PathBuf>,
    key: &Option<PathBuf>,
) -> anyhow::Result<Option<AuthorityFiles>> {
    match (certificate.clone(), key.clone()) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(AuthorityFiles { certificate, key })),
        _ => anyhow::bail!("an authority that signs has a certificate and a key"),
    }
}

/// Whose addresses a Service of type LoadBalancer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum AddressSource {
    /// The pool's.
    Pool,
    /// The nodes' own.
    Nodes,
}

/// The addresses for Services of type LoadBalancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancerAddresses {
    /// The pool.
    pub ranges: Vec<IpNet>,
    /// The default.
    pub source: AddressSource,
}

/// The settings of the controllers.
#[derive(Clone, Debug)]
pub struct Settings {
    pub cluster_cidrs: Vec<NodeRange>,
    /// The CA bundle, as it is in its file now.
    pub root_ca: Option<watch::Receiver<Arc<String>>>,
    pub node_monitor: NodeMonitor,
    pub terminated_pod_gc_threshold: usize,
    pub controllers: Vec<String>,
    pub use_service_account_credentials: bool,
    pub signing: SigningSettings,
    pub approve_kubelet_serving_certificates: bool,
    /// `None`: Services of type LoadBalancer get no addresses.
    pub load_balancer: Option<LoadBalancerAddresses>,
}

impl Settings {
    /// Whether `--controllers` selects a controller: what names it wins over `*`.
    pub fn runs(&self, name: &str) -> bool {
        let mut selected = false;
        for one in &self.controllers {
            match one.as_str() {
                "*" => selected = !wire::ONLY_BY_NAME.contains(&name),
                one if one == name => return true,
                one if one.strip_prefix('-') == Some(name) => return false,
                _ => {}
            }
        }
        selected
    }
}

/// When nodes that do not report are marked unknown, and how fast they are evicted.
#[derive(Clone, Copy, Debug)]
pub struct NodeMonitor {
    pub grace_period: Duration,
    /// For nodes that have never reported.
    pub startup_grace_period: Duration,
    pub limits: EvictionLimits,
}

/// How fast the nodes of a zone are evicted. Rates are nodes per second.
#[derive(Clone, Copy, Debug)]
pub struct EvictionLimits {
    pub rate: f64,
    /// In large zones of which at least `unhealthy_zone_threshold` is not ready; small ones evict
    /// none then.
    pub secondary_rate: f64,
    pub large_cluster_size_threshold: usize,
    pub unhealthy_zone_threshold: f64,
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
    pub fn settings(&self, stop: &CancellationToken) -> anyhow::Result<Settings> {
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
        let root_ca = self.root_ca_file.clone().map(|file| follow_bundle(file, stop.clone()));
        for name in &self.controllers {
            let known =
                name == "*" || wire::names().any(|known| name.trim_start_matches('-') == known);
            anyhow::ensure!(known, "--controllers: there is no controller {name:?}");
        }
        Ok(Settings {
            cluster_cidrs,
            root_ca: root_ca.transpose()?,
            node_monitor: NodeMonitor {
                grace_period: self.node_monitor_grace_period,
                startup_grace_period: self.node_startup_grace_period,
                limits: EvictionLimits {
                    rate: self.node_eviction_rate,
                    secondary_rate: self.secondary_node_eviction_rate,
                    large_cluster_size_threshold: self.large_cluster_size_threshold,
                    unhealthy_zone_threshold: self.unhealthy_zone_threshold,
                },
            },
            terminated_pod_gc_threshold: self.terminated_pod_gc_threshold,
            controllers: self.controllers.clone(),
            use_service_account_credentials: self.use_service_account_credentials,
            signing: self.signing.settings()?,
            approve_kubelet_serving_certificates: self.approve_kubelet_serving_certificates,
            load_balancer: self.load_balancer()?,
        })
    }

    fn load_balancer(&self) -> anyhow::Result<Option<LoadBalancerAddresses>> {
        let source = match (self.load_balancer_addresses, self.load_balancer_cidr.is_empty()) {
            (None, true) => return Ok(None),
            (None, false) => AddressSource::Pool,
            (Some(source), _) => source,
        };
        anyhow::ensure!(
            source == AddressSource::Nodes || !self.load_balancer_cidr.is_empty(),
            "--load-balancer-addresses=pool requires --load-balancer-cidr"
        );
        let others = [
            ("--cluster-cidr", &self.cluster_cidr),
            ("--service-cluster-ip-range", &self.service_cluster_ip_range),
        ];
        for (index, range) in self.load_balancer_cidr.iter().enumerate() {
            for (flag, ranges) in others {
                if let Some(other) = ranges.iter().find(|other| overlap(range, other)) {
                    anyhow::bail!("--load-balancer-cidr {range} overlaps {flag} {other}");
                }
            }
            let earlier = &self.load_balancer_cidr[..index];
            if let Some(other) = earlier.iter().find(|other| overlap(range, other)) {
                anyhow::bail!("--load-balancer-cidr {range} overlaps its range {other}");
            }
        }
        let ranges = self.load_balancer_cidr.iter().map(IpNet::trunc).collect();
        Ok(Some(LoadBalancerAddresses { ranges, source }))
    }
}

/// The bundle of certificates in a file, as it is there now.
fn follow_bundle(
    file: PathBuf,
    stop: CancellationToken,
) -> anyhow::Result<watch::Receiver<Arc<String>>> {
    let read = {
        let file = file.clone();
        move || {
            let named = || format!("--root-ca-file {}", file.display());
            let text = std::fs::read_to_string(&file).with_context(named)?;
            let any = api::pem::blocks(text.as_bytes())
                .any(|block| block.label == api::certificates::CERTIFICATE_LABEL);
            anyhow::ensure!(any, "{}: it has no certificates", named());
            Ok(text)
        }
    };
    runtime::files::follow(&[file], read, stop)
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// `40s`, `1m30s`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|error| format!("{error}"))?;
    Duration::try_from(span).map_err(|_| "must not be negative".to_owned())
}

/// Events per second.
fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|error| format!("{error}"))?;
    let valid = rate.is_finite() && rate >= 0.0;
    if valid { Ok(rate) } else { Err("must not be negative".to_owned()) }
}

fn fraction(text: &str) -> Result<f64, String> {
    let fraction: f64 = text.parse().map_err(|error| format!("{error}"))?;
    let valid = (0.0..=1.0).contains(&fraction);
    if valid { Ok(fraction) } else { Err("must be between 0 and 1".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn parse(arguments: &[&str]) -> anyhow::Result<Settings> {
        let all = ["x", "--kubeconfig", "k"].iter().chain(arguments);
        Flags::try_parse_from(all)?.settings(&CancellationToken::new())
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
        assert_eq!(settings.node_monitor.grace_period, Duration::from_secs(90));
        assert!(parse(&["--cluster-cidr", "10.0.0.0/28"]).is_err());
        assert!(parse(&["--node-monitor-grace-period", "soon"]).is_err());
        assert!(parse(&["--node-eviction-rate=-1"]).is_err());
        assert!(parse(&["--unhealthy-zone-threshold=1.5"]).is_err());
        assert!(parse(&["--leader-elect=false"]).is_ok() && parse(&["--leader-elect"]).is_ok());
    }

    #[test]
    fn the_pool_overlaps_no_other_range() {
        let pool = |flags: &[&str]| parse(flags).map(|settings| settings.load_balancer);
        assert_eq!(pool(&[]).unwrap(), None);
        let some = pool(&["--load-balancer-cidr=10.0.0.8/26,fd00::/120"]).unwrap().unwrap();
        assert_eq!(some.source, AddressSource::Pool);
        assert_eq!(some.ranges[0].to_string(), "10.0.0.0/26");
        let nodes = pool(&["--load-balancer-addresses=nodes"]).unwrap().unwrap();
        assert_eq!(nodes.source, AddressSource::Nodes);
        for (flags, message) in [
            (
                ["--load-balancer-cidr=10.0.0.0/26", "--cluster-cidr=10.0.0.0/16"],
                "--load-balancer-cidr 10.0.0.0/26 overlaps --cluster-cidr 10.0.0.0/16",
            ),
            (
                ["--load-balancer-cidr=10.0.0.0/8", "--service-cluster-ip-range=10.96.0.0/12"],
                "--load-balancer-cidr 10.0.0.0/8 overlaps --service-cluster-ip-range 10.96.0.0/12",
            ),
            (
                ["--load-balancer-cidr=10.0.0.0/26,10.0.0.32/28", "--leader-elect=false"],
                "--load-balancer-cidr 10.0.0.32/28 overlaps its range 10.0.0.0/26",
            ),
            (
                ["--load-balancer-addresses=pool", "--leader-elect=false"],
                "--load-balancer-addresses=pool requires --load-balancer-cidr",
            ),
        ] {
            assert_eq!(pool(&flags).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn controllers_are_selected_by_name() {
        let runs = |flag: &str, name: &str| parse(&["--controllers", flag]).unwrap().runs(name);
        assert!(parse(&[]).unwrap().runs("job-controller"));
        assert!(runs("job-controller", "job-controller"));
        assert!(!runs("job-controller", "cronjob-controller"));
        assert!(!runs("*,-job-controller", "job-controller"));
        assert!(runs("-job-controller,*", "cronjob-controller"));
        assert!(parse(&["--controllers", "no-controller"]).is_err());
    }
}
