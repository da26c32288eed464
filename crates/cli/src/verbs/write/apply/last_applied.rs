//! `skiff apply view-last-applied`, `set-last-applied`, `edit-last-applied`: the annotation with
//! the last applied manifest.

use std::process::ExitCode;

use anyhow::{Context, bail};
use client::{Client, PatchKind};
use serde_json::{Value, json};

use crate::discovery::{Resource, Resources};
use crate::output::yaml;
use crate::request::Connection;
use crate::request::editor::in_editor;
use crate::request::last_applied::LAST_APPLIED;
use crate::request::manifest::{self, FilenameOptions, namespace_of};
use crate::request::selection::Selection;
use crate::request::write::{DryRun, WriteFlags};

#[derive(clap::Subcommand)]
#[expect(clippy::enum_variant_names, reason = "kubectl's command names")]
pub enum Action {
    /// Show the last applied manifest
    ViewLastApplied {
        #[command(flatten)]
        selection: Selection,
    },
    /// Set the annotation to a manifest
    SetLastApplied {
        #[command(flatten)]
        files: FilenameOptions,
        /// Also if the object has no annotation yet
        #[arg(long)]
        create_annotation: bool,
    },
    /// Change the annotation in an editor
    EditLastApplied {
        #[command(flatten)]
        selection: Selection,
    },
}

pub async fn run(
    action: Action,
    write: &WriteFlags,
    connection: &Connection,
) -> anyhow::Result<ExitCode> {
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    match action {
        Action::ViewLastApplied { selection } => {
            let mut printer = write.print.printer()?;
            for named in selection.objects(&client, &resources).await? {
                let object = client.get_object(named.target("")).await?;
                let applied = last_applied(&serde_json::from_slice(&object.json)?)?;
                match &mut printer {
                    Some(printer) => printer.value(&applied)?,
                    None => print!("{}", yaml(&applied)),
                }
            }
        }
        Action::SetLastApplied { files, create_annotation } => {
            files.require()?;
            for document in files.read_all()? {
                let resource = document.resource(&resources)?;
                let flag = connection.namespace.as_deref();
                let namespace = namespace_of(flag, &client, resource, &document)?;
                let target = resource.target(&namespace, &document.name(), "");
                let current = client.get_object(target.clone()).await?;
                if !create_annotation {
                    last_applied(&serde_json::from_slice(&current.json)?)?;
                }
                let mut applied = document.object.clone();
                if resource.namespaced {
                    applied["metadata"]["namespace"] = namespace.as_str().into();
                }
                set(&client, write, resource, target, &applied).await?;
            }
        }
        Action::EditLastApplied { selection } => {
            for named in selection.objects(&client, &resources).await? {
                let object = client.get_object(named.target("")).await?;
                let before = yaml(&last_applied(&serde_json::from_slice(&object.json)?)?);
                let edited = in_editor(&before)?;
                if edited == before {
                    println!("Edit cancelled, no changes made.");
                    continue;
                }
                let applied =
                    manifest::values(&edited)?.into_iter().next().context("the file is empty")?;
                set(&client, write, named.resource, named.target(""), &applied).await?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn last_applied(object: &Value) -> anyhow::Result<Value> {
    match object["metadata"]["annotations"][LAST_APPLIED].as_str() {
        Some(text) => serde_json::from_str(text).context("the annotation is not JSON"),
        None => bail!(
            "no last-applied-configuration annotation found on resource: {}",
            object["metadata"]["name"].as_str().unwrap_or_default()
        ),
    }
}

async fn set(
    client: &Client,
    write: &WriteFlags,
    resource: &Resource,
    target: rpc::api_v1::Target,
    applied: &Value,
) -> anyhow::Result<()> {
    let object = json!({"metadata": {"name": target.name}});
    if write.dry_run != DryRun::Client {
        let mut applied = applied.clone();
        if applied["metadata"]["annotations"].is_null() {
            applied["metadata"]["annotations"] = json!({});
        }
        let text = format!("{applied}\n");
        let patch = json!({"metadata": {"annotations": {LAST_APPLIED: text}}});
        let options = write.options("skiff-last-applied");
        client.patch_object(target, PatchKind::Merge, serde_json::to_vec(&patch)?, options).await?;
    }
    write.report()?.done(resource, &object, "configured")
}
