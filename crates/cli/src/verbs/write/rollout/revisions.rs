//! The revisions of a workload: ReplicaSets of a Deployment, ControllerRevisions of the others.

use anyhow::bail;
use client::Client;
use rpc::api_v1::ListRequest;
use serde_json::Value;

use crate::discovery::Resources;
use crate::request::pods::{REVISION, selector_of};
use crate::request::selection::{ObjectReference, list_values};

pub const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

/// One revision: its number, pod template and change cause, and the object that represents it: a
/// ReplicaSet, or the workload as it was.
pub struct Revision {
    pub number: i64,
    pub template: Value,
    pub cause: String,
    pub object: Value,
}

/// Every revision in the history, oldest first.
pub async fn revisions(
    client: &Client,
    resources: &Resources,
    named: &ObjectReference<'_>,
    object: &Value,
) -> anyhow::Result<Vec<Revision>> {
    let deployment = named.resource.kind == "Deployment";
    let holder = match named.resource.kind.as_str() {
        "Deployment" => resources.find("replicasets.apps")?,
        "DaemonSet" | "StatefulSet" => resources.find("controllerrevisions.apps")?,
        other => bail!("no history viewer has been implemented for {other:?}"),
    };
    let request = ListRequest {
        target: Some(holder.target(&named.namespace, "", "")),
        label_selector: selector_of(object)?,
        ..Default::default()
    };
    let uid = &object["metadata"]["uid"];
    let mut found = Vec::new();
    for item in list_values(client, request).await? {
        let owners = item["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
        if !owners.iter().any(|owner| owner["uid"] == *uid) {
            continue;
        }
        let annotations = &item["metadata"]["annotations"];
        let number = if deployment {
            annotations[REVISION].as_str().and_then(|text| text.parse().ok())
        } else {
            item["revision"].as_i64()
        };
        let template =
            if deployment { &item["spec"]["template"] } else { &item["data"]["spec"]["template"] };
        let whole = if deployment {
            item.clone()
        } else {
            let mut owner = object.clone();
            owner["spec"]["template"] = template.clone();
            if let Some(template) = owner["spec"]["template"].as_object_mut() {
                template.remove("$patch");
            }
            owner
        };
        found.push(Revision {
            object: whole,
            number: number.unwrap_or(0),
            template: template.clone(),
            cause: annotations[CHANGE_CAUSE].as_str().unwrap_or("<none>").to_owned(),
        });
    }
    found.sort_by_key(|revision| revision.number);
    Ok(found)
}
