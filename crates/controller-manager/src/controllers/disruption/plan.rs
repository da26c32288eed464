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
/// When the size of a workload that is unknown is looked for again.
const RETRY: Duration = Duration::from_secs(30);
const ALLOWED: &str = "DisruptionAllowed";

#[derive(Debug)]
pub struct Observed<'a> {
    pub budget: &'a PodDisruptionBudget,
    /// Pods that the budget selects.
    pub pods: Vec<Arc<Pod>>,
    pub scale: Scale,
}

/// The workloads of the pods.
#[derive(Debug, Default)]
pub struct Scale {
    /// Their total size.
    pub pods: i32,
    /// Some pods belong to none.
    pub has_unmanaged: bool,
    /// Why the size of one is not known.
    pub unknown: Option<String>,
}

/// An event to record: whether it is a warning, its reason, its message.
pub type Event = (bool, &'static str, String);

#[derive(Debug, PartialEq)]
pub struct Plan {
    pub status: PodDisruptionBudgetStatus,
    pub events: Vec<Event>,
    /// Pods that the apiserver has allowed to evict, and that nobody deleted.
    pub not_deleted: Vec<Arc<Pod>>,
    pub requeue_after: Option<Duration>,
}

pub fn plan(observed: &Observed<'_>, now: Timestamp) -> Plan {
    let old = observed.budget.status.clone().unwrap_or_default();
    let mut events = Vec::new();
    if observed.pods.is_empty() {
        events.push((false, "NoPods", "No matching pods found".to_owned()));
    }
    if depends_on_scale(observed.budget) {
        if let Some(why) = &observed.scale.unknown {
            let message = format!("Failed to calculate the number of expected pods: {why}");
            events.push((true, "CalculateExpectedPodCountFailed", message));
            return Plan {
                status: failed(old, why, now),
                events,
                not_deleted: Vec::new(),
                requeue_after: Some(RETRY),
            };
        }
        if observed.scale.has_unmanaged {
            events.push((true, "UnmanagedPods", unmanaged(observed.budget)));
        }
    }
    let Disrupted { disrupted, not_deleted, requeue_after } = still_disrupted(observed, &old, now);
    let healthy = observed.pods.iter().filter(|pod| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        !is_deleting(&pod.metadata) && is_ready(pod) && !disrupted.contains_key(name)
    });
    let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    let (expected, desired) = expected_and_desired(observed);
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let generation = observed.budget.metadata.generation;
    let (value, reason) =
        if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let condition = Condition {
        type_: ALLOWED.into(),
        status: value.into(),
        reason: reason.into(),
        message: String::new(),
        last_transition_time: Time(now),
        observed_generation: generation,
    };
    let status = PodDisruptionBudgetStatus {
        conditions: Some(with_condition(old.conditions, condition)),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        observed_generation: generation,
    };
    Plan { status, events, not_deleted, requeue_after }
}

/// The conditions with this one, which keeps the time of its last transition.
fn with_condition(conditions: Option<Vec<Condition>>, mut condition: Condition) -> Vec<Condition> {
    let mut conditions = conditions.unwrap_or_default();
    let before = conditions.iter().find(|one| one.type_ == condition.type_);
    if let Some(before) = before.filter(|before| before.status == condition.status) {
        condition.last_transition_time = before.last_transition_time.clone();
    }
    conditions.retain(|one| one.type_ != condition.type_);
    conditions.push(condition);
    conditions
}

/// Nothing may be disrupted as long as it is not known how many pods there should be.
fn failed(
    mut status: PodDisruptionBudgetStatus,
    why: &str,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let condition = Condition {
        type_: ALLOWED.into(),
        status: "False".into(),
        reason: "SyncFailed".into(),
        message: why.to_owned(),
        last_transition_time: Time(now),
        observed_generation: status.observed_generation,
    };
    status.conditions = Some(with_condition(status.conditions, condition));
    status.disruptions_allowed = Some(0);
    status
}

fn unmanaged(budget: &PodDisruptionBudget) -> String {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let selector = selector.map(|one| serde_json::to_string(one).unwrap_or_default());
    format!(
        "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a \
         result, the status of the PDB cannot be calculated correctly, which may result in undefined \
         behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an \
         integer value.",
        selector.unwrap_or_default()
    )
}

/// Whether the budget is about the size of the workloads, and not only about the pods there are.
fn depends_on_scale(budget: &PodDisruptionBudget) -> bool {
    budget.spec.as_ref().is_some_and(|spec| {
        spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
    })
}

