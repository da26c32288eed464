//! What a DaemonSet needs on each node: a pure function.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};

use super::template::{self, target_node};
use crate::machinery::int_or_percent::{Round, scaled};
use crate::machinery::owner::is_deleting;
use crate::machinery::pod_state::{available_at, is_available, is_ready};
use crate::machinery::revisions::HASH_LABEL;

/// Minimum age of a failed pod before it is replaced, so that a pod that always fails causes no hot
/// loop.
const FAILED_AGE_MIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Observed<'a> {
    pub set: &'a DaemonSet,
    pub nodes: Vec<Arc<Node>>,
    /// The pods that the set controls.
    pub pods: Vec<Arc<Pod>>,
    /// Hash of the current template.
    pub hash: String,
    /// Whether `pods` reflects everything that was written before.
    pub expectations_met: bool,
}

#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Nodes that get a pod.
    pub create: Vec<String>,
    pub delete: Vec<Arc<Pod>>,
    /// Failed pods; they are in `delete` too.
    pub failed: Vec<Arc<Pod>>,
    /// Pods that have succeeded, which a daemon never should.
    pub succeeded: Vec<Arc<Pod>>,
    pub status: DaemonSetStatus,
    pub requeue_after: Option<Duration>,
}

/// A node and its pods of this set, oldest first.
struct NodePods {
    name: String,
    should_run: bool,
    may_stay: bool,
    pods: Vec<Arc<Pod>>,
}

pub fn plan(observed: &Observed<'_>, now: Timestamp) -> Plan {
    let nodes = pods_by_node(observed);
    let mut plan = Plan {
        status: status(observed, &nodes, now),
        requeue_after: next_availability(observed, now),
        ..Default::default()
    };
    if !observed.expectations_met || is_deleting(&observed.set.metadata) {
        return plan;
    }
    let (surge, _) = bounds(observed.set, &plan.status);
    for node in &nodes {
        manage(node, observed, surge, &mut plan, now);
    }
    if plan.create.is_empty() && plan.delete.is_empty() && is_rolling(observed.set) {
        roll(observed, &nodes, &mut plan, now);
    }
    plan
}

fn pods_by_node(observed: &Observed<'_>) -> Vec<NodePods> {
    let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in &observed.pods {
        if let Some(node) = target_node(pod) {
            by_node.entry(node.to_owned()).or_default().push(pod.clone());
        }
    }
    let created = |pod: &Arc<Pod>| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let mut all = Vec::new();
    for node in &observed.nodes {
        let name = node.metadata.name.clone().unwrap_or_default();
        let mut pods = by_node.remove(&name).unwrap_or_default();
        pods.sort_by_key(|pod| (created(pod), pod.metadata.name.clone()));
        let (should_run, may_stay) = template::suits(observed.set, node);
        all.push(NodePods { name, should_run, may_stay, pods });
    }
    // Pods of nodes that no longer exist.
    all.extend(by_node.into_iter().map(|(name, pods)| NodePods {
        name,
        should_run: false,
        may_stay: false,
        pods,
    }));
    all
}

fn is_rolling(set: &DaemonSet) -> bool {
    let strategy = set.spec.update_strategy.as_ref();
    strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
}

/// `maxSurge` and `maxUnavailable`, as numbers of the nodes that should run a pod.
fn bounds(set: &DaemonSet, status: &DaemonSetStatus) -> (i32, i32) {
    let strategy = set.spec.update_strategy.as_ref();
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let total = status.desired_number_scheduled;
    let resolve =
        |value: Option<&_>, default| value.map_or(default, |value| scaled(value, total, Round::Up));
    let surge = resolve(rolling.and_then(|rolling| rolling.max_surge.as_ref()), 0);
    let unavailable = resolve(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), 1);
    if surge == 0 && unavailable == 0 {
        return (0, 1);
    }
    (surge, unavailable)
}

fn is_new(pod: &Pod, hash: &str) -> bool {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(HASH_LABEL)).map(String::as_str) == Some(hash)
}

/// Keeps one pod on a node that should run one, and none where none may stay.
fn manage(node: &NodePods, observed: &Observed<'_>, surge: i32, plan: &mut Plan, now: Timestamp) {
    if !node.may_stay {
        let gone = node.pods.iter().filter(|pod| !is_deleting(&pod.metadata));
        plan.delete.extend(gone.cloned());
        return;
    }
    if node.pods.is_empty() {
        if node.should_run {
            plan.create.push(node.name.clone());
        }
        return;
    }
    let mut running = Vec::new();
    for pod in node.pods.iter().filter(|pod| !is_deleting(&pod.metadata)) {
        match api::pod::phase(pod) {
            "Failed" => match failed_wait(pod, now) {
                None => {
                    plan.failed.push(pod.clone());
                    plan.delete.push(pod.clone());
                }
                Some(wait) => requeue_sooner(&mut plan.requeue_after, wait),
            },
            "Succeeded" => {
                plan.succeeded.push(pod.clone());
                plan.delete.push(pod.clone());
            }
            _ => running.push(pod),
        }
    }
    let delete_others = |keep: &Arc<Pod>, plan: &mut Plan, of: &[&Arc<Pod>]| {
        plan.delete.extend(of.iter().filter(|pod| **pod != keep).map(|pod| (*pod).clone()));
    };
    if running.len() <= 1 {
        return;
    }
    if surge == 0 || !is_rolling(observed.set) {
        delete_others(running[0], plan, &running);
        return;
    }
    // During a surge a node has one pod of each template until the new one is available.
    let (new, old): (Vec<_>, Vec<_>) =
        running.into_iter().partition(|pod| is_new(pod, &observed.hash));
    for side in [&new, &old] {
        if let Some(first) = side.first() {
            delete_others(first, plan, side);
        }
    }
}

