use std::sync::Arc;
use std::time::Duration;

use api::Kind;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::behavior::Memory;
use super::metrics::{Reading, Values};
use super::plan::{Observed, Plan, plan};
use super::replicas::{PodValue, PodValues, Proposal, Scaled, Target, Tolerance};
use crate::machinery::cache::Key;
use crate::machinery::testing::at;

/// Far from the start of every pod.
const NOW: i64 = 10_000;

/// A ready pod that requests 100 millicores.
fn pod(name: &str, phase: &str, ready: bool) -> Arc<Pod> {
    let ready = if ready { "True" } else { "False" };
    let since = if ready == "True" { at(10) } else { at(9_000) };
    let object = json!({
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m"}}}]},
        "status": {"phase": phase, "startTime": at(0).to_string(),
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since.to_string()}]},
    });
    Arc::new(Pod::decode(object.to_string().as_bytes()).unwrap())
}

fn pods(count: usize) -> Vec<Arc<Pod>> {
    (0..count).map(|number| pod(&format!("p{number}"), "Running", true)).collect()
}

fn values(of: &[i64]) -> PodValues {
    let window = Duration::from_secs(15);
    let value = |value: &i64| PodValue { value: *value, time: at(NOW), window };
    of.iter().enumerate().map(|(number, it)| (format!("p{number}"), value(it))).collect()
}

fn autoscaler(spec: Value) -> HorizontalPodAutoscaler {
    let mut all = json!({"minReplicas": 1, "maxReplicas": 10,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 50}}}]});
    for (field, value) in spec.as_object().unwrap() {
        all[field] = value.clone();
    }
    let object = json!({"metadata": {"name": "a", "namespace": "ns"}, "spec": all});
    HorizontalPodAutoscaler::decode(object.to_string().as_bytes()).unwrap()
}

fn scale(replicas: i32) -> Scale {
    let object = json!({"metadata": {"name": "web"}, "spec": {"replicas": replicas},
        "status": {"replicas": replicas, "selector": "app=web"}});
    Scale::decode(object.to_string().as_bytes()).unwrap()
}

fn run(
    autoscaler: &HorizontalPodAutoscaler,
    (current, used): (i32, &[i64]),
    memory: Memory,
    now: Timestamp,
) -> Plan {
    let scale = scale(current);
    let readings = vec![Ok(Values::Pods(values(used)))];
    let pods = pods(usize::try_from(current).unwrap());
    plan(
        &Observed { autoscaler, scale: Ok(&scale), pods, rivals: Vec::new(), readings },
        memory,
        now,
    )
}

fn condition(plan: &Plan, kind: &str) -> (String, String) {
    let all = plan.status.conditions.iter().flatten();
    let found = all.into_iter().find(|condition| condition.type_ == kind).unwrap();
    (found.status.clone(), found.reason.clone().unwrap_or_default())
}

fn is(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

fn scaled(pods: &[Arc<Pod>], current: i32) -> Scaled<'_> {
    Scaled { pods, current, tolerance: Tolerance { up: 0.1, down: 0.1 }, now: at(NOW) }
}

#[test]
fn replicas_follow_the_ratio_of_usage_to_target() {
    let cases = [
        (&[50, 50][..], 2),
        (&[54, 54], 2),
        (&[56, 56], 3),
        (&[100, 100], 4),
        (&[20, 20], 1),
        (&[46, 46], 2),
    ];
    for (used, wanted) in cases {
        let pods = pods(used.len());
        let asked =
            scaled(&pods, 2).by_pods(&values(used), Target::Utilization(50), Some(("cpu", None)));
        assert_eq!(asked.unwrap().replicas, wanted, "{used:?}");
        let asked = scaled(&pods, 2).by_pods(&values(used), Target::Average(50), None);
        assert_eq!(asked.unwrap().replicas, wanted, "{used:?}");
    }
    let tolerant = Scaled { tolerance: Tolerance { up: 0.5, down: 0.0 }, ..scaled(&[], 2) };
    assert_eq!(
        tolerant.by_value(70, 50),
        Ok(Proposal { replicas: 2, value: 70, utilization: None })
    );
}

