//! What controllers read from a pod's status (`k8s.io/kubernetes/pkg/api/v1/pod`).

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodCondition};

use crate::machinery::owner::is_deleting;

/// Neither terminated nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !api::pod::is_terminal(pod) && !is_deleting(&pod.metadata)
}

pub fn is_ready(pod: &Pod) -> bool {
    api::pod::condition_is_true(pod, "Ready")
}

pub fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// When the pod became ready.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    condition(pod, "Ready")
        .filter(|condition| condition.status == "True")?
        .last_transition_time
        .as_ref()
        .map(|time| time.0)
}

/// When a ready pod counts as available. `None`: it is not ready.
pub fn available_at(pod: &Pod, min_ready_seconds: i32) -> Option<Timestamp> {
    if !is_ready(pod) {
        return None;
    }
    if min_ready_seconds <= 0 {
        return Some(Timestamp::MIN);
    }
    let since = ready_since(pod)?;
    since.checked_add(SignedDuration::from_secs(min_ready_seconds.into())).ok()
}

pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    available_at(pod, min_ready_seconds).is_some_and(|at| at <= now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::testing::{at, pod};

    #[test]
    fn a_pod_is_available_after_min_ready_seconds() {
        let ready = pod("a").running().ready_at(100).build();
        assert!(is_available(&ready, 0, at(100)));
        assert!(!is_available(&ready, 10, at(109)));
        assert!(is_available(&ready, 10, at(110)));
        assert!(!is_available(&pod("b").running().build(), 0, at(110)));
    }
}
