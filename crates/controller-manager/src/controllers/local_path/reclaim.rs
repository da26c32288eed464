//! What becomes of a volume whose claim is gone: pure functions.

use api::local_path::{FINALIZER, node_of};
use k8s_openapi::api::core::v1::PersistentVolume;

use super::is_ours;
use crate::machinery::owner::is_deleting;

#[derive(Debug, PartialEq, Eq)]
pub enum ReclaimPlan {
    Nothing,
    /// Request the deletion; the node removes the contents, then the finalizer.
    Delete,
    /// Remove the finalizer: the contents stay, because of the policy or because the node is gone,
    /// which is the warning.
    Forget(Option<String>),
}

pub fn plan_reclaim(volume: &PersistentVolume, node_exists: bool) -> ReclaimPlan {
    if !is_ours(volume) {
        return ReclaimPlan::Nothing;
    }
    let spec = volume.spec.as_ref();
    let policy = spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let held = volume.metadata.finalizers.iter().flatten().any(|one| one == FINALIZER);
    match (is_deleting(&volume.metadata), policy) {
        (false, Some("Delete")) if matches!(phase, Some("Released" | "Failed")) => {
            ReclaimPlan::Delete
        }
        (true, _) if !held || phase == Some("Bound") => ReclaimPlan::Nothing,
        (true, Some("Delete")) if node_exists => ReclaimPlan::Nothing,
        (true, Some("Delete")) => {
            let node = node_of(volume).unwrap_or_default();
            ReclaimPlan::Forget(Some(format!(
                "node {node:?} does not exist: what it kept of the volume is not removed"
            )))
        }
        (true, _) => ReclaimPlan::Forget(None),
        (false, _) => ReclaimPlan::Nothing,
    }
}