#[test]
fn missing_and_unready_pods_never_make_it_scale_further() {
    let cpu = Some(("cpu", None));
    // Up: the third pod has no figures, and counts as idle.
    let three = pods(3);
    let asked = scaled(&three, 3).by_pods(&values(&[100, 100]), Target::Utilization(50), cpu);
    assert_eq!(asked.unwrap().replicas, 4);
    // Down: it counts as using all that it requests.
    let asked = scaled(&three, 3).by_pods(&values(&[20, 20]), Target::Utilization(50), cpu);
    assert_eq!(asked.unwrap().replicas, 3);
    // One that is not ready is idle on the way up.
    let mut some = pods(2);
    some.push(pod("p2", "Pending", false));
    let asked = scaled(&some, 3).by_pods(&values(&[80, 80]), Target::Utilization(50), cpu);
    assert_eq!(asked.unwrap().replicas, 3);
    let failed = vec![pod("p0", "Pending", false)];
    let asked = scaled(&failed, 1).by_pods(&values(&[80]), Target::Utilization(50), cpu);
    assert_eq!(
        asked.unwrap_err(),
        "did not receive metrics for targeted pods (pods might be unready)"
    );
    let asked =
        scaled(&three, 3).by_pods(&values(&[1]), Target::Utilization(50), Some(("memory", None)));
    assert_eq!(asked.unwrap_err(), "missing request for memory in container c of Pod p0");
}

#[test]
fn values_for_all_pods_are_shared_among_them() {
    let two = pods(2);
    let asked = scaled(&two, 2).by_value(300, 100);
    assert_eq!(asked.unwrap().replicas, 6);
    assert_eq!(scaled(&[], 0).by_value(300, 100).unwrap().replicas, 3, "from zero");
    let asked = scaled(&two, 2).by_value_per_pod(900, 100, 2);
    assert_eq!((asked.replicas, asked.value), (9, 450));
}

#[test]
fn it_scales_at_once_up_and_only_after_a_while_down() {
    let autoscaler = autoscaler(json!({}));
    let up = run(&autoscaler, (2, &[100, 100]), Memory::default(), at(NOW));
    let rescale = up.rescale.clone().unwrap();
    assert_eq!((rescale.from, rescale.to), (2, 4));
    assert_eq!(rescale.reason, "cpu resource utilization (percentage of request) above target");
    assert_eq!(condition(&up, "ScalingActive"), is("True", "ValidMetricFound"));
    assert_eq!(condition(&up, "ScalingLimited"), is("False", "DesiredWithinRange"));
    let up = up.after(&autoscaler, Ok(()), at(NOW));
    assert_eq!(condition(&up, "AbleToScale"), is("True", "SucceededRescale"));
    assert_eq!((up.events[0].0, up.events[0].1), (false, "SuccessfulRescale"));
    assert!(up.status.last_scale_time.is_some());
    let early = run(&autoscaler, (4, &[1; 4]), up.memory, at(NOW + 200));
    assert_eq!(early.rescale, None);
    assert_eq!(condition(&early, "AbleToScale"), is("True", "ScaleDownStabilized"));
    let late = run(&autoscaler, (4, &[1; 4]), early.memory, at(NOW + 301));
    assert_eq!(late.rescale.unwrap().to, 1);
}

