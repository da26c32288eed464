//! Priority: the number behind a pod's PriorityClass
//! (`k8s.io/kubernetes/plugin/pkg/admission/priority`).

use api::object::Object;
use api::{ApiError, Kind};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1::PriorityClass;

use super::attributes::Attributes;
use crate::cache::Filter;
use crate::core::Call;
use crate::scan;

/// The classes that the apiserver itself creates.
const SYSTEM_CLASSES: &[&str] = &["system-cluster-critical", "system-node-critical"];

/// Sets the pod's priority and preemption policy. An update that names none keeps the pod's.
///
/// # Errors
/// 403 for a class that does not exist, or a priority that is not the class's.
pub async fn complete(
    attributes: &Attributes<'_>,
    object: &mut dyn Object,
) -> Result<(), ApiError> {
    let call = attributes.call;
    let Some(pod) = object.downcast_mut::<Pod>() else {
        return Ok(());
    };
    if let Some(old) = attributes.old_object() {
        if let Some(old) = old.downcast_ref() {
            keep(pod, old);
        }
        return Ok(());
    }
    let asked = pod.spec.as_ref().and_then(|spec| spec.priority_class_name.clone());
    let asked = asked.unwrap_or_default();
    let class = if asked.is_empty() {
        default_class(call)
    } else {
        let found = call.core.find(PriorityClass::ROW, &asked).await?;
        let version = found.ok_or_else(|| {
            let why = format!("no PriorityClass with name {asked} was found");
            attributes.forbidden(&*pod, why)
        })?;
        Some(PriorityClass::decode(&version.json).map_err(ApiError::internal)?)
    };
    let checked = assign(pod, class);
    checked.map_err(|why| attributes.forbidden(&*pod, why))
}

/// # Errors
/// What the pod says of its priority that is not its class's.
fn assign(pod: &mut Pod, class: Option<PriorityClass>) -> Result<(), String> {
    let Some(spec) = pod.spec.as_mut() else {
        return Ok(());
    };
    let value = class.as_ref().map_or(0, value_of);
    let policy = class.as_ref().and_then(|class| class.preemption_policy.clone());
    let policy = policy.unwrap_or_else(|| "PreemptLowerPriority".to_owned());
    if let Some(own) = spec.priority.filter(|own| *own != value) {
        return Err(format!(
            "the integer value of priority ({own}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        ));
    }
    if let Some(own) = spec.preemption_policy.as_ref().filter(|own| **own != policy) {
        return Err(format!(
            "the string value of PreemptionPolicy ({own}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        ));
    }
    if spec.priority_class_name.as_ref().is_none_or(String::is_empty) {
        spec.priority_class_name = class.and_then(|class| class.metadata.name);
    }
    spec.priority = Some(value);
    spec.preemption_policy = Some(policy);
    Ok(())
}

/// An update that names no priority keeps the pod's: admission had set it.
fn keep(pod: &mut Pod, old: &Pod) {
    let (Some(spec), Some(was)) = (pod.spec.as_mut(), &old.spec) else {
        return;
    };
    spec.priority = spec.priority.or(was.priority);
    if spec.preemption_policy.is_none() {
        spec.preemption_policy.clone_from(&was.preemption_policy);
    }
}

/// Checks a deletion: pods of the system refer to its classes.
///
/// # Errors
/// 403 for a class of the system.
pub fn check_delete(call: Call<'_>, object: &dyn Object) -> Result<(), ApiError> {
    let name = object.metadata().name.as_deref().unwrap_or_default();
    if object.row() == PriorityClass::ROW && SYSTEM_CLASSES.contains(&name) {
        let problem = "this is a system priority class and cannot be deleted";
        return Err(ApiError::forbidden(call.row(), name, problem));
    }
    Ok(())
}

fn value_of(class: &PriorityClass) -> i32 {
    class.value.unwrap_or_default()
}

/// Checks a class that is to be the global default: there can be only one.
///
/// # Errors
/// 403 when there is another.
pub fn check_class(attributes: &Attributes<'_>, object: &dyn Object) -> Result<(), ApiError> {
    let class = object.downcast_ref::<PriorityClass>();
    let Some(class) = class.filter(|class| class.global_default == Some(true)) else {
        return Ok(());
    };
    let call = attributes.call;
    let name = class.metadata.name.as_deref().unwrap_or_default();
    let other =
        default_class(call).and_then(|default| default.metadata.name).filter(|other| other != name);
    match other {
        Some(other) => Err(attributes.forbidden(
            class,
            format!(
                "PriorityClass {other} is already marked as default. Only one default can exist"
            ),
        )),
        None => Ok(()),
    }
}

/// The global default; of several, the one of the lowest value.
fn default_class(call: Call<'_>) -> Option<PriorityClass> {
    let filter = Filter::everything(PriorityClass::ROW, "");
    let classes = call.core.cache.resource(PriorityClass::ROW).list(&filter);
    classes
        .iter()
        .filter(|version| scan::at_path(&version.json, "globalDefault") == Some(b"true"))
        .filter_map(|version| PriorityClass::decode(&version.json).ok())
        .min_by_key(value_of)
}
