//! Describers: an object, what belongs to it, and its Events, for people to read.
//!
//! Common kinds have a describer of their own; any other kind, custom resources included, is shown
//! field by field.

mod certificate;
mod config;
mod container;
mod generic;
mod node;
mod pod;
mod rbac;
mod service;
mod storage;
pub mod text;
mod volume;
mod workload;

use client::{Api, Client, ListOptions};
use k8s_openapi::api::core::v1::Event;
use serde_json::Value;

use crate::discovery::Resources;
use crate::output::event::{interval, last_seen};
use crate::request::selection::ObjectReference;
pub use pod::template;
pub use rbac::rows as policy_rows;
pub use text::Description;

/// What describers work with.
pub struct DescribeContext<'a> {
    pub client: &'a Client,
    pub resources: &'a Resources,
    pub object: &'a Value,
}

/// Writes the description; returns whether kubectl lists Events below it.
pub async fn describe(
    context: &DescribeContext<'_>,
    named: &ObjectReference<'_>,
    out: &mut Description,
) -> anyhow::Result<bool> {
    let object = context.object;
    match (named.resource.group.as_str(), named.resource.kind.as_str()) {
        ("", "Pod") => pod::describe(object, out),
        ("", "Node") => node::describe(context, out).await?,
        ("", "Service") => service::describe(context, out).await?,
        ("", "Endpoints") => service::endpoints_object(object, out),
        ("discovery.k8s.io", "EndpointSlice") => service::slice(object, out),
        ("networking.k8s.io", "Ingress") => service::ingress(context, out).await?,
        ("", "ConfigMap") => config::config_map(object, out),
        ("", "ServiceAccount") => config::service_account(object, out),
        ("", "PersistentVolume") => storage::volume(object, out),
        ("", "PersistentVolumeClaim") => storage::claim(context, out).await?,
        ("storage.k8s.io", "StorageClass") => storage::storage_class(object, out),
        ("scheduling.k8s.io", "PriorityClass") => storage::priority_class(object, out),
        ("networking.k8s.io", "IngressClass") => storage::ingress_class(object, out),
        ("policy", "PodDisruptionBudget") => rbac::disruption_budget(object, out),
        ("apps", "Deployment") => workload::deployment(context, out).await?,
        ("apps", "StatefulSet") => workload::stateful_set(context, out).await?,
        ("apps", "DaemonSet") => workload::daemon_set(context, out).await?,
        ("apps", "ReplicaSet") | ("", "ReplicationController") => {
            workload::replica_set(context, out).await?;
        }
        ("batch", "Job") => workload::job(object, out)?,
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            certificate::signing_request(object, out)?;
        }
        ("batch", "CronJob") => workload::cron_job(object, out),
        _ => return without_events(context, named, out).await,
    }
    Ok(true)
}

/// The kinds without Events, and any other kind.
async fn without_events(
    context: &DescribeContext<'_>,
    named: &ObjectReference<'_>,
    out: &mut Description,
) -> anyhow::Result<bool> {
    let object = context.object;
    match (named.resource.group.as_str(), named.resource.kind.as_str()) {
        ("", "Secret") => config::secret(object, out),
        ("", "Namespace") => config::namespace(context, out).await?,
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

/// Name and namespace: how most descriptions begin.
fn heading(object: &Value, out: &mut Description) {
    let metadata = &object["metadata"];
    out.line("Name", text::word(&metadata["name"]));
    if let Some(namespace) = metadata["namespace"].as_str() {
        out.line("Namespace", namespace);
    }
}

/// Labels and annotations; kubectl's own bookkeeping is left out.
fn labels(object: &Value, out: &mut Description) {
    let metadata = &object["metadata"];
    out.map("Labels", &metadata["labels"], "=");
    out.annotations(&metadata["annotations"]);
}

/// The head of a table of conditions; `checked` names when they were last looked at.
fn conditions_head(checked: &str, out: &mut Description) {
    out.cells(&["Type", "Status", checked, "LastTransitionTime", "Reason", "Message"]);
    let dashes = [4, 6, 17, 18, 6, 7].map(|width| "-".repeat(width));
    out.cells(&dashes.each_ref().map(String::as_str));
}

/// The controller that owns the object.
fn controller(object: &Value, out: &mut Description) {
    let owners = text::items(&object["metadata"]["ownerReferences"]);
    for owner in owners.filter(|owner| owner["controller"] == true) {
        let (kind, name) = (text::word(&owner["kind"]), text::word(&owner["name"]));
        out.line("Controlled By", format!("{kind}/{name}"));
    }
}

pub async fn events(client: &Client, object: &Value, out: &mut Description) -> anyhow::Result<()> {
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or("");
    // The events of a static pod are those of what its kubelet runs, not of its mirror.
    let mirrored = &metadata["annotations"][api::pod::MIRROR];
    let uid = if mirrored.is_string() { mirrored } else { &metadata["uid"] };
    let field_selector = format!("involvedObject.uid={}", text::word(uid));
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
        let source = event.source.as_ref().and_then(|source| source.component.clone());
        let from = source.or_else(|| event.reporting_component.clone()).unwrap_or_default();
        rows.push([
            word(&event.type_),
            word(&event.reason),
            interval(&event),
            from,
            word(&event.message).trim().to_owned(),
        ]);
    }
    out.section("Events", |out| out.table(&rows));
    Ok(())
}
