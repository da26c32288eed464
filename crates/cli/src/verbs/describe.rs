//! `skiff describe`: an object, what belongs to it, and what happened to it, for people to read.
//!
//! Kinds that people look at most have a describer of their own; every other kind, custom ones too,
//! is shown field by field.

mod config;
mod generic;
mod node;
mod pod;
mod service;
mod text;
mod workload;

use std::process::ExitCode;

use anyhow::Context;
use client::{Api, Client, ListOptions};
use k8s_openapi::api::core::v1::Event;
use rpc::api_v1::Representation;
use serde_json::Value;

use super::Connection;
use super::events::{ago, last_seen};
use super::resources::Resources;
use super::selection::{Meaning, Named, Selection};
use text::Text;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    selection: Selection,
    /// Leave events out with --show-events=false
    #[arg(long, default_value = "true", action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    show_events: bool,
}

/// What a describer may ask for.
pub struct Scene<'a> {
    pub client: &'a Client,
    pub resources: &'a Resources,
    pub object: &'a Value,
}

pub async fn run(args: Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    let mut described = 0;
    for (named, object) in objects(&args.selection, &client, &resources).await? {
        if described > 0 {
            println!("\n");
        }
        let scene = Scene {
            client: &client,
            resources: &resources,
            object: &object,
        };
        let mut out = Text::default();
        describe(&scene, &named, &mut out).await?;
        if args.show_events {
            events(&client, &object, &mut out).await?;
        }
        print!("{}", out.render());
        described += 1;
    }
    if described == 0 {
        eprintln!(
            "No resources found in {} namespace.",
            client.default_namespace()
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn objects<'a>(
    selection: &Selection,
    client: &Client,
    resources: &'a Resources,
) -> anyhow::Result<Vec<(Named<'a>, Value)>> {
    let mut found = Vec::new();
    let mut add = |resource, object: &rpc::api_v1::Object| {
        let value =
            serde_json::from_slice(&object.json).context("the server's object is not JSON")?;
        let named = Named {
            resource,
            namespace: object.namespace.clone(),
            name: object.name.clone(),
        };
        found.push((named, value));
        anyhow::Ok(())
    };
    match selection.meaning(client, resources)? {
        Meaning::Names(names) => {
            for named in names {
                add(named.resource, &client.get_object(named.target("")).await?)?;
            }
        }
        Meaning::Collections(kinds) => {
            for resource in kinds {
                for object in selection
                    .list(client, resource, Representation::Full)
                    .await?
                    .0
                {
                    add(resource, &object)?;
                }
            }
        }
    }
    Ok(found)
}

async fn describe(scene: &Scene<'_>, named: &Named<'_>, out: &mut Text) -> anyhow::Result<()> {
    let object = scene.object;
    match (named.resource.group.as_str(), named.resource.kind.as_str()) {
        ("", "Pod") => pod::describe(object, out),
        ("", "Node") => node::describe(scene, out).await?,
        ("", "Service") => service::describe(scene, out).await?,
        ("", "ConfigMap") => config::config_map(object, out),
        ("", "Secret") => config::secret(object, out),
        ("", "Namespace") => config::namespace(scene, out).await?,
        ("apps", "Deployment") => workload::deployment(scene, out).await?,
        ("apps", "ReplicaSet" | "StatefulSet" | "DaemonSet") | ("", "ReplicationController") => {
            workload::replicated(scene, out).await?;
        }
        ("batch", "Job") => workload::job(object, out),
        _ => generic::describe(object, out),
    }
    Ok(())
}

/// Name, namespace, labels and annotations: how every description begins.
fn heading(object: &Value, out: &mut Text) {
    let metadata = &object["metadata"];
    out.line("Name", text::word(&metadata["name"]));
    if let Some(namespace) = metadata["namespace"].as_str() {
        out.line("Namespace", namespace);
    }
}

/// Labels and annotations; annotations that tools keep for themselves are left out.
fn labels(object: &Value, out: &mut Text) {
    let metadata = &object["metadata"];
    out.map("Labels", &metadata["labels"], "=");
    let mut annotations = metadata["annotations"].clone();
    if let Some(map) = annotations.as_object_mut() {
        map.remove(super::apply::LAST_APPLIED);
    }
    out.map("Annotations", &annotations, ": ");
}

async fn events(client: &Client, object: &Value, out: &mut Text) -> anyhow::Result<()> {
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or("");
    let field_selector = format!("involvedObject.uid={}", text::word(&metadata["uid"]));
    let options = ListOptions {
        field_selector,
        ..Default::default()
    };
    let mut events = Api::<Event>::namespaced(client, namespace)
        .list(&options)
        .await?
        .items;
    if events.is_empty() {
        out.line("Events", "<none>");
        return Ok(());
    }
    events.sort_by_key(last_seen);
    out.raw("Events:");
    let mut rows = vec![["Type", "Reason", "Age", "From", "Message"].map(str::to_owned)];
    rows.push(["----", "------", "----", "----", "-------"].map(str::to_owned));
    for event in events {
        let word = |value: &Option<String>| value.clone().unwrap_or_default();
        let age = match (event.count, &event.first_timestamp) {
            (Some(count @ 2..), Some(first)) => {
                format!(
                    "{} (x{count} over {})",
                    ago(last_seen(&event)),
                    ago(Some(first.0))
                )
            }
            _ => ago(last_seen(&event)),
        };
        let source = event
            .source
            .as_ref()
            .and_then(|source| source.component.clone());
        let from = source
            .or_else(|| event.reporting_component.clone())
            .unwrap_or_default();
        rows.push([
            word(&event.type_),
            word(&event.reason),
            age,
            from,
            word(&event.message).trim().to_owned(),
        ]);
    }
    out.table(1, &rows);
    Ok(())
}
