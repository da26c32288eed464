//! kubectl's verbs over gRPC: the same names, flags and output.
//!
//! [`Command`] is the family's clap enum; every verb is a module with an `Args` struct and a `run`,
//! grouped by what it does. What verbs share is in [`crate::request`], [`crate::output`] and
//! [`crate::describe`]; a verb imports no other verb.

mod local;
mod node;
mod read;
mod session;
mod write;

use std::process::ExitCode;

use clap::Subcommand;

use crate::request::Connection;
use local::{completion, config, proxy};
use node::{cordon, drain, image, taint};
use read::{
    api_resources, auth, cluster_info, describe, diff, events, explain, get, logs, top, trace,
    tree, version, wait, why,
};
use session::{cp, debug, exec, port_forward, run};
use write::{
    apply, autoscale, certificate, create, delete, edit, expose, metadata, patch, replace, rollout,
    scale, set,
};

/// kubectl's verbs.
#[derive(Subcommand)]
pub enum Command {
    /// Create objects from a manifest, or change them to match it
    Apply(apply::Args),
    /// Create objects from a manifest, or from arguments
    Create(create::Args),
    /// Run an image in a pod
    Run(run::Args),
    /// Create a Service for a workload, a pod or a Service
    Expose(expose::Expose),
    /// Scale a workload automatically with its load
    Autoscale(autoscale::Autoscale),
    /// Approve or deny requests for certificates
    Certificate(certificate::Args),
    /// Replace objects by those of a manifest
    Replace(replace::Args),
    /// Show what an apply would change
    Diff(diff::Args),
    /// Show one or many objects
    Get(get::Args),
    /// Show an object in detail, with its events
    Describe(describe::Args),
    /// Show an object with its owners and all that depends on it
    Tree(tree::Args),
    /// Show how the nodes' tables direct connections to a Service, a pod or an address
    Trace(trace::Args),
    /// Delete objects by manifest, name or selector
    Delete(delete::Args),
    /// Change an object in an editor
    Edit(edit::Args),
    /// Change fields of an object
    Patch(patch::Args),
    /// Set the number of replicas
    Scale(scale::Args),
    /// Set or remove labels
    Label(metadata::Args),
    /// Set or remove annotations
    Annotate(metadata::Args),
    /// Print the logs of containers
    #[command(alias = "log")]
    Logs(logs::Args),
    /// Run a command in a container
    Exec(exec::Exec),
    /// Attach to the process of a container
    Attach(exec::Attach),
    /// Debug a running pod from an additional container
    Debug(debug::Args),
    /// Forward local ports to a pod
    #[command(name = "port-forward")]
    PortForward(port_forward::Args),
    /// Serve the REST API on a local port
    Proxy(proxy::Args),
    /// Copy files to and from containers
    Cp(cp::Args),
    /// Manage the rollout of a workload
    Rollout(rollout::Args),
    /// Set images and variables of a workload
    Set(set::Args),
    /// Wait until objects meet a condition
    Wait(wait::Args),
    /// Show events
    Events(events::Args),
    /// Show the resource usage of nodes and pods
    Top(top::Args),
    /// Mark nodes as unschedulable
    Cordon(cordon::Cordon),
    /// Mark nodes as schedulable
    Uncordon(cordon::Cordon),
    /// Drain nodes for maintenance
    Drain(drain::Drain),
    /// Set or remove taints of nodes
    Taint(taint::Args),
    /// Show what you may do, and who you are
    Auth(auth::Args),
    /// Show and change the kubeconfig
    Config(config::Args),
    /// Load images onto the nodes
    Image(image::Args),
    /// Print a script that completes commands in a shell
    Completion(completion::Args),
    /// Show why a pod is on its node, or on none
    Why(why::Args),
    /// Document the fields of a kind
    Explain(explain::Args),
    /// List the kinds that the server serves
    #[command(name = "api-resources")]
    ApiResources(api_resources::ApiResources),
    /// List the group versions that the server serves
    #[command(name = "api-versions")]
    ApiVersions(api_resources::ApiVersions),
    /// Show the versions of client and server
    Version(version::Version),
    /// Show where the control plane is
    #[command(name = "cluster-info")]
    ClusterInfo(cluster_info::ClusterInfo),
}

/// Runs one verb; the caller prints its error.
pub async fn run(command: Command, connection: &Connection) -> anyhow::Result<ExitCode> {
    match command {
        Command::Apply(args) => apply::run(args, connection).await,
        Command::Create(args) => create::run(args, connection).await,
        Command::Run(args) => run::run(args, connection).await,
        Command::Expose(args) => args.run(connection).await,
        Command::Autoscale(args) => args.run(connection).await,
        Command::Certificate(args) => certificate::run(args, connection).await,
        Command::Replace(args) => replace::run(args, connection).await,
        Command::Diff(args) => diff::run(args, connection).await,
        Command::Proxy(args) => proxy::run(args, connection).await,
        Command::Cp(args) => cp::run(args, connection).await,
        Command::Taint(args) => taint::run(args, connection).await,
        Command::Auth(args) => auth::run(args, connection).await,
        Command::Config(args) => config::run(args, connection),
        Command::Get(args) => get::run(args, connection).await,
        Command::Describe(args) => describe::run(args, connection).await,
        Command::Why(args) => why::run(args, connection).await,
        Command::Tree(args) => tree::run(args, connection).await,
        Command::Trace(args) => trace::run(args, connection).await,
        Command::Explain(args) => explain::run(args, connection).await,
        Command::Delete(args) => delete::run(args, connection).await,
        Command::Edit(args) => edit::run(args, connection).await,
        Command::Patch(args) => patch::run(args, connection).await,
        Command::Scale(args) => scale::run(args, connection).await,
        Command::Label(args) => {
            metadata::run(args, metadata::MetadataField::Labels, connection).await
        }
        Command::Annotate(args) => {
            metadata::run(args, metadata::MetadataField::Annotations, connection).await
        }
        Command::Logs(args) => logs::run(args, connection).await,
        Command::Exec(args) => args.run(connection).await,
        Command::Attach(args) => args.run(connection).await,
        Command::Debug(args) => debug::run(args, connection).await,
        Command::PortForward(args) => port_forward::run(args, connection).await,
        Command::Rollout(args) => rollout::run(args, connection).await,
        Command::Set(args) => set::run(args, connection).await,
        Command::Wait(args) => wait::run(args, connection).await,
        Command::Events(args) => events::run(args, connection).await,
        Command::Top(args) => top::run(args, connection).await,
        Command::Cordon(args) => args.run(true, connection).await,
        Command::Uncordon(args) => args.run(false, connection).await,
        Command::Drain(args) => args.run(connection).await,
        Command::Image(args) => image::run(args, connection).await,
        Command::Completion(args) => {
            completion::run(&args, <crate::Cli as clap::CommandFactory>::command())
        }
        Command::ApiResources(args) => args.run(connection).await,
        Command::ApiVersions(args) => args.run(connection).await,
        Command::Version(args) => args.run(connection).await,
        Command::ClusterInfo(args) => args.run(connection).await,
    }
}
