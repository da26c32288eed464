//! PodResizeValidator: a resize that the pod's node cannot carry out is refused
//! (`k8s.io/kubernetes/plugin/pkg/admission/podresize`).

use api::object::Object;
use api::pod::{Side, node_name, resources};
use api::quantity::Quantity;
use api::{ApiError, Kind};
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};

use super::attributes::{Attributes, typed};

const OS: &str = "kubernetes.io/os";

/// Checks a resize that changes something.
///
/// # Errors
/// 403.
pub async fn check(
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
) -> Result<(), ApiError> {
    let Some(pod) = typed::<Pod>(object) else {
        return Ok(());
    };
    let before = attributes.old_object().and_then(|old| old.metadata().generation);
    let (Some(name), Some(spec)) = (node_name(pod), &pod.spec) else {
        return Ok(());
    };
    if pod.metadata.generation == before {
        return Ok(());
    }
    let refuse = |why: String| attributes.forbidden(pod, why);
    let found = attributes.call.core.find(Node::ROW, name).await?;
    let found = found.ok_or_else(|| refuse(format!("node {name:?} not found")))?;
    let node = Node::decode(&found.json).map_err(ApiError::internal)?;
    problem(spec, &node).map_or(Ok(()), |why| Err(refuse(why)))
}

/// An amount as upstream compares it.
type Number = fn(Quantity) -> i64;

fn problem(spec: &PodSpec, node: &Node) -> Option<String> {
    let requests = resources(spec, Side::Requests);
    let status = node.status.as_ref();
    let allocatable = status.and_then(|status| status.allocatable.as_ref());
    let missing: Vec<String> = [("cpu", Quantity::millis as Number), ("memory", Quantity::units)]
        .into_iter()
        .filter_map(|(name, number)| {
            let requested = requests.get(name).copied().map_or(0, number);
            let most = allocatable.and_then(|all| all.get(name)).map(Quantity::of);
            let most = most.map_or(0, number);
            (requested > most)
                .then(|| format!("{name}, requested: {requested}, allocatable: {most}"))
        })
        .collect();
    if !missing.is_empty() {
        let missing = missing.join("; ");
        return Some(format!("Node didn't have enough allocatable resources: {missing}"));
    }
    let labels = node.metadata.labels.as_ref();
    let os = labels.and_then(|labels| labels.get(OS)).map(String::as_str).unwrap_or_default();
    let name = node.metadata.name.as_deref().unwrap_or_default();
    (os != "linux")
        .then(|| format!("pod resize is only supported on linux nodes, node {name:?} is {os:?}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn nodes_have_room_and_run_linux() {
        let node = |os: &str, allocatable: Value| {
            let json = json!({"metadata": {"name": "n", "labels": {"kubernetes.io/os": os}},
                "status": {"allocatable": allocatable}});
            Node::decode(json.to_string().as_bytes()).unwrap()
        };
        let requests = json!({"cpu": "1500m", "memory": "1Gi"});
        let json =
            json!({"spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]}});
        let spec = Pod::decode(json.to_string().as_bytes()).unwrap().spec.unwrap();
        for (node, expected) in [
            (node("linux", json!({"cpu": "1500m", "memory": "1Gi"})), None),
            (
                node("linux", json!({"cpu": "1", "memory": "1Gi"})),
                Some(
                    "Node didn't have enough allocatable resources: cpu, requested: 1500, allocatable: 1000",
                ),
            ),
            (
                node("linux", json!({})),
                Some(
                    "Node didn't have enough allocatable resources: cpu, requested: 1500, allocatable: 0; memory, requested: 1073741824, allocatable: 0",
                ),
            ),
            (
                node("windows", json!({"cpu": "2", "memory": "2Gi"})),
                Some("pod resize is only supported on linux nodes, node \"n\" is \"windows\""),
            ),
        ] {
            assert_eq!(problem(&spec, &node).as_deref(), expected);
        }
    }
}
