//! Quality-of-service class of a pod.

use k8s_openapi::api::core::v1::Pod;

use super::pod_ext::PodExt;
use crate::cgroup::QosClass;

/// By [`api::pod::qos_class`].
pub fn qos_class(pod: &Pod) -> QosClass {
    match name(pod) {
        "Guaranteed" => QosClass::Guaranteed,
        "BestEffort" => QosClass::BestEffort,
        _ => QosClass::Burstable,
    }
}

/// As in `status.qosClass`.
pub fn name(pod: &Pod) -> &'static str {
    api::pod::qos_class(pod.spec_ref())
}
