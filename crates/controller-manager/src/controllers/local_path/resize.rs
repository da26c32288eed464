//! How a volume gets the size that its claim asks for: pure functions.
//!
//! As with CSI's external resizer. What is a directory has its new size at once; an image is made
//! larger by its node, as the claim's conditions say: at once if it is mounted there, otherwise by the
//! next pod that mounts it.

use std::collections::BTreeMap;

use api::local_path::grows_on_node;
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{
    Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimCondition,
    PersistentVolumeClaimStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::provision::too_small;
use super::{is_bound_to, is_ours};

const STORAGE: &str = "storage";
const PENDING: &str = "FileSystemResizePending";

/// A volume with its new size.
#[derive(Clone, Debug, PartialEq)]
pub struct Resized(pub PersistentVolume);

impl Resized {
    pub fn name(&self) -> &str {
        self.0.metadata.name.as_deref().unwrap_or_default()
    }
}

#[derive(Debug, PartialEq)]
pub enum ResizeStep {
    Fail(String),
    Grow(Box<Resized>),
    /// Write the claim's status, and report that.
    Status {
        status: Box<PersistentVolumeClaimStatus>,
        reason: &'static str,
        message: &'static str,
    },
}

/// The steps that are left, in their order: the node must find the claim marked when it sees the
/// volume's new size.
pub fn plan_resize(
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
    node: Option<&Node>,
    now: &Time,
) -> Vec<ResizeStep> {
    let status = claim.status.clone().unwrap_or_default();
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let requests = requests.and_then(|resources| resources.requests.as_ref());
    let Some(wanted) = requests.and_then(|requests| requests.get(STORAGE)).cloned() else {
        return Vec::new();
    };
    let of = |amounts: Option<&BTreeMap<String, Text>>| {
        amounts.and_then(|amounts| amounts.get(STORAGE)).map(Quantity::of).unwrap_or_default()
    };
    let asked = Quantity::of(&wanted);
    let bound = status.phase.as_deref() == Some("Bound") && is_bound_to(volume, claim);
    if !bound || !is_ours(volume) || asked <= of(status.capacity.as_ref()) {
        return Vec::new();
    }
    let has = of(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()));
    let mut steps = Vec::new();
    if has < asked
        && let Some(why) = node.and_then(|node| too_small(node, asked.units()))
    {
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        return vec![ResizeStep::Fail(format!("resize volume {name} failed: {why}"))];
    }
    let by_node = grows_on_node(volume);
    if by_node && !is_marked(&status, asked) {
        steps.push(ResizeStep::Status {
            status: Box::new(marked(&status, &wanted, now)),
            reason: "FileSystemResizeRequired",
            message: "Require file system resize of volume on node",
        });
    }
    if has < asked {
        let mut larger = volume.clone();
        let capacity = larger.spec.get_or_insert_default().capacity.get_or_insert_default();
        capacity.insert(STORAGE.to_owned(), wanted.clone());
        steps.push(ResizeStep::Grow(Box::new(Resized(larger))));
    }
    if !by_node {
        steps.push(ResizeStep::Status {
            status: Box::new(finished(&status, &wanted)),
            reason: "VolumeResizeSuccessful",
            message: "Resize volume succeeded",
        });
    }
    steps
}

/// Whether the node knows that it has to make the volume this large.
fn is_marked(status: &PersistentVolumeClaimStatus, asked: Quantity) -> bool {
    let allocated = status.allocated_resources.as_ref();
    let allocated = allocated.and_then(|allocated| allocated.get(STORAGE)).map(Quantity::of);
    let state = status.allocated_resource_statuses.as_ref();
    let state = state.and_then(|states| states.get(STORAGE)).map(String::as_str);
    allocated == Some(asked) && matches!(state, Some("NodeResizePending" | "NodeResizeInProgress"))
}

fn is_of_resize(condition: &PersistentVolumeClaimCondition) -> bool {
    ["Resizing", PENDING, "ControllerResizeError", "NodeResizeError"]
        .contains(&condition.type_.as_str())
}

fn marked(
    status: &PersistentVolumeClaimStatus,
    wanted: &Text,
    now: &Time,
) -> PersistentVolumeClaimStatus {
    let mut status = status.clone();
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| !is_of_resize(condition));
    conditions.push(PersistentVolumeClaimCondition {
        type_: PENDING.to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(now.clone()),
        message: Some(
            "Waiting for user to (re-)start a pod to finish file system resize of volume on node."
                .to_owned(),
        ),
        ..Default::default()
    });
    let allocated = status.allocated_resources.get_or_insert_default();
    allocated.insert(STORAGE.to_owned(), wanted.clone());
    let states = status.allocated_resource_statuses.get_or_insert_default();
    states.insert(STORAGE.to_owned(), "NodeResizePending".to_owned());
    status
}

fn finished(status: &PersistentVolumeClaimStatus, wanted: &Text) -> PersistentVolumeClaimStatus {
    let mut status = status.clone();
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| !is_of_resize(condition));
    }
    let allocated = status.allocated_resources.get_or_insert_default();
    allocated.insert(STORAGE.to_owned(), wanted.clone());
    if let Some(states) = &mut status.allocated_resource_statuses {
        states.remove(STORAGE);
    }
    status.capacity.get_or_insert_default().insert(STORAGE.to_owned(), wanted.clone());
    status
}
