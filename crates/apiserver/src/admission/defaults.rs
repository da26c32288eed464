//! Small mutating plugins: DefaultTolerationSeconds, DefaultStorageClass, DefaultIngressClass,
//! StorageObjectInUseProtection, TaintNodesByCondition.

use api::object::Object;
use api::{Kind, KindRow};
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod, Taint, Toleration};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::cache::Filter;
use crate::core::Call;
use crate::scan;

/// How long a pod stays on a node that is not ready or unreachable, in seconds.
const TOLERATION_SECONDS: i64 = 300;
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const DEFAULT_STORAGE_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const DEFAULT_INGRESS_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";
/// Annotation that named the class before there was a field for it.
const OLD_STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const OLD_INGRESS_CLASS: &str = "kubernetes.io/ingress.class";

/// Adds the two default tolerations unless the pod already tolerates these taints.
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

/// Gives a claim without a class the default one.
pub fn storage_class(call: Call<'_>, claim: &mut PersistentVolumeClaim) {
    let Some(spec) = claim.spec.as_mut() else {
        return;
    };
    let annotations = claim.metadata.annotations.as_ref();
    let of_old = annotations.is_some_and(|all| all.contains_key(OLD_STORAGE_CLASS));
    if spec.storage_class_name.is_none() && !of_old {
        spec.storage_class_name = default_of(call, StorageClass::ROW, DEFAULT_STORAGE_CLASS);
    }
}

/// Gives an Ingress without a class the default one.
pub fn ingress_class(call: Call<'_>, ingress: &mut Ingress) {
    let annotations = ingress.metadata.annotations.as_ref();
    let of_old = annotations.is_some_and(|all| all.contains_key(OLD_INGRESS_CLASS));
    let spec = ingress.spec.get_or_insert_default();
    if spec.ingress_class_name.is_none() && !of_old {
        spec.ingress_class_name = default_of(call, IngressClass::ROW, DEFAULT_INGRESS_CLASS);
    }
}

/// The class annotated as the default; of several, the newest.
fn default_of(call: Call<'_>, row: &'static KindRow, annotation: &str) -> Option<String> {
    let filter = Filter::everything(row, "");
    let classes = call.core.cache.resource(row).list(&filter);
    let default = classes
        .iter()
        .filter(|class| {
            let annotations = scan::at_path(&class.json, "metadata.annotations").unwrap_or(b"{}");
            scan::string(annotations, annotation) == "true"
        })
        .max_by_key(|class| {
            let created = scan::at_path(&class.json, "metadata.creationTimestamp");
            (created.map(scan::scalar), std::cmp::Reverse(class.name.clone()))
        });
    default.map(|class| class.name.to_string())
}

/// StorageObjectInUseProtection: the finalizer that keeps a claim or a volume from being removed
/// while it is in use. Its controllers remove it.
pub fn protection(object: &mut dyn Object) {
    let finalizer = match &*object.row().plural {
        "persistentvolumeclaims" => "kubernetes.io/pvc-protection",
        "persistentvolumes" => "kubernetes.io/pv-protection",
        _ => return,
    };
    let finalizers = object.metadata_mut().finalizers.get_or_insert_default();
    if !finalizers.iter().any(|own| own == finalizer) {
        finalizers.push(finalizer.to_owned());
    }
}

/// A new node takes no pods until it is ready.
pub fn taint(node: &mut Node) {
    let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
    if !taints.iter().any(|taint| taint.key == NOT_READY && taint.effect == "NoSchedule") {
        taints.push(Taint {
            key: NOT_READY.to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        });
    }
}
