//! `skiff apply`: three-way, as kubectl: what was applied last, what the manifest says now, and what
//! the server has. With `--server-side` the server merges.

use std::process::ExitCode;

use anyhow::{Context, bail};
use api::strategic::{three_way, two_way};
use client::{Client, PatchKind};
use rpc::api_v1::WriteOptions;
use serde_json::Value;

use super::Connection;
use super::manifest::{self, Document};
use super::output::{Format, print_objects};
use super::resources::{Resource, Resources};

/// Where kubectl keeps what was applied last.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Field manager of client-side writes.
pub const FIELD_MANAGER: &str = "skiff-client-side-apply";
/// Tries when somebody else changes the object in between.
const CONFLICT_TRIES: usize = 5;

/// `--dry-run` as kubectl's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DryRun {
    #[default]
    None,
    Client,
    Server,
}

#[derive(clap::Args)]
pub struct Args {
    /// Manifest file, directory, or - for standard input
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    filenames: Vec<String>,
    #[arg(short = 'R', long)]
    recursive: bool,
    /// none, client or server
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    dry_run: DryRun,
    /// Let the server merge (needs a server with server-side apply)
    #[arg(long)]
    server_side: bool,
    /// With --server-side: take fields over from other managers
    #[arg(long)]
    force_conflicts: bool,
    /// With --server-side: who applies
    #[arg(long, default_value = "kubectl")]
    field_manager: String,
    /// Check fields strictly, warn, or ignore what is unknown
    #[arg(long, default_value = "strict", value_parser = ["strict", "warn", "ignore", "true", "false"])]
    validate: String,
    #[arg(short, long)]
    output: Option<String>,
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let client = connection.client()?;
    let format = args
        .output
        .as_deref()
        .map(str::parse::<Format>)
        .transpose()?;
    let documents = manifest::read(&args.filenames, args.recursive)?;
    let resources = Resources::discover(&client).await?;
    let mut failed = false;
    for document in documents {
        match apply_document(&args, connection, &client, &resources, &document).await {
            Ok((resource, outcome, object)) => match &format {
                Some(format) => print_objects(format, &[(resource, object)], true)?,
                None => println!(
                    "{} {outcome}{}",
                    resource.path(&document.name()),
                    suffix(args.dry_run)
                ),
            },
            Err(error) => {
                failed = true;
                report(&document, &error);
            }
        }
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// `Error from server (Invalid): error when applying "x.yaml": ...`
pub fn report(document: &Document, error: &anyhow::Error) {
    match error
        .downcast_ref::<client::Error>()
        .and_then(client::Error::api)
    {
        Some(status) => eprintln!(
            "Error from server ({}): {:?}: {status}",
            status.reason(),
            document.source
        ),
        None => eprintln!("error: {:?}: {error:#}", document.source),
    }
}

pub fn suffix(dry_run: DryRun) -> &'static str {
    match dry_run {
        DryRun::None => "",
        DryRun::Client => " (dry run)",
        DryRun::Server => " (server dry run)",
    }
}

/// The value of the `fieldValidation` parameter for `--validate`.
pub fn field_validation(validate: &str) -> &'static str {
    match validate {
        "warn" => "Warn",
        "ignore" | "false" => "Ignore",
        _ => "Strict",
    }
}

