//! `skiff apply`: a three-way merge, as in kubectl, of the last applied manifest, the current one
//! and the live object. With `--server-side` the server merges.

mod last_applied;
mod server_side;

use std::process::ExitCode;

use anyhow::{Context, bail};
use client::Client;
use rpc::api_v1::WriteOptions;
use serde_json::Value;

use crate::discovery::{Resource, Resources};
use crate::request::Connection;
use crate::request::failure::Failures;
use crate::request::last_applied::{
    FIELD_MANAGER, LAST_APPLIED, three_way_patch, with_last_applied, with_namespace,
};
use crate::request::manifest::{Document, Manifests, namespace_of};
use crate::request::selection::ObjectReference;
use crate::request::watch::until_deleted;
use crate::request::write::{DryRun, Report, ValidateFlag, WriteFlags};

/// Attempts when another client changes the object in between.
const CONFLICT_TRIES: usize = 5;

/// kubectl's warning for an object that `apply` did not create.
const NOT_APPLIED_BEFORE: &str = "is missing the kubectl.kubernetes.io/last-applied-configuration annotation which is required by skiff apply. skiff apply should only be used on resources created declaratively by either skiff create --save-config or skiff apply. The missing annotation will be patched automatically.";

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<last_applied::Action>,
    #[command(flatten)]
    manifests: Manifests,
    /// Let the server merge
    #[arg(long)]
    server_side: bool,
    /// With --server-side: take over fields of other managers
    #[arg(long)]
    force_conflicts: bool,
    /// Delete objects that match the selector, were applied before and are no longer in the
    /// manifests
    #[arg(long)]
    prune: bool,
    /// With --prune: only these kinds (group/version/Kind, core/v1/ConfigMap)
    #[arg(long, value_name = "KIND")]
    prune_allowlist: Vec<String>,
    /// With --prune: all objects of the kinds, whatever their labels
    #[arg(long)]
    all: bool,
    /// Delete and recreate objects that cannot be changed
    #[arg(long)]
    force: bool,
    /// Overwrite what others changed; default true
    #[arg(long, hide = true, default_value = "true", action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    overwrite: bool,
    #[command(flatten)]
    validate: ValidateFlag,
    #[command(flatten)]
    write: WriteFlags,
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    if let Some(action) = args.action {
        return last_applied::run(action, &args.write, connection).await;
    }
    args.manifests.files.require()?;
    if args.prune && args.manifests.selector.is_empty() && !args.all {
        bail!(
            "all resources selected for prune without explicitly passing --all. To prune all resources, pass the --all flag. If you did not mean to prune all resources, specify a label selector"
        );
    }
    if args.server_side && args.write.dry_run == DryRun::Client {
        bail!(
            "--dry-run=client doesn't work with --server-side (did you mean --dry-run=server instead?)"
        );
    }
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    let mut failures = Failures::default();
    let mut report = args.write.report()?;
    let mut printer = args.write.print.printer()?;
    let mut done = Vec::new();
    let (documents, broken) = args.manifests.read()?;
    broken.into_iter().for_each(|error| failures.push(error));
    for document in &documents {
        match apply_document(&args, connection, &client, &resources, document).await {
            Ok((resource, outcome, object)) => {
                if printer.is_none() {
                    report.words(resource, &object, outcome);
                }
                done.push((resource, object));
            }
            Err(error) => failures.push(error),
        }
    }
    if documents.is_empty() && failures.is_empty() {
        bail!("no objects passed to apply");
    }
    match (&mut printer, done.as_slice()) {
        (None, _) | (_, []) => {}
        (Some(printer), [(resource, object)]) => printer.object(resource, object)?,
        (Some(printer), several) => printer.list(several)?,
    }
    let applied: Vec<Value> =
        done.iter().map(|(_, object)| object["metadata"]["uid"].clone()).collect();
    if args.prune && failures.is_empty() {
        prune(&args, &client, &resources, &applied, &mut report).await?;
    }
    Ok(failures.finish())
}

/// Kinds that `--prune` considers by default, as in kubectl.
const PRUNED: [&str; 14] = [
    "core/v1/ConfigMap",
    "core/v1/Endpoints",
    "core/v1/Namespace",
    "core/v1/PersistentVolumeClaim",
    "core/v1/PersistentVolume",
    "core/v1/Pod",
    "core/v1/ReplicationController",
    "core/v1/Secret",
    "core/v1/Service",
    "batch/v1/Job",
    "batch/v1/CronJob",
    "networking.k8s.io/v1/Ingress",
    "apps/v1/Deployment",
    "apps/v1/StatefulSet",
];

