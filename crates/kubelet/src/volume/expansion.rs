//! The node's part of an expansion: it gives an image the size of its volume, and tells in the
//! claim's status how far that is (`NodeExpander` in `pkg/volume/util/operationexecutor`).

use api::local_path;
use api::quantity::Quantity;
use api::{Kind, strategic};
use client::{Api, PatchKind};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimCondition, PersistentVolumeClaimStatus, Pod,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::claim::{BoundVolume, Claimed};
use super::sync::blocking;
use super::{VolumeError, VolumeManager};

const STORAGE: &str = "storage";
const IN_PROGRESS: &str = "NodeResizeInProgress";
const INFEASIBLE: &str = "NodeResizeInfeasible";
const NODE_ERROR: &str = "NodeResizeError";
/// Conditions of a claim that its new size ends.
const CONDITIONS: [&str; 4] =
    ["Resizing", "FileSystemResizePending", "ControllerResizeError", NODE_ERROR];

/// How far the node is.
#[derive(Clone, Debug)]
enum Progress {
    Begun,
    /// It may succeed when it is tried again.
    Failed(String),
    /// The node has no room for it.
    Infeasible(String),
    Done(Option<Text>),
}

impl VolumeManager {
    /// Gives a mounted image the size of its volume, and records that in the claim's status. A
    /// failure leaves it as it is, for the next attempt: the pod goes on. Returns whether it is to
    /// be tried again.
    pub(super) async fn grow(&self, pod: &Pod, claimed: &Claimed) -> bool {
        let BoundVolume::OnDemand(volume) = &claimed.place else {
            return false;
        };
        let state = state(claimed.claim.status.as_ref());
        let of_controller = state.is_some_and(|state| state.starts_with("Controller"));
        if !local_path::grows_on_node(&claimed.volume) || !is_smaller(claimed) || of_controller {
            return false;
        }
        let name = claimed.volume.metadata.name.as_deref().unwrap_or_default();
        let grown = self.try_to_grow(claimed, volume.clone()).await;
        match grown {
            Ok(false) => false,
            Ok(true) => {
                let message = format!(
                    "MountVolume.NodeExpandVolume succeeded for volume {name:?} {}",
                    self.node_name
                );
                self.recorder.normal(pod, "FileSystemResizeSuccessful", message.clone());
                self.recorder.normal(&claimed.claim, "FileSystemResizeSuccessful", message);
                false
            }
            Err(error) => {
                let message =
                    format!("MountVolume.NodeExpandVolume failed for volume {name:?} : {error}");
                self.recorder.warning(pod, "VolumeResizeFailed", message);
                true
            }
        }
    }

