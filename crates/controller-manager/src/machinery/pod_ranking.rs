//! Which pods a controller deletes first (`k8s.io/kubernetes/pkg/controller`).

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::machinery::owner::uid;
use crate::machinery::pod_state::{is_active, is_ready, ready_since};

/// Annotation that lowers or raises the cost of deleting a pod.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Number of active pods by node.
pub fn count_per_node<'a>(pods: impl Iterator<Item = &'a Pod>) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for node in pods.filter(|pod| is_active(pod)).filter_map(api::pod::node_name) {
        *counts.entry(node.to_owned()).or_insert(0) += 1;
    }
    counts
}

/// Orders pods by how little their deletion costs: the first are deleted first
/// (`ActivePodsWithRanks`). `per_node`: number of related active pods on each node.
pub fn rank_for_deletion(pods: &mut [Arc<Pod>], per_node: &HashMap<String, usize>, now: Timestamp) {
    pods.sort_by(|one, other| compare(one, other, per_node, now));
}

fn compare(one: &Pod, other: &Pod, per_node: &HashMap<String, usize>, now: Timestamp) -> Ordering {
    let assigned = |pod: &Pod| api::pod::node_name(pod).is_some();
    let phase = |pod: &Pod| match api::pod::phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let neighbours = |pod: &Pod| {
        api::pod::node_name(pod).and_then(|node| per_node.get(node)).copied().unwrap_or(0)
    };
    assigned(one)
        .cmp(&assigned(other))
        .then_with(|| phase(one).cmp(&phase(other)))
        .then_with(|| is_ready(one).cmp(&is_ready(other)))
        .then_with(|| deletion_cost(one).cmp(&deletion_cost(other)))
        .then_with(|| neighbours(other).cmp(&neighbours(one)))
        .then_with(|| age(ready_since(one), now).cmp(&age(ready_since(other), now)))
        .then_with(|| restarts(other).cmp(&restarts(one)))
        .then_with(|| age(created(one), now).cmp(&age(created(other), now)))
        // Arbitrary, and the last criterion: upstream has it wherever two times differ within an
        // order of magnitude, which orders pods in circles.
        .then_with(|| uid(&one.metadata).cmp(uid(&other.metadata)))
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// The order of magnitude (log2) of an age: younger first.
fn age(since: Option<Timestamp>, now: Timestamp) -> i64 {
    let nanoseconds = since.map(|since| now.duration_since(since).as_nanos());
    let age = nanoseconds.and_then(|age| u128::try_from(age).ok());
    age.and_then(u128::checked_ilog2).map_or(-1, i64::from)
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations
        .and_then(|annotations| annotations.get(DELETION_COST))
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|status| status.restart_count).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::testing::{at, pod};

    #[test]
    fn the_cheapest_pods_are_deleted_first() {
        let ranked = [
            pod("unscheduled").build(),
            pod("pending").on("n1").build(),
            pod("not-ready").on("n1").running().build(),
            pod("cheap").on("n2").running().ready_at(1).annotation(DELETION_COST, "-5").build(),
            pod("crowded").on("n1").running().ready_at(1).build(),
            pod("young").on("n2").running().ready_at(900).build(),
            pod("restarted").on("n2").running().ready_at(1).restarts(3).build(),
            pod("newer").on("n2").running().ready_at(1).created(990).build(),
            pod("steady").on("n2").running().ready_at(1).build(),
            pod("dear").on("n1").running().ready_at(1).annotation(DELETION_COST, "7").build(),
        ];
        let per_node = [("n1".to_owned(), 3), ("n2".to_owned(), 1)].into();
        let mut shuffled: Vec<Arc<Pod>> = ranked.iter().rev().cloned().map(Arc::new).collect();
        rank_for_deletion(&mut shuffled, &per_node, at(1000));
        let names: Vec<_> = shuffled.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
        let wanted: Vec<_> = ranked.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
        assert_eq!(names, wanted);
    }

    #[test]
    fn pods_of_nearly_one_age_have_an_order() {
        // Times and uids that disagree; from some twenty elements on, a sort notices circles.
        let pods = (0..100i64).map(|number| {
            let mut pod = pod(&number.to_string()).created(number % 3).build();
            pod.metadata.uid = Some(format!("{:03}", number * 37 % 101));
            Arc::new(pod)
        });
        let mut pods: Vec<Arc<Pod>> = pods.collect();
        rank_for_deletion(&mut pods, &HashMap::new(), at(1000));
        assert!(pods.is_sorted_by_key(|pod| uid(&pod.metadata).to_owned()));
    }
}
