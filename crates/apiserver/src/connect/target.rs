//! Resolves a stream's target: which container of which pod on which node
//! (`k8s.io/kubernetes/pkg/registry/core/pod/strategy.go`).

use api::{ApiError, Kind};
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::core::Call;

/// The pod and, once it has been bound, its node.
pub struct PodOnNode {
    pub pod: Pod,
    pub node: Option<Node>,
}

/// Looks up pod and node.
///
/// # Errors
/// 404.
pub async fn find(call: Call<'_>) -> Result<PodOnNode, ApiError> {
    let version = call.current().await?;
    let pod = Pod::decode(&version.json).map_err(ApiError::internal)?;
    let name = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let node = if name.is_empty() { None } else { call.core.find(Node::ROW, &name).await? };
    let node = node.map(|node| Node::decode(&node.json)).transpose().map_err(ApiError::internal)?;
    Ok(PodOnNode { pod, node })
}

/// The target container: the one named, or the only one.
///
/// # Errors
/// 400 when there are several to choose from, or none of that name.
pub fn container(pod: &Pod, asked: Option<&str>) -> Result<String, ApiError> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let Some(spec) = &pod.spec else {
        return Err(ApiError::bad_request(format!("pod {name} has no containers")));
    };
    let regular: Vec<&str> = spec.containers.iter().map(|c| c.name.as_str()).collect();
    let init: Vec<&str> = spec.init_containers.iter().flatten().map(|c| c.name.as_str()).collect();
    let mut ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| c.name.as_str());
    match asked.filter(|asked| !asked.is_empty()) {
        Some(asked) => {
            let known =
                regular.contains(&asked) || init.contains(&asked) || ephemeral.any(|c| c == asked);
            if known {
                Ok(asked.to_owned())
            } else {
                Err(ApiError::bad_request(format!("container {asked} is not valid for pod {name}")))
            }
        }
        None if regular.len() == 1 => Ok(regular[0].to_owned()),
        None => {
            let mut text = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                regular.join(" ")
            );
            if !init.is_empty() {
                text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(ApiError::bad_request(text))
        }
    }
}

/// The node of a pod that must be running for a session.
///
/// # Errors
/// 400 when the pod has not started or has ended.
pub fn running_node(found: &PodOnNode) -> Result<&Node, ApiError> {
    let name = found.pod.metadata.name.as_deref().unwrap_or_default();
    let phase = found.pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if let Some(phase @ ("Succeeded" | "Failed")) = phase {
        return Err(ApiError::bad_request(format!(
            "cannot exec into a container in a completed pod; current phase is {phase}"
        )));
    }
    found
        .node
        .as_ref()
        .ok_or_else(|| ApiError::bad_request(format!("pod {name} does not have a host assigned")))
}
