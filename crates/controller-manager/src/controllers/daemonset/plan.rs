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

/// Youngest age at which a failed pod is replaced, so that one that always fails does not spin.
const FAILED_AGE_MIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Observed<'a> {
    pub set: &'a DaemonSet,
    pub nodes: Vec<Arc<Node>>,
    /// The pods that are ours.
    pub pods: Vec<Arc<Pod>>,
    /// Hash of the present template.
    pub hash: String,
    /// The pods include all that was written before.
    pub in_step: bool,
}

#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Nodes that get a pod.
    pub create: Vec<String>,
    pub delete: Vec<Arc<Pod>>,
    /// Pods that failed; they are among `delete`.
    pub failed: Vec<Arc<Pod>>,
    pub status: DaemonSetStatus,
    pub again: Option<Duration>,
}

/// A node and its pods of this set, oldest first.
struct Place {
    name: String,
    should_run: bool,
    may_stay: bool,
    pods: Vec<Arc<Pod>>,
}

/// Pods at a place that are not on their way out, by template.
#[derive(Default)]
struct Sides<'a> {
    old: Option<&'a Arc<Pod>>,
    new: Option<&'a Arc<Pod>>,
}

pub fn plan(observed: &Observed<'_>, now: Timestamp) -> Plan {
    let places = places(observed);
    let mut plan = Plan {
        status: status(observed, &places, now),
        again: next_availability(observed, now),
        ..Default::default()
    };
    if !observed.in_step || is_deleting(&observed.set.metadata) {
        return plan;
    }
    let (surge, _) = bounds(observed.set, &plan.status);
    for place in &places {
        manage(place, observed, surge, &mut plan, now);
    }
    if plan.create.is_empty() && plan.delete.is_empty() && is_rolling(observed.set) {
        roll(observed, &places, &mut plan, now);
    }
    plan
}

fn places(observed: &Observed<'_>) -> Vec<Place> {
    let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in &observed.pods {
        if let Some(node) = target_node(pod) {
            by_node.entry(node.to_owned()).or_default().push(pod.clone());
        }
    }
    let created = |pod: &Arc<Pod>| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let mut places = Vec::new();
    for node in &observed.nodes {
        let name = node.metadata.name.clone().unwrap_or_default();
        let mut pods = by_node.remove(&name).unwrap_or_default();
        pods.sort_by_key(|pod| (created(pod), pod.metadata.name.clone()));
        let (should_run, may_stay) = template::suits(observed.set, node);
        places.push(Place { name, should_run, may_stay, pods });
    }
    // Pods for nodes that are gone.
    places.extend(by_node.into_iter().map(|(name, pods)| Place {
        name,
        should_run: false,
        may_stay: false,
        pods,
    }));
    places
}

fn is_rolling(set: &DaemonSet) -> bool {
    let strategy = set.spec.update_strategy.as_ref();
    strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
}

/// `maxSurge` and `maxUnavailable` for the nodes that want a pod.
fn bounds(set: &DaemonSet, status: &DaemonSetStatus) -> (i32, i32) {
    let strategy = set.spec.update_strategy.as_ref();
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let total = status.desired_number_scheduled;
    let part =
        |value: Option<&_>, default| value.map_or(default, |value| scaled(value, total, Round::Up));
    let surge = part(rolling.and_then(|rolling| rolling.max_surge.as_ref()), 0);
    let unavailable = part(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), 1);
    if surge == 0 && unavailable == 0 {
        return (0, 1);
    }
    (surge, unavailable)
}

fn is_new(pod: &Pod, hash: &str) -> bool {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(HASH_LABEL)).map(String::as_str) == Some(hash)
}

/// One pod where one should be, none where none may stay.
fn manage(place: &Place, observed: &Observed<'_>, surge: i32, plan: &mut Plan, now: Timestamp) {
    if !place.may_stay {
        let gone = place.pods.iter().filter(|pod| !is_deleting(&pod.metadata));
        plan.delete.extend(gone.cloned());
        return;
    }
    if place.pods.is_empty() {
        if place.should_run {
            plan.create.push(place.name.clone());
        }
        return;
    }
    let mut running = Vec::new();
    for pod in place.pods.iter().filter(|pod| !is_deleting(&pod.metadata)) {
        match api::pod::phase(pod) {
            "Failed" => match failed_wait(pod, now) {
                None => {
                    plan.failed.push(pod.clone());
                    plan.delete.push(pod.clone());
                }
                Some(wait) => sooner(&mut plan.again, wait),
            },
            "Succeeded" => plan.delete.push(pod.clone()),
            _ => running.push(pod),
        }
    }
    let doubled = |keep: &Arc<Pod>, plan: &mut Plan, of: &[&Arc<Pod>]| {
        plan.delete.extend(of.iter().filter(|pod| **pod != keep).map(|pod| (*pod).clone()));
    };
    if running.len() <= 1 {
        return;
    }
    if surge == 0 || !is_rolling(observed.set) {
        doubled(running[0], plan, &running);
        return;
    }
    // A surge has one pod of each template; the old one goes once the new one is available.
    let (new, old): (Vec<_>, Vec<_>) =
        running.into_iter().partition(|pod| is_new(pod, &observed.hash));
    for side in [&new, &old] {
        if let Some(first) = side.first() {
            doubled(first, plan, side);
        }
    }
}

