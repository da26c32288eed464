//! The next step of a Job: a pure function of the Job and its pods.
//!
//! A pod's end is counted exactly once: its uid is written into `uncountedTerminatedPods`, then its
//! finalizer is taken off, then (when that is seen) the uid becomes a number. Any step may be lost and is
//! done again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::policy::{self, Verdict};
use super::status::{Ending, condition_is_true, final_condition, set_condition, set_ending};
use super::{indexes, pods as job_pods};
use crate::owner::{is_deleting, uid};
use crate::pods::{is_active, is_ready, rank_for_deletion};

/// Pods made by one plan.
const BURST: usize = 500;
/// First and longest pause before a failed pod is replaced.
const BACKOFF_MIN_SECONDS: i64 = 10;
const BACKOFF_MAX_SECONDS: i64 = 360;
/// Uids in `uncountedTerminatedPods` at a time.
const UNCOUNTED_MAX: usize = 500;

#[derive(Debug)]
pub struct Observed<'a> {
    pub job: &'a Job,
    /// The pods that are ours.
    pub pods: Vec<Arc<Pod>>,
    /// The pods include all that was written before.
    pub in_step: bool,
}

/// A pod to make: its index, and the failures of that index where they are counted.
pub type New = (Option<i32>, Option<i32>);

#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub status: JobStatus,
    /// After the status is written: pods whose finalizer goes.
    pub untrack: Vec<Arc<Pod>>,
    pub delete: Vec<Arc<Pod>>,
    pub create: Vec<New>,
    /// The end that this plan writes.
    pub ended: Option<Ending>,
    pub again: Option<Duration>,
}

/// What the pods and the status add up to.
struct Tally {
    status: JobStatus,
    completed: BTreeSet<i32>,
    failed_indexes: BTreeSet<i32>,
    active: Vec<Arc<Pod>>,
    terminating: i32,
    succeeded: i32,
    failed: i32,
    fail_job: Option<String>,
    untrack: Vec<Arc<Pod>>,
}

pub fn plan(observed: &Observed<'_>, now: Timestamp) -> Plan {
    let job = observed.job;
    let Some(spec) = &job.spec else {
        return Plan::default();
    };
    let mut tally = tally(observed, spec);
    let suspended = spec.suspend == Some(true);
    if !is_over(&tally.status) {
        mark_suspension(&mut tally.status, suspended, now);
    }
    let ending = final_condition(&tally.status).or_else(|| judge(observed, spec, &tally, now));
    let mut plan = Plan {
        again: deadline(spec, &tally.status, now).filter(|_| ending.is_none()),
        ..Default::default()
    };
    if let Some(ending) = &ending {
        finish(&mut plan, &mut tally, ending, now);
    } else if suspended {
        plan.delete.clone_from(&tally.active);
    } else if observed.in_step && !is_deleting(&job.metadata) {
        manage(&mut plan, observed, spec, &mut tally, now);
    }
    if !observed.in_step {
        plan.delete.clear();
    }
    let lost = plan.delete.len();
    let count = |count: usize| Some(i32::try_from(count).unwrap_or(i32::MAX));
    let active = tally.active.len() - lost;
    tally.status.active = count(active);
    tally.status.ready = count(tally.active.iter().filter(|pod| is_ready(pod)).count());
    tally.status.terminating = Some(tally.terminating);
    plan.untrack = tally.untrack;
    plan.status = tally.status;
    plan
}

fn is_over(status: &JobStatus) -> bool {
    condition_is_true(status, "Complete") || condition_is_true(status, "Failed")
}

fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// Whether a pod counts as failed once it is being deleted, before it has ended.
fn deletion_is_failure(spec: &JobSpec) -> bool {
    spec.pod_failure_policy.is_none() && spec.pod_replacement_policy.as_deref() != Some("Failed")
}

