//! `skiff describe`: an object, what belongs to it, and what happened to it, for people to read.
//!
//! Kinds that people look at most have a describer of their own; every other kind, custom ones too,
//! is shown field by field.

mod config;
mod container;
mod generic;
mod node;
mod pod;
mod rbac;
mod service;
mod storage;
mod text;

pub use rbac::rows as policy_rows;
mod volume;
mod workload;

use std::process::ExitCode;

use anyhow::{Context, bail};
use client::{Api, Client, ListOptions};
use k8s_openapi::api::core::v1::Event;
use rpc::api_v1::{ListRequest, Representation};
use serde_json::Value;

use super::Connection;
use super::events::{ago, last_seen};
use super::failure::Failures;
use super::resources::Resources;
use super::selection::{Meaning, Named, Selection};
pub use pod::template;
pub use text::Text;

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
    if args.selection.is_empty() {
        bail!(
            "You must specify the type of resource to describe. Use \"skiff api-resources\" for a complete list of supported resources."
        );
    }
    let client = connection.client()?;
    let resources = Resources::discover(&client).await?;
    let mut failures = Failures::default();
    let mut described = 0;
    for found in objects(&args.selection, &client, &resources).await? {
        let (named, object, by_prefix) = match found {
            Ok(found) => found,
            Err(error) => {
                failures.push(error);
                continue;
            }
        };
        if described > 0 && !by_prefix {
            println!("\n");
        }
        let scene = Scene { client: &client, resources: &resources, object: &object };
        let mut out = Text::default();
        let has_events = describe(&scene, &named, &mut out).await?;
        if args.show_events && has_events {
            events(&client, &object, &mut out).await?;
        }
        print!("{}", out.render());
        if by_prefix {
            println!();
        }
        described += 1;
    }
    if described == 0 && failures.is_empty() {
        let namespace = args.selection.namespace(&client);
        if namespace.is_empty() {
            eprintln!("No resources found");
        } else {
            eprintln!("No resources found in {namespace} namespace.");
        }
    }
    Ok(failures.finish())
}

/// An object, and whether only the beginning of its name was given.
type Found<'a> = anyhow::Result<(Named<'a>, Value, bool)>;

