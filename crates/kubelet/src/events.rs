//! Records Kubernetes Events about pods, their containers and the node.

use client::events::{self, reference};
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::node::events::NodeEvent;
use crate::pod::declared::Declared;

/// Records events. Cheap to clone.
#[derive(Clone)]
pub struct EventRecorder(events::EventRecorder);

impl EventRecorder {
    pub fn new(recorder: events::EventRecorder) -> Self {
        Self(recorder)
    }

    pub fn node(&self, node: &Node, (kind, reason, message): NodeEvent) {
        self.0.record(reference(node), kind, reason, message);
    }

    pub fn pod_warning(&self, pod: &Pod, reason: &str, message: impl Into<String>) {
        self.0.warning(pod, reason, message);
    }

    pub fn pod_normal(&self, pod: &Pod, reason: &str, message: &str) {
        self.0.normal(pod, reason, message);
    }

    pub fn normal(&self, pod: &Pod, declared: &Declared, reason: &str, message: impl Into<String>) {
        self.record(pod, declared, "Normal", reason, message.into());
    }

    pub fn warning(
        &self,
        pod: &Pod,
        declared: &Declared,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.record(pod, declared, "Warning", reason, message.into());
    }

    fn record(
        &self,
        pod: &Pod,
        declared: &Declared,
        kind: &'static str,
        reason: &str,
        message: String,
    ) {
        let mut about = reference(pod);
        about.field_path = Some(declared.field_path());
        self.0.record(about, kind, reason, message);
    }
}

#[cfg(test)]
mod tests {
    use testkit::reasons::Occurs::{self, Here, Never};
    use testkit::reasons::check;

    const NO_RESIZE_STATES: &str = "resizes are applied at once, or refused by the apiserver";
    const ATTACHED_ELSEWHERE: &str = "no volume has to be attached to a node";

    /// The reasons of upstream's kubelet (`pkg/kubelet/events`).
    const REASONS: [(&str, Occurs); 55] = [
        ("Created", Here),
        ("Started", Here),
        ("Failed", Here),
        ("Killing", Here),
        ("BackOff", Here),
        ("Preempting", Here),
        ("ExceededGracePeriod", Never("containers are killed at the end of the grace period")),
        ("FailedKillPod", Here),
        ("FailedCreatePodContainer", Never("a pod's cgroup is made with its sandbox")),
        ("NetworkNotReady", Never("pods wait for the network; the node is not ready without")),
        ("ResizeStarted", Never(NO_RESIZE_STATES)),
        ("ResizeCompleted", Never(NO_RESIZE_STATES)),
        ("ResizeError", Never(NO_RESIZE_STATES)),
        ("ResizeDeferred", Never(NO_RESIZE_STATES)),
        ("ResizeInfeasible", Never(NO_RESIZE_STATES)),
        ("Pulling", Here),
        ("Pulled", Here),
        ("InspectFailed", Here),
        ("ErrImageNeverPull", Here),
        ("NodeReady", Here),
        ("NodeNotReady", Here),
        ("NodeSchedulable", Here),
        ("NodeNotSchedulable", Here),
        ("Starting", Here),
        ("KubeletSetupFailed", Never("a kubelet whose setup fails exits")),
        ("FailedAttachVolume", Never(ATTACHED_ELSEWHERE)),
        ("FailedMount", Here),
        ("VolumeResizeFailed", Here),
        ("VolumeResizeSuccessful", Never("the controller of the volume records it")),
        ("FileSystemResizeFailed", Never("a volume that cannot grow is VolumeResizeFailed")),
        ("FileSystemResizeSuccessful", Here),
        ("FailedMapVolume", Never("a block device is bound as any volume is: FailedMount")),
        ("AlreadyMountedVolume", Never("what is mounted is not mounted again")),
        ("SuccessfulAttachVolume", Never(ATTACHED_ELSEWHERE)),
        ("SuccessfulMountVolume", Never("upstream records it no more")),
        ("Rebooted", Here),
        ("Shutdown", Never("the node's shutdown is not delayed for pods")),
        ("ContainerGCFailed", Never("each pod's worker removes its containers, and tries again")),
        ("ImageGCFailed", Here),
        ("FailedNodeAllocatableEnforcement", Never("only pods' cgroups are limited")),
        ("NodeAllocatableEnforced", Never("only pods' cgroups are limited")),
        (
            "SandboxChanged",
            Never("no process holds the namespaces: they are lost by a reboot only"),
        ),
        ("FailedCreatePodSandBox", Here),
        ("FailedPodSandBoxStatus", Never("a sandbox is files: it cannot fail to be asked")),
        ("FailedMountOnFilesystemMismatch", Never("a file system is only made with its volume")),
        ("FailedPrepareDynamicResources", Never("no dynamic resources")),
        ("PossibleMemoryBackedVolumesOnDisk", Never("upstream's own fall-back for swap")),
        ("CgroupV1", Never("cgroup v1 is supported")),
        ("InvalidDiskCapacity", Never("an unreadable disk is ImageGCFailed")),
        ("FreeDiskSpaceFailed", Here),
        ("Unhealthy", Here),
        (
            "ProbeWarning",
            Never("a redirect to another host counts as a success, as upstream, without a word"),
        ),
        ("FailedSync", Never("each failing step of a pod has a reason of its own")),
        ("FailedPostStartHook", Here),
        ("FailedPreStopHook", Here),
    ];

    #[test]
    fn upstreams_reasons() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
        check(folder, &["src/events.rs"], &REASONS);
    }
}
