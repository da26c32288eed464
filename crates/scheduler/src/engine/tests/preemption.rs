//! DefaultPreemption through the engine.

use super::*;

fn prioritized(name: &str, cpu: &str, priority: i32) -> Pod {
    let mut pod = pod(name, cpu);
    pod.spec.as_mut().unwrap().priority = Some(priority);
    pod
}

/// A running pod; `started`: in seconds.
fn running(name: &str, node: &str, cpu: &str, priority: i32, started: i64) -> Pod {
    let mut pod = prioritized(name, cpu, priority);
    pod.spec.as_mut().unwrap().node_name = Some(node.into());
    let status = pod.status.get_or_insert_default();
    status.start_time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(started)));
    pod
}

/// The pod in its graceful end, as a victim.
fn ending(mut pod: Pod) -> Pod {
    let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(1));
    pod.metadata.deletion_timestamp = Some(time);
    let condition = json!({"status": {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]}});
    let read: Pod = api::Kind::decode(condition.to_string().as_bytes()).unwrap();
    pod.status.get_or_insert_default().conditions = read.status.unwrap().conditions;
    pod
}

fn budget(
    name: &str,
    app: &str,
    allowed: i32,
) -> k8s_openapi::api::policy::v1::PodDisruptionBudget {
    let budget = json!({"metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": app}}}, "status": {"disruptionsAllowed": allowed}});
    api::Kind::decode(budget.to_string().as_bytes()).unwrap()
}

/// What is preempted for the pod: the node, and the names of the victims.
fn preempt(engine: &mut Engine, pod: &Pod) -> Result<(String, Vec<String>), String> {
    engine.set_pod(pod, at(0));
    match engine.next(at(0)).unwrap() {
        Decision::Unschedulable { nomination: Nomination::Preempt(preemption), .. } => {
            let victims = preemption.victims.iter().map(|victim| victim.name.clone()).collect();
            Ok((preemption.node.to_string(), victims))
        }
        Decision::Unschedulable { message, .. } => Err(message),
        Decision::Bind { node, .. } => Err(format!("bound to {node}")),
    }
}

fn chosen(node: &str, victims: &[&str]) -> Result<(String, Vec<String>), String> {
    Ok((node.to_owned(), victims.iter().map(|name| (*name).to_owned()).collect()))
}

#[test]
fn as_few_as_needed_of_the_lowest_priority_go() {
    let mut engine = engine(&[node("n", "4", &[])]);
    for (name, cpu, priority) in [("a", "1", 1), ("b", "1", 5), ("c", "1", 1), ("d", "1", 9)] {
        engine.set_pod(&running(name, "n", cpu, priority, 0), at(0));
    }
    assert_eq!(preempt(&mut engine, &prioritized("x", "2", 9)), chosen("n", &["a", "c"]));
    // Nothing has changed by asking: the snapshot is as before.
    assert_eq!(engine.snapshot.resource("cpu").unwrap().requested[0], 4000);
}

#[test]
fn the_node_with_the_least_damage_is_chosen() {
    let nodes = ["a", "b", "c"].map(|name| node(name, "1", &[]));
    for (pods, expected) in [
        // The lowest of the highest priorities.
        ([("a", 3, 0), ("b", 2, 0), ("c", 3, 0)], "b"),
        // The one that has run for the shortest time.
        ([("a", 2, 10), ("b", 2, 30), ("c", 2, 20)], "b"),
    ] {
        let mut engine = engine(&nodes);
        for (name, priority, started) in pods {
            engine.set_pod(&running(&format!("on-{name}"), name, "1", priority, started), at(0));
        }
        let expected = chosen(expected, &[&format!("on-{expected}")]);
        assert_eq!(preempt(&mut engine, &prioritized("x", "1", 9)), expected);
    }
    // Fewer victims.
    let mut engine = engine(&nodes[..2]);
    for name in ["a1", "a2"] {
        engine.set_pod(&running(name, "a", "500m", 1, 0), at(0));
    }
    engine.set_pod(&running("b1", "b", "1", 1, 0), at(0));
    assert_eq!(preempt(&mut engine, &prioritized("x", "1", 9)), chosen("b", &["b1"]));
}