/// The objects that are meant. A name that no object has may be the beginning of names.
async fn objects<'a>(
    selection: &Selection,
    client: &Client,
    resources: &'a Resources,
) -> anyhow::Result<Vec<Found<'a>>> {
    let read = |resource, object: &rpc::api_v1::Object, by_prefix: bool| {
        let value =
            serde_json::from_slice(&object.json).context("the server's object is not JSON")?;
        let named = Named {
            resource,
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            source: None,
        };
        anyhow::Ok((named, value, by_prefix))
    };
    let mut found = Vec::new();
    match selection.meaning(client, resources)? {
        Meaning::Names(names) => {
            for named in names {
                match client.get_object(named.target("")).await {
                    Ok(object) => found.push(read(named.resource, &object, false)),
                    Err(error) if error.is_not_found() => {
                        let request = ListRequest {
                            target: Some(named.resource.target(&named.namespace, "", "")),
                            ..Default::default()
                        };
                        let mut alike = client.list_objects(request).await?.0;
                        alike.retain(|object| object.name.starts_with(&named.name));
                        if alike.is_empty() {
                            found.push(Err(error.into()));
                        }
                        found.extend(alike.iter().map(|object| read(named.resource, object, true)));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Meaning::Collections(kinds) => {
            for resource in kinds {
                let objects = selection.list(client, resource, Representation::Full).await?.0;
                found.extend(objects.iter().map(|object| read(resource, object, false)));
            }
        }
    }
    Ok(found)
}

/// Writes the description; gives whether what happened belongs below it, as kubectl has it.
async fn describe(scene: &Scene<'_>, named: &Named<'_>, out: &mut Text) -> anyhow::Result<bool> {
    let object = scene.object;
    match (named.resource.group.as_str(), named.resource.kind.as_str()) {
        ("", "Pod") => pod::describe(object, out),
        ("", "Node") => node::describe(scene, out).await?,
        ("", "Service") => service::describe(scene, out).await?,
        ("", "Endpoints") => service::old_endpoints(object, out),
        ("discovery.k8s.io", "EndpointSlice") => service::slice(object, out),
        ("networking.k8s.io", "Ingress") => service::ingress(scene, out).await?,
        ("", "ConfigMap") => config::config_map(object, out),
        ("", "ServiceAccount") => config::service_account(object, out),
        ("", "PersistentVolume") => storage::volume(object, out),
        ("", "PersistentVolumeClaim") => storage::claim(scene, out).await?,
        ("storage.k8s.io", "StorageClass") => storage::storage_class(object, out),
        ("scheduling.k8s.io", "PriorityClass") => storage::priority_class(object, out),
        ("networking.k8s.io", "IngressClass") => storage::ingress_class(object, out),
        ("policy", "PodDisruptionBudget") => rbac::disruption_budget(object, out),
        ("apps", "Deployment") => workload::deployment(scene, out).await?,
        ("apps", "StatefulSet") => workload::stateful_set(scene, out).await?,
        ("apps", "DaemonSet") => workload::daemon_set(scene, out).await?,
        ("apps", "ReplicaSet") | ("", "ReplicationController") => {
            workload::replica_set(scene, out).await?;
        }
        ("batch", "Job") => workload::job(object, out)?,
        ("batch", "CronJob") => workload::cron_job(object, out),
        _ => return without_events(scene, named, out).await,
    }
    Ok(true)
}

/// The kinds to which nothing happens, and any other kind.
async fn without_events(
    scene: &Scene<'_>,
    named: &Named<'_>,
    out: &mut Text,
) -> anyhow::Result<bool> {
    let object = scene.object;
    match (named.resource.group.as_str(), named.resource.kind.as_str()) {
        ("", "Secret") => config::secret(object, out),
        ("", "Namespace") => config::namespace(scene, out).await?,
        ("", "ResourceQuota") => config::quota(object, out),
        ("", "LimitRange") => config::limits(object, out),
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => rbac::role(object, out),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            rbac::binding(object, out);
        }
        ("networking.k8s.io", "NetworkPolicy") => rbac::network_policy(object, out),
        _ => {
            generic::describe(object, out);
            return Ok(true);
        }
    }
    Ok(false)
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
    out.annotations(&metadata["annotations"]);
}

/// Who made the object.
fn controller(object: &Value, out: &mut Text) {
    let owners = text::items(&object["metadata"]["ownerReferences"]);
    for owner in owners.filter(|owner| owner["controller"] == true) {
        let (kind, name) = (text::word(&owner["kind"]), text::word(&owner["name"]));
        out.line("Controlled By", format!("{kind}/{name}"));
    }
}

async fn events(client: &Client, object: &Value, out: &mut Text) -> anyhow::Result<()> {
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or("");
    let field_selector = format!("involvedObject.uid={}", text::word(&metadata["uid"]));
    let options = ListOptions { field_selector, ..Default::default() };
    let mut events = Api::<Event>::namespaced(client, namespace).list(&options).await?.items;
    if events.is_empty() {
        out.line("Events", "<none>");
        return Ok(());
    }
    events.sort_by_key(last_seen);
    let mut rows = vec![["Type", "Reason", "Age", "From", "Message"].map(str::to_owned)];
    rows.push(["----", "------", "----", "----", "-------"].map(str::to_owned));
    for event in events {
        let word = |value: &Option<String>| value.clone().unwrap_or_default();
        let age = match (event.count, &event.first_timestamp) {
            (Some(count @ 2..), Some(first)) => {
                format!("{} (x{count} over {})", ago(last_seen(&event)), ago(Some(first.0)))
            }
            _ => ago(last_seen(&event)),
        };
        let source = event.source.as_ref().and_then(|source| source.component.clone());
        let from = source.or_else(|| event.reporting_component.clone()).unwrap_or_default();
        rows.push([
            word(&event.type_),
            word(&event.reason),
            age,
            from,
            word(&event.message).trim().to_owned(),
        ]);
    }
    out.section("Events", |out| out.table(&rows));
    Ok(())
}
