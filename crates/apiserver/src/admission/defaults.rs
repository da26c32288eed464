//! Small mutating plugins: DefaultTolerationSeconds, DefaultStorageClass, DefaultIngressClass,
//! StorageObjectInUseProtection, TaintNodesByCondition.

use api::object::Object;
use api::storage_class::{BETA_CLASS, DEFAULT_ANNOTATIONS};
use api::{ApiError, Kind, KindRow};
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod, Taint, Toleration};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::api::storage::v1::StorageClass;

use super::attributes::Attributes;
use crate::cache::Filter;
use crate::core::Call;
use crate::scan;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const DEFAULT_INGRESS_CLASS: [&str; 1] = ["ingressclass.kubernetes.io/is-default-class"];
const OLD_INGRESS_CLASS: &str = "kubernetes.io/ingress.class";

/// Adds the two default tolerations unless the pod already tolerates these taints.
///
/// # Errors
/// None.
pub fn tolerations(attributes: &Attributes<'_>, object: &mut dyn Object) -> Result<(), ApiError> {
    let Some(spec) = object.downcast_mut::<Pod>().and_then(|pod| pod.spec.as_mut()) else {
        return Ok(());
    };
    let settings = &attributes.call.core.admission.settings;
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, seconds) in [
        (NOT_READY, settings.not_ready_toleration_seconds),
        (UNREACHABLE, settings.unreachable_toleration_seconds),
    ] {
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
                toleration_seconds: Some(seconds),
                value: None,
            });
        }
    }
    Ok(())
}

/// Gives a claim without a class the default one.
///
/// # Errors
/// None.
pub fn storage_class(attributes: &Attributes<'_>, object: &mut dyn Object) -> Result<(), ApiError> {
    let Some(claim) = object.downcast_mut::<PersistentVolumeClaim>() else {
        return Ok(());
    };
    let Some(spec) = claim.spec.as_mut() else {
        return Ok(());
    };
    let annotations = claim.metadata.annotations.as_ref();
    let of_old = annotations.is_some_and(|all| all.contains_key(BETA_CLASS));
    if spec.storage_class_name.is_none() && !of_old {
        let default = default_of(attributes.call, StorageClass::ROW, &DEFAULT_ANNOTATIONS);
        spec.storage_class_name = default;
    }
    Ok(())
}

/// Gives an Ingress without a class the default one.
///
/// # Errors
/// None.
pub fn ingress_class(attributes: &Attributes<'_>, object: &mut dyn Object) -> Result<(), ApiError> {
    let Some(ingress) = object.downcast_mut::<Ingress>() else {
        return Ok(());
    };
    let annotations = ingress.metadata.annotations.as_ref();
    let of_old = annotations.is_some_and(|all| all.contains_key(OLD_INGRESS_CLASS));
    let spec = ingress.spec.get_or_insert_default();
    if spec.ingress_class_name.is_none() && !of_old {
        let default = default_of(attributes.call, IngressClass::ROW, &DEFAULT_INGRESS_CLASS);
        spec.ingress_class_name = default;
    }
    Ok(())
}

/// The class that one of the annotations marks as the default; of several, the newest.
fn default_of(call: Call<'_>, row: &'static KindRow, marks: &[&str]) -> Option<String> {
    let filter = Filter::everything(row, "");
    let classes = call.core.cache.resource(row).list(&filter);
    let default = classes
        .iter()
        .filter(|class| {
            let annotations = scan::at_path(&class.json, "metadata.annotations").unwrap_or(b"{}");
            marks.iter().any(|mark| scan::string(annotations, mark) == "true")
        })
        .max_by_key(|class| {
            let created = scan::at_path(&class.json, "metadata.creationTimestamp");
            (created.map(scan::scalar), std::cmp::Reverse(class.name.clone()))
        });
    default.map(|class| class.name.to_string())
}

/// StorageObjectInUseProtection: the finalizer that keeps a claim or a volume from being removed
/// while it is in use. Its controllers remove it.
///
/// # Errors
/// None.
pub fn protection(_: &Attributes<'_>, object: &mut dyn Object) -> Result<(), ApiError> {
    let finalizer = match &*object.row().plural {
        "persistentvolumeclaims" => "kubernetes.io/pvc-protection",
        "persistentvolumes" => "kubernetes.io/pv-protection",
        _ => return Ok(()),
    };
    let finalizers = object.metadata_mut().finalizers.get_or_insert_default();
    if !finalizers.iter().any(|own| own == finalizer) {
        finalizers.push(finalizer.to_owned());
    }
    Ok(())
}

/// A new node takes no pods until it is ready.
///
/// # Errors
/// None.
pub fn taint(_: &Attributes<'_>, object: &mut dyn Object) -> Result<(), ApiError> {
    let Some(node) = object.downcast_mut::<Node>() else {
        return Ok(());
    };
    let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
    if !taints.iter().any(|taint| taint.key == NOT_READY && taint.effect == "NoSchedule") {
        taints.push(Taint {
            key: NOT_READY.to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        });
    }
    Ok(())
}
