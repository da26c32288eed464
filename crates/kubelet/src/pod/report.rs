//! Telling the apiserver a pod's status: a merge patch of what differs, with the revision that it was
//! computed from as precondition.

use std::sync::Arc;

use api::Kind;
use client::{Api, Client, PatchKind};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Map, Value, json};

use super::object::PodExt;

/// How a write ended.
#[derive(Debug)]
pub enum Written {
    /// The object as it is now.
    Done(Box<Pod>),
    /// Someone else was first: this is what they left.
    Stale(Box<Pod>),
    /// There is no such pod any more.
    Gone,
    Failed(client::Error),
}

/// The merge patch that makes `base` have `status`, if it does not.
pub fn difference(base: &Pod, status: &PodStatus) -> Option<Value> {
    let wanted = Pod { status: Some(status.clone()), ..Default::default() };
    let had = Pod { status: Some(base.status_ref().clone()), ..Default::default() };
    let part = |pod: &Pod| {
        let value: Value = serde_json::from_slice(&pod.encode()).expect("it was encoded just now");
        value.get("status").cloned().unwrap_or_else(|| json!({}))
    };
    merge_patch(&part(&had), &part(&wanted))
}

/// RFC 7386: what has to be merged into `from` to give `to`; lists are replaced.
pub fn merge_patch(from: &Value, to: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (from, to) else {
        return (from != to).then(|| to.clone());
    };
    let mut patch = Map::new();
    for (key, value) in new {
        match old.get(key) {
            None => {
                patch.insert(key.clone(), value.clone());
            }
            Some(before) => {
                if let Some(part) = merge_patch(before, value) {
                    patch.insert(key.clone(), part);
                }
            }
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Writes the difference. See [`Written`].
pub async fn write(client: Client, base: Arc<Pod>, difference: Value) -> Written {
    let pods: Api<Pod> = Api::namespaced(&client, base.pod_namespace());
    let patch = json!({
        "metadata": {
            "uid": base.metadata.uid,
            "resourceVersion": base.metadata.resource_version,
        },
        "status": difference,
    });
    let name = base.pod_name();
    match pods.patch_status(name, PatchKind::Merge, &patch).await {
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
    use super::*;

    #[test]
    fn merge_patches() {
        for (from, to, patch) in [
            (json!({"a": 1}), json!({"a": 1}), None),
            (json!({"a": 1, "b": 2}), json!({"a": 1}), Some(json!({"b": null}))),
            (
                json!({"a": {"x": 1, "y": 2}}),
                json!({"a": {"x": 1, "y": 3}}),
                Some(json!({"a": {"y": 3}})),
            ),
            (json!({"l": [1]}), json!({"l": [1, 2]}), Some(json!({"l": [1, 2]}))),
            (json!({}), json!({"n": {"m": true}}), Some(json!({"n": {"m": true}}))),
        ] {
            assert_eq!(merge_patch(&from, &to), patch);
        }
    }
}
