//! Flags common to all components.

use std::net::SocketAddr;

/// Flatten into a component's clap struct with `#[command(flatten)]`.
#[derive(Clone, Debug, clap::Args)]
pub struct CommonFlags {
    /// Which log lines to write: error, warn, info, debug, trace, or a tracing filter.
    #[arg(long, env = "SKIFF_LOG", default_value = "info")]
    pub log_level: String,

    /// Address for /healthz, /livez and /readyz over HTTP; not served when absent.
    #[arg(long, value_name = "IP:PORT")]
    pub health_bind_address: Option<SocketAddr>,
}
