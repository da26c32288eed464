//! Flags of `skiff-scheduler`.

use std::path::PathBuf;

use runtime::flags::CommonFlags;

/// Assigns pods to nodes.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "skiff-scheduler", version)]
pub struct Config {
    #[command(flatten)]
    pub common: CommonFlags,

    /// Kubeconfig with the apiserver's address and our credentials.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: PathBuf,

    /// Schedules the pods whose schedulerName is this.
    #[arg(long, default_value = "default-scheduler")]
    pub scheduler_name: String,

    /// Bind only while holding the Lease kube-system/kube-scheduler; until then follow the cluster.
    #[arg(long, num_args = 0..=1, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub leader_elect: bool,
}
