//! `skiff down`.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::cluster::layout::Layout;
use crate::cluster::options::Selection;
use crate::cluster::progress::Progress;
use crate::cluster::supervisor::control::{self, Request};
use crate::cluster::{cleanup, kubeconfig, preflight};

/// How long the supervisor may take to stop everything; after that it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Flags of `skiff down`.
#[derive(clap::Args, Clone, Debug)]
pub struct DownArgs {
    #[command(flatten)]
    selection: Selection,
    /// Keep the data folder: the next `skiff up` has the same objects, images and certificates
    #[arg(long)]
    keep_data: bool,
    /// Leave the kubeconfig as it is
    #[arg(long)]
    no_kubeconfig: bool,
}

/// Runs the command. Removes everything that can be removed, even when a step fails.
pub async fn run(args: DownArgs) -> anyhow::Result<ExitCode> {
    ensure!(nix::unistd::geteuid().is_root(), "skiff down needs root; run it again as root");
    let layout = Layout::new(&args.selection.name, args.selection.data_dir()?);
    check_folder(layout.root())?;
    let was_there = preflight::in_use(layout.root());
    let progress = Progress::start();

    progress.doing("stopping the processes");
    match stop_supervisor(&layout).await {
        Ok(true) => progress.done("processes stopped"),
        Ok(false) => {}
        Err(error) => progress.warn(&format!("{error:#}; killing what is left")),
    }
    let mut problems = Vec::new();
    progress.doing("removing containers and network");
    problems.extend(cleanup::kill_processes(&layout).err());
    problems.extend(cleanup::remove_from_machine(&layout).err());
    if problems.is_empty() {
        progress.done("containers, mounts, network and control groups removed");
    }
    if !args.keep_data && problems.is_empty() {
        progress.doing("removing the data");
        problems.extend(remove_data(layout.root()).err());
    }
    if !args.no_kubeconfig {
        let context = kubeconfig::context_name(layout.name());
        let removed =
            kubeconfig::user_file().and_then(|path| kubeconfig::remove_context(&path, &context));
        match removed {
            Ok(true) => progress.done(&format!("context {context:?} removed from the kubeconfig")),
            Ok(false) => {}
            Err(error) => problems.push(error),
        }
    }
    let elapsed = progress.finish();
    crate::cluster::join_errors(problems)?;
    let name = layout.name();
    match (was_there, args.keep_data) {
        (false, _) => println!("There is no cluster {name:?} in {}.", layout.root().display()),
        (true, true) => println!(
            "Cluster {name:?} is down, after {elapsed}. Its data stays in {}.",
            layout.root().display()
        ),
        (true, false) => println!("Cluster {name:?} is removed, after {elapsed}."),
    }
    Ok(ExitCode::SUCCESS)
}

/// A folder that is not a cluster's must not be removed.
fn check_folder(root: &Path) -> anyhow::Result<()> {
    let ours = ["cluster.json", "pki", "run", "logs"].iter().any(|name| root.join(name).exists());
    if preflight::in_use(root) && !ours {
        bail!("{} is not a cluster's data folder; nothing is removed", root.display());
    }
    Ok(())
}

/// Asks the supervisor to stop everything; returns whether there was one.
async fn stop_supervisor(layout: &Layout) -> anyhow::Result<bool> {
    let Some(mut connection) = control::request(&layout.run(), &Request::Stop).await? else {
        return Ok(false);
    };
    let ended = async {
        // The connection ends, with or without an error, when the supervisor does.
        while let Ok(Some(_)) = connection.next().await {}
    };
    tokio::time::timeout(STOP_TIMEOUT, ended)
        .await
        .context("the supervisor did not stop the processes in time")?;
    Ok(true)
}

fn remove_data(root: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(root) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", root.display()))
        }
        _ => Ok(()),
    }
}