/// Evictions that were allowed, whose pods are not being deleted yet.
#[derive(Default)]
struct Disrupted {
    /// Those that have not timed out.
    disrupted: BTreeMap<String, Time>,
    /// The pods of those that have.
    not_deleted: Vec<Arc<Pod>>,
    requeue_after: Option<Duration>,
}

fn still_disrupted(
    observed: &Observed<'_>,
    old: &PodDisruptionBudgetStatus,
    now: Timestamp,
) -> Disrupted {
    let timeout = SignedDuration::try_from(EVICTION_TIMEOUT).expect("two minutes fit");
    let mut all = Disrupted::default();
    for pod in observed.pods.iter().filter(|pod| !is_deleting(&pod.metadata)) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let Some(since) = old.disrupted_pods.as_ref().and_then(|pods| pods.get(&name)) else {
            continue;
        };
        let left = timeout - now.duration_since(since.0);
        match Duration::try_from(left).ok().filter(|left| !left.is_zero()) {
            Some(left) => {
                all.requeue_after = Some(all.requeue_after.map_or(left, |other| other.min(left)));
                all.disrupted.insert(name, since.clone());
            }
            None => all.not_deleted.push(pod.clone()),
        }
    }
    all
}

fn expected_and_desired(observed: &Observed<'_>) -> (i32, i32) {
    let spec = observed.budget.spec.clone().unwrap_or_default();
    let pods = i32::try_from(observed.pods.len()).unwrap_or(i32::MAX);
    if let Some(maximum) = &spec.max_unavailable {
        let down = scaled(maximum, observed.scale.pods, Round::Up);
        return (observed.scale.pods, (observed.scale.pods - down).max(0));
    }
    match &spec.min_available {
        Some(IntOrString::Int(least)) => (pods, *least),
        Some(percentage) => {
            let least = scaled(percentage, observed.scale.pods, Round::Up);
            (observed.scale.pods, least)
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
        let observed =
            Observed { budget: &budget, pods, scale: Scale { pods: scale, ..Default::default() } };
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
        let observed = Observed { budget: &budget, pods: pods.into(), scale: Scale::default() };
        let early = plan(&observed, at(110));
        assert_eq!(early.status.disruptions_allowed, Some(0));
        assert_eq!(early.requeue_after, Some(Duration::from_secs(110)));
        let late = plan(&observed, at(220));
        assert_eq!(late.status.disruptions_allowed, Some(1));
        assert_eq!((late.requeue_after, late.status.disrupted_pods), (None, None));
        assert_eq!(
            (early.not_deleted, late.not_deleted),
            (Vec::new(), vec![observed.pods[0].clone()])
        );
    }

    #[test]
    fn events_tell_what_a_budget_cannot_count() {
        let percent = || Some(IntOrString::String("50%".into()));
        let with = |scale: Scale, pods: usize, least: Option<IntOrString>| {
            let mut budget = PodDisruptionBudget::default();
            budget.spec.get_or_insert_default().min_available = least;
            let status = budget.status.get_or_insert_default();
            status.disruptions_allowed = Some(3);
            let names = (0..pods).map(|index| format!("p{index}"));
            let pods = names.map(|name| Arc::new(pod(&name).running().ready_at(1).build()));
            let observed = Observed { budget: &budget, pods: pods.collect(), scale };
            plan(&observed, at(9))
        };
        let reasons = |plan: &Plan| plan.events.iter().map(|event| event.1).collect::<Vec<_>>();
        let empty = with(Scale::default(), 0, percent());
        assert_eq!(empty.events, [(false, "NoPods", "No matching pods found".to_owned())]);
        let unmanaged = || Scale { pods: 1, has_unmanaged: true, unknown: None };
        assert_eq!(reasons(&with(unmanaged(), 2, percent())), ["UnmanagedPods"]);
        // The number of pods is enough for it.
        assert!(with(unmanaged(), 2, Some(IntOrString::Int(1))).events.is_empty());
        let unknown = Scale { unknown: Some("why".into()), ..unmanaged() };
        let failed = with(unknown, 2, percent());
        assert_eq!(reasons(&failed), ["CalculateExpectedPodCountFailed"]);
        assert_eq!(failed.status.disruptions_allowed, Some(0));
        let condition = &failed.status.conditions.unwrap()[0];
        assert_eq!((&*condition.reason, &*condition.message), ("SyncFailed", "why"));
    }
}
