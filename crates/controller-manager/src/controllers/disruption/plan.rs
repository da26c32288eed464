//! How many pods of a budget may be disrupted: a pure function
//! (`k8s.io/kubernetes/pkg/controller/disruption`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::machinery::int_or_percent::{Round, scaled};
use crate::machinery::owner::is_deleting;
use crate::machinery::pod_state::is_ready;

/// How long an eviction that the apiserver has allowed counts until the pod is being deleted.
const EVICTION_TIMEOUT: Duration = Duration::from_secs(120);
const ALLOWED: &str = "DisruptionAllowed";

#[derive(Debug)]
pub struct Observed<'a> {
    pub budget: &'a PodDisruptionBudget,
    /// Pods that the budget selects.
    pub pods: Vec<Arc<Pod>>,
    /// Total size of the workloads of the pods.
    pub scale: i32,
}

#[derive(Debug, PartialEq)]
pub struct Plan {
    pub status: PodDisruptionBudgetStatus,
    pub requeue_after: Option<Duration>,
}

pub fn plan(observed: &Observed<'_>, now: Timestamp) -> Plan {
    let old = observed.budget.status.clone().unwrap_or_default();
    let (disrupted, requeue_after) = still_disrupted(observed, &old, now);
    let healthy = observed.pods.iter().filter(|pod| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        !is_deleting(&pod.metadata) && is_ready(pod) && !disrupted.contains_key(name)
    });
    let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    let (expected, desired) = expected_and_desired(observed);
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let generation = observed.budget.metadata.generation;
    let mut conditions = old.conditions.unwrap_or_default();
    let (value, reason) =
        if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let before = conditions.iter().find(|condition| condition.type_ == ALLOWED);
    let since = before
        .filter(|before| before.status == value)
        .map_or(Time(now), |before| before.last_transition_time.clone());
    conditions.retain(|condition| condition.type_ != ALLOWED);
    conditions.push(Condition {
        type_: ALLOWED.into(),
        status: value.into(),
        reason: reason.into(),
        message: String::new(),
        last_transition_time: since,
        observed_generation: generation,
    });
    let status = PodDisruptionBudgetStatus {
        conditions: Some(conditions),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        observed_generation: generation,
    };
    Plan { status, requeue_after }
}

/// Evictions that were allowed, whose pods are not being deleted yet, and that have not timed out.
fn still_disrupted(
    observed: &Observed<'_>,
    old: &PodDisruptionBudgetStatus,
    now: Timestamp,
) -> (BTreeMap<String, Time>, Option<Duration>) {
    let timeout = SignedDuration::try_from(EVICTION_TIMEOUT).expect("two minutes fit");
    let mut disrupted = BTreeMap::new();
    let mut requeue_after: Option<Duration> = None;
    for pod in observed.pods.iter().filter(|pod| !is_deleting(&pod.metadata)) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let Some(since) = old.disrupted_pods.as_ref().and_then(|pods| pods.get(&name)) else {
            continue;
        };
        let left = timeout - now.duration_since(since.0);
        if let Ok(left) = Duration::try_from(left)
            && !left.is_zero()
        {
            requeue_after =
                Some(requeue_after.map_or(left, |requeue_after| requeue_after.min(left)));
            disrupted.insert(name, since.clone());
        }
    }
    (disrupted, requeue_after)
}

fn expected_and_desired(observed: &Observed<'_>) -> (i32, i32) {
    let spec = observed.budget.spec.clone().unwrap_or_default();
    let pods = i32::try_from(observed.pods.len()).unwrap_or(i32::MAX);
    if let Some(maximum) = &spec.max_unavailable {
        let down = scaled(maximum, observed.scale, Round::Up);
        return (observed.scale, (observed.scale - down).max(0));
    }
    match &spec.min_available {
        Some(IntOrString::Int(least)) => (pods, *least),
        Some(percentage) => {
            let least = scaled(percentage, observed.scale, Round::Up);
            (observed.scale, least)
        }
        None => (pods, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::testing::{at, pod};

    fn allowed(min: Option<&str>, max: Option<&str>, ready: usize, scale: i32) -> (i32, i32, i32) {
        let value = |text: &str| {
            text.parse().map_or_else(|_| IntOrString::String(text.into()), IntOrString::Int)
        };
        let mut budget = PodDisruptionBudget::default();
        let spec = budget.spec.get_or_insert_default();
        (spec.min_available, spec.max_unavailable) = (min.map(value), max.map(value));
        let mut pods: Vec<_> = (0..ready)
            .map(|index| Arc::new(pod(&format!("p{index}")).running().ready_at(1).build()))
            .collect();
        pods.push(Arc::new(pod("sick").running().build()));
        let observed = Observed { budget: &budget, pods, scale };
        let status = plan(&observed, at(9)).status;
        (
            status.current_healthy.unwrap(),
            status.desired_healthy.unwrap(),
            status.disruptions_allowed.unwrap(),
        )
    }

    #[test]
    fn disruptions_allowed() {
        assert_eq!(allowed(Some("2"), None, 4, 5), (4, 2, 2));
        assert_eq!(allowed(Some("80%"), None, 4, 5), (4, 4, 0));
        assert_eq!(allowed(None, Some("2"), 4, 5), (4, 3, 1));
        assert_eq!(allowed(None, Some("30%"), 4, 5), (4, 3, 1));
        assert_eq!(allowed(None, Some("100%"), 0, 1), (0, 0, 0));
        assert_eq!(allowed(Some("9"), None, 4, 5), (4, 9, 0));
    }

    #[test]
    fn evictions_in_progress_count_until_they_time_out() {
        let mut budget = PodDisruptionBudget::default();
        budget.spec.get_or_insert_default().min_available = Some(IntOrString::Int(1));
        budget.status.get_or_insert_default().disrupted_pods =
            Some([("a".to_owned(), Time(at(100))), ("gone".to_owned(), Time(at(100)))].into());
        let pods = ["a", "b"].map(|name| Arc::new(pod(name).running().ready_at(1).build()));
        let observed = Observed { budget: &budget, pods: pods.into(), scale: 2 };
        let early = plan(&observed, at(110));
        assert_eq!(early.status.disruptions_allowed, Some(0));
        assert_eq!(early.requeue_after, Some(Duration::from_secs(110)));
        let late = plan(&observed, at(220));
        assert_eq!(late.status.disruptions_allowed, Some(1));
        assert_eq!((late.requeue_after, late.status.disrupted_pods), (None, None));
    }
}