async fn apply_document<'a>(
    args: &Args,
    connection: &Connection,
    client: &Client,
    resources: &'a Resources,
    document: &Document,
) -> anyhow::Result<(&'a Resource, &'static str, Value)> {
    let resource = resources.of_kind(&document.api_version(), &document.kind())?;
    if document.name().is_empty() {
        bail!("resource name may not be empty");
    }
    let namespace = namespace_of(connection.namespace.as_deref(), client, resource, document)?;
    let options = WriteOptions {
        dry_run: args.dry_run == DryRun::Server,
        field_manager: if args.server_side {
            args.field_manager.clone()
        } else {
            FIELD_MANAGER.to_owned()
        },
        field_validation: field_validation(&args.validate).to_owned(),
        force: args.force_conflicts,
    };
    let target = resource.target(&namespace, &document.name(), "");
    if args.server_side {
        let body = serde_json::to_vec(&document.object)?;
        let object = client
            .patch_object(target, PatchKind::Apply, body, options)
            .await?;
        return Ok((
            resource,
            "serverside-applied",
            serde_json::from_slice(&object.json)?,
        ));
    }
    let modified = with_last_applied(&document.object, &namespace, resource)?;
    for _ in 0..CONFLICT_TRIES {
        let current = match client.get_object(target.clone()).await {
            Ok(object) => serde_json::from_slice::<Value>(&object.json)?,
            Err(error) if error.is_not_found() => {
                if args.dry_run == DryRun::Client {
                    return Ok((resource, "created", modified));
                }
                let collection = resource.target(&namespace, "", "");
                let object = client
                    .create_object(collection, serde_json::to_vec(&modified)?, options)
                    .await?;
                return Ok((resource, "created", serde_json::from_slice(&object.json)?));
            }
            Err(error) => return Err(error.into()),
        };
        let (kind, patch) = patch(resource, &modified, &current)?;
        if patch.as_object().is_some_and(serde_json::Map::is_empty) {
            return Ok((resource, "unchanged", current));
        }
        if args.dry_run == DryRun::Client {
            return Ok((resource, "configured", modified));
        }
        match client
            .patch_object(
                target.clone(),
                kind,
                serde_json::to_vec(&patch)?,
                options.clone(),
            )
            .await
        {
            Ok(object) => {
                let object: Value = serde_json::from_slice(&object.json)?;
                let same =
                    object["metadata"]["resourceVersion"] == current["metadata"]["resourceVersion"];
                return Ok((
                    resource,
                    if same { "unchanged" } else { "configured" },
                    object,
                ));
            }
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!("the object was changed by somebody else at every try; try again");
}

/// The namespace that an object goes to; a flag that contradicts the manifest is an error.
pub fn namespace_of(
    flag: Option<&str>,
    client: &Client,
    resource: &Resource,
    document: &Document,
) -> anyhow::Result<String> {
    if !resource.namespaced {
        return Ok(String::new());
    }
    match (flag, document.namespace()) {
        (Some(flag), Some(own)) if flag != own => {
            bail!(
                "the namespace from the provided object {own:?} does not match the namespace {flag:?}. You must pass '--namespace={own}' to perform this operation."
            )
        }
        (_, Some(own)) => Ok(own),
        (_, None) => Ok(client.default_namespace().to_owned()),
    }
}

/// The manifest with its namespace, annotated with itself.
pub fn with_last_applied(
    object: &Value,
    namespace: &str,
    resource: &Resource,
) -> anyhow::Result<Value> {
    let mut object = object.clone();
    let metadata = object
        .as_object_mut()
        .context("a manifest is an object")?
        .entry("metadata")
        .or_insert_with(|| Value::Object(Default::default()))
        .as_object_mut()
        .context("metadata must be an object")?;
    if resource.namespaced {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    let annotations = metadata
        .entry("annotations")
        .or_insert_with(|| Value::Object(Default::default()));
    if annotations.is_null() {
        *annotations = Value::Object(Default::default());
    }
    annotations
        .as_object_mut()
        .context("annotations must be an object")?
        .remove(LAST_APPLIED);
    let text = format!("{object}\n");
    object["metadata"]["annotations"][LAST_APPLIED] = text.into();
    Ok(object)
}

/// The patch from what the server has to what the manifest says, and which kind of patch it is.
fn patch(
    resource: &Resource,
    modified: &Value,
    current: &Value,
) -> anyhow::Result<(PatchKind, Value)> {
    let original: Value = current["metadata"]["annotations"][LAST_APPLIED]
        .as_str()
        .map(serde_json::from_str)
        .transpose()
        .context("the last-applied-configuration annotation is not JSON")?
        .unwrap_or(Value::Object(Default::default()));
    let schema = api::schema::kind(&resource.group, &resource.version, &resource.kind);
    let kind = if schema.is_some() {
        PatchKind::Strategic
    } else {
        PatchKind::Merge
    };
    Ok((kind, three_way(&original, modified, current, schema)))
}

/// The patch from one state to another, for `edit` and friends.
pub fn change(resource: &Resource, before: &Value, after: &Value) -> (PatchKind, Value) {
    let schema = api::schema::kind(&resource.group, &resource.version, &resource.kind);
    let kind = if schema.is_some() {
        PatchKind::Strategic
    } else {
        PatchKind::Merge
    };
    (kind, two_way(before, after, schema))
}