#[test]
fn budgets_are_spared_if_possible_and_violated_if_not() {
    let mut engine = engine(&[node("a", "1", &[]), node("b", "1", &[])]);
    engine.set_pod(&running("kept-1", "a", "1", 1, 0), at(0));
    engine.set_pod(&running("free-1", "b", "1", 2, 0), at(0));
    engine.budgets.set(&budget("kept", "kept", 0));
    assert_eq!(preempt(&mut engine, &prioritized("x", "1", 9)), chosen("b", &["free-1"]));
    engine.remove_pod("uid-x", at(1));
    engine.budgets.set(&budget("free", "free", 0));
    assert_eq!(preempt(&mut engine, &prioritized("y", "1", 9)), chosen("a", &["kept-1"]));
}

#[test]
fn of_one_node_those_that_violate_no_budget_go_first() {
    let mut engine = engine(&[node("n", "2", &[])]);
    engine.set_pod(&running("kept-1", "n", "1", 1, 0), at(0));
    engine.set_pod(&running("free-1", "n", "1", 2, 0), at(0));
    engine.budgets.set(&budget("kept", "kept", 0));
    assert_eq!(preempt(&mut engine, &prioritized("x", "1", 9)), chosen("n", &["free-1"]));
}

#[test]
fn equal_and_higher_priorities_and_pods_that_never_preempt() {
    let mut engine = engine(&[node("n", "1", &[])]);
    engine.set_pod(&running("a", "n", "1", 5, 0), at(0));
    assert_eq!(
        preempt(&mut engine, &prioritized("x", "1", 5)),
        Err("0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.".into())
    );
    let mut polite = prioritized("y", "1", 9);
    polite.spec.as_mut().unwrap().preemption_policy = Some("Never".into());
    assert_eq!(
        preempt(&mut engine, &polite),
        Err("0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.".into())
    );
    assert_eq!(
        preempt(&mut engine, &prioritized("z", "2", 9)),
        Err("0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.".into())
    );
}

#[test]
fn extended_resources_are_preempted_for() {
    let mut foo = node("n", "4", &[]);
    let allocatable = foo.status.as_mut().unwrap().allocatable.as_mut().unwrap();
    allocatable.insert("scheduling.k8s.io/foo".into(), Quantity("5".into()));
    let mut engine = engine(&[foo]);
    let with_foo = |mut pod: Pod, amount: &str| {
        let resources = pod.spec.as_mut().unwrap().containers[0].resources.as_mut().unwrap();
        let requests = resources.requests.as_mut().unwrap();
        requests.insert("scheduling.k8s.io/foo".into(), Quantity(amount.into()));
        pod
    };
    engine.set_pod(&with_foo(running("low", "n", "100m", 1, 0), "3"), at(0));
    engine.set_pod(&with_foo(running("medium", "n", "100m", 2, 0), "2"), at(0));
    let high = with_foo(prioritized("high", "100m", 9), "3");
    assert_eq!(preempt(&mut engine, &high), chosen("n", &["low"]));
}

#[test]
fn room_is_kept_for_a_nominated_pod_until_its_victims_are_gone() {
    let mut engine = engine(&[node("n", "1", &[])]);
    let low = running("low", "n", "1", 1, 0);
    engine.set_pod(&low, at(0));
    let high = prioritized("high", "1", 9);
    assert_eq!(preempt(&mut engine, &high), chosen("n", &["low"]));
    engine.preempted("uid-high", false, at(0));

    // The victim is ending gracefully: nothing more is preempted.
    engine.set_pod(&ending(low), at(1));
    engine.set_pod(&prioritized("high", "1", 9), at(1));
    engine.queue.upsert(engine.queue.get("uid-high").unwrap().clone(), at(1));
    let Some(Decision::Unschedulable { message, nomination, .. }) = engine.next(at(1)) else {
        panic!("it does not fit yet")
    };
    assert!(
        message
            .ends_with("preemption: not eligible due to a terminating pod on the nominated node."),
        "{message}"
    );
    assert!(matches!(nomination, Nomination::Keep));

    // The victim is gone: a pod of lower priority does not get its room, the nominated pod does.
    engine.remove_pod("uid-low", at(2));
    engine.set_pod(&prioritized("other", "1", 2), at(2));
    let Some(Decision::Unschedulable { pod, message, .. }) = engine.next(at(2)) else {
        panic!("room is kept")
    };
    assert_eq!(pod.name, "other");
    assert!(message.starts_with("0/1 nodes are available: 1 Insufficient cpu."), "{message}");
    let next = engine.next(at(20));
    assert!(
        matches!(&next, Some(Decision::Bind { pod, node, .. }) if pod.name == "high" && **node == *"n"),
        "{next:?}"
    );
}