fn failed_wait(pod: &Pod, now: Timestamp) -> Option<Duration> {
    let created = pod.metadata.creation_timestamp.as_ref()?.0;
    let age = Duration::try_from(now.duration_since(created)).unwrap_or_default();
    FAILED_AGE_MIN.checked_sub(age).filter(|wait| !wait.is_zero())
}

fn requeue_sooner(requeue_after: &mut Option<Duration>, wait: Duration) {
    *requeue_after = Some(requeue_after.map_or(wait, |present| present.min(wait)));
}

/// The node's pods that are not being deleted: one of a former template, one of the current.
fn old_and_new<'a>(node: &'a NodePods, hash: &str) -> (Option<&'a Arc<Pod>>, Option<&'a Arc<Pod>>) {
    let (mut old, mut new) = (None, None);
    for pod in node.pods.iter().filter(|pod| !is_deleting(&pod.metadata)) {
        *(if is_new(pod, hash) { &mut new } else { &mut old }) = Some(pod);
    }
    (old, new)
}

/// Replaces pods of former templates, within `maxSurge` and `maxUnavailable`.
fn roll(observed: &Observed<'_>, nodes: &[NodePods], plan: &mut Plan, now: Timestamp) {
    let min_ready = observed.set.spec.min_ready_seconds.unwrap_or(0);
    let available =
        |pod: Option<&Arc<Pod>>| pod.is_some_and(|pod| is_available(pod, min_ready, now));
    let (surge, unavailable) = bounds(observed.set, &plan.status);
    let wanted = nodes.iter().filter(|node| node.should_run);
    if surge > 0 {
        let mut surging = 0;
        let mut candidates = Vec::new();
        for node in wanted {
            let (old, new) = old_and_new(node, &observed.hash);
            match (old, new) {
                (Some(old), Some(_)) if available(new) => plan.delete.push(old.clone()),
                (Some(_), Some(_)) => surging += 1,
                // An old pod that is not available can be replaced without counting as a surge.
                (Some(_), None) if !available(old) => plan.create.push(node.name.clone()),
                (Some(_), None) => candidates.push(node.name.clone()),
                (None, _) => {}
            }
        }
        let room = usize::try_from(surge - surging).unwrap_or(0);
        plan.create.extend(candidates.into_iter().take(room));
        return;
    }
    let mut down = 0;
    let mut candidates = Vec::new();
    for node in wanted {
        let (old, new) = old_and_new(node, &observed.hash);
        match (old, new) {
            (Some(pod), None) if available(old) => candidates.push(pod.clone()),
            (Some(pod), None) => {
                down += 1;
                plan.delete.push(pod.clone());
            }
            (_, Some(_)) if available(new) => {}
            _ => down += 1,
        }
    }
    let room = usize::try_from(unavailable - down).unwrap_or(0);
    plan.delete.extend(candidates.into_iter().take(room));
}

fn status(observed: &Observed<'_>, nodes: &[NodePods], now: Timestamp) -> DaemonSetStatus {
    let old = observed.set.status.clone().unwrap_or_default();
    let min_ready = observed.set.spec.min_ready_seconds.unwrap_or(0);
    let mut status = DaemonSetStatus {
        observed_generation: observed.set.metadata.generation,
        collision_count: old.collision_count,
        conditions: old.conditions,
        ..Default::default()
    };
    let (mut available, mut updated) = (0, 0);
    for node in nodes {
        let Some(first) = node.pods.iter().find(|pod| !is_deleting(&pod.metadata)) else {
            status.desired_number_scheduled += i32::from(node.should_run);
            continue;
        };
        if !node.should_run {
            status.number_misscheduled += 1;
            continue;
        }
        status.desired_number_scheduled += 1;
        status.current_number_scheduled += 1;
        let mut pods = node.pods.iter().filter(|pod| !is_deleting(&pod.metadata));
        status.number_ready += i32::from(pods.clone().any(|pod| is_ready(pod)));
        available += i32::from(pods.any(|pod| is_available(pod, min_ready, now)));
        let newest = old_and_new(node, &observed.hash).1.unwrap_or(first);
        updated += i32::from(is_new(newest, &observed.hash));
    }
    status.updated_number_scheduled = Some(updated);
    status.number_available = Some(available);
    status.number_unavailable = Some((status.desired_number_scheduled - available).max(0));
    status
}

fn next_availability(observed: &Observed<'_>, now: Timestamp) -> Option<Duration> {
    let min_ready = observed.set.spec.min_ready_seconds.unwrap_or(0);
    let times = observed.pods.iter().filter_map(|pod| available_at(pod, min_ready));
    let next = times.filter(|at| *at > now).min()?;
    Duration::try_from(next.duration_since(now)).ok()
}
