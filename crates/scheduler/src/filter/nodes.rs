//! Filters by the node itself: NodeUnschedulable, TaintToleration, NodeAffinity, NodePorts.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::{Code, Filtered};
use crate::plugin::Plugin;
use crate::prepare::Prepared;
use crate::snapshot::Snapshot;

/// NodeUnschedulable: cordoned nodes, unless the pod tolerates the corresponding taint.
pub fn unschedulable(snapshot: &Snapshot, prepared: &Prepared, filtered: &mut Filtered) {
    if snapshot.unschedulable().is_empty() || tolerates_cordon(&prepared.pod.tolerations) {
        return;
    }
    let reason = "node(s) were unschedulable";
    filtered.reject(
        snapshot.unschedulable(),
        Plugin::NodeUnschedulable,
        reason,
        Code::Unresolvable,
    );
}

fn tolerates_cordon(tolerations: &[Toleration]) -> bool {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Default::default()
    };
    tolerated(tolerations, &taint)
}

/// TaintToleration: taints NoSchedule and NoExecute. A node is rejected for its first taint that
/// the pod does not tolerate.
pub fn taints(snapshot: &Snapshot, prepared: &Prepared, filtered: &mut Filtered) {
    for (taint, nodes) in snapshot.taints() {
        if taint.effect == "PreferNoSchedule" || tolerated(&prepared.pod.tolerations, taint) {
            continue;
        }
        let value = taint.value.as_deref().unwrap_or_default();
        let reason = format!("node(s) had untolerated taint {{{}: {value}}}", taint.key);
        filtered.reject(nodes, Plugin::TaintToleration, &reason, Code::Unresolvable);
    }
}

/// Whether one of the tolerations tolerates the taint (`k8s.io/component-helpers/scheduling`).
pub fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| {
        if set(&toleration.effect).is_some_and(|effect| effect != taint.effect)
            || set(&toleration.key).is_some_and(|key| key != taint.key)
        {
            return false;
        }
        match toleration.operator.as_deref().unwrap_or_default() {
            "Exists" => true,
            "" | "Equal" => {
                set(&toleration.key).is_some() && set(&toleration.value) == set(&taint.value)
            }
            _ => false,
        }
    })
}

/// A text that is not empty.
fn set(value: &Option<String>) -> Option<&str> {
    value.as_deref().filter(|value| !value.is_empty())
}

/// NodeAffinity: what the profile adds, then `nodeSelector` and required node affinity.
pub fn affinity(snapshot: &Snapshot, prepared: &Prepared, filtered: &mut Filtered) {
    if let Some(added) = &prepared.profile.arguments.added_terms {
        let reason = "node(s) didn't match scheduler-enforced node affinity";
        let allowed = snapshot.matching_any(added);
        filtered.keep(&allowed, Plugin::NodeAffinity, reason, Code::Unresolvable);
    }
    if let Some(allowed) = &prepared.affine {
        let reason = "node(s) didn't match Pod's node affinity/selector";
        filtered.keep(allowed, Plugin::NodeAffinity, reason, Code::Unresolvable);
    }
}

/// NodePorts: no other pod of the node has the pod's host ports.
pub fn ports(snapshot: &Snapshot, prepared: &Prepared, filtered: &mut Filtered) {
    if !prepared.pod.ports.is_empty() {
        let taken = snapshot.port_conflicts(&prepared.pod.ports);
        let reason = "node(s) didn't have free ports for the requested pod ports";
        filtered.reject(&taken, Plugin::NodePorts, reason, Code::Unschedulable);
    }
}
