//! Where pods run, as labels tell it: PodTopologyLabels, and LimitPodHardAntiAffinityTopology
//! (`k8s.io/kubernetes/plugin/pkg/admission/{podtopologylabels,antiaffinity}`).

use std::collections::BTreeMap;

use api::object::Object;
use api::{ApiError, Kind};
use k8s_openapi::api::core::v1::{Binding, Node, Pod};

use super::attributes::Attributes;
use crate::core::Call;
use crate::scan;

/// Labels of a node that its pods get.
const COPIED: &[&str] = &["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Gives a pod the labels of its node: when it is bound, or when it is created with one.
///
/// # Errors
/// When the store fails.
pub async fn label(attributes: &Attributes<'_>, object: &mut dyn Object) -> Result<(), ApiError> {
    let node = if let Some(pod) = object.downcast_ref::<Pod>() {
        api::pod::node_name(pod)
    } else if let Some(binding) = object.downcast_ref::<Binding>() {
        let target = &binding.target;
        target.name.as_deref().filter(|_| target.kind.as_deref() == Some("Node"))
    } else {
        None
    };
    let Some(node) = node.filter(|node| !node.is_empty()) else {
        return Ok(());
    };
    let copied = labels_of(attributes.call, node).await?;
    if !copied.is_empty() {
        let own = object.metadata_mut().labels.get_or_insert_default();
        for (key, value) in copied {
            own.entry(key).or_insert(value);
        }
    }
    Ok(())
}

async fn labels_of(call: Call<'_>, node: &str) -> Result<BTreeMap<String, String>, ApiError> {
    let Some(node) = call.core.find(Node::ROW, node).await? else {
        return Ok(BTreeMap::new());
    };
    let labels = scan::at_path(&node.json, "metadata.labels");
    let labels = labels.and_then(|labels| serde_json::from_slice(labels).ok());
    let mut labels: BTreeMap<String, String> = labels.unwrap_or_default();
    labels.retain(|key, _| COPIED.contains(&key.as_str()));
    Ok(labels)
}

/// Required anti-affinity keeps pods from nodes, not from whole zones.
///
/// # Errors
/// 403.
pub fn check_anti_affinity(
    attributes: &Attributes<'_>,
    object: &dyn Object,
) -> Result<(), ApiError> {
    let spec = object.downcast_ref::<Pod>().and_then(|pod| pod.spec.as_ref());
    let affinity = spec.and_then(|spec| spec.affinity.as_ref());
    let required = affinity
        .and_then(|affinity| affinity.pod_anti_affinity.as_ref())
        .and_then(|apart| apart.required_during_scheduling_ignored_during_execution.as_ref());
    match required.into_iter().flatten().find(|term| term.topology_key != HOSTNAME) {
        None => Ok(()),
        Some(term) => Err(attributes.forbidden(
            object,
            format!(
                "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {} but only key {HOSTNAME} is allowed",
                term.topology_key
            ),
        )),
    }
}
