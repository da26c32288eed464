//! Manifests: YAML documents whose objects are created over gRPC.

use anyhow::{Context, bail};
use api::kind;
use client::dynamic::target;
use client::{Client, Error};
use rpc::api_v1::WriteOptions;
use serde_json::Value;

/// Creates every object of the documents, in order; one without a namespace goes into
/// `namespace`.
///
/// # Errors
/// When a document cannot be parsed, its kind is unknown, or the apiserver rejects it.
pub async fn create(client: &Client, namespace: &str, yaml: &str) -> anyhow::Result<()> {
    for object in documents(yaml)? {
        create_object(client, namespace, &object).await?;
    }
    Ok(())
}

/// The documents of a manifest.
///
/// # Errors
/// When it is not YAML.
pub fn documents(yaml: &str) -> anyhow::Result<Vec<Value>> {
    let all: Vec<Value> = serde_saphyr::from_multiple(yaml).context("the manifest is not YAML")?;
    Ok(all.into_iter().filter(|document| !document.is_null()).collect())
}

async fn create_object(client: &Client, namespace: &str, object: &Value) -> anyhow::Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (api_version, kind_name) = (text(&object["apiVersion"]), text(&object["kind"]));
    let Some(row) = kind::by_kind(&api_version, &kind_name) else {
        bail!("there is no kind {api_version} {kind_name}");
    };
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or(namespace);
    let target = target(row, namespace, "", "");
    let name = text(&metadata["name"]);
    client
        .create_object(target, serde_json::to_vec(object)?, WriteOptions::default())
        .await
        .map(drop)
        .map_err(|error: Error| anyhow::Error::new(error).context(format!("{kind_name} {name}")))
}