fn tally(observed: &Observed<'_>, spec: &JobSpec) -> Tally {
    let status = observed.job.status.clone().unwrap_or_default();
    let completions = spec.completions.unwrap_or(0);
    let parse = |text: &Option<String>| indexes::parse(text.as_deref().unwrap_or(""), completions);
    let is_terminating =
        |pod: &&Arc<Pod>| is_deleting(&pod.metadata) && !api::pod::is_terminal(pod);
    let terminating = observed.pods.iter().filter(is_terminating).count();
    let mut tally = Tally {
        completed: parse(&status.completed_indexes),
        failed_indexes: parse(&status.failed_indexes),
        active: observed
            .pods
            .iter()
            .filter(|pod| is_active(pod))
            .cloned()
            .collect(),
        terminating: i32::try_from(terminating).unwrap_or(i32::MAX),
        succeeded: 0,
        failed: 0,
        fail_job: None,
        untrack: Vec::new(),
        status,
    };
    settle_counted(&mut tally, &observed.pods);
    count_ended(&mut tally, observed, spec);
    let uncounted = tally
        .status
        .uncounted_terminated_pods
        .clone()
        .unwrap_or_default();
    let length = |list: Option<Vec<String>>| {
        i32::try_from(list.unwrap_or_default().len()).unwrap_or(i32::MAX)
    };
    tally.succeeded = tally.status.succeeded.unwrap_or(0) + length(uncounted.succeeded);
    tally.failed = tally.status.failed.unwrap_or(0) + length(uncounted.failed);
    if is_indexed(spec) {
        tally.succeeded = i32::try_from(tally.completed.len()).unwrap_or(i32::MAX);
        let text = indexes::format(&tally.completed);
        tally.status.completed_indexes = (!text.is_empty()).then_some(text);
        if spec.backoff_limit_per_index.is_some() {
            tally.status.failed_indexes = Some(indexes::format(&tally.failed_indexes));
        }
    }
    tally
}

/// Uids whose pods have lost the finalizer become numbers; the others' finalizers go (again).
fn settle_counted(tally: &mut Tally, pods: &[Arc<Pod>]) {
    let tracked: BTreeMap<&str, &Arc<Pod>> = pods
        .iter()
        .filter(|pod| job_pods::is_tracked(pod))
        .map(|pod| (uid(&pod.metadata), pod))
        .collect();
    let uncounted = tally
        .status
        .uncounted_terminated_pods
        .get_or_insert_default();
    let mut settle = |list: &mut Option<Vec<String>>, count: &mut Option<i32>| {
        let list = list.get_or_insert_default();
        list.retain(|uid| match tracked.get(uid.as_str()) {
            Some(pod) => {
                tally.untrack.push((*pod).clone());
                true
            }
            None => {
                *count = Some(count.unwrap_or(0) + 1);
                false
            }
        });
    };
    settle(&mut uncounted.succeeded, &mut tally.status.succeeded);
    settle(&mut uncounted.failed, &mut tally.status.failed);
}

/// Takes in pods that have ended and are not noted yet.
fn count_ended(tally: &mut Tally, observed: &Observed<'_>, spec: &JobSpec) {
    let job = observed.job;
    let over = final_condition(&tally.status).is_some();
    let abandoned = spec.suspend == Some(true) || is_deleting(&job.metadata);
    let noted: BTreeSet<String> = tally
        .untrack
        .iter()
        .map(|pod| uid(&pod.metadata).into())
        .collect();
    let uncounted = tally
        .status
        .uncounted_terminated_pods
        .get_or_insert_default();
    let (succeeded, failed) = (
        uncounted.succeeded.get_or_insert_default(),
        uncounted.failed.get_or_insert_default(),
    );
    for pod in observed.pods.iter().filter(|pod| job_pods::is_tracked(pod)) {
        let own_uid = uid(&pod.metadata).to_owned();
        if noted.contains(&own_uid) || succeeded.len() + failed.len() >= UNCOUNTED_MAX {
            continue;
        }
        let index = job_pods::index(pod).filter(|_| is_indexed(spec));
        match api::pod::phase(pod) {
            "Succeeded" => {
                // A second success of an index is not another completion.
                let again = index.is_some_and(|index| !tally.completed.insert(index));
                if !again {
                    succeeded.push(own_uid);
                }
                tally.untrack.push(pod.clone());
            }
            "Failed" => {
                let verdict = policy::judge(job, pod);
                if let Verdict::FailJob(message) = &verdict {
                    tally.fail_job.get_or_insert_with(|| message.clone());
                }
                if let Some(index) = index.filter(|_| spec.backoff_limit_per_index.is_some()) {
                    let limit = spec.backoff_limit_per_index.unwrap_or(0);
                    let used_up = job_pods::failures_before(pod) >= limit;
                    if verdict == Verdict::FailIndex || (verdict == Verdict::Count && used_up) {
                        tally.failed_indexes.insert(index);
                    } else if !over && !is_replaced(observed, index, pod) {
                        // It carries its index's count until a successor does.
                        continue;
                    }
                }
                if verdict != Verdict::Ignore {
                    failed.push(own_uid);
                }
                tally.untrack.push(pod.clone());
            }
            _ if !is_deleting(&pod.metadata) => {}
            _ if abandoned => tally.untrack.push(pod.clone()),
            _ if over || deletion_is_failure(spec) => {
                failed.push(own_uid);
                tally.untrack.push(pod.clone());
            }
            _ => {}
        }
    }
}

