//! `skiff set image` and `skiff set env`: changes to pod templates.

use std::process::ExitCode;

use anyhow::{Context, bail};
use client::PatchKind;
use rpc::api_v1::WriteOptions;
use serde_json::{Value, json};

use super::Connection;
use super::resources::Resources;
use super::selection::Selection;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Set the image of containers: TYPE/NAME CONTAINER=IMAGE..., *=IMAGE for all
    Image {
        #[command(flatten)]
        selection: Selection,
    },
    /// Set or remove variables: TYPE/NAME KEY=VALUE..., KEY- to remove
    Env {
        #[command(flatten)]
        selection: Selection,
        /// Only this container
        #[arg(short, long)]
        container: Option<String>,
    },
}

pub async fn run(mut args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let (Action::Image { selection } | Action::Env { selection, .. }) = &mut args.action;
    let changes: Vec<String> = selection
        .words
        .extract_if(.., |word| word.contains('=') || word.ends_with('-'))
        .collect();
    if changes.is_empty() {
        bail!("at least one NAME=VALUE is required");
    }
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    let (Action::Image { selection } | Action::Env { selection, .. }) = &args.action;
    for named in selection.names(&client, &resources).await? {
        let object: Value =
            serde_json::from_slice(&client.get_object(named.target("")).await?.json)?;
        let path: &[&str] = match named.resource.kind.as_str() {
            "Pod" => &["spec"],
            "CronJob" => &["spec", "jobTemplate", "spec", "template", "spec"],
            _ => &["spec", "template", "spec"],
        };
        let pod_spec = path.iter().fold(&object, |value, key| &value[*key]);
        let change = match &args.action {
            Action::Image { .. } => images(pod_spec, &changes)?,
            Action::Env { container, .. } => variables(pod_spec, &changes, container.as_deref())?,
        };
        let patch = path
            .iter()
            .rev()
            .fold(change, |inner, key| json!({*key: inner}));
        let options = WriteOptions {
            field_manager: "skiff-set".to_owned(),
            ..Default::default()
        };
        let before = object["metadata"]["generation"].clone();
        let body = serde_json::to_vec(&patch)?;
        let after = client
            .patch_object(named.target(""), PatchKind::Strategic, body, options)
            .await?;
        let after: Value = serde_json::from_slice(&after.json)?;
        if before != after["metadata"]["generation"] || before.is_null() {
            let what = if matches!(args.action, Action::Image { .. }) {
                "image"
            } else {
                "env"
            };
            println!("{} {what} updated", named.path());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Lists of containers in a pod's spec.
const LISTS: [&str; 2] = ["containers", "initContainers"];

fn names<'a>(pod_spec: &'a Value, list: &str) -> impl Iterator<Item = &'a str> {
    pod_spec[list]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|container| container["name"].as_str())
}

fn images(pod_spec: &Value, changes: &[String]) -> anyhow::Result<Value> {
    let mut patch = json!({});
    for change in changes {
        let (wanted, image) = change
            .split_once('=')
            .context("an image is set, not removed")?;
        let mut found = false;
        for list in LISTS {
            for name in names(pod_spec, list).filter(|name| wanted == "*" || wanted == *name) {
                found = true;
                let entries = patch
                    .as_object_mut()
                    .context("a patch is an object")?
                    .entry(list)
                    .or_insert_with(|| json!([]));
                entries
                    .as_array_mut()
                    .context("containers are a list")?
                    .push(json!({"name": name, "image": image}));
            }
        }
        if !found {
            bail!("unable to find container named {wanted:?}");
        }
    }
    Ok(patch)
}

fn variables(pod_spec: &Value, changes: &[String], only: Option<&str>) -> anyhow::Result<Value> {
    let env: Vec<Value> = changes
        .iter()
        .map(|change| match change.split_once('=') {
            Some((name, value)) => json!({"name": name, "value": value}),
            None => json!({"name": change.trim_end_matches('-'), "$patch": "delete"}),
        })
        .collect();
    let containers: Vec<Value> = names(pod_spec, "containers")
        .filter(|name| only.is_none_or(|only| only == *name))
        .map(|name| json!({"name": name, "env": env}))
        .collect();
    if containers.is_empty() {
        bail!(
            "unable to find container named {:?}",
            only.unwrap_or_default()
        );
    }
    Ok(json!({"containers": containers}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_by_name_and_for_all() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]});
        let one = images(&spec, &["b=x:2".into()]).unwrap();
        assert_eq!(one, json!({"containers": [{"name": "b", "image": "x:2"}]}));
        let all = images(&spec, &["*=y".into()]).unwrap();
        assert_eq!(
            all["containers"].as_array().unwrap().len()
                + all["initContainers"].as_array().unwrap().len(),
            3
        );
        assert!(images(&spec, &["z=y".into()]).is_err());
    }
}
