//! How many pods a Job should have, which are deleted, and when failed ones are replaced.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::JobSpec;
use k8s_openapi::api::core::v1::Pod;

use super::job_pod;
use super::plan::{NewPod, Observed, Plan};
use super::policy::{self, Verdict};
use super::tally::{Tally, deletion_is_failure, is_indexed};
use crate::machinery::owner::is_deleting;
use crate::machinery::pod_ranking::rank_for_deletion;

/// Maximum number of pods that one plan creates.
const BURST: usize = 500;
/// Minimum and maximum delay before a failed pod is replaced.
const BACKOFF_MIN_SECONDS: i64 = 10;
const BACKOFF_MAX_SECONDS: i64 = 360;

/// Plans the pods to create and delete so that the wanted number is active.
pub fn manage(
    plan: &mut Plan,
    observed: &Observed<'_>,
    spec: &JobSpec,
    tally: &Tally,
    now: Timestamp,
) {
    let parallelism = spec.parallelism.unwrap_or(1).max(0);
    let decided = i32::try_from(tally.failed_indexes.len()).unwrap_or(i32::MAX);
    let active = i32::try_from(tally.active.len()).unwrap_or(i32::MAX);
    let wanted = match spec.completions {
        // A work queue: once one pod has succeeded, the others are left to finish.
        None if tally.succeeded > 0 => active.min(parallelism),
        None => parallelism,
        Some(completions) => parallelism.min((completions - tally.succeeded - decided).max(0)),
    };
    let mut surplus = surplus_pods(spec, tally, active - wanted, now);
    if !surplus.is_empty() {
        plan.delete.append(&mut surplus);
        return;
    }
    let waiting = if deletion_is_failure(spec) { 0 } else { tally.terminating };
    let room = usize::try_from(wanted - active - waiting).unwrap_or(0);
    if room == 0 {
        return;
    }
    if let Some(wait) = backoff(observed, now).filter(|_| spec.backoff_limit_per_index.is_none()) {
        plan.requeue_after = Some(plan.requeue_after.map_or(wait, |again| again.min(wait)));
        return;
    }
    plan.create = new_pods(plan, observed, spec, tally, room.min(BURST), now);
}

/// Active pods beyond the wanted number, duplicate indexes first.
fn surplus_pods(spec: &JobSpec, tally: &Tally, excess: i32, now: Timestamp) -> Vec<Arc<Pod>> {
    let mut active = tally.active.clone();
    rank_for_deletion(&mut active, &Default::default(), now);
    let excess = usize::try_from(excess).unwrap_or(0);
    if !is_indexed(spec) {
        active.truncate(excess);
        return active;
    }
    let mut surplus = Vec::new();
    let mut taken = BTreeSet::new();
    // The last in the ranking are kept.
    active.reverse();
    active.sort_by_key(|pod| job_pod::index(pod));
    active.retain(|pod| {
        let wanted = job_pod::index(pod).is_some_and(|index| {
            !tally.completed.contains(&index)
                && !tally.failed_indexes.contains(&index)
                && taken.insert(index)
        });
        if !wanted {
            surplus.push(pod.clone());
        }
        wanted
    });
    let more = excess.saturating_sub(surplus.len());
    surplus.extend(active.into_iter().rev().take(more));
    surplus
}

/// How long until failed pods may be replaced; doubles with each failure since the last success.
fn backoff(observed: &Observed<'_>, now: Timestamp) -> Option<Duration> {
    let ended = |phase: &'static str| {
        let pods = observed.pods.iter();
        pods.filter(move |pod| api::pod::phase(pod) == phase)
            .filter_map(|pod| job_pod::finished_at(pod))
    };
    let last_success = ended("Succeeded").max();
    let failures: Vec<Timestamp> =
        ended("Failed").filter(|at| last_success.is_none_or(|success| *at > success)).collect();
    let last = failures.iter().max()?;
    wait_after(*last, failures.len(), now)
}

fn wait_after(last: Timestamp, failures: usize, now: Timestamp) -> Option<Duration> {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(10);
    let seconds = (BACKOFF_MIN_SECONDS << doublings).min(BACKOFF_MAX_SECONDS);
    let end = last.checked_add(SignedDuration::from_secs(seconds)).ok()?;
    let wait = Duration::try_from(end.duration_since(now)).ok()?;
    (!wait.is_zero()).then_some(wait)
}

fn new_pods(
    plan: &mut Plan,
    observed: &Observed<'_>,
    spec: &JobSpec,
    tally: &Tally,
    room: usize,
    now: Timestamp,
) -> Vec<NewPod> {
    let Some(completions) = spec.completions.filter(|_| is_indexed(spec)) else {
        return vec![(None, None); room];
    };
    let mut taken: BTreeSet<i32> =
        tally.active.iter().filter_map(|pod| job_pod::index(pod)).collect();
    if !deletion_is_failure(spec) {
        let terminating = observed
            .pods
            .iter()
            .filter(|pod| is_deleting(&pod.metadata) && !api::pod::is_terminal(pod));
        taken.extend(terminating.filter_map(|pod| job_pod::index(pod)));
    }
    let mut free = Vec::new();
    for index in 0..completions {
        if free.len() == room {
            break;
        }
        let done = tally.completed.contains(&index) || tally.failed_indexes.contains(&index);
        if done || taken.contains(&index) {
            continue;
        }
        if spec.backoff_limit_per_index.is_none() {
            free.push((Some(index), None));
            continue;
        }
        let (failures, wait) = failures_of(observed, index, now);
        match wait {
            None => free.push((Some(index), Some(failures))),
            Some(wait) => {
                plan.requeue_after = Some(plan.requeue_after.map_or(wait, |again| again.min(wait)))
            }
        }
    }
    free
}

/// How often an index has failed, and how long until it may be retried.
fn failures_of(observed: &Observed<'_>, index: i32, now: Timestamp) -> (i32, Option<Duration>) {
    let mut failures = 0;
    let mut last = None;
    for pod in &observed.pods {
        if api::pod::phase(pod) != "Failed" || job_pod::index(pod) != Some(index) {
            continue;
        }
        let counts = policy::judge(observed.job, pod) != Verdict::Ignore;
        failures = failures.max(job_pod::failures_before(pod) + i32::from(counts));
        last = last.max(job_pod::finished_at(pod));
    }
    let times = usize::try_from(failures).unwrap_or(0);
    (failures, last.and_then(|last| wait_after(last, times, now)))
}
