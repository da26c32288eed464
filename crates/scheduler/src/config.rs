//! Flags of `skiff-scheduler`.

use std::path::PathBuf;

use runtime::flags::CommonFlags;

/// Assigns pods to nodes.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "skiff-scheduler", version)]
pub struct Config {
    #[command(flatten)]
    pub common: CommonFlags,

    /// How to reach the apiserver, and as whom.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: PathBuf,

    /// Pods whose schedulerName is this one are ours.
    #[arg(long, default_value = "default-scheduler")]
    pub scheduler_name: String,
}
