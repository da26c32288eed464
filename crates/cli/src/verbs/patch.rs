//! `skiff patch`

use std::process::ExitCode;

use anyhow::{Context, bail};
use client::PatchKind;
use rpc::api_v1::WriteOptions;
use serde_json::Value;

use super::Connection;
use super::apply::{DryRun, suffix};
use super::manifest;
use super::output::{Format, print_objects};
use super::resources::Resources;
use super::selection::Selection;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    /// The patch, JSON or YAML
    #[arg(short, long)]
    patch: Option<String>,
    /// A file with the patch
    #[arg(long, value_name = "FILE")]
    patch_file: Option<std::path::PathBuf>,
    /// strategic, merge or json
    #[arg(long = "type", default_value = "strategic", value_parser = ["strategic", "merge", "json"])]
    kind: String,
    /// status, scale, ...
    #[arg(long, default_value = "")]
    subresource: String,
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    dry_run: DryRun,
    #[arg(short, long)]
    output: Option<String>,
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let text = match (&args.patch, &args.patch_file) {
        (Some(text), None) => text.clone(),
        (None, Some(file)) => {
            std::fs::read_to_string(file).with_context(|| file.display().to_string())?
        }
        _ => bail!("must specify --patch or --patch-file containing the contents of the patch"),
    };
    let patch: Value = match serde_json::from_str(&text) {
        Ok(value) => value,
        Err(_) => manifest::values(&text)
            .with_context(|| format!("unable to parse {text:?}"))?
            .into_iter()
            .next()
            .context("the patch is empty")?,
    };
    if args.dry_run == DryRun::Client {
        bail!("a patch can only be tried by the server: --dry-run=server");
    }
    let client = connection.client()?;
    let format = args
        .output
        .as_deref()
        .map(str::parse::<Format>)
        .transpose()?;
    let resources = Resources::discover(&client).await?;
    let names = args.selection.names(&client, &resources).await?;
    for named in names {
        let kind = match args.kind.as_str() {
            "json" => PatchKind::Json,
            "merge" => PatchKind::Merge,
            _ => PatchKind::Strategic,
        };
        let options = WriteOptions {
            dry_run: args.dry_run == DryRun::Server,
            field_manager: "skiff-patch".to_owned(),
            ..Default::default()
        };
        let before = client.get_object(named.target("")).await?.revision;
        let object = client
            .patch_object(
                named.target(&args.subresource),
                kind,
                serde_json::to_vec(&patch)?,
                options,
            )
            .await?;
        match &format {
            Some(format) => print_objects(
                format,
                &[(named.resource, serde_json::from_slice(&object.json)?)],
                true,
            )?,
            None => {
                let note = if object.revision == before && args.dry_run == DryRun::None {
                    " (no change)"
                } else {
                    ""
                };
                println!("{} patched{note}{}", named.path(), suffix(args.dry_run));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
