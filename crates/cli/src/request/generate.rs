//! Objects made from arguments, as `create`, `expose`, `autoscale` and `run` make them.

use anyhow::{Context, bail};
use client::Client;
use serde_json::{Value, json};

use crate::discovery::{Resource, Resources};
use crate::request::Connection;
use crate::request::last_applied::with_last_applied;
use crate::request::manifest::Document;
use crate::request::write::{DryRun, Report, WriteFlags, field_validation};

/// Flags of the verbs that create objects.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CreateFlags {
    #[command(flatten)]
    pub write: WriteFlags,
    /// Check fields strictly, warn, or ignore what is unknown
    #[arg(long, global = true, default_value = "strict", num_args = 0..=1, default_missing_value = "strict", value_parser = ["strict", "warn", "ignore", "true", "false"])]
    validate: String,
    /// Save the configuration in an annotation, for a later apply
    #[arg(long, global = true)]
    save_config: bool,
}

/// Metadata as kubectl's generators write it.
pub fn metadata(name: &str) -> Value {
    json!({"creationTimestamp": null, "name": name})
}

/// Creates a generated object and reports it.
pub async fn create_generated(
    (create, report): (&CreateFlags, &mut Report),
    connection: &Connection,
    client: &Client,
    resources: &Resources,
    mut object: Value,
    what: &str,
) -> anyhow::Result<()> {
    let document = Document { object: object.clone(), source: String::new() };
    let resource = document.resource(resources)?;
    if resource.namespaced && connection.namespace.is_some() {
        object["metadata"]["namespace"] = client.default_namespace().into();
    }
    let created = match create.create(client, resource, client.default_namespace(), &object).await {
        Ok(created) => created,
        Err(client::Error::Api(error))
            if matches!(error.reason(), "AlreadyExists" | "Invalid")
                && resource.kind != "Namespace"
                && create.write.dry_run == DryRun::None =>
        {
            bail!("failed to create {}: {error}", resource.kind.to_lowercase());
        }
        Err(error) => return Err(error.into()),
    };
    report.done(resource, &created, what)
}

impl CreateFlags {
    /// Creates one object; a client-side dry run returns it unchanged.
    pub async fn create(
        &self,
        client: &Client,
        resource: &Resource,
        namespace: &str,
        object: &Value,
    ) -> Result<Value, client::Error> {
        let annotated =
            self.save_config.then(|| with_last_applied(object, namespace, resource).ok()).flatten();
        let object = annotated.as_ref().unwrap_or(object);
        if self.write.dry_run == DryRun::Client {
            return Ok(object.clone());
        }
        let mut options = self.write.options("skiff-create");
        options.field_validation = field_validation(&self.validate).to_owned();
        let body = object.to_string().into_bytes();
        let created =
            client.create_object(resource.target(namespace, "", ""), body, options).await?;
        serde_json::from_slice(&created.json)
            .map_err(|error| client::Error::Config(error.to_string()))
    }
}

/// A container's environment from KEY=VALUE texts.
pub fn variables(texts: &[String]) -> anyhow::Result<Value> {
    texts
        .iter()
        .map(|text| {
            let (name, value) =
                text.split_once('=').with_context(|| format!("invalid env: {text}"))?;
            Ok(json!({"name": name, "value": value}))
        })
        .collect()
}
