//! `skiff scale`

use std::process::ExitCode;

use anyhow::bail;
use client::PatchKind;
use rpc::api_v1::WriteOptions;
use serde_json::{Value, json};

use super::Connection;
use super::resources::Resources;
use super::selection::Selection;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    /// The number wanted
    #[arg(long)]
    replicas: u32,
    /// Only if this many are wanted now
    #[arg(long)]
    current_replicas: Option<u32>,
    /// Only if the object is at this version
    #[arg(long, default_value = "")]
    resource_version: String,
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    for named in args.selection.names(&client, &resources).await? {
        if !named
            .resource
            .subresources
            .iter()
            .any(|name| name == "scale")
        {
            bail!("cannot scale {}: it has no scale subresource", named.path());
        }
        let scale: Value =
            serde_json::from_slice(&client.get_object(named.target("scale")).await?.json)?;
        let current = scale["spec"]["replicas"].as_u64().unwrap_or(0);
        if args
            .current_replicas
            .is_some_and(|expected| u64::from(expected) != current)
        {
            bail!(
                "Expected replicas to be {}, was {current}",
                args.current_replicas.unwrap_or_default()
            );
        }
        let mut patch = json!({"spec": {"replicas": args.replicas}});
        if !args.resource_version.is_empty() {
            patch["metadata"]["resourceVersion"] = args.resource_version.as_str().into();
        }
        let options = WriteOptions {
            field_manager: "skiff-scale".to_owned(),
            ..Default::default()
        };
        client
            .patch_object(
                named.target("scale"),
                PatchKind::Merge,
                serde_json::to_vec(&patch)?,
                options,
            )
            .await?;
        println!("{} scaled", named.path());
    }
    Ok(ExitCode::SUCCESS)
}
