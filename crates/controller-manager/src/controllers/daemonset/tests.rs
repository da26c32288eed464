use k8s_openapi::api::apps::v1::{DaemonSetUpdateStrategy, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;

use super::template::{pod_for, suits, target_node};
use super::*;
use crate::machinery::testing::{at, labels};

fn set() -> DaemonSet {
    let mut set = DaemonSet::default();
    set.metadata.name = Some("d".into());
    set.metadata.uid = Some("uid-d".into());
    set.spec.template.metadata.get_or_insert_default().labels = Some(labels(&[("app", "d")]));
    set
}

fn rolling(surge: i32, unavailable: i32) -> DaemonSet {
    let mut set = set();
    set.spec.update_strategy = Some(DaemonSetUpdateStrategy {
        type_: Some("RollingUpdate".into()),
        rolling_update: Some(RollingUpdateDaemonSet {
            max_surge: Some(IntOrString::Int(surge)),
            max_unavailable: Some(IntOrString::Int(unavailable)),
        }),
    });
    set
}

fn node(name: &str) -> Node {
    let mut node = Node::default();
    node.metadata.name = Some(name.into());
    node.metadata.labels = Some(labels(&[("name", name)]));
    node
}

fn tainted(name: &str, effect: &str) -> Node {
    let mut node = node(name);
    node.spec.get_or_insert_default().taints =
        Some(vec![Taint { key: "k".into(), effect: effect.into(), ..Default::default() }]);
    node
}

/// A pod of the set on a node, of the template with this hash.
fn on(set: &DaemonSet, node: &str, hash: &str, ready: bool, id: usize) -> Pod {
    let mut pod = pod_for(set, node, hash);
    pod.metadata.name = Some(format!("{node}-{hash}-{id}"));
    pod.metadata.uid = pod.metadata.name.clone();
    pod.metadata.creation_timestamp = Some(Time(at(i64::try_from(id).unwrap())));
    let mut status = crate::machinery::testing::pod("x").running();
    if ready {
        status = status.ready_at(1);
    }
    pod.status = status.build().status;
    pod
}

fn planned(set: &DaemonSet, nodes: &[Node], pods: &[Pod]) -> Plan {
    let observed = Observed {
        set,
        nodes: nodes.iter().cloned().map(Arc::new).collect(),
        pods: pods.iter().cloned().map(Arc::new).collect(),
        hash: "new".into(),
        expectations_met: true,
    };
    plan(&observed, at(1000))
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter().map(|pod| pod.metadata.name.as_deref().unwrap()).collect()
}

#[test]
fn every_suitable_node_runs_one_pod() {
    let set = set();
    let nodes = [node("a"), node("b"), tainted("c", "NoSchedule"), tainted("d", "NoExecute")];
    let pods = [
        on(&set, "a", "new", true, 1),
        on(&set, "a", "new", true, 2),
        on(&set, "c", "new", true, 3),
        on(&set, "d", "new", true, 4),
        on(&set, "gone", "new", true, 5),
    ];
    let plan = planned(&set, &nodes, &pods);
    assert_eq!(plan.create, ["b"]);
    assert_eq!(names(&plan.delete), ["a-new-2", "d-new-4", "gone-new-5"]);
    let status = &plan.status;
    assert_eq!(
        (
            status.desired_number_scheduled,
            status.current_number_scheduled,
            status.number_misscheduled,
            status.number_available
        ),
        (2, 1, 3, Some(1))
    );
}

#[test]
fn a_pod_is_pinned_to_its_node_and_tolerates_the_nodes_conditions() {
    let mut set = set();
    set.spec.template.spec.get_or_insert_default().host_network = Some(true);
    let annotations = [("deprecated.daemonset.template.generation", "4")];
    set.metadata.annotations = Some(labels(&annotations));
    let pod = pod_for(&set, "a", "h");
    assert_eq!(target_node(&pod), Some("a"));
    assert_eq!(pod.metadata.labels.as_ref().unwrap()["pod-template-generation"], "4");
    let tolerations = pod.spec.unwrap().tolerations.unwrap();
    assert_eq!(tolerations.len(), 7);
    let mut cordoned = tainted("a", "NoSchedule");
    cordoned.spec.as_mut().unwrap().taints.as_mut().unwrap()[0].key =
        "node.kubernetes.io/unschedulable".into();
    assert_eq!(suits(&set, &cordoned), (true, true));
    set.spec.template.spec.as_mut().unwrap().node_selector = Some(labels(&[("name", "b")]));
    assert_eq!(suits(&set, &cordoned), (false, false));
}

#[test]
fn failed_pods_are_replaced_after_a_minimum_age() {
    let set = set();
    let mut failed = on(&set, "a", "new", false, 995);
    failed.status.as_mut().unwrap().phase = Some("Failed".into());
    let plan = planned(&set, &[node("a")], &[failed.clone()]);
    assert!(plan.delete.is_empty() && plan.create.is_empty());
    assert_eq!(plan.requeue_after, Some(std::time::Duration::from_secs(5)));
    failed.metadata.creation_timestamp = Some(Time(at(1)));
    assert_eq!(planned(&set, &[node("a")], &[failed.clone()]).failed.len(), 1);
    let mut succeeded = failed;
    succeeded.status.as_mut().unwrap().phase = Some("Succeeded".into());
    let plan = planned(&set, &[node("a")], &[succeeded]);
    assert_eq!((plan.succeeded.len(), plan.delete.len(), plan.failed.len()), (1, 1, 0));
}

#[test]
fn on_delete_keeps_old_pods() {
    let mut set = rolling(0, 1);
    set.spec.update_strategy.as_mut().unwrap().type_ = Some("OnDelete".into());
    let plan = planned(&set, &[node("a")], &[on(&set, "a", "old", true, 1)]);
    assert!(plan.delete.is_empty());
    assert_eq!(plan.status.updated_number_scheduled, Some(0));
}

proptest! {
    /// A rolling update stays within its bounds whatever the pods do, and completes.
    #[test]
    fn updates_keep_their_bounds(
        count in 1..7usize, surge in 0..3i32, unavailable in 0..3i32, readiness in prop::collection::vec(any::<bool>(), 80),
    ) {
        let set = rolling(surge, unavailable);
        let (surge, unavailable) = match (surge, unavailable) {
            (0, 0) => (0, 1),
            (0, unavailable) => (0, unavailable),
            // With a surge no available pod is deleted before its successor is available.
            (surge, _) => (surge, 0),
        };
        let nodes: Vec<_> = (0..count).map(|index| node(&format!("n{index}"))).collect();
        let mut pods: Vec<_> = (0..count).map(|index| on(&set, &format!("n{index}"), "old", true, index)).collect();
        let mut made = count;
        let mut readiness = readiness.into_iter();
        for _ in 0..200 {
            let plan = planned(&set, &nodes, &pods);
            pods.retain(|pod| !plan.delete.iter().any(|gone| **gone == *pod));
            let serving = nodes.iter().filter(|node| pods.iter().any(|pod| {
                target_node(pod) == node.metadata.name.as_deref() && crate::machinery::pod_state::is_ready(pod)
            })).count();
            prop_assert!(serving as i32 >= count as i32 - unavailable);
            for name in &plan.create {
                made += 1;
                pods.push(on(&set, name, "new", false, made));
            }
            prop_assert!(pods.len() as i32 <= count as i32 + surge);
            for pod in &mut pods {
                if !crate::machinery::pod_state::is_ready(pod) && readiness.next().unwrap_or(true) {
                    pod.status = crate::machinery::testing::pod("x").running().ready_at(1).build().status;
                }
            }
        }
        prop_assert_eq!(pods.len(), count);
        let plan = planned(&set, &nodes, &pods);
        prop_assert_eq!(plan.status.updated_number_scheduled, Some(count as i32));
        prop_assert!(plan.create.is_empty() && plan.delete.is_empty());
    }
}