fn is_replaced(observed: &Observed<'_>, index: i32, pod: &Pod) -> bool {
    let mine = job_pods::failures_before(pod);
    observed.pods.iter().any(|other| {
        job_pods::index(other) == Some(index) && job_pods::failures_before(other) > mine
    })
}

fn mark_suspension(status: &mut JobStatus, suspended: bool, now: Timestamp) {
    let marked = condition_is_true(status, "Suspended");
    if suspended && !marked {
        set_condition(
            status,
            "Suspended",
            "True",
            "JobSuspended",
            "Job suspended",
            now,
        );
        status.start_time = None;
    } else if !suspended {
        if marked {
            set_condition(
                status,
                "Suspended",
                "False",
                "JobResumed",
                "Job resumed",
                now,
            );
        }
        status.start_time.get_or_insert(Time(now));
    }
}

/// Whether the Job has ended by what is known, and how.
fn judge(observed: &Observed<'_>, spec: &JobSpec, tally: &Tally, now: Timestamp) -> Option<Ending> {
    let limit = spec.backoff_limit.unwrap_or(6);
    let failed = |reason, message: &str| Some(Ending::failed(reason, message));
    if let Some(message) = &tally.fail_job {
        return failed("PodFailurePolicy", message);
    }
    if tally.failed > limit || restarts_exceed(observed, spec, limit) {
        return failed(
            "BackoffLimitExceeded",
            "Job has reached the specified backoff limit",
        );
    }
    if deadline(spec, &tally.status, now).is_some_and(|left| left.is_zero()) {
        return failed(
            "DeadlineExceeded",
            "Job was active longer than specified deadline",
        );
    }
    let failed_indexes = i32::try_from(tally.failed_indexes.len()).unwrap_or(i32::MAX);
    if spec
        .max_failed_indexes
        .is_some_and(|most| failed_indexes > most)
    {
        return failed(
            "MaxFailedIndexesExceeded",
            "Job has exceeded the specified maximal number of failed indexes",
        );
    }
    if let Some(message) = policy::success(observed.job, &tally.completed) {
        return Some(Ending::succeeded("SuccessPolicy", &message));
    }
    let complete = match spec.completions {
        None => tally.succeeded > 0 && tally.active.is_empty() && tally.terminating == 0,
        Some(completions) => tally.succeeded >= completions,
    };
    if complete {
        return Some(Ending::succeeded(
            "CompletionsReached",
            "Reached expected number of succeeded pods",
        ));
    }
    let all_decided = spec.completions == Some(tally.succeeded + failed_indexes);
    if failed_indexes > 0 && all_decided {
        return failed("FailedIndexes", "Job has failed indexes");
    }
    None
}