#[test]
fn limits_are_kept_and_told() {
    let autoscaler = autoscaler(json!({"maxReplicas": 5, "minReplicas": 2}));
    let most = run(&autoscaler, (4, &[400; 4]), Memory::default(), at(NOW));
    assert_eq!(most.rescale.as_ref().unwrap().to, 5);
    assert_eq!(condition(&most, "ScalingLimited"), is("True", "TooManyReplicas"));
    let fast = run(&autoscaler, (2, &[900; 2]), Memory::default(), at(NOW));
    assert_eq!(fast.rescale.as_ref().unwrap().to, 4);
    assert_eq!(condition(&fast, "ScalingLimited"), is("True", "ScaleUpLimit"));
    let first = run(&autoscaler, (2, &[1; 2]), Memory::default(), at(NOW));
    let few = run(&autoscaler, (2, &[1; 2]), first.memory, at(NOW + 301));
    assert_eq!(few.rescale, None);
    assert_eq!(condition(&few, "ScalingLimited"), is("True", "TooFewReplicas"));
    for (current, to, reason) in [
        (9, 5, "Current number of replicas above Spec.MaxReplicas"),
        (1, 2, "Current number of replicas below Spec.MinReplicas"),
    ] {
        let rescale = run(&autoscaler, (current, &[]), Memory::default(), at(NOW)).rescale.unwrap();
        assert_eq!((rescale.to, rescale.reason.as_str()), (to, reason));
    }
    let off = run(&autoscaler, (0, &[]), Memory::default(), at(NOW));
    assert_eq!(off.rescale, None);
    assert_eq!(condition(&off, "ScalingActive"), is("False", "ScalingDisabled"));
}

#[test]
fn policies_bound_each_step() {
    let policy =
        |kind: &str, value: i32| json!({"type": kind, "value": value, "periodSeconds": 60});
    let rules = |select: &str| {
        json!({"stabilizationWindowSeconds": 0, "selectPolicy": select,
            "policies": [policy("Pods", 1), policy("Percent", 100)]})
    };
    for (select, up, down) in
        [("Max", Some(6), Some(1)), ("Min", Some(4), Some(2)), ("Disabled", None, None)]
    {
        let behavior = json!({"behavior": {"scaleUp": rules(select), "scaleDown": rules(select)}});
        let autoscaler = autoscaler(behavior);
        let higher = run(&autoscaler, (3, &[900; 3]), Memory::default(), at(NOW));
        assert_eq!(higher.rescale.as_ref().map(|rescale| rescale.to), up, "{select}");
        let lower = run(&autoscaler, (3, &[1; 3]), Memory::default(), at(NOW));
        assert_eq!(lower.rescale.as_ref().map(|rescale| rescale.to), down, "{select}");
        if select == "Min" {
            // What was added in the period counts.
            let higher = higher.after(&autoscaler, Ok(()), at(NOW));
            let again = run(&autoscaler, (4, &[900; 4]), higher.memory.clone(), at(NOW + 30));
            assert_eq!(again.rescale, None);
            assert_eq!(condition(&again, "ScalingLimited"), is("True", "ScaleUpLimit"));
            let later = run(&autoscaler, (4, &[900; 4]), higher.memory, at(NOW + 61));
            assert_eq!(later.rescale.unwrap().to, 5);
        }
    }
}

