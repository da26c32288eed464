//! `skiff context`: the context of a cluster that this machine's supervisor does not run, such as
//! one made of containers.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use crate::cluster::kubeconfig::{self, user_file};
use crate::cluster::progress::Progress;
use crate::cluster::{files, ready};

/// Flags of `skiff context`.
#[derive(clap::Args, Clone, Debug)]
pub struct ContextArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Action {
    /// Copy the context of a kubeconfig into the user's, and wait until nodes are Ready
    Import {
        /// Name of the cluster
        #[arg(long)]
        name: String,
        /// The kubeconfig to copy it from
        #[arg(long)]
        file: PathBuf,
        /// How many nodes to wait for
        #[arg(long, default_value_t = 0)]
        wait_nodes: u8,
        /// Seconds to wait for them
        #[arg(long, default_value_t = 120)]
        wait: u64,
    },
    /// Remove the context from the user's kubeconfig
    Remove {
        #[arg(long)]
        name: String,
    },
}

/// Runs the command.
pub async fn run(args: ContextArgs) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::Import { name, file, wait_nodes, wait } => {
            let text = files::read_if_there(&file)?;
            let text = text.with_context(|| format!("{} does not exist", file.display()))?;
            let context = kubeconfig::context_name(&name);
            let path = user_file()?;
            kubeconfig::import(&path, &context, &text)?;
            let progress = Progress::start();
            progress.done(&format!("context {context:?} in {}", path.display()));
            let config = client::Config::from_file(&path, Some(&context))?;
            let names = (1..=wait_nodes).map(|number| format!("node-{number}")).collect();
            ready::wait_for(&config, names, &progress, Duration::from_secs(wait)).await?;
            println!("Cluster {name:?} is up. Try next:\n  skiff get nodes");
        }
        Action::Remove { name } => {
            let context = kubeconfig::context_name(&name);
            if kubeconfig::remove_context(&user_file()?, &context)? {
                println!("Context {context:?} is removed.");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
