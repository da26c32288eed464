//! `skiff diff`: what an apply would change.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use client::{Client, PatchKind};
use serde_json::Value;

use crate::discovery::{Resource, Resources};
use crate::output::yaml;
use crate::request::Connection;
use crate::request::failure::report;
use crate::request::last_applied::{self, FIELD_MANAGER};
use crate::request::manifest::{Document, Manifests, namespace_of};
use crate::request::write::{DryRun, WriteFlags};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    manifests: Manifests,
    /// Compare with the result of a server-side apply
    #[arg(long)]
    server_side: bool,
    /// With --server-side: take over fields of other managers
    #[arg(long)]
    force_conflicts: bool,
    #[arg(long)]
    field_manager: Option<String>,
    /// Also show metadata.managedFields
    #[arg(long)]
    show_managed_fields: bool,
}

/// Exit code of errors; 1 means that there are differences.
const EXIT_ERROR: u8 = 2;

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    args.manifests.files.require()?;
    match differences(&args, connection).await {
        Ok(code) => Ok(code),
        Err(error) => {
            report(&error);
            Ok(ExitCode::from(EXIT_ERROR))
        }
    }
}

async fn differences(args: &Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    let (documents, broken) = args.manifests.read()?;
    if let Some(error) = broken.into_iter().next() {
        return Err(error);
    }
    let live = tempfile::Builder::new().prefix("LIVE-").tempdir()?;
    let merged = tempfile::Builder::new().prefix("MERGED-").tempdir()?;
    for document in documents {
        let resource = document.resource(&resources)?;
        let flag = connection.namespace.as_deref();
        let namespace = namespace_of(flag, &client, resource, &document)?;
        let (before, after) = states(args, &client, resource, &namespace, &document).await?;
        let (before, after) = match resource.kind.as_str() {
            "Secret" => masked(before, after),
            _ => (before, after),
        };
        let group =
            if resource.group.is_empty() { String::new() } else { format!("{}.", resource.group) };
        let file = format!(
            "{group}{}.{}.{namespace}.{}",
            resource.version,
            resource.kind,
            document.name()
        );
        if let Some(before) = before {
            write(args, live.path(), &file, before)?;
        }
        write(args, merged.path(), &file, after)?;
    }
    compare(live.path(), merged.path())
}

/// The live object, and the object as it would be after an apply.
async fn states(
    args: &Args,
    client: &Client,
    resource: &Resource,
    namespace: &str,
    document: &Document,
) -> anyhow::Result<(Option<Value>, Value)> {
    let target = resource.target(namespace, &document.name(), "");
    let current: Option<Value> = match client.get_object(target.clone()).await {
        Ok(object) => Some(serde_json::from_slice(&object.json)?),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error.into()),
    };
    let flags = WriteFlags {
        dry_run: DryRun::Server,
        field_manager: args.field_manager.clone(),
        ..Default::default()
    };
    let mut options = flags.options(if args.server_side { "kubectl" } else { FIELD_MANAGER });
    options.force = args.force_conflicts;
    let modified = last_applied::with_last_applied(&document.object, namespace, resource)?;
    let answer = match &current {
        _ if args.server_side => {
            let object = last_applied::with_namespace(&document.object, namespace, resource);
            let body = serde_json::to_vec(&object)?;
            client.patch_object(target, PatchKind::Apply, body, options).await?
        }
        None => {
            let collection = resource.target(namespace, "", "");
            client.create_object(collection, serde_json::to_vec(&modified)?, options).await?
        }
        Some(current) => {
            // The annotation itself is not part of what differs, as in kubectl.
            let mut modified = modified;
            if let Some(annotations) = modified["metadata"]["annotations"].as_object_mut() {
                annotations.remove(last_applied::LAST_APPLIED);
            }
            let (kind, patch) = last_applied::three_way_patch(resource, &modified, current)?;
            client.patch_object(target, kind, serde_json::to_vec(&patch)?, options).await?
        }
    };
    Ok((current, serde_json::from_slice(&answer.json)?))
}

/// Hides the values of a Secret, but not that they differ.
fn masked(before: Option<Value>, mut after: Value) -> (Option<Value>, Value) {
    let mut before = before;
    let old = before.as_ref().map(|object| object["data"].clone()).unwrap_or_default();
    let new = after["data"].clone();
    let mask = |object: &mut Value, other: &Value, word: &str| {
        for (key, value) in object["data"].as_object_mut().into_iter().flatten() {
            let same = other[key] == *value || other[key].is_null();
            *value = if same { "***".into() } else { format!("*** ({word})").into() };
        }
        if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
            annotations.remove(last_applied::LAST_APPLIED);
        }
    };
    if let Some(before) = &mut before {
        mask(before, &new, "before");
    }
    mask(&mut after, &old, "after");
    (before, after)
}

fn write(args: &Args, folder: &Path, file: &str, mut object: Value) -> anyhow::Result<()> {
    if let Some(metadata) = object["metadata"].as_object_mut()
        && !args.show_managed_fields
    {
        metadata.remove("managedFields");
    }
    std::fs::write(folder.join(file), yaml(&object)).with_context(|| file.to_owned())
}

/// Runs `$KUBECTL_EXTERNAL_DIFF`, or `diff -u -N`, over the two directories.
fn compare(live: &Path, merged: &Path) -> anyhow::Result<ExitCode> {
    let program =
        std::env::var("KUBECTL_EXTERNAL_DIFF").unwrap_or_else(|_| "diff -u -N".to_owned());
    let mut words = program.split_whitespace();
    let name = words.next().context("KUBECTL_EXTERNAL_DIFF is empty")?;
    let status = Command::new(name)
        .args(words)
        .args([live, merged])
        .status()
        .with_context(|| format!("failed to run {program:?}"))?;
    match status.code() {
        Some(0) => Ok(ExitCode::SUCCESS),
        Some(1) => Ok(ExitCode::FAILURE),
        _ => bail!("{program:?} failed"),
    }
}
