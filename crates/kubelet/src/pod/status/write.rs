//! The status manager: writes a pod's status as a merge patch of what differs, with the revision
//! that it was computed from as precondition.

use std::sync::Arc;

use api::{Kind, schema};
use client::{Api, Client, PatchKind};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Value, json};

use crate::pod::pod_ext::PodExt;

/// The result of a write.
#[derive(Debug)]
pub enum Written {
    /// Written: the object as it is now.
    Done(Box<Pod>),
    /// Someone else was first: the object as it is now.
    Stale(Box<Pod>),
    /// The pod no longer exists.
    Gone,
    Failed(client::Error),
}

/// The merge patch from the status of `base` to `status`, if they differ in the form that the
/// apiserver keeps: an empty text or list is the same as none there.
pub fn patch(base: &Pod, status: &PodStatus) -> Option<Value> {
    let wanted = Pod { status: Some(status.clone()), ..Default::default() };
    let had = Pod { status: Some(base.status_ref().clone()), ..Default::default() };
    let part = |pod: &Pod| {
        let mut value: Value =
            serde_json::from_slice(&pod.encode()).expect("it was encoded just now");
        if let Some(row) = Pod::ROW.schema() {
            schema::zero::normalize(&mut value, row);
        }
        value.get("status").cloned().unwrap_or_else(|| json!({}))
    };
    let patch = api::strategic::two_way(&part(&had), &part(&wanted), None);
    (patch != json!({})).then_some(patch)
}

/// Applies the patch to the status of `base`.
pub async fn write(client: Client, base: Arc<Pod>, patch: Value) -> Written {
    let pods: Api<Pod> = Api::namespaced(&client, base.pod_namespace());
    let body = json!({
        "metadata": {
            "uid": base.metadata.uid,
            "resourceVersion": base.metadata.resource_version,
        },
        "status": patch,
    });
    let name = base.pod_name();
    match pods.patch_status(name, PatchKind::Merge, &body).await {
        Ok(pod) => Written::Done(Box::new(pod)),
        Err(error) if error.is_not_found() => Written::Gone,
        Err(error) if error.is_conflict() => match pods.get_opt(name).await {
            Ok(Some(pod)) if pod.metadata.uid == base.metadata.uid => Written::Stale(Box::new(pod)),
            Ok(_) => Written::Gone,
            Err(error) => Written::Failed(error),
        },
        Err(error) => Written::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition};

    use super::*;

    #[test]
    fn the_patch_has_only_what_differs() {
        let condition = |kind: &str| PodCondition { type_: kind.into(), ..Default::default() };
        let status = |phase: &str, ip: Option<&str>, conditions: &[&str]| PodStatus {
            phase: Some(phase.into()),
            pod_ip: ip.map(Into::into),
            conditions: Some(conditions.iter().copied().map(condition).collect()),
            ..Default::default()
        };
        let base = Pod {
            status: Some(status("Pending", Some("10.0.0.1"), &["Ready"])),
            ..Default::default()
        };
        assert_eq!(patch(&base, base.status_ref()), None);
        let both = status("Running", Some("10.0.0.1"), &["Ready", "Initialized"]);
        let listed: Value = ["Ready", "Initialized"]
            .map(|kind| json!({"type": kind, "status": ""}))
            .into_iter()
            .collect();
        assert_eq!(patch(&base, &both), Some(json!({"phase": "Running", "conditions": listed})));
        let mut empty = base.status_ref().clone();
        (empty.reason, empty.pod_ips) = (Some(String::new()), Some(Vec::new()));
        let started = |started| ContainerStatus { started, ..Default::default() };
        assert_eq!(patch(&base, &empty), None);
        empty.container_statuses = Some(vec![started(Some(false))]);
        assert!(patch(&base, &empty).is_some());
        let without_address = status("Pending", None, &["Ready"]);
        assert_eq!(patch(&base, &without_address), Some(json!({"podIP": null})));
        let patch = super::patch(
            &Pod::default(),
            &PodStatus { phase: Some("Failed".into()), ..Default::default() },
        );
        assert_eq!(patch, Some(json!({"phase": "Failed"})));
    }
}
