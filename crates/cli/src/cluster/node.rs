//! Commands for single nodes, and for creating certificates without a cluster on this machine, as
//! tests and clusters of containers need them.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use crate::cluster::kubeconfig::{self, Access};
use crate::cluster::layout::Layout;
use crate::cluster::options::{Options, Selection, UpArgs};
use crate::cluster::processes::node_processes;
use crate::cluster::supervisor::control::{self, NodeAction, Request};
use crate::cluster::supervisor::{self, processes_file};
use crate::cluster::{cleanup, containerd, files, network, pki, preflight};

/// Flags of `skiff node-process`.
#[derive(clap::Args, Clone, Debug)]
pub struct NodeArgs {
    #[command(flatten)]
    selection: Selection,
    /// What to do
    #[arg(value_enum)]
    action: NodeAction,
    /// The node
    node: String,
}

/// Starts, stops or kills a node. Killing is like a power cut: processes and containers end at
/// once, and the link goes down.
pub async fn run(args: NodeArgs) -> anyhow::Result<ExitCode> {
    let layout = Layout::new(&args.selection.name, args.selection.data_dir()?);
    let text = files::read_if_there(&layout.options_file())?;
    let text = text.with_context(|| format!("there is no cluster {:?}", layout.name()))?;
    let options: Options = serde_json::from_str(&text).context("cluster.json is damaged")?;
    let request = Request::Node { node: args.node.clone(), action: args.action };
    if args.action == NodeAction::Kill {
        network::cut(&layout, &args.node)?;
    } else {
        // Also brings the link up again.
        network::ensure(&layout, &options)?;
    }
    let mut connection = control::request(&layout.run(), &request)
        .await?
        .with_context(|| format!("cluster {:?} is not running", layout.name()))?;
    connection.next().await?;
    if args.action == NodeAction::Kill {
        cleanup::kill_node(&layout, &args.node);
    }
    let done = match args.action {
        NodeAction::Start => "started",
        NodeAction::Stop => "stopped",
        NodeAction::Kill => "killed",
    };
    println!("{} {done}", args.node);
    Ok(ExitCode::SUCCESS)
}

/// Flags of `skiff pki`.
#[derive(clap::Args, Clone, Debug)]
pub struct PkiArgs {
    #[command(flatten)]
    selection: Selection,
    /// URL of the apiserver as components see it
    #[arg(long)]
    server: String,
    /// DNS name or address of the apiserver; repeatable
    #[arg(long = "apiserver-name")]
    apiserver_names: Vec<String>,
    /// The `kubernetes` Service's address
    #[arg(long, default_value = "10.96.0.1")]
    kubernetes_service: Ipv4Addr,
    /// A node, as NAME=ADDRESS; repeatable
    #[arg(long = "node", value_parser = parse_node)]
    nodes: Vec<(String, String)>,
    /// DNS name or address of etcd; repeatable
    #[arg(long = "etcd-name")]
    etcd_names: Vec<String>,
    /// Also write a context with this URL to the file, for users
    #[arg(long, requires = "context_file")]
    context_server: Option<String>,
    #[arg(long)]
    context_file: Option<PathBuf>,
}

fn parse_node(text: &str) -> Result<(String, String), String> {
    let (name, address) = text.split_once('=').ok_or("expected NAME=ADDRESS")?;
    Ok((name.to_owned(), address.to_owned()))
}

/// Creates certificates and kubeconfigs; valid ones are kept.
pub fn make_pki(args: PkiArgs) -> anyhow::Result<ExitCode> {
    let layout = Layout::new(&args.selection.name, args.selection.data_dir()?);
    let names: Vec<String> = args.nodes.iter().map(|(name, _)| name.clone()).collect();
    let subjects = pki::Subjects {
        apiserver_names: args.apiserver_names,
        kubernetes_service: args.kubernetes_service,
        nodes: args.nodes,
        etcd_names: args.etcd_names,
    };
    let now = clock::system().now().into();
    let made = pki::ensure(&layout.pki(), &pki::certificates(&subjects), now)?;
    kubeconfig::write_components(&layout, &args.server, &names)?;
    if let (Some(server), Some(file)) = (&args.context_server, &args.context_file) {
        let access = Access::read(&layout, server, "admin")?;
        kubeconfig::write_context(file, &kubeconfig::context_name(layout.name()), &access)?;
    }
    println!("certificates: {} made in {}", made.len(), layout.pki().display());
    Ok(ExitCode::SUCCESS)
}

/// Flags of `skiff node-run`.
#[derive(clap::Args, Clone, Debug)]
pub struct NodeRunArgs {
    #[command(flatten)]
    up: UpArgs,
    /// The node that this container is
    #[arg(long)]
    node: String,
    /// Folder with `pki` and `kubeconfig`, as `skiff pki` creates them
    #[arg(long)]
    config: PathBuf,
}

/// Runs one node's processes until asked to stop. The number in the node's name is a lower bound of
/// the number of nodes, from which its address follows.
pub async fn run_alone(mut args: NodeRunArgs) -> anyhow::Result<ExitCode> {
    runtime::init("info");
    let number = args.node.strip_prefix("node-").and_then(|number| number.parse().ok());
    args.up.nodes = number.context("--node must be node-1, node-2, and so on")?;
    let layout = Layout::new(&args.up.selection.name, args.up.selection.data_dir()?);
    let options = args.up.into_options()?;
    let node = &args.node;
    let folders =
        [layout.run(), layout.kubelet(node), layout.manifests(node), layout.containerd(node)];
    for folder in folders {
        files::make_private_dir(&folder)?;
    }
    for folder in ["pki", "kubeconfig"] {
        link(&args.config.join(folder), &layout.root().join(folder))?;
    }
    let config = containerd::config(&layout, &args.node);
    files::replace_if_changed(&layout.containerd_config(&args.node), config.as_bytes(), 0o644)?;
    let mut problems = Vec::new();
    let programs = preflight::node_programs(&mut problems).with_context(|| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        lines.join("; ")
    })?;
    let list = node_processes(&layout, &options, &programs, &args.node);
    files::replace(&processes_file(&layout.run()), &serde_json::to_vec_pretty(&list)?, 0o600)?;
    supervisor::run(&layout, None).await?;
    Ok(ExitCode::SUCCESS)
}

fn link(target: &Path, path: &Path) -> anyhow::Result<()> {
    match std::os::unix::fs::symlink(target, path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("cannot link {}", path.display()))
        }
        _ => Ok(()),
    }
}