/// With `restartPolicy: OnFailure` the containers' restarts are what fails.
fn restarts_exceed(observed: &Observed<'_>, spec: &JobSpec, limit: i32) -> bool {
    let policy = spec
        .template
        .spec
        .as_ref()
        .and_then(|spec| spec.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let alive = observed.pods.iter().filter(|pod| is_active(pod));
    let statuses = alive.flat_map(|pod| pod.status.iter()).flat_map(|status| {
        let init = status.init_container_statuses.iter().flatten();
        status.container_statuses.iter().flatten().chain(init)
    });
    let restarts: i32 = statuses.map(|status| status.restart_count).sum();
    if limit == 0 {
        restarts > 0
    } else {
        restarts >= limit
    }
}

/// How long the Job may still be active. Zero: no longer.
fn deadline(spec: &JobSpec, status: &JobStatus, now: Timestamp) -> Option<Duration> {
    let seconds = spec
        .active_deadline_seconds
        .filter(|_| spec.suspend != Some(true))?;
    let start = status.start_time.as_ref()?.0;
    let end = start.checked_add(SignedDuration::from_secs(seconds)).ok()?;
    Some(Duration::try_from(end.duration_since(now)).unwrap_or(Duration::ZERO))
}

/// Removes what is left, and tells the end when nothing is.
fn finish(plan: &mut Plan, tally: &mut Tally, ending: &Ending, now: Timestamp) {
    plan.delete.clone_from(&tally.active);
    let left = !tally.active.is_empty() || tally.terminating > 0;
    if set_ending(&mut tally.status, ending, !left, now) {
        plan.ended = Some(ending.clone());
    }
}

/// As many active pods as are wanted.
fn manage(
    plan: &mut Plan,
    observed: &Observed<'_>,
    spec: &JobSpec,
    tally: &mut Tally,
    now: Timestamp,
) {
    let parallelism = spec.parallelism.unwrap_or(1).max(0);
    let decided = i32::try_from(tally.failed_indexes.len()).unwrap_or(i32::MAX);
    let active = i32::try_from(tally.active.len()).unwrap_or(i32::MAX);
    let wanted = match spec.completions {
        // A work queue: once one has succeeded, the others only run out.
        None if tally.succeeded > 0 => active.min(parallelism),
        None => parallelism,
        Some(completions) => parallelism.min((completions - tally.succeeded - decided).max(0)),
    };
    let mut surplus = surplus_pods(spec, tally, active - wanted, now);
    if !surplus.is_empty() {
        plan.delete.append(&mut surplus);
        return;
    }
    let waiting = if deletion_is_failure(spec) {
        0
    } else {
        tally.terminating
    };
    let room = usize::try_from(wanted - active - waiting).unwrap_or(0);
    if room == 0 {
        return;
    }
    if let Some(wait) = backoff(observed, now).filter(|_| spec.backoff_limit_per_index.is_none()) {
        plan.again = Some(plan.again.map_or(wait, |again| again.min(wait)));
        return;
    }
    plan.create = new_pods(plan, observed, spec, tally, room.min(BURST), now);
}

/// Active pods beyond what is wanted, doubled indexes first.
fn surplus_pods(spec: &JobSpec, tally: &Tally, over: i32, now: Timestamp) -> Vec<Arc<Pod>> {
    let mut active = tally.active.clone();
    rank_for_deletion(&mut active, &Default::default(), now);
    let over = usize::try_from(over).unwrap_or(0);
    if !is_indexed(spec) {
        active.truncate(over);
        return active;
    }
    let mut surplus = Vec::new();
    let mut taken = BTreeSet::new();
    // The last of the ranking are the ones to keep.
    active.reverse();
    active.sort_by_key(|pod| job_pods::index(pod));
    active.retain(|pod| {
        let wanted = job_pods::index(pod).is_some_and(|index| {
            !tally.completed.contains(&index)
                && !tally.failed_indexes.contains(&index)
                && taken.insert(index)
        });
        if !wanted {
            surplus.push(pod.clone());
        }
        wanted
    });
    let more = over.saturating_sub(surplus.len());
    surplus.extend(active.into_iter().rev().take(more));
    surplus
}

/// How long until a pod may replace the failed ones: doubled with each failure since the last
/// success.
fn backoff(observed: &Observed<'_>, now: Timestamp) -> Option<Duration> {
    let ended = |phase: &'static str| {
        let pods = observed.pods.iter();
        pods.filter(move |pod| api::pod::phase(pod) == phase)
            .filter_map(|pod| job_pods::ended_at(pod))
    };
    let last_success = ended("Succeeded").max();
    let failures: Vec<Timestamp> = ended("Failed")
        .filter(|at| last_success.is_none_or(|success| *at > success))
        .collect();
    let last = failures.iter().max()?;
    wait_after(*last, failures.len(), now)
}

fn wait_after(last: Timestamp, failures: usize, now: Timestamp) -> Option<Duration> {
    let doublings = u32::try_from(failures.saturating_sub(1))
        .unwrap_or(u32::MAX)
        .min(10);
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
) -> Vec<New> {
    let Some(completions) = spec.completions.filter(|_| is_indexed(spec)) else {
        return vec![(None, None); room];
    };
    let mut taken: BTreeSet<i32> = tally
        .active
        .iter()
        .filter_map(|pod| job_pods::index(pod))
        .collect();
    if !deletion_is_failure(spec) {
        let going = observed
            .pods
            .iter()
            .filter(|pod| is_deleting(&pod.metadata) && !api::pod::is_terminal(pod));
        taken.extend(going.filter_map(|pod| job_pods::index(pod)));
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
            Some(wait) => plan.again = Some(plan.again.map_or(wait, |again| again.min(wait))),
        }
    }
    free
}

/// How often an index has failed, and how long until it may be tried again.
fn failures_of(observed: &Observed<'_>, index: i32, now: Timestamp) -> (i32, Option<Duration>) {
    let mut failures = 0;
    let mut last = None;
    for pod in &observed.pods {
        if api::pod::phase(pod) != "Failed" || job_pods::index(pod) != Some(index) {
            continue;
        }
        let counts = policy::judge(observed.job, pod) != Verdict::Ignore;
        failures = failures.max(job_pods::failures_before(pod) + i32::from(counts));
        last = last.max(job_pods::ended_at(pod));
    }
    let times = usize::try_from(failures).unwrap_or(0);
    (failures, last.and_then(|last| wait_after(last, times, now)))
}
