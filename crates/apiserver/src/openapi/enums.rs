//! Fields with a closed set of values: upstream's types that are marked `+enum`. The values of a
//! list are those of its items.

/// Protocols of ports.
const PROTOCOL: &[&str] = &["SCTP", "TCP", "UDP"];
const PULL: &[&str] = &["Always", "IfNotPresent", "Never"];
const TERMINATION: &[&str] = &["FallbackToLogsOnError", "File"];
const EFFECT: &[&str] = &["NoExecute", "NoSchedule", "PreferNoSchedule"];
const PROFILE: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
const HONOR: &[&str] = &["Honor", "Ignore"];
const LOCAL: &[&str] = &["Cluster", "Local"];
const RECLAIM: &[&str] = &["Delete", "Recycle", "Retain"];
const VOLUME_MODE: &[&str] = &["Block", "Filesystem"];
const PREEMPTION: &[&str] = &["Never", "PreemptLowerPriority"];
const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

/// Definition (without `io.k8s.api.`), field, values.
#[rustfmt::skip]
const ENUMS: &[(&str, &str, &[&str])] = &[
    ("apps.v1.DaemonSetUpdateStrategy", "type", &["OnDelete", "RollingUpdate"]),
    ("apps.v1.DeploymentStrategy", "type", &["Recreate", "RollingUpdate"]),
    ("apps.v1.StatefulSetSpec", "podManagementPolicy", &["OrderedReady", "Parallel"]),
    ("apps.v1.StatefulSetUpdateStrategy", "type", &["OnDelete", "RollingUpdate"]),
    ("batch.v1.CronJobSpec", "concurrencyPolicy", &["Allow", "Forbid", "Replace"]),
    ("batch.v1.JobSpec", "completionMode", &["Indexed", "NonIndexed"]),
    ("batch.v1.JobSpec", "podReplacementPolicy", &["Failed", "TerminatingOrFailed"]),
    ("batch.v1.PodFailurePolicyOnExitCodesRequirement", "operator", &["In", "NotIn"]),
    ("batch.v1.PodFailurePolicyRule", "action", &["Count", "FailIndex", "FailJob", "Ignore"]),
    ("core.v1.AppArmorProfile", "type", PROFILE),
    ("core.v1.Container", "imagePullPolicy", PULL),
    ("core.v1.Container", "terminationMessagePolicy", TERMINATION),
    ("core.v1.ContainerPort", "protocol", PROTOCOL),
    ("core.v1.EndpointPort", "protocol", PROTOCOL),
    ("core.v1.EphemeralContainer", "imagePullPolicy", PULL),
    ("core.v1.EphemeralContainer", "terminationMessagePolicy", TERMINATION),
    ("core.v1.HTTPGetAction", "scheme", &["HTTP", "HTTPS"]),
    ("core.v1.HostPathVolumeSource", "type",
        &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"]),
    ("core.v1.ImageVolumeSource", "pullPolicy", PULL),
    ("core.v1.NamespaceStatus", "phase", &["Active", "Terminating"]),
    ("core.v1.NodeSelectorRequirement", "operator", &["DoesNotExist", "Exists", "Gt", "In", "Lt", "NotIn"]),
    ("core.v1.NodeStatus", "phase", &["Pending", "Running", "Terminated"]),
    ("core.v1.PersistentVolumeClaimSpec", "volumeMode", VOLUME_MODE),
    ("core.v1.PersistentVolumeClaimStatus", "phase", &["Bound", "Lost", "Pending"]),
    ("core.v1.PersistentVolumeSpec", "persistentVolumeReclaimPolicy", RECLAIM),
    ("core.v1.PersistentVolumeSpec", "volumeMode", VOLUME_MODE),
    ("core.v1.PersistentVolumeStatus", "phase", &["Available", "Bound", "Failed", "Pending", "Released"]),
    ("core.v1.PodSecurityContext", "fsGroupChangePolicy", &["Always", "OnRootMismatch"]),
    ("core.v1.PodSecurityContext", "supplementalGroupsPolicy", &["Merge", "Strict"]),
    ("core.v1.PodSpec", "dnsPolicy", &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]),
    ("core.v1.PodSpec", "preemptionPolicy", PREEMPTION),
    ("core.v1.PodSpec", "restartPolicy", &["Always", "Never", "OnFailure"]),
    ("core.v1.PodStatus", "phase", &["Failed", "Pending", "Running", "Succeeded", "Unknown"]),
    ("core.v1.PodStatus", "qosClass", &["BestEffort", "Burstable", "Guaranteed"]),
    ("core.v1.PortStatus", "protocol", PROTOCOL),
    ("core.v1.ResourceQuotaSpec", "scopes", SCOPES),
    ("core.v1.ScopedResourceSelectorRequirement", "operator", &["DoesNotExist", "Exists", "In", "NotIn"]),
    ("core.v1.ScopedResourceSelectorRequirement", "scopeName", SCOPES),
    ("core.v1.SeccompProfile", "type", PROFILE),
    ("core.v1.SecurityContext", "procMount", &["Default", "Unmasked"]),
    ("core.v1.ServicePort", "protocol", PROTOCOL),
    ("core.v1.ServiceSpec", "externalTrafficPolicy", LOCAL),
    ("core.v1.ServiceSpec", "internalTrafficPolicy", LOCAL),
    ("core.v1.ServiceSpec", "ipFamilyPolicy", &["PreferDualStack", "RequireDualStack", "SingleStack"]),
    ("core.v1.ServiceSpec", "sessionAffinity", &["ClientIP", "None"]),
    ("core.v1.ServiceSpec", "type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]),
    ("core.v1.Taint", "effect", EFFECT),
    ("core.v1.Toleration", "effect", EFFECT),
    ("core.v1.Toleration", "operator", &["Equal", "Exists", "Gt", "Lt"]),
    ("core.v1.TopologySpreadConstraint", "nodeAffinityPolicy", HONOR),
    ("core.v1.TopologySpreadConstraint", "nodeTaintsPolicy", HONOR),
    ("core.v1.TopologySpreadConstraint", "whenUnsatisfiable", &["DoNotSchedule", "ScheduleAnyway"]),
    ("discovery.v1.EndpointPort", "protocol", PROTOCOL),
    ("discovery.v1.EndpointSlice", "addressType", &["FQDN", "IPv4", "IPv6"]),
    ("networking.v1.HTTPIngressPath", "pathType", &["Exact", "ImplementationSpecific", "Prefix"]),
    ("networking.v1.NetworkPolicyPort", "protocol", PROTOCOL),
    ("networking.v1.NetworkPolicySpec", "policyTypes", &["Egress", "Ingress"]),
    ("policy.v1.PodDisruptionBudgetSpec", "unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"]),
    ("scheduling.v1.PriorityClass", "preemptionPolicy", PREEMPTION),
    ("storage.v1.StorageClass", "reclaimPolicy", RECLAIM),
    ("storage.v1.StorageClass", "volumeBindingMode", &["Immediate", "WaitForFirstConsumer"]),
];

