//! The downward API: `fieldRef` and `resourceFieldRef`, in environment variables and volumes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};

use super::declared::find;
use super::pod_ext::PodExt;
use super::resources;

/// Values for fields that the pod object does not have (yet).
#[derive(Clone, Debug, Default)]
pub struct RuntimeFields {
    pub pod_ips: Vec<IpAddr>,
    pub host_ips: Vec<IpAddr>,
    /// The default for limits that a container does not have, by resource name.
    pub allocatable: BTreeMap<String, Quantity>,
}

/// Why a field has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("unsupported fieldPath: {0}")]
    UnknownPath(String),
    #[error("container {0} not found")]
    NoContainer(String),
    #[error("unsupported container resource : {0}")]
    UnknownResource(String),
}

/// The value of a `fieldRef`.
pub fn field(
    pod: &Pod,
    selector: &ObjectFieldSelector,
    runtime_fields: &RuntimeFields,
) -> Result<String, FieldError> {
    let path = selector.field_path.as_str();
    let spec = pod.spec_ref();
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let join = |ips: &[IpAddr]| {
        let ips: Vec<String> = ips.iter().map(ToString::to_string).collect();
        ips.join(",")
    };
    if let Some(key) = subscript(path, "metadata.labels") {
        return Ok(entry(pod.metadata.labels.as_ref(), key));
    }
    if let Some(key) = subscript(path, "metadata.annotations") {
        return Ok(entry(pod.metadata.annotations.as_ref(), key));
    }
    Ok(match path {
        "metadata.name" => text(&pod.metadata.name),
        "metadata.namespace" => text(&pod.metadata.namespace),
        "metadata.uid" => text(&pod.metadata.uid),
        "metadata.labels" => map(pod.metadata.labels.as_ref()),
        "metadata.annotations" => map(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => text(&spec.node_name),
        "spec.serviceAccountName" => text(&spec.service_account_name),
        "status.hostIP" => {
            runtime_fields.host_ips.first().map(ToString::to_string).unwrap_or_default()
        }
        "status.hostIPs" => join(&runtime_fields.host_ips),
        "status.podIP" => {
            runtime_fields.pod_ips.first().map(ToString::to_string).unwrap_or_default()
        }
        "status.podIPs" => join(&runtime_fields.pod_ips),
        _ => return Err(FieldError::UnknownPath(path.to_owned())),
    })
}

/// `key` of `list['key']`.
fn subscript<'a>(path: &'a str, list: &str) -> Option<&'a str> {
    path.strip_prefix(list)?.strip_prefix("['")?.strip_suffix("']")
}

fn entry(list: Option<&BTreeMap<String, String>>, key: &str) -> String {
    list.and_then(|list| list.get(key)).cloned().unwrap_or_default()
}

/// `key="escaped value"` lines, sorted.
fn map(list: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> =
        list.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

/// The value of a `resourceFieldRef`, for `own` unless it names another container.
pub fn resource(
    pod: &Pod,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
    runtime_fields: &RuntimeFields,
) -> Result<String, FieldError> {
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let container = match named {
        Some(name) => find(pod, name)
            .map(|declared| declared.container)
            .ok_or_else(|| FieldError::NoContainer(name.to_owned()))?,
        None => own.cloned().ok_or_else(|| FieldError::NoContainer(String::new()))?,
    };
    let (kind, name) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| FieldError::UnknownResource(selector.resource.clone()))?;
    let list = container.resources.as_ref();
    let known =
        matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    let amount = match kind {
        _ if !known => return Err(FieldError::UnknownResource(selector.resource.clone())),
        "limits" => resources::limit(list, name)
            .or_else(|| runtime_fields.allocatable.get(name).copied())
            .unwrap_or(Quantity::ZERO),
        "requests" => list
            .and_then(|list| list.requests.as_ref())
            .and_then(|list| list.get(name))
            .map_or(Quantity::ZERO, Quantity::of),
        _ => return Err(FieldError::UnknownResource(selector.resource.clone())),
    };
    let divisor = selector.divisor.as_ref().map_or(Quantity::ZERO, Quantity::of);
    Ok(divided(amount, divisor, name == "cpu").to_string())
}

/// Rounded up; a divisor of zero counts as one.
fn divided(amount: Quantity, divisor: Quantity, cpu: bool) -> i64 {
    let divisor = if divisor.is_zero() { Quantity::from_units(1) } else { divisor };
    let (amount, divisor) = if cpu {
        (amount.millis(), divisor.millis().max(1))
    } else {
        (amount.units(), divisor.units().max(1))
    };
    amount / divisor + i64::from(amount % divisor > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

    fn pod() -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some("web".into());
        pod.metadata.labels =
            Some([("app".into(), "a\"b".into()), ("tier".into(), "x".into())].into());
        pod.spec = Some(PodSpec {
            containers: vec![Container {
                name: "main".into(),
                resources: Some(ResourceRequirements {
                    limits: Some([("cpu".into(), Text("1500m".into()))].into()),
                    requests: Some([("memory".into(), Text("100Mi".into()))].into()),
                    ..Default::default()
                }),
                ..Default::default()
            }],
            ..Default::default()
        });
        pod
    }

    #[test]
    fn fields() {
        let runtime_fields = RuntimeFields {
            pod_ips: vec!["10.1.2.3".parse().unwrap(), "fd00::3".parse().unwrap()],
            ..Default::default()
        };
        for (path, expected) in [
            ("metadata.name", Ok("web")),
            ("metadata.labels['tier']", Ok("x")),
            ("metadata.labels['none']", Ok("")),
            ("metadata.labels", Ok("app=\"a\\\"b\"\ntier=\"x\"")),
            ("status.podIP", Ok("10.1.2.3")),
            ("status.podIPs", Ok("10.1.2.3,fd00::3")),
            ("spec.containers", Err(())),
        ] {
            let selector = ObjectFieldSelector { field_path: path.into(), ..Default::default() };
            let found = field(&pod(), &selector, &runtime_fields).map_err(|_| ());
            assert_eq!(found, expected.map(str::to_owned), "{path}");
        }
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let runtime_fields = RuntimeFields {
            allocatable: [("memory".to_owned(), Quantity::from_bytes(4 << 30))].into(),
            ..Default::default()
        };
        for (resource_name, divisor, expected) in [
            ("limits.cpu", "", "2"),
            ("limits.cpu", "1m", "1500"),
            ("requests.memory", "1Mi", "100"),
            ("requests.memory", "64Mi", "2"),
            ("limits.memory", "1Gi", "4"),
            ("requests.cpu", "1m", "0"),
        ] {
            let pod = pod();
            let selector = ResourceFieldSelector {
                container_name: None,
                divisor: (!divisor.is_empty()).then(|| Text(divisor.into())),
                resource: resource_name.into(),
            };
            let own = &pod.spec_ref().containers[0];
            assert_eq!(
                resource(&pod, Some(own), &selector, &runtime_fields).unwrap(),
                expected,
                "{resource_name}"
            );
        }
    }
}