#[test]
fn what_is_missing_is_told_in_a_condition() {
    let target = json!({"type": "AverageValue", "averageValue": "10"});
    let custom = autoscaler(
        json!({"metrics": [{"type": "Pods", "pods": {"metric": {"name": "hits"}, "target": target}}]}),
    );
    let unserved = "unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered";
    let observe = |autoscaler, reading: Reading| {
        let scale = scale(2);
        let observed = Observed {
            autoscaler,
            scale: Ok(&scale),
            pods: pods(2),
            rivals: Vec::new(),
            readings: vec![reading],
        };
        plan(&observed, Memory::default(), at(NOW))
    };
    let outcome = observe(&custom, Err(unserved.to_owned()));
    assert_eq!(outcome.rescale, None);
    assert_eq!(condition(&outcome, "ScalingActive"), is("False", "FailedGetPodsMetric"));
    let events: Vec<_> =
        outcome.events.iter().map(|(_, reason, text)| (*reason, text.as_str())).collect();
    let error = format!("unable to get metric hits: {unserved}");
    let whole = format!(
        "invalid metrics (1 invalid out of 1), first error is: failed to get pods metric value: {error}"
    );
    assert_eq!(
        events,
        [("FailedGetPodsMetric", error.as_str()), ("FailedComputeMetricsReplicas", &whole)]
    );
    let gone = Observed {
        autoscaler: &custom,
        scale: Err("deployments.apps \"web\" not found"),
        pods: Vec::new(),
        rivals: Vec::new(),
        readings: Vec::new(),
    };
    let outcome = plan(&gone, Memory::default(), at(NOW));
    assert_eq!(condition(&outcome, "AbleToScale"), is("False", "FailedGetScale"));
    // A metric that fails does not keep another one from scaling up, but from scaling down.
    let cpu = autoscaler(json!({})).spec.metrics.unwrap()[0].clone();
    let mut both = custom.clone();
    both.spec.metrics.as_mut().unwrap().push(cpu);
    for (used, to) in [(100, Some(4)), (1, None)] {
        let scale = scale(2);
        let readings = vec![Err(unserved.to_owned()), Ok(Values::Pods(values(&[used; 2])))];
        let observed = Observed {
            autoscaler: &both,
            scale: Ok(&scale),
            pods: pods(2),
            rivals: Vec::new(),
            readings,
        };
        let outcome = plan(&observed, Memory::default(), at(NOW));
        assert_eq!(outcome.rescale.map(|rescale| rescale.to), to, "{used}");
    }
}

#[test]
fn no_more_recommendations_are_kept_than_the_bound() {
    let autoscaler = autoscaler(json!({}));
    let mut memory = Memory::default();
    for number in 0..3_000 {
        memory = run(&autoscaler, (2, &[50; 2]), memory, at(NOW + number / 2)).memory;
        assert!(memory.len() <= 1_000);
    }
    let later = run(&autoscaler, (2, &[50; 2]), memory, at(NOW + 10_000)).memory;
    assert_eq!(later.len(), 1, "those of the last hour");
}

proptest! {
    /// Whatever pods use, the number stays within its limits, and what is at its target stays.
    #[test]
    fn limits_hold_for_any_usage(
        current in 1..12_i32,
        used in proptest::collection::vec(0..i64::MAX, 12),
        min in 1..5_i32,
        more in 0..8_i32,
    ) {
        let max = min + more;
        let autoscaler = autoscaler(json!({"minReplicas": min, "maxReplicas": max}));
        let used = &used[..usize::try_from(current).unwrap()];
        let outcome = run(&autoscaler, (current, used), Memory::default(), at(NOW));
        let replicas = outcome.rescale.map_or(current, |rescale| rescale.to);
        prop_assert!((min..=max).contains(&replicas), "{replicas}");
        let usual = vec![50; usize::try_from(replicas).unwrap()];
        let outcome = run(&autoscaler, (replicas, &usual), Memory::default(), at(NOW));
        prop_assert_eq!(outcome.rescale, None);
    }
}

#[test]
fn pods_have_one_autoscaler() {
    let own = autoscaler(json!({}));
    let scale = scale(2);
    let observed = |rivals: Vec<Key>| {
        let readings = vec![Ok(Values::Pods(values(&[100, 100])))];
        let observed =
            Observed { autoscaler: &own, scale: Ok(&scale), pods: pods(2), rivals, readings };
        plan(&observed, Memory::default(), at(NOW))
    };
    assert!(observed(Vec::new()).rescale.is_some());
    let outcome = observed(vec![Key::new("ns", "a"), Key::new("ns", "b")]);
    assert_eq!(outcome.rescale, None);
    assert_eq!(condition(&outcome, "ScalingActive"), is("False", "AmbiguousSelector"));
    let text = "pods by selector app=web are controlled by multiple HPAs: [ns/a ns/b]";
    assert_eq!(
        outcome.events,
        [
            (true, "AmbiguousSelector", text.to_owned()),
            (true, "FailedComputeMetricsReplicas", text.to_owned()),
        ]
    );
}
