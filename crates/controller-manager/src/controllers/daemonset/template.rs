//! The pod of a DaemonSet for one node, and which nodes may run it
//! (`k8s.io/kubernetes/pkg/controller/daemon/util`).

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};

use crate::machinery::hash::with_label;
use crate::machinery::node_match::{affinity_allows, untolerated};
use crate::machinery::owner;
use crate::machinery::pod_control;
use crate::machinery::revisions::HASH_LABEL;

const NAME_FIELD: &str = "metadata.name";
/// How often the template has changed, as counted by the apiserver, and the label of pods with it:
/// both from before there were hashes.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
const GENERATION_LABEL: &str = "pod-template-generation";

/// Taints that every daemon pod tolerates, with their effects.
const TOLERATED: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const TOLERATED_ON_HOST_NETWORK: (&str, &str) =
    ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// The template's tolerations and those of every daemon pod.
fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut tolerations = spec.tolerations.clone().unwrap_or_default();
    let host = (spec.host_network == Some(true)).then_some(&TOLERATED_ON_HOST_NETWORK);
    for (key, effect) in TOLERATED.iter().chain(host) {
        let toleration = Toleration {
            key: Some((*key).into()),
            operator: Some("Exists".into()),
            effect: Some((*effect).into()),
            ..Default::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    tolerations
}

/// Whether a pod should run on the node, and whether one that runs there already may stay.
pub fn suits(set: &DaemonSet, node: &Node) -> (bool, bool) {
    let empty = PodSpec::default();
    let spec = set.spec.template.spec.as_ref().unwrap_or(&empty);
    let named = spec.node_name.as_deref().filter(|name| !name.is_empty());
    if named.is_some_and(|name| Some(name) != node.metadata.name.as_deref())
        || !affinity_allows(spec, node)
    {
        return (false, false);
    }
    let tolerations = tolerations(spec);
    if untolerated(node, &tolerations, &["NoExecute"]).is_some() {
        return (false, false);
    }
    let may_start = untolerated(node, &tolerations, &["NoSchedule"]).is_none();
    (may_start, true)
}

/// The pod for a node: its affinity names the node, and the scheduler binds it.
pub fn pod_for(set: &DaemonSet, node: &str, hash: &str) -> Pod {
    let metadata = &set.metadata;
    let mut pod = pod_control::from_template(
        &set.spec.template,
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
        owner::reference(set),
    );
    let mut labels = with_label(pod.metadata.labels.as_ref(), HASH_LABEL, hash);
    if let Some(generation) = template_generation(set) {
        labels.insert(GENERATION_LABEL.into(), generation.to_string());
    }
    pod.metadata.labels = Some(labels);
    let spec = pod.spec.get_or_insert_default();
    spec.tolerations = Some(tolerations(spec));
    let affinity = spec.affinity.get_or_insert_with(Affinity::default);
    let affinity = affinity.node_affinity.get_or_insert_default();
    let required =
        affinity.required_during_scheduling_ignored_during_execution.get_or_insert_default();
    // The template's own terms have been evaluated for this node already.
    required.node_selector_terms = vec![NodeSelectorTerm {
        match_expressions: None,
        match_fields: Some(vec![NodeSelectorRequirement {
            key: NAME_FIELD.into(),
            operator: "In".into(),
            values: Some(vec![node.to_owned()]),
        }]),
    }];
    pod
}

fn template_generation(set: &DaemonSet) -> Option<i64> {
    set.metadata.annotations.as_ref()?.get(TEMPLATE_GENERATION)?.parse().ok()
}

/// The node that a pod runs on or was created for.
pub fn target_node(pod: &Pod) -> Option<&str> {
    if let Some(name) = api::pod::node_name(pod) {
        return Some(name);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields =
        required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let mut names = fields.filter(|field| field.key == NAME_FIELD && field.operator == "In");
    names.find_map(|field| field.values.as_ref()?.first().map(String::as_str))
}