/// The values that a field may have, if they are a closed set. `definition` without `io.k8s.`.
pub fn of(definition: &str, field: &str) -> Option<&'static [&'static str]> {
    let definition = definition.strip_prefix("api.")?;
    let found =
        ENUMS.binary_search_by(|(owner, name, _)| (*owner, *name).cmp(&(definition, field)));
    found.ok().map(|index| ENUMS[index].2)
}

#[cfg(test)]
mod tests {
    use api::schema;

    use super::*;

    #[test]
    fn the_table_is_sorted_and_about_fields_that_exist() {
        assert!(ENUMS.is_sorted_by_key(|(owner, field, _)| (*owner, *field)));
        for (owner, field, values) in ENUMS {
            let definition = schema::definition(&format!("io.k8s.api.{owner}"));
            let row = definition.unwrap_or_else(|| panic!("{owner}"));
            assert!(row.fields.iter().any(|known| known.name == *field), "{owner}.{field}");
            assert!(values.is_sorted(), "{owner}.{field}");
            if let Some(default) =
                row.fields.iter().find(|known| known.name == *field).unwrap().default
            {
                let default: String = serde_json::from_str(default).unwrap();
                assert!(
                    values.contains(&default.as_str()) || default.is_empty(),
                    "{owner}.{field}"
                );
            }
        }
    }
}
