//! kubectl's verbs over gRPC: the same names, flags and output.
//!
//! [`Command`] is the family's clap enum; every verb is a module with an `Args` struct and a `run`.
//! Shared by all: [`connection`] (flags, kubeconfig), [`resources`] (which kinds the server has),
//! [`selection`] (`TYPE/NAME` and friends), [`manifest`] (`-f`), [`output`] (tables, YAML, JSONPath).

mod annotate;
mod apply;
mod connection;
mod create;
mod delete;
mod edit;
mod get;
mod inspect;
mod manifest;
mod output;
mod patch;
mod resources;
mod scale;
mod selection;

use std::process::ExitCode;

use clap::Subcommand;

pub use connection::Connection;

/// kubectl's verbs.
#[derive(Subcommand)]
pub enum Command {
    /// Create or change objects to what a manifest says
    Apply(apply::Args),
    /// Create objects from a manifest, or from arguments
    Create(create::Args),
    /// Show one or many objects
    Get(get::Args),
    /// Delete objects by manifest, name or selector
    Delete(delete::Args),
    /// Change an object in an editor
    Edit(edit::Args),
    /// Change fields of an object
    Patch(patch::Args),
    /// Set the number of replicas
    Scale(scale::Args),
    /// Set or remove labels
    Label(annotate::Args),
    /// Set or remove annotations
    Annotate(annotate::Args),
    /// List the kinds that the server has
    #[command(name = "api-resources")]
    ApiResources(inspect::ApiResources),
    /// List the group versions that the server has
    #[command(name = "api-versions")]
    ApiVersions(inspect::ApiVersions),
    /// Show the versions of client and server
    Version(inspect::Version),
    /// Show where the control plane is
    #[command(name = "cluster-info")]
    ClusterInfo(inspect::ClusterInfo),
}

/// Runs one verb; an error has not been printed yet.
pub async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Apply(args) => apply::run(args).await,
        Command::Create(args) => create::run(args).await,
        Command::Get(args) => get::run(args).await,
        Command::Delete(args) => delete::run(args).await,
        Command::Edit(args) => edit::run(args).await,
        Command::Patch(args) => patch::run(args).await,
        Command::Scale(args) => scale::run(args).await,
        Command::Label(args) => annotate::run(args, annotate::What::Labels).await,
        Command::Annotate(args) => annotate::run(args, annotate::What::Annotations).await,
        Command::ApiResources(args) => args.run().await,
        Command::ApiVersions(args) => args.run().await,
        Command::Version(args) => args.run().await,
        Command::ClusterInfo(args) => args.run().await,
    }
}