    /// False: it takes a new pod, as the claim says already.
    async fn try_to_grow(
        &self,
        claimed: &Claimed,
        volume: super::local_path::LocalVolume,
    ) -> Result<bool, VolumeError> {
        let (store, wanted) = (self.store.clone(), volume.clone());
        let waits = blocking(move || store.waits_for_mount(&wanted)).await?;
        let mut claim = claimed.claim.clone();
        // What was infeasible stays so until it is not.
        if !waits && state(claim.status.as_ref()) != Some(INFEASIBLE) {
            claim = self.report(claim, Progress::Begun).await?;
        }
        let store = self.store.clone();
        match blocking(move || store.grow(&volume)).await {
            Ok(true) => {
                let spec = claimed.volume.spec.as_ref();
                let capacity = spec.and_then(|spec| spec.capacity.as_ref());
                let size = capacity.and_then(|capacity| capacity.get(STORAGE)).cloned();
                self.report(claim, Progress::Done(size)).await?;
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(error) => {
                let message = format!("failed to expand pvc with {error}");
                let progress = match error.is_disk_full() {
                    true => Progress::Infeasible(message),
                    false => Progress::Failed(message),
                };
                self.report(claim, progress).await?;
                Err(error)
            }
        }
    }

    /// Writes the claim's status if that changes it.
    async fn report(
        &self,
        claim: PersistentVolumeClaim,
        progress: Progress,
    ) -> Result<PersistentVolumeClaim, client::Error> {
        let before = claim.status.clone().unwrap_or_default();
        let after = status_after(&before, progress, self.clock.now());
        let difference = strategic::two_way(&encoded(before), &encoded(after), None);
        if difference == json!({}) {
            return Ok(claim);
        }
        let metadata = &claim.metadata;
        let patch = json!({
            "metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version},
            "status": difference,
        });
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(&self.client, namespace);
        let name = metadata.name.as_deref().unwrap_or_default();
        claims.patch_status(name, PatchKind::Merge, &patch).await
    }
}

fn encoded(status: PersistentVolumeClaimStatus) -> Value {
    let claim = PersistentVolumeClaim { status: Some(status), ..Default::default() };
    let value: Value = serde_json::from_slice(&claim.encode()).expect("it was encoded just now");
    value.get("status").cloned().unwrap_or_else(|| json!({}))
}

fn state(status: Option<&PersistentVolumeClaimStatus>) -> Option<&str> {
    let states = status.and_then(|status| status.allocated_resource_statuses.as_ref());
    states.and_then(|states| states.get(STORAGE)).map(String::as_str)
}

/// The status of a claim whose expansion is this far. The controller has written the rest.
fn status_after(
    before: &PersistentVolumeClaimStatus,
    progress: Progress,
    now: Timestamp,
) -> PersistentVolumeClaimStatus {
    let mut status = before.clone();
    let conditions = status.conditions.get_or_insert_default();
    let states = status.allocated_resource_statuses.get_or_insert_default();
    match &progress {
        Progress::Begun => {
            states.insert(STORAGE.to_owned(), IN_PROGRESS.to_owned());
        }
        Progress::Failed(message) | Progress::Infeasible(message) => {
            if matches!(progress, Progress::Infeasible(_)) {
                states.insert(STORAGE.to_owned(), INFEASIBLE.to_owned());
            }
            let text = Some(message);
            let known = conditions.iter().find(|one| one.type_ == NODE_ERROR).cloned();
            let known = known.filter(|known| known.message.as_ref() == text);
            let since = known.and_then(|known| known.last_transition_time);
            conditions.retain(|one| !CONDITIONS.contains(&one.type_.as_str()));
            conditions.push(PersistentVolumeClaimCondition {
                type_: NODE_ERROR.to_owned(),
                status: "True".to_owned(),
                message: text.cloned(),
                last_transition_time: since.or(Some(Time(now))),
                ..Default::default()
            });
        }
        Progress::Done(size) => {
            states.remove(STORAGE);
            conditions.retain(|one| !CONDITIONS.contains(&one.type_.as_str()));
            if let Some(size) = size {
                status.capacity.get_or_insert_default().insert(STORAGE.to_owned(), size.clone());
            }
        }
    }
    // As the apiserver keeps it: nothing instead of an empty list.
    status.conditions = status.conditions.filter(|conditions| !conditions.is_empty());
    status.allocated_resource_statuses =
        status.allocated_resource_statuses.filter(|states| !states.is_empty());
    status
}

/// Whether the claim is told less than its volume has.
fn is_smaller(claimed: &Claimed) -> bool {
    let status = claimed.claim.status.as_ref();
    let capacity = status.and_then(|status| status.capacity.as_ref());
    let told = capacity.and_then(|capacity| capacity.get(STORAGE)).map(Quantity::of);
    let told = told.unwrap_or_default().units();
    u64::try_from(told).unwrap_or(0) < local_path::size_bytes(&claimed.volume)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: &Value) -> PersistentVolumeClaimStatus {
        let claim = json!({"metadata": {"name": "data"}, "status": status}).to_string();
        PersistentVolumeClaim::decode(claim.as_bytes()).unwrap().status.unwrap()
    }

    #[test]
    fn a_status_tells_how_far_the_node_is() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let other = json!({"type": "Own", "status": "True"});
        let error = |text: &str| {
            json!({"type": "NodeResizeError", "status": "True", "message": text,
                "lastTransitionTime": "1970-01-01T00:00:10Z"})
        };
        let pending = read(&json!({
            "capacity": {"storage": "1Gi"}, "allocatedResources": {"storage": "2Gi"},
            "allocatedResourceStatuses": {"storage": "NodeResizePending"},
            "conditions": [other, {"type": "FileSystemResizePending", "status": "True"}],
        }));
        let begun = status_after(&pending, Progress::Begun, at(0));
        assert_eq!(state(Some(&begun)), Some(IN_PROGRESS));
        assert_eq!(begun.conditions, pending.conditions, "they change with the outcome");

        let failed = status_after(&begun, Progress::Failed("busy".into()), at(10));
        assert_eq!(state(Some(&failed)), Some(IN_PROGRESS));
        let full = status_after(&begun, Progress::Infeasible("full".into()), at(10));
        let expected = read(&json!({
            "capacity": {"storage": "1Gi"}, "allocatedResources": {"storage": "2Gi"},
            "allocatedResourceStatuses": {"storage": "NodeResizeInfeasible"},
            "conditions": [other, error("full")],
        }));
        assert_eq!(full, expected);
        let again = status_after(&full, Progress::Infeasible("full".into()), at(20));
        assert_eq!(again, full, "nothing is written for the same failure");

        let done = status_after(&full, Progress::Done(Some(Text("2Gi".into()))), at(30));
        let expected = read(&json!({
            "capacity": {"storage": "2Gi"}, "allocatedResources": {"storage": "2Gi"},
            "conditions": [other],
        }));
        assert_eq!(done, expected);
    }
}
