//! `skiff edit`: opens an object in an editor, and sends the changes as a patch.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, bail};
use client::Client;
use serde_json::Value;

use crate::discovery::Resources;
use crate::output::{json_text, yaml};
use crate::request::editor::in_editor;
use crate::request::failure::{Failures, message};
use crate::request::last_applied::{LAST_APPLIED, two_way_patch, with_last_applied};
use crate::request::selection::{ObjectReference, Selection};
use crate::request::write::{Report, ValidateFlag, WriteFlags};
use crate::request::{Connection, manifest};

const HEADER: &str = "\
# Please edit the object below. Lines beginning with a '#' will be ignored,
# and an empty file will abort the edit. If an error occurs while saving this file will be
# reopened with the relevant failures.
#
";

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    /// status, scale, ...
    #[arg(long, default_value = "")]
    subresource: String,
    /// Also update the last-applied-configuration annotation
    #[arg(long)]
    save_config: bool,
    #[command(flatten)]
    validate: ValidateFlag,
    #[command(flatten)]
    write: WriteFlags,
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    let mut report = args.write.report()?;
    let mut failures = Failures::default();
    for named in args.selection.objects(&client, &resources).await? {
        if let Err(error) = edit(&args, &client, &named, &mut report).await {
            failures.push(error);
        }
    }
    Ok(failures.finish())
}

async fn edit(
    args: &Args,
    client: &Client,
    named: &ObjectReference<'_>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let target = named.target(&args.subresource);
    let mut before: Value = serde_json::from_slice(&client.get_object(target).await?.json)?;
    if let Some(metadata) = before["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    let body = match args.write.print.output.as_deref() {
        None | Some("yaml") => yaml(&before),
        Some("json") => json_text(&before) + "\n",
        Some(other) => bail!("the flag 'output' must be one of yaml|json, not {other:?}"),
    };
    let mut text_shown = format!("{HEADER}{body}");
    let mut wrong: Option<anyhow::Error> = None;
    loop {
        let edited = in_editor(&text_shown)?;
        let body: String = edited
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| format!("{line}\n"))
            .collect();
        let untouched = edited == text_shown;
        if let Some(error) = wrong.take_if(|_| untouched) {
            let copy = keep(&edited)?;
            eprintln!("{}", message(&error));
            println!("A copy of your changes has been stored to {copy:?}");
            bail!("Edit cancelled, no valid changes were saved.");
        }
        if untouched {
            println!("Edit cancelled, no changes made.");
            return Ok(());
        }
        if body.trim().is_empty() {
            println!("Edit cancelled, saved file was empty.");
            return Ok(());
        }
        match save(args, client, named, &before, &body).await {
            Ok(Some(object)) => {
                report.words(named.resource, &object, "edited");
                return Ok(());
            }
            Ok(None) => {
                println!("Edit cancelled, no changes made.");
                return Ok(());
            }
            Err(error) => {
                let reason: String =
                    message(&error).lines().map(|line| format!("# {line}\n")).collect();
                text_shown = format!("{HEADER}{reason}#\n{body}");
                wrong = Some(error);
            }
        }
    }
}

/// Sends the changes; returns `None` if there are none.
async fn save(
    args: &Args,
    client: &Client,
    named: &ObjectReference<'_>,
    before: &Value,
    body: &str,
) -> anyhow::Result<Option<Value>> {
    let mut after = manifest::values(body)?.into_iter().next().context("the file is empty")?;
    for field in ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace"] {
        if before.pointer(field) != after.pointer(field) {
            bail!("At least one of apiVersion, kind and name was changed");
        }
    }
    if args.save_config {
        let mut config = after.clone();
        if let Some(object) = config.as_object_mut() {
            object.remove("status");
        }
        let annotated = with_last_applied(&config, &named.namespace, named.resource)?;
        after["metadata"]["annotations"][LAST_APPLIED] =
            annotated["metadata"]["annotations"][LAST_APPLIED].clone();
    }
    let (kind, patch) = two_way_patch(named.resource, before, &after);
    if patch.as_object().is_some_and(serde_json::Map::is_empty) {
        return Ok(None);
    }
    let mut options = args.write.options("skiff-edit");
    options.field_validation = args.validate.field_validation();
    let target = named.target(&args.subresource);
    let object = client.patch_object(target, kind, serde_json::to_vec(&patch)?, options).await?;
    Ok(Some(serde_json::from_slice(&object.json)?))
}

/// Saves the text that could not be applied; returns the file's path.
fn keep(text: &str) -> anyhow::Result<String> {
    let mut file = tempfile::Builder::new().prefix("skiff-edit-").suffix(".yaml").tempfile()?;
    file.write_all(text.as_bytes())?;
    let (_, path) = file.keep()?;
    Ok(path.display().to_string())
}
