//! `skiff scale`

use std::process::ExitCode;

use anyhow::bail;
use client::{Client, PatchKind};
use serde_json::{Value, json};

use crate::discovery::Resources;
use crate::request::Connection;
use crate::request::failure::Failures;
use crate::request::selection::{ObjectReference, Selection};
use crate::request::write::{DryRun, WriteFlags};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    /// The desired number of replicas
    #[arg(long, allow_negative_numbers = true)]
    replicas: i64,
    /// Only if this is the current number; -1 for any
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    current_replicas: i64,
    /// Only if the object is at this version
    #[arg(long, default_value = "")]
    resource_version: String,
    /// Every object of the kind in the namespace
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    write: WriteFlags,
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    if args.replicas < 0 {
        bail!(
            "The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0"
        );
    }
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    args.selection.require_names(args.all)?;
    let mut report = args.write.report()?;
    let mut failures = Failures::default();
    let (names, missing) = args.selection.existing(&client, &resources).await?;
    if names.is_empty() {
        match missing.first() {
            Some(error) => bail!("no objects passed to scale {error}"),
            None => bail!("no objects passed to scale"),
        }
    }
    missing.into_iter().for_each(|error| failures.push(error));
    for named in names {
        match scale(&args, &client, &named).await {
            Ok(()) => {
                let object = json!({"metadata": {"name": named.name}});
                report.done(named.resource, &object, "scaled")?;
            }
            Err(error) => failures.push(error),
        }
    }
    Ok(failures.finish())
}

async fn scale(args: &Args, client: &Client, named: &ObjectReference<'_>) -> anyhow::Result<()> {
    let target = named.target("scale");
    let scale: Value = serde_json::from_slice(&client.get_object(target.clone()).await?.json)?;
    if args.write.dry_run == DryRun::Client {
        return Ok(());
    }
    let current = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if args.current_replicas >= 0 && args.current_replicas != current {
        bail!("Expected replicas to be {}, was {current}", args.current_replicas);
    }
    let version = scale["metadata"]["resourceVersion"].as_str();
    let version = version.unwrap_or_default();
    if !args.resource_version.is_empty() && args.resource_version != version {
        bail!("Expected resource version to be {}, was {version}", args.resource_version);
    }
    let mut patch = json!({"spec": {"replicas": args.replicas}});
    if !args.resource_version.is_empty() {
        patch["metadata"]["resourceVersion"] = args.resource_version.as_str().into();
    }
    let options = args.write.options("skiff-scale");
    client.patch_object(target, PatchKind::Merge, serde_json::to_vec(&patch)?, options).await?;
    Ok(())
}