/// Deletes objects that were applied before, but not this time.
async fn prune(
    args: &Args,
    client: &Client,
    resources: &Resources,
    applied: &[Value],
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut kinds: Vec<&str> = args.prune_allowlist.iter().map(String::as_str).collect();
    if kinds.is_empty() {
        kinds.extend(PRUNED);
        kinds.extend(["apps/v1/DaemonSet", "apps/v1/ReplicaSet"]);
    }
    for kind in kinds {
        let (version, kind) = kind.rsplit_once('/').with_context(|| {
            format!("invalid GroupVersionKind format: {kind}, please follow <group/version/kind>")
        })?;
        let resource = resources.of_kind(version.trim_start_matches("core/"), kind)?;
        let request = rpc::api_v1::ListRequest {
            target: Some(resource.target(client.default_namespace(), "", "")),
            label_selector: args.manifests.selector.clone(),
            ..Default::default()
        };
        for object in client.list_objects(request).await?.0 {
            let value: Value = serde_json::from_slice(&object.json)?;
            let metadata = &value["metadata"];
            let ours = metadata["annotations"][LAST_APPLIED].is_string();
            if !ours || applied.contains(&metadata["uid"]) {
                continue;
            }
            if args.write.dry_run == DryRun::None {
                let target = resource.target(&object.namespace, &object.name, "");
                client.delete_object(target, &Default::default()).await?;
            }
            report.done(resource, &value, "pruned")?;
        }
    }
    Ok(())
}

/// Applies one document; returns its resource, what was done, and the object.
async fn apply_document<'a>(
    args: &Args,
    connection: &Connection,
    client: &Client,
    resources: &'a Resources,
    document: &Document,
) -> anyhow::Result<(&'a Resource, &'static str, Value)> {
    let resource = document.resource(resources)?;
    let namespace = namespace_of(connection.namespace.as_deref(), client, resource, document)?;
    if document.name().is_empty() {
        bail!("error when creating {:?}: resource name may not be empty", document.source);
    }
    let mut options = args.write.options(if args.server_side { "kubectl" } else { FIELD_MANAGER });
    options.field_validation = args.validate.field_validation();
    options.force = args.force_conflicts;
    let target = resource.target(&namespace, &document.name(), "");
    if args.server_side {
        let config = with_namespace(&document.object, &namespace, resource);
        let object = server_side::apply(client, target, &config, options).await?;
        return Ok((resource, "serverside-applied", object));
    }
    let modified = with_last_applied(&document.object, &namespace, resource)?;
    for _ in 0..CONFLICT_TRIES {
        let current = match client.get_object(target.clone()).await {
            Ok(object) => serde_json::from_slice::<Value>(&object.json)?,
            Err(error) if error.is_not_found() => {
                return create(args, client, resource, &namespace, &modified, options)
                    .await
                    .with_context(|| format!("error when creating {:?}", document.source));
            }
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("error when retrieving current configuration of: {}", target.name)
                });
            }
        };
        match change_current(args, client, resource, &modified, &current, options.clone()).await {
            Ok((outcome, object)) => return Ok((resource, outcome, object)),
            Err(error)
                if error
                    .downcast_ref::<client::Error>()
                    .is_some_and(client::Error::is_conflict) => {}
            Err(error) if args.force => {
                tracing::debug!("recreated, because it cannot be patched: {error:#}");
                client.delete_object(target.clone(), &Default::default()).await?;
                let named = ObjectReference {
                    resource,
                    namespace: namespace.clone(),
                    name: document.name(),
                    source: None,
                };
                let uid = current["metadata"]["uid"].as_str().unwrap_or_default();
                until_deleted(client, &named, uid).await?;
            }
            Err(error) => {
                return Err(
                    error.context(format!("error when applying patch of {:?}", document.source))
                );
            }
        }
    }
    bail!("another client changed the object at every attempt; try again");
}

async fn create<'a>(
    args: &Args,
    client: &Client,
    resource: &'a Resource,
    namespace: &str,
    modified: &Value,
    options: WriteOptions,
) -> anyhow::Result<(&'a Resource, &'static str, Value)> {
    if args.write.dry_run == DryRun::Client {
        return Ok((resource, "created", modified.clone()));
    }
    let collection = resource.target(namespace, "", "");
    let object = client.create_object(collection, serde_json::to_vec(modified)?, options).await?;
    Ok((resource, "created", serde_json::from_slice(&object.json)?))
}

/// Patches the live object to match the manifest.
async fn change_current(
    args: &Args,
    client: &Client,
    resource: &Resource,
    modified: &Value,
    current: &Value,
    options: WriteOptions,
) -> anyhow::Result<(&'static str, Value)> {
    let name = current["metadata"]["name"].as_str().unwrap_or_default();
    let namespace = current["metadata"]["namespace"].as_str().unwrap_or_default();
    if args.write.dry_run == DryRun::Client {
        return Ok(("configured", current.clone()));
    }
    if !current["metadata"]["annotations"][LAST_APPLIED].is_string() {
        eprintln!("Warning: resource {}/{name} {NOT_APPLIED_BEFORE}", resource.plural);
    }
    let (kind, patch) = three_way_patch(resource, modified, current)?;
    if patch.as_object().is_some_and(serde_json::Map::is_empty) {
        return Ok(("unchanged", current.clone()));
    }
    let body = serde_json::to_vec(&patch)?;
    let object =
        client.patch_object(resource.target(namespace, name, ""), kind, body, options).await?;
    let object: Value = serde_json::from_slice(&object.json)?;
    let same = object["metadata"]["resourceVersion"] == current["metadata"]["resourceVersion"];
    let dry = args.write.dry_run == DryRun::Server;
    Ok((if same && !dry { "unchanged" } else { "configured" }, object))
}
