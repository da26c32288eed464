//! Which Events of upstream's controllers are recorded here: the table of their reasons.

use testkit::reasons::Occurs::{self, Here, Never};
use testkit::reasons::check;

const NOT_ATTACHED: Occurs = Never("volumes are not attached to nodes");
const NO_RECYCLING: Occurs = Never("volumes are not recycled: the status says so");
const NO_HINTS: Occurs = Never("hints by topology are deprecated, and not given");
const NO_ROLLBACK: Occurs = Never("only the removed extensions/v1beta1 had it");
const REFUSED: Occurs = Never("validation refuses an empty selector");

/// The reasons of upstream's controllers (`k8s.io/kubernetes/pkg/controller`, and
/// `k8s.io/cloud-provider/controllers/service`), by who records them.
const REASONS: &[(&str, &[(&str, Occurs)])] = &[
    (
        "pod control",
        &[
            ("SuccessfulCreate", Here),
            ("FailedCreate", Here),
            ("SuccessfulDelete", Here),
            ("FailedDelete", Here),
        ],
    ),
    (
        "cronjob",
        &[
            ("UnexpectedJob", Here),
            ("SawCompletedJob", Here),
            ("MissingJob", Here),
            ("UnknownTimeZone", Here),
            ("UnparseableSchedule", Here),
            ("InvalidSchedule", Here),
            ("TooManyMissedTimes", Here),
            ("JobAlreadyActive", Here),
            ("MissSchedule", Never("times before the deadline are not looked for, as upstream")),
            ("FailedGet", Never("a Job is not read before it is replaced")),
        ],
    ),
    (
        "daemonset",
        &[
            ("SelectingAll", REFUSED),
            ("FailedDaemonPod", Here),
            ("SucceededDaemonPod", Here),
            ("FailedPlacement", Never("upstream records it no more")),
        ],
    ),
    (
        "deployment",
        &[
            ("ScalingReplicaSet", Here),
            ("ReplicaSetCreateError", Here),
            ("DeploymentRollback", NO_ROLLBACK),
            ("DeploymentRollbackRevisionNotFound", NO_ROLLBACK),
            ("DeploymentRollbackTemplateUnchanged", NO_ROLLBACK),
        ],
    ),
    (
        "disruption",
        &[
            ("NoPods", Here),
            ("CalculateExpectedPodCountFailed", Here),
            ("UnmanagedPods", Here),
            ("NoControllers", Never("upstream reports such pods as UnmanagedPods")),
            ("NotDeleted", Here),
        ],
    ),
    (
        "endpoints",
        &[
            ("FailedToCreateEndpoint", Here),
            ("FailedToUpdateEndpoint", Here),
            ("FailedToUpdateEndpointSlices", Here),
            ("FailedToListPods", Never("a cache is listed, which cannot fail")),
            ("TopologyAwareHintsEnabled", NO_HINTS),
            ("TopologyAwareHintsDisabled", NO_HINTS),
        ],
    ),
    ("garbage collector", &[("OwnerRefInvalidNamespace", Here)]),
    (
        "job",
        &[
            ("Suspended", Here),
            ("Resumed", Here),
            ("Completed", Here),
            ("BackoffLimitExceeded", Here),
            ("DeadlineExceeded", Here),
            ("PodFailurePolicy", Here),
            ("MaxFailedIndexesExceeded", Here),
            ("FailedIndexes", Here),
            ("TooManyActivePods", Here),
            ("TooManySucceededPods", Here),
        ],
    ),
    (
        "nodes",
        &[
            ("RegisteredNode", Here),
            ("RemovingNode", Here),
            ("NodeNotReady", Here),
            ("TaintManagerEviction", Here),
            ("CIDRNotAvailable", Here),
            ("CIDRAssignmentFailed", Here),
        ],
    ),
    (
        "volumes",
        &[
            ("FailedBinding", Here),
            ("VolumeMismatch", Here),
            ("ClaimLost", Here),
            ("ClaimMisbound", Here),
            ("ExternalProvisioning", Here),
            ("ProvisioningFailed", Here),
            ("ProvisioningSucceeded", Here),
            ("ProvisioningCleanupFailed", Never("a volume exists before its contents do")),
            ("WaitForFirstConsumer", Here),
            ("WaitForPodScheduled", Here),
            ("ExternalExpanding", Here),
            ("VolumeResizeFailed", Here),
            ("VolumeFailedDelete", Here),
            ("VolumeDelete", Never("a volume in use has its protection: its deletion waits")),
            ("VolumeFailedRecycle", NO_RECYCLING),
            ("VolumeRecycled", NO_RECYCLING),
            ("RecyclerPod", NO_RECYCLING),
            ("FailedAttachVolume", NOT_ATTACHED),
            ("SuccessfulAttachVolume", NOT_ATTACHED),
            ("FailedDetachVolume", NOT_ATTACHED),
        ],
    ),
    (
        "services",
        &[
            ("EnsuringLoadBalancer", Here),
            ("EnsuredLoadBalancer", Here),
            ("SyncLoadBalancerFailed", Here),
            ("UnAvailableLoadBalancer", Here),
            ("DeletingLoadBalancer", Here),
            ("DeletedLoadBalancer", Here),
            ("Type", Here),
            ("LoadbalancerIP", Here),
            ("LoadBalancerSourceRanges", Here),
            ("ExternalTrafficPolicy", Here),
        ],
    ),
    (
        "statefulset",
        &[
            (
                "SuccessfulUpdate",
                Never("a pod is created with its identity, which is not restored"),
            ),
            ("FailedUpdate", Never("a pod is created with its identity, which is not restored")),
            ("RecreatingFailedPod", Never("upstream records it no more")),
            ("RecreatingTerminatedPod", Never("upstream records it no more")),
        ],
    ),
    (
        "resource claims and ranges",
        &[("FailedResourceClaimCreation", Here), ("KubernetesServiceCIDRError", Here)],
    ),
    (
        "autoscaling",
        &[
            ("SuccessfulRescale", Here),
            ("FailedRescale", Here),
            ("FailedGetScale", Here),
            ("SelectorRequired", Here),
            ("InvalidSelector", Here),
            ("FailedGetResourceMetric", Here),
            ("FailedGetContainerResourceMetric", Here),
            ("FailedGetPodsMetric", Here),
            ("FailedGetObjectMetric", Here),
            ("FailedGetExternalMetric", Here),
            ("InvalidMetricSourceType", Here),
            ("FailedComputeMetricsReplicas", Here),
            ("FailedUpdateStatus", Never("a status that is not written is tried again")),
            ("FailedConvertHPA", Never("the version that is stored is read")),
            ("AmbiguousSelector", Here),
        ],
    ),
];

#[test]
fn upstreams_reasons() {
    let all = REASONS.iter().flat_map(|(_, reasons)| *reasons);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    check(folder, &["src/reasons.rs", "tests.rs"], all);
}
