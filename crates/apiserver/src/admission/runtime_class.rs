//! RuntimeClass: what a pod gets from its class
//! (`k8s.io/kubernetes/plugin/pkg/admission/runtimeclass`).

use std::collections::BTreeMap;

use api::object::Object;
use api::quantity::Quantity;
use api::{ApiError, Kind};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::attributes::Attributes;

type Amounts = BTreeMap<String, Text>;

/// Gives the pod its class's overhead, node selector and tolerations.
///
/// # Errors
/// 403 for a class that does not exist, or that conflicts with the pod.
pub async fn complete(
    attributes: &Attributes<'_>,
    object: &mut dyn Object,
) -> Result<(), ApiError> {
    let spec = object.downcast_ref::<Pod>().and_then(|pod| pod.spec.as_ref());
    let name = spec.and_then(|spec| spec.runtime_class_name.clone()).unwrap_or_default();
    let class = if name.is_empty() {
        None
    } else {
        let found = attributes.call.core.find(RuntimeClass::ROW, &name).await?;
        let version = found.ok_or_else(|| {
            let why = format!("pod rejected: RuntimeClass {name:?} not found");
            attributes.forbidden(object, why)
        })?;
        Some(RuntimeClass::decode(&version.json).map_err(ApiError::internal)?)
    };
    let Some(spec) = object.downcast_mut::<Pod>().and_then(|pod| pod.spec.as_mut()) else {
        return Ok(());
    };
    apply(spec, class.as_ref()).map_err(|why| attributes.forbidden(object, why))
}

/// # Errors
/// Why the class and the pod conflict.
fn apply(spec: &mut PodSpec, class: Option<&RuntimeClass>) -> Result<(), String> {
    let fixed = class
        .and_then(|class| class.overhead.as_ref())
        .and_then(|overhead| overhead.pod_fixed.clone());
    let own = spec.overhead.as_ref().filter(|own| !own.is_empty());
    match (&fixed, own) {
        (Some(fixed), Some(own)) if !same(fixed, own) => {
            return Err(
                "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
                    .to_owned(),
            );
        }
        (None, Some(_)) => {
            return Err(
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
                    .to_owned(),
            );
        }
        (Some(_), _) => spec.overhead = fixed,
        (None, None) => {}
    }
    let Some(scheduling) = class.and_then(|class| class.scheduling.as_ref()) else {
        return Ok(());
    };
    for (key, value) in scheduling.node_selector.iter().flatten() {
        let selector = spec.node_selector.get_or_insert_default();
        let own = selector.entry(key.clone()).or_insert_with(|| value.clone());
        if own != value {
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {own}"
            ));
        }
    }
    for toleration in scheduling.tolerations.iter().flatten() {
        let tolerations = spec.tolerations.get_or_insert_default();
        if !tolerations.contains(toleration) {
            tolerations.push(toleration.clone());
        }
    }
    Ok(())
}

fn same(left: &Amounts, right: &Amounts) -> bool {
    left.len() == right.len()
        && left.iter().all(|(name, amount)| {
            let other = right.get(name).map(Quantity::of);
            other == Some(Quantity::of(amount))
        })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_class_changes_its_pods() {
        let class = json!({
            "handler": "kata",
            "overhead": {"podFixed": {"cpu": "250m"}},
            "scheduling": {"nodeSelector": {"kata": "yes"}, "tolerations": [{"key": "kata", "operator": "Exists"}]},
        });
        let class = RuntimeClass::decode(class.to_string().as_bytes()).unwrap();
        let applied = |spec: Value, class: Option<&RuntimeClass>| {
            let json = json!({"spec": spec}).to_string();
            let mut pod = Pod::decode(json.as_bytes()).unwrap();
            apply(pod.spec.get_or_insert_default(), class).map(|()| {
                let json: Value = serde_json::from_slice(&Kind::encode(&pod)).unwrap();
                json["spec"].clone()
            })
        };
        let shaped = applied(json!({"containers": [], "overhead": {"cpu": "0.25"}}), Some(&class));
        let shaped = shaped.unwrap();
        assert_eq!(shaped["overhead"], json!({"cpu": "250m"}));
        assert_eq!(shaped["nodeSelector"], json!({"kata": "yes"}));
        assert_eq!(shaped["tolerations"][0]["key"], "kata");
        for (spec, class, problem) in [
            (
                json!({"containers": [], "overhead": {"cpu": "1"}}),
                Some(&class),
                "Pod's Overhead doesn't match",
            ),
            (
                json!({"containers": [], "overhead": {"cpu": "1"}}),
                None,
                "Overhead set without corresponding",
            ),
            (
                json!({"containers": [], "nodeSelector": {"kata": "no"}}),
                Some(&class),
                "conflict: runtimeClass.scheduling.nodeSelector[kata] = yes; pod.spec.nodeSelector[kata] = no",
            ),
        ] {
            let error = applied(spec, class).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }
}
