//! How a volume gets the size that its claim asks for: pure functions.
//!
//! As with CSI's external resizer. What is a directory has its new size at once; an image is made
//! larger by its node, which the claim's status tells, and the next pod that mounts it, if none has
//! it mounted. A size that the node cannot give is given up when the claim asks for a smaller one
//! ([`target`]): a claim never gets smaller than it is.

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

/// States of an expansion (`status.allocatedResourceStatuses`).
const CONTROLLER_IN_PROGRESS: &str = "ControllerResizeInProgress";
const CONTROLLER_INFEASIBLE: &str = "ControllerResizeInfeasible";
const NODE_PENDING: &str = "NodeResizePending";
const NODE_IN_PROGRESS: &str = "NodeResizeInProgress";
const NODE_INFEASIBLE: &str = "NodeResizeInfeasible";

/// Its conditions.
const RESIZING: &str = "Resizing";
const WAITING: &str = "FileSystemResizePending";
const CONTROLLER_ERROR: &str = "ControllerResizeError";
const NODE_ERROR: &str = "NodeResizeError";

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
    /// Write the claim's status, and report why its volume cannot be that large.
    Fail {
        status: Box<PersistentVolumeClaimStatus>,
        why: String,
    },
    Grow(Box<Resized>),
    /// Write the claim's status, and report that: a reason and a message.
    Status {
        status: Box<PersistentVolumeClaimStatus>,
        event: Option<(&'static str, &'static str)>,
    },
}

/// What counts for the size of a claim's volume.
struct Sizes {
    /// The claim asks for it.
    asked: Text,
    /// The volume has it.
    has: Quantity,
    /// The claim has it.
    told: Quantity,
    /// The last expansion is, or was, to this size.
    allocated: Option<Text>,
    /// How far it is.
    state: Option<String>,
}

fn storage(amounts: Option<&BTreeMap<String, Text>>) -> Option<Text> {
    amounts.and_then(|amounts| amounts.get(STORAGE)).cloned()
}

