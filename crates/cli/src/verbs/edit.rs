//! `skiff edit`: an object in `$EDITOR`; what changed is sent as a patch.

use std::io::Write;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use rpc::api_v1::WriteOptions;
use serde_json::Value;

use super::Connection;
use super::apply::change;
use super::manifest;
use super::output::yaml;
use super::resources::Resources;
use super::selection::Selection;

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
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    for named in args.selection.names(&client, &resources).await? {
        let mut before: Value =
            serde_json::from_slice(&client.get_object(named.target("")).await?.json)?;
        if let Some(metadata) = before["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
        let mut text = format!("{HEADER}{}", yaml(&before));
        loop {
            let edited = in_editor(&text)?;
            let body: String = edited
                .lines()
                .filter(|line| !line.starts_with('#'))
                .map(|line| format!("{line}\n"))
                .collect();
            if body.trim().is_empty() || edited == text {
                println!("Edit cancelled, no changes made.");
                break;
            }
            let attempt = async {
                let after = manifest::values(&body)?
                    .into_iter()
                    .next()
                    .context("the file is empty")?;
                let (kind, patch) = change(named.resource, &before, &after);
                if patch.as_object().is_some_and(serde_json::Map::is_empty) {
                    return Ok(false);
                }
                let options = WriteOptions {
                    field_manager: "skiff-edit".to_owned(),
                    field_validation: "Strict".to_owned(),
                    ..Default::default()
                };
                client
                    .patch_object(named.target(""), kind, serde_json::to_vec(&patch)?, options)
                    .await?;
                anyhow::Ok(true)
            };
            match attempt.await {
                Ok(true) => {
                    println!("{} edited", named.path());
                    break;
                }
                Ok(false) => {
                    println!("Edit cancelled, no changes made.");
                    break;
                }
                Err(error) => {
                    let reason: String = format!("{error:#}")
                        .lines()
                        .map(|line| format!("# {line}\n"))
                        .collect();
                    text = format!("{HEADER}{reason}#\n{body}");
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens the user's editor on a file with `text`; returns what was saved.
pub fn in_editor(text: &str) -> anyhow::Result<String> {
    let mut file = tempfile::Builder::new()
        .prefix("skiff-edit-")
        .suffix(".yaml")
        .tempfile()?;
    file.write_all(text.as_bytes())?;
    let editor = ["KUBE_EDITOR", "VISUAL", "EDITOR"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .unwrap_or_else(|| "vi".to_owned());
    let mut words = editor.split_whitespace();
    let program = words.next().context("the editor's name is empty")?;
    let status = Command::new(program)
        .args(words)
        .arg(file.path())
        .status()
        .with_context(|| format!("unable to launch the editor {editor:?}"))?;
    if !status.success() {
        bail!("there was a problem with the editor {editor:?}");
    }
    Ok(std::fs::read_to_string(file.path())?)
}
