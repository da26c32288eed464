//! `skiff patch`

use std::process::ExitCode;

use anyhow::{Context, bail};
use client::{Client, PatchKind};
use serde_json::Value;

use crate::discovery::Resources;
use crate::request::failure::Failures;
use crate::request::selection::{ObjectReference, Selection};
use crate::request::write::{DryRun, WriteFlags};
use crate::request::{Connection, manifest};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    /// The patch, JSON or YAML
    #[arg(short, long)]
    patch: Option<String>,
    /// A file with the patch
    #[arg(long, value_name = "FILE")]
    patch_file: Option<String>,
    /// strategic, merge or json
    #[arg(long = "type", default_value = "strategic")]
    kind: String,
    /// status, scale, ...
    #[arg(long, default_value = "")]
    subresource: String,
    #[command(flatten)]
    write: WriteFlags,
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let kind = match args.kind.to_lowercase().as_str() {
        "json" => PatchKind::Json,
        "merge" => PatchKind::Merge,
        "strategic" => PatchKind::Strategic,
        other => bail!("--type must be one of [json merge strategic], not {other:?}"),
    };
    let text = match (&args.patch, &args.patch_file) {
        (Some(text), None) => text.clone(),
        (None, Some(file)) => std::fs::read_to_string(file).map_err(|_| {
            anyhow::anyhow!("unable to read patch file: open {file}: no such file or directory")
        })?,
        (Some(_), Some(_)) => bail!("cannot specify --patch and --patch-file together"),
        (None, None) => {
            bail!("must specify --patch or --patch-file containing the contents of the patch")
        }
    };
    let body = match manifest::values(&text) {
        Ok(values) => {
            let patch = values.into_iter().next().context("the patch is empty")?;
            serde_json::to_vec(&patch)?
        }
        // The server reports what is wrong with it.
        Err(_) if text.trim_start().starts_with(['{', '[']) => text.into_bytes(),
        Err(error) => return Err(error.context(format!("unable to parse {text:?}"))),
    };
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    let mut report = args.write.report()?;
    let mut failures = Failures::default();
    for named in args.selection.objects(&client, &resources).await? {
        match patch(&args, &client, &named, kind, &body).await {
            Ok((object, changed)) => {
                let what = if changed { "patched" } else { "patched (no change)" };
                report.done(named.resource, &object, what)?;
            }
            Err(error) => failures.push(error),
        }
    }
    Ok(failures.finish())
}

/// The object after the patch, and whether anything changed.
async fn patch(
    args: &Args,
    client: &Client,
    named: &ObjectReference<'_>,
    kind: PatchKind,
    body: &[u8],
) -> anyhow::Result<(Value, bool)> {
    let target = named.target(&args.subresource);
    let before: Value = serde_json::from_slice(&client.get_object(target.clone()).await?.json)?;
    let mut options = args.write.options("skiff-patch");
    // Only the server knows the result of a patch, so that a client-side dry run asks it too.
    options.dry_run = args.write.dry_run != DryRun::None;
    let after = client.patch_object(target, kind, body.to_vec(), options).await?;
    let after: Value = serde_json::from_slice(&after.json)?;
    let changed = before != after;
    Ok((after, changed))
}