impl Sizes {
    /// `None`: the claim asks for no size.
    fn of(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<Self> {
        let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
        let asked = storage(resources.and_then(|resources| resources.requests.as_ref()))?;
        let status = claim.status.as_ref();
        let amount = |text: Option<Text>| text.as_ref().map(Quantity::of).unwrap_or_default();
        let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
        let states = status.and_then(|status| status.allocated_resource_statuses.as_ref());
        Some(Self {
            asked,
            has: amount(storage(capacity)),
            told: amount(storage(status.and_then(|status| status.capacity.as_ref()))),
            allocated: storage(status.and_then(|status| status.allocated_resources.as_ref())),
            state: states.and_then(|states| states.get(STORAGE)).cloned(),
        })
    }

    fn is_allocated(&self, size: &Text) -> bool {
        self.allocated.as_ref().map(Quantity::of) == Some(Quantity::of(size))
    }
}

/// The size that the volume has to get; `None`: it is the node's turn. An expansion that has begun
/// is finished before the next one begins, unless it turned out to be infeasible.
fn target(sizes: &Sizes) -> Option<Text> {
    let begun = || sizes.allocated.clone().unwrap_or_else(|| sizes.asked.clone());
    match sizes.state.as_deref() {
        Some(NODE_PENDING | NODE_IN_PROGRESS) => {
            let begun = begun();
            (sizes.has != Quantity::of(&begun)).then_some(begun)
        }
        // The node tries it again by itself.
        Some(NODE_INFEASIBLE) if sizes.is_allocated(&sizes.asked) => None,
        Some(CONTROLLER_IN_PROGRESS) => Some(begun()),
        _ => Some(sizes.asked.clone()),
    }
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
    let Some(sizes) = Sizes::of(claim, volume) else {
        return Vec::new();
    };
    let bound = status.phase.as_deref() == Some("Bound") && is_bound_to(volume, claim);
    if !bound || !is_ours(volume) || Quantity::of(&sizes.asked) <= sizes.told {
        return Vec::new();
    }
    let Some(size) = target(&sizes) else {
        return Vec::new();
    };
    let why = node.and_then(|node| too_small(node, Quantity::of(&size).units()));
    if why.is_some() && sizes.is_allocated(&size) && is(&sizes, &[CONTROLLER_INFEASIBLE]) {
        return Vec::new();
    }
    let mut steps = Vec::new();
    let mut status = status;
    let by_node = grows_on_node(volume);
    let marked = [CONTROLLER_IN_PROGRESS, NODE_PENDING, NODE_IN_PROGRESS];
    if !sizes.is_allocated(&size) || !is(&sizes, &marked) {
        status = in_state(&status, CONTROLLER_IN_PROGRESS, &size, condition(RESIZING, "", now));
        steps.push(ResizeStep::Status { status: Box::new(status.clone()), event: None });
    }
    if let Some(why) = why {
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let why = format!("resize volume {name} failed: {why}");
        let error = condition(CONTROLLER_ERROR, &format!("failed to expand pvc with {why}"), now);
        let status = Box::new(in_state(&status, CONTROLLER_INFEASIBLE, &size, error));
        steps.push(ResizeStep::Fail { status, why });
        return steps;
    }
    if by_node && !is_pending(&status) {
        let text =
            "Waiting for user to (re-)start a pod to finish file system resize of volume on node.";
        status = in_state(&status, NODE_PENDING, &size, condition(WAITING, text, now));
        steps.push(ResizeStep::Status {
            status: Box::new(status.clone()),
            event: Some((
                "FileSystemResizeRequired",
                "Require file system resize of volume on node",
            )),
        });
    }
    if sizes.has != Quantity::of(&size) {
        let mut resized = volume.clone();
        let capacity = resized.spec.get_or_insert_default().capacity.get_or_insert_default();
        capacity.insert(STORAGE.to_owned(), size.clone());
        steps.push(ResizeStep::Grow(Box::new(Resized(resized))));
    }
    if !by_node {
        steps.push(ResizeStep::Status {
            status: Box::new(finished(&status, &size)),
            event: Some(("VolumeResizeSuccessful", "Resize volume succeeded")),
        });
    }
    steps
}

fn is(sizes: &Sizes, states: &[&str]) -> bool {
    sizes.state.as_deref().is_some_and(|state| states.contains(&state))
}

/// Whether the node knows that it has to act.
fn is_pending(status: &PersistentVolumeClaimStatus) -> bool {
    let states = status.allocated_resource_statuses.as_ref();
    let state = states.and_then(|states| states.get(STORAGE)).map(String::as_str);
    matches!(state, Some(NODE_PENDING | NODE_IN_PROGRESS))
}

fn is_of_resize(condition: &PersistentVolumeClaimCondition) -> bool {
    [RESIZING, WAITING, CONTROLLER_ERROR, NODE_ERROR].contains(&condition.type_.as_str())
}

fn condition(type_: &str, message: &str, now: &Time) -> PersistentVolumeClaimCondition {
    PersistentVolumeClaimCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(now.clone()),
        message: Some(message.to_owned()).filter(|message| !message.is_empty()),
        ..Default::default()
    }
}

/// The expansion to `size` is in this state, with this condition in place of others.
fn in_state(
    status: &PersistentVolumeClaimStatus,
    state: &str,
    size: &Text,
    condition: PersistentVolumeClaimCondition,
) -> PersistentVolumeClaimStatus {
    let mut status = status.clone();
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| !is_of_resize(condition));
    conditions.push(condition);
    let allocated = status.allocated_resources.get_or_insert_default();
    allocated.insert(STORAGE.to_owned(), size.clone());
    let states = status.allocated_resource_statuses.get_or_insert_default();
    states.insert(STORAGE.to_owned(), state.to_owned());
    status
}

fn finished(status: &PersistentVolumeClaimStatus, size: &Text) -> PersistentVolumeClaimStatus {
    let mut status = status.clone();
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| !is_of_resize(condition));
    }
    let allocated = status.allocated_resources.get_or_insert_default();
    allocated.insert(STORAGE.to_owned(), size.clone());
    if let Some(states) = &mut status.allocated_resource_statuses {
        states.remove(STORAGE);
    }
    status.capacity.get_or_insert_default().insert(STORAGE.to_owned(), size.clone());
    status
}
