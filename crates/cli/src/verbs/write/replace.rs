//! `skiff replace`: replaces objects by those of a manifest.

use std::process::ExitCode;

use anyhow::{Context, bail};
use client::{Client, DeleteOptions};
use serde_json::Value;

use crate::discovery::{Resource, Resources};
use crate::request::Connection;
use crate::request::failure::Failures;
use crate::request::last_applied::{LAST_APPLIED, with_last_applied};
use crate::request::manifest::{Document, FilenameOptions, namespace_of};
use crate::request::selection::ObjectReference;
use crate::request::watch::until_deleted;
use crate::request::write::{DryRun, ValidateFlag, WriteFlags};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    files: FilenameOptions,
    /// Delete and recreate the object
    #[arg(long)]
    force: bool,
    /// With --force: seconds that a pod gets to terminate
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,
    /// status, scale, ...
    #[arg(long, default_value = "")]
    subresource: String,
    /// Save the configuration in an annotation, for a later apply
    #[arg(long)]
    save_config: bool,
    #[command(flatten)]
    validate: ValidateFlag,
    #[command(flatten)]
    write: WriteFlags,
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    args.files.require()?;
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    let documents = args.files.read_all()?;
    if documents.is_empty() {
        bail!("no objects passed to replace");
    }
    let mut report = args.write.report()?;
    let mut failures = Failures::default();
    for document in &documents {
        let flag = connection.namespace.as_deref();
        let replaced = async {
            let resource = document.resource(&resources)?;
            let namespace = namespace_of(flag, &client, resource, document)?;
            let object = replace(&args, &client, resource, &namespace, document)
                .await
                .with_context(|| format!("error when replacing {:?}", document.source))?;
            anyhow::Ok((resource, object))
        };
        match replaced.await {
            Ok((resource, object)) => report.done(resource, &object, "replaced")?,
            Err(error) => failures.push(error),
        }
    }
    Ok(failures.finish())
}

async fn replace(
    args: &Args,
    client: &Client,
    resource: &Resource,
    namespace: &str,
    document: &Document,
) -> anyhow::Result<Value> {
    let mut object = document.object.clone();
    if resource.namespaced {
        object["metadata"]["namespace"] = namespace.into();
    }
    if args.save_config || object["metadata"]["annotations"][LAST_APPLIED].is_string() {
        object = with_last_applied(&object, namespace, resource)?;
    }
    let named = ObjectReference {
        resource,
        namespace: namespace.to_owned(),
        name: document.name(),
        source: None,
    };
    if args.write.dry_run == DryRun::Client {
        return Ok(object);
    }
    let mut options = args.write.options("skiff-replace");
    options.field_validation = args.validate.field_validation();
    let written = if args.force && args.write.dry_run == DryRun::None {
        remove(args, client, &named).await?;
        let collection = resource.target(namespace, "", "");
        client.create_object(collection, serde_json::to_vec(&object)?, options).await?
    } else {
        if object["metadata"]["resourceVersion"].is_null() {
            // The write replaces the current version of the object only.
            let current = client.get_object(named.target("")).await?;
            object["metadata"]["resourceVersion"] = current.revision.to_string().into();
        }
        client
            .update_object(named.target(&args.subresource), serde_json::to_vec(&object)?, options)
            .await?
    };
    Ok(serde_json::from_slice(&written.json)?)
}

/// Deletes the object if it exists, and waits until it is gone.
async fn remove(args: &Args, client: &Client, named: &ObjectReference<'_>) -> anyhow::Result<()> {
    let options = DeleteOptions {
        grace_period_seconds: (args.grace_period >= 0).then_some(args.grace_period),
        propagation_policy: Some("Background"),
        ..Default::default()
    };
    match client.delete_object(named.target(""), &options).await {
        Ok(object) => {
            let path = named.path();
            println!("{} {:?} deleted", path.split('/').next().unwrap_or_default(), named.name);
            until_deleted(client, named, &object.uid).await
        }
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
