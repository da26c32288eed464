//! Small completions: DefaultTolerationSeconds, DefaultStorageClass, TaintNodesByCondition.

use api::Kind;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod, Taint, Toleration};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::cache::Filter;
use crate::core::Call;
use crate::scan;

/// How long a pod stays on a node that is not ready or unreachable, in seconds.
const TOLERATION_SECONDS: i64 = 300;
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// Adds the two default tolerations unless the pod has an opinion.
pub fn tolerations(pod: &mut Pod) {
    let Some(spec) = pod.spec.as_mut() else {
        return;
    };
    let tolerations = spec.tolerations.get_or_insert_default();
    for key in [NOT_READY, UNREACHABLE] {
        let has = tolerations.iter().any(|toleration| {
            let own = toleration.key.as_deref().unwrap_or_default();
            let effect = toleration.effect.as_deref().unwrap_or_default();
            (own == key || own.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        });
        if !has {
            tolerations.push(Toleration {
                key: Some(key.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some("NoExecute".to_owned()),
                toleration_seconds: Some(TOLERATION_SECONDS),
                value: None,
            });
        }
    }
}

/// Gives a claim without a class the default one; of several, the newest.
pub fn storage_class(call: Call<'_>, claim: &mut PersistentVolumeClaim) {
    let Some(spec) = claim.spec.as_mut() else {
        return;
    };
    if spec.storage_class_name.is_some() {
        return;
    }
    let filter = Filter::everything(StorageClass::ROW, "");
    let classes = call.core.cache.resource(StorageClass::ROW).list(&filter);
    let default = classes
        .iter()
        .filter(|class| {
            let annotations = scan::at_path(&class.json, "metadata.annotations").unwrap_or(b"{}");
            scan::string(annotations, DEFAULT_CLASS) == "true"
        })
        .max_by_key(|class| {
            let created = scan::at_path(&class.json, "metadata.creationTimestamp");
            (
                created.map(scan::scalar),
                std::cmp::Reverse(class.name.clone()),
            )
        });
    spec.storage_class_name = default.map(|class| class.name.to_string());
}

/// A new node takes no pods until it is ready.
pub fn taint(node: &mut Node) {
    let taints = node
        .spec
        .get_or_insert_default()
        .taints
        .get_or_insert_default();
    if !taints
        .iter()
        .any(|taint| taint.key == NOT_READY && taint.effect == "NoSchedule")
    {
        taints.push(Taint {
            key: NOT_READY.to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        });
    }
}
