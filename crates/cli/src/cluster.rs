//! A whole cluster on this machine: `skiff up`, `down`, `status`, and what they share.

mod options;

use clap::Subcommand;
use std::process::ExitCode;

/// Commands that make, remove and show the cluster of this machine.
#[derive(Subcommand)]
pub enum Command {
    /// Bring a cluster up on this machine.
    Up(options::UpArgs),
}

/// Runs one of the cluster commands.
pub async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(args) => {
            let options = args.into_options()?;
            anyhow::bail!("cluster {:?} cannot be started by this build", options.name)
        }
    }
}
