//! What a worker knows about its pod in addition to the API object and the containers.
//!
//! All of it may be lost with the process: it is found again (sandbox, volumes, probes) or starts
//! over (back-offs), as in upstream.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PodStatus, ResourceStatus};

use crate::containers::{ContainerId, PodSandbox};
use crate::pod::admission::{REJECTED, Rejection};
use crate::pod::backoff::Backoff;
use crate::probe::ProbeView;

/// Reason of a pod that makes room for a critical one.
pub const PREEMPTING: &str = "Preempting";
/// Its message.
pub const PREEMPTED: &str = "Preempted in order to admit critical pod";

/// A failure, and when to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For a waiting state or an event.
    pub reason: String,
    pub message: String,
    pub backoff: Backoff,
}

/// The image of a container to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageState {
    /// On the node, for the start of this attempt.
    Present { attempt: u32 },
    Failed {
        /// The image that failed: the container's, or that of a volume.
        image: String,
        failure: Failure,
    },
}

/// An action in flight.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    Devices,
    Sandbox,
    Volumes,
    Image(String),
    Start(String),
    Remove(ContainerId),
    Resize(ContainerId),
    TearDown,
    RemovePod,
    DeleteObject,
}

/// A sandbox that can be used.
#[derive(Clone, Debug)]
pub struct ReadySandbox {
    pub sandbox: PodSandbox,
    /// Primary family first; the node's own with `hostNetwork`.
    pub ips: Vec<IpAddr>,
}

/// Why the kubelet ends the pod: an eviction or a failed admission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    pub reason: String,
    pub message: String,
    pub grace_seconds: i64,
    /// Message of the condition `DisruptionTarget`. `None`: nothing has been disrupted.
    pub disruption: Option<String>,
}

impl Eviction {
    /// A shortage of the node, or more than the pod may use.
    pub fn evicted(message: String) -> Self {
        let disruption = Some(message.clone());
        Self { reason: "Evicted".to_owned(), message, grace_seconds: 0, disruption }
    }

    /// In favour of a critical pod (`pkg/kubelet/preemption`).
    pub fn preempted(grace_seconds: i64) -> Self {
        let text = "Pod was preempted by Kubelet to accommodate a critical pod.";
        Self {
            reason: PREEMPTING.to_owned(),
            message: PREEMPTED.to_owned(),
            grace_seconds,
            disruption: Some(text.to_owned()),
        }
    }

    /// The node does not admit the pod.
    pub fn rejected(rejection: Rejection) -> Self {
        Self {
            reason: rejection.reason,
            message: format!("{REJECTED}{}", rejection.message),
            grace_seconds: 0,
            disruption: None,
        }
    }
}

/// See the module documentation.
#[derive(Clone, Debug, Default)]
pub struct WorkerState {
    pub in_flight: BTreeSet<Work>,
    pub sandbox: Option<ReadySandbox>,
    pub sandbox_failure: Option<Failure>,
    /// Every volume is mounted.
    pub volumes_mounted: bool,
    /// A source of a volume has changed since the last sync.
    pub volumes_dirty: bool,
    /// When a token in a volume must be renewed.
    pub volumes_renew_at: Option<Timestamp>,
    pub volumes_failure: Option<Failure>,
    pub images: BTreeMap<String, ImageState>,
    pub image_backoffs: BTreeMap<String, Backoff>,
    pub restarts: BTreeMap<String, Backoff>,
    /// Starts that failed before the container ran.
    pub start_failures: BTreeMap<String, Failure>,
    /// Containers that are being stopped, and when they will be killed.
    pub stops: BTreeMap<ContainerId, Timestamp>,
    pub probes: BTreeMap<ContainerId, ProbeView>,
    pub eviction: Option<Eviction>,
    /// Devices that the pod asks for have yet to be allocated.
    pub devices_wanted: bool,
    /// The health of each container's devices.
    pub devices: BTreeMap<String, Vec<ResourceStatus>>,
    /// When termination began, from which the grace period counts.
    pub terminating_since: Option<Timestamp>,
    /// Network and volumes are torn down.
    pub torn_down: bool,
    pub tear_down_failure: Option<Failure>,
    /// Everything of the pod on this node is removed.
    pub removed: bool,
    /// The apiserver no longer has the object.
    pub deleted: bool,
    pub delete_failure: Option<Failure>,
    /// The status in which the pod was first seen in a terminal phase: it never leaves that.
    pub terminal: Option<Arc<PodStatus>>,
    /// The apiserver has the status that was last computed.
    pub status_written: bool,
    /// Resources applied in place, by container.
    pub resized: BTreeMap<ContainerId, String>,
}