#[test]
fn a_higher_priority_takes_over_the_room_and_ends_the_nomination() {
    let mut engine = engine(&[node("n", "1", &[])]);
    engine.set_pod(&running("low", "n", "1", 1, 0), at(0));
    assert_eq!(preempt(&mut engine, &prioritized("high", "1", 5)), chosen("n", &["low"]));
    engine.set_pod(&prioritized("higher", "1", 9), at(0));
    let Some(Decision::Unschedulable { nomination: Nomination::Preempt(preemption), .. }) =
        engine.next(at(0))
    else {
        panic!("it preempts")
    };
    let outranked: Vec<_> = preemption.outranked.iter().map(|pod| pod.name.as_str()).collect();
    assert_eq!(outranked, ["high"]);
}

#[test]
fn a_pod_waits_while_its_victims_are_being_deleted_and_is_retried_if_they_are_not() {
    let mut engine = engine(&[node("n", "1", &[])]);
    engine.set_pod(&running("low", "n", "1", 1, 0), at(0));
    assert_eq!(preempt(&mut engine, &prioritized("high", "1", 9)), chosen("n", &["low"]));
    engine.remove_pod("uid-low", at(5));
    assert!(engine.next(at(5)).is_none(), "the preemption is not finished");
    engine.preempted("uid-high", false, at(6));
    assert!(matches!(engine.next(at(6)), Some(Decision::Bind { .. })));

    engine.set_pod(&running("low-2", "n", "1", 1, 0), at(7));
    engine.bind_failed("uid-high", at(7));
    let again = engine.next(at(30));
    assert!(
        matches!(again, Some(Decision::Unschedulable { nomination: Nomination::Preempt(_), .. })),
        "{again:?}"
    );
    engine.preempted("uid-high", true, at(31));
    let again = engine.next(at(31));
    assert!(
        matches!(again, Some(Decision::Unschedulable { nomination: Nomination::Preempt(_), .. })),
        "{again:?}"
    );
}

#[test]
fn a_nomination_that_has_become_useless_is_cleared() {
    let mut engine = engine(&[node("n", "1", &[])]);
    engine.set_pod(&running("equal", "n", "1", 9, 0), at(0));
    let mut high = prioritized("high", "1", 9);
    high.status.get_or_insert_default().nominated_node_name = Some("n".into());
    engine.set_pod(&high, at(0));
    let decision = engine.next(at(0));
    assert!(
        matches!(decision, Some(Decision::Unschedulable { nomination: Nomination::Clear, .. })),
        "{decision:?}"
    );
}

#[test]
fn anti_affinity_and_ports_are_preempted_for() {
    let mut engine = engine(&[node("n", "4", &[("host", "n")])]);
    let term = json!([{"labelSelector": {"matchLabels": {"app": "a"}}, "topologyKey": "host"}]);
    let far = json!({"priority": 9, "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}});
    engine.set_pod(&running("a-1", "n", "1", 1, 0), at(0));
    engine.set_pod(&running("b-1", "n", "1", 1, 0), at(0));
    assert_eq!(preempt(&mut engine, &pod_with("x", far)), chosen("n", &["a-1"]));
    engine.remove_pod("uid-x", at(1));
    let port = json!([{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]);
    engine.set_pod(
        &pod_with("web", json!({"nodeName": "n", "priority": 1, "containers": port})),
        at(1),
    );
    let wants = pod_with("y", json!({"priority": 9, "containers": port}));
    assert_eq!(preempt(&mut engine, &wants), chosen("n", &["web"]));
}
