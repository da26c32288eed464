//! A whole cluster on this machine: `skiff up`, `down`, `status`, and what they share.
//!
//! `up` checks the machine, creates certificates, network and configuration (each step idempotent),
//! and starts the [`supervisor`], which runs the processes that [`processes`] lists. `down`
//! removes all of it, by records and by names that are unique to this cluster, so that it also
//! works after a crash.

mod cgroup;
mod cleanup;
mod command;
mod containerd;
mod context;
mod down;
mod files;
mod kubeconfig;
mod layout;
mod loops;
mod mounts;
mod network;
mod node;
mod options;
mod pki;
mod preflight;
mod proc;
mod processes;
mod progress;
mod ready;
mod status;
mod supervisor;
mod up;

use std::process::ExitCode;

use clap::Subcommand;

use layout::Layout;
use options::Selection;

/// Commands that create, remove and show the cluster of this machine.
#[derive(Subcommand)]
pub enum Command {
    /// Bring a cluster up on this machine
    Up(options::UpArgs),
    /// Remove the cluster: processes, containers, network, certificates and data
    Down(down::DownArgs),
    /// Show the cluster's processes, their health, and where their logs are
    Status(status::StatusArgs),
    /// Start, stop or kill the processes of one node
    #[command(name = "node-process")]
    NodeProcess(node::NodeArgs),
    /// Create the certificates and kubeconfigs of a cluster, without starting it
    #[command(hide = true)]
    Pki(node::PkiArgs),
    /// Run the processes of one node in the foreground, inside a container that is the node
    #[command(hide = true)]
    NodeRun(node::NodeRunArgs),
    /// Add a context to the kubeconfig, or remove it
    #[command(hide = true)]
    Context(context::ContextArgs),
    /// Run the processes of a cluster; `skiff up` starts this in the background
    #[command(hide = true)]
    Supervise(SuperviseArgs),
}

/// Flags of `skiff supervise`.
#[derive(clap::Args)]
pub struct SuperviseArgs {
    #[command(flatten)]
    selection: Selection,
    /// Leave the processes in the control group they are started in
    #[arg(long)]
    no_cgroup: bool,
}

/// Runs one of the cluster commands.
pub async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(args) => up::run(args).await,
        Command::Down(args) => down::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::NodeProcess(args) => node::run(args).await,
        Command::Pki(args) => node::make_pki(args),
        Command::NodeRun(args) => node::run_alone(args).await,
        Command::Context(args) => context::run(args).await,
        Command::Supervise(args) => {
            runtime::init("info");
            let layout = Layout::new(&args.selection.name, args.selection.data_dir()?);
            let group = (!args.no_cgroup).then(|| layout.cgroup());
            supervisor::run(&layout, group.as_deref()).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Joins the errors of several steps into one; succeeds when there are none.
fn join_errors(problems: Vec<anyhow::Error>) -> anyhow::Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = problems.iter().map(|problem| format!("{problem:#}")).collect();
    anyhow::bail!(lines.join("; "))
}