fn failed_wait(pod: &Pod, now: Timestamp) -> Option<Duration> {
    let created = pod.metadata.creation_timestamp.as_ref()?.0;
    let age = Duration::try_from(now.duration_since(created)).unwrap_or_default();
    FAILED_AGE_MIN.checked_sub(age).filter(|wait| !wait.is_zero())
}

fn sooner(again: &mut Option<Duration>, wait: Duration) {
    *again = Some(again.map_or(wait, |present| present.min(wait)));
}

fn sides<'a>(place: &'a Place, hash: &str) -> Sides<'a> {
    let mut sides = Sides::default();
    for pod in place.pods.iter().filter(|pod| !is_deleting(&pod.metadata)) {
        let side = if is_new(pod, hash) { &mut sides.new } else { &mut sides.old };
        *side = Some(pod);
    }
    sides
}

/// Replaces pods of former templates, within the bounds.
fn roll(observed: &Observed<'_>, places: &[Place], plan: &mut Plan, now: Timestamp) {
    let min_ready = observed.set.spec.min_ready_seconds.unwrap_or(0);
    let available =
        |pod: Option<&Arc<Pod>>| pod.is_some_and(|pod| is_available(pod, min_ready, now));
    let (surge, unavailable) = bounds(observed.set, &plan.status);
    let wanted = places.iter().filter(|place| place.should_run);
    if surge > 0 {
        let mut surging = 0;
        let mut candidates = Vec::new();
        for place in wanted {
            let sides = sides(place, &observed.hash);
            match (sides.old, sides.new) {
                (Some(old), Some(_)) if available(sides.new) => plan.delete.push(old.clone()),
                (Some(_), Some(_)) => surging += 1,
                // An old pod that serves nobody needs no surge.
                (Some(_), None) if !available(sides.old) => plan.create.push(place.name.clone()),
                (Some(_), None) => candidates.push(place.name.clone()),
                (None, _) => {}
            }
        }
        let room = usize::try_from(surge - surging).unwrap_or(0);
        plan.create.extend(candidates.into_iter().take(room));
        return;
    }
    let mut down = 0;
    let mut candidates = Vec::new();
    for place in wanted {
        let sides = sides(place, &observed.hash);
        match (sides.old, sides.new) {
            (Some(old), None) if available(sides.old) => candidates.push(old.clone()),
            (Some(old), None) => {
                down += 1;
                plan.delete.push(old.clone());
            }
            (_, Some(_)) if available(sides.new) => {}
            _ => down += 1,
        }
    }
    let room = usize::try_from(unavailable - down).unwrap_or(0);
    plan.delete.extend(candidates.into_iter().take(room));
}

fn status(observed: &Observed<'_>, places: &[Place], now: Timestamp) -> DaemonSetStatus {
    let old = observed.set.status.clone().unwrap_or_default();
    let min_ready = observed.set.spec.min_ready_seconds.unwrap_or(0);
    let mut status = DaemonSetStatus {
        observed_generation: observed.set.metadata.generation,
        collision_count: old.collision_count,
        conditions: old.conditions,
        ..Default::default()
    };
    let (mut available, mut updated) = (0, 0);
    for place in places {
        let Some(first) = place.pods.iter().find(|pod| !is_deleting(&pod.metadata)) else {
            status.desired_number_scheduled += i32::from(place.should_run);
            continue;
        };
        if !place.should_run {
            status.number_misscheduled += 1;
            continue;
        }
        status.desired_number_scheduled += 1;
        status.current_number_scheduled += 1;
        let mut pods = place.pods.iter().filter(|pod| !is_deleting(&pod.metadata));
        status.number_ready += i32::from(pods.clone().any(|pod| is_ready(pod)));
        available += i32::from(pods.any(|pod| is_available(pod, min_ready, now)));
        let newest = sides(place, &observed.hash).new.unwrap_or(first);
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
