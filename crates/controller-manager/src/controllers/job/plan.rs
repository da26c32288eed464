//! The next step of a Job: a pure function of the Job and its pods.
//!
//! Every finished pod is counted exactly once: its uid is written to `uncountedTerminatedPods`,
//! then its finalizer is removed, then, once the removal is observed, the uid is replaced by an
//! increment of the count. Any step may fail and is repeated.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::manage::manage;
use super::policy;
use super::status::{Ending, condition_is_true, final_condition, set_condition, set_ending};
use super::tally::{Tally, tally};
use crate::machinery::owner::is_deleting;
use crate::machinery::pod_state::{is_active, is_ready};

#[derive(Debug)]
pub struct Observed<'a> {
    pub job: &'a Job,
    /// The pods that the Job controls.
    pub pods: Vec<Arc<Pod>>,
    /// Whether `pods` reflects everything that was written before.
    pub expectations_met: bool,
}

const COMPLETIONS_REACHED: &str = "CompletionsReached";

/// A pod to create: its index, and how often that index has failed, if failures count per index.
pub type NewPod = (Option<i32>, Option<i32>);

#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub status: JobStatus,
    /// Pods whose finalizer is removed after the status is written.
    pub untrack: Vec<Arc<Pod>>,
    pub delete: Vec<Arc<Pod>>,
    pub create: Vec<NewPod>,
    /// Reason and message of the event when the Job is suspended or resumed.
    pub suspension: Option<(&'static str, &'static str)>,
    /// Reasons and messages of warnings about pods that should not be there.
    pub surplus: Vec<(&'static str, &'static str)>,
    /// The final condition that this plan sets.
    pub ended: Option<Ending>,
    pub requeue_after: Option<Duration>,
}

pub fn plan(observed: &Observed<'_>, now: Timestamp) -> Plan {
    let job = observed.job;
    let Some(spec) = &job.spec else {
        return Plan::default();
    };
    let mut tally = tally(observed, spec);
    let suspended = spec.suspend == Some(true);
    let suspension = if is_over(&tally.status) {
        None
    } else {
        mark_suspension(&mut tally.status, suspended, now)
    };
    let before = final_condition(&tally.status);
    let is_first = before.is_none();
    let ending = before.or_else(|| judge(observed, spec, &tally, now));
    let mut plan = Plan {
        requeue_after: deadline(spec, &tally.status, now).filter(|_| ending.is_none()),
        suspension,
        ..Default::default()
    };
    if let Some(ending) = &ending {
        if is_first && ending.reason == COMPLETIONS_REACHED {
            plan.surplus = surplus(spec, &tally);
        }
        finish(&mut plan, &mut tally, ending, now);
    } else if suspended {
        plan.delete.clone_from(&tally.active);
    } else if observed.expectations_met && !is_deleting(&job.metadata) {
        manage(&mut plan, observed, spec, &tally, now);
    }
    if !observed.expectations_met {
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

/// What is wrong about the pods of a Job that has had all its successes.
fn surplus(spec: &JobSpec, tally: &Tally) -> Vec<(&'static str, &'static str)> {
    let mut all = Vec::new();
    if !tally.active.is_empty() {
        let message = "Too many active pods running after completion count reached";
        all.push(("TooManyActivePods", message));
    }
    if spec.completions.is_some_and(|completions| tally.succeeded > completions) {
        let message = "Too many succeeded pods running after completion count reached";
        all.push(("TooManySucceededPods", message));
    }
    all
}

fn is_over(status: &JobStatus) -> bool {
    condition_is_true(status, "Complete") || condition_is_true(status, "Failed")
}

/// Returns the reason and message of the event for a change.
fn mark_suspension(
    status: &mut JobStatus,
    suspended: bool,
    now: Timestamp,
) -> Option<(&'static str, &'static str)> {
    let marked = condition_is_true(status, "Suspended");
    if !suspended {
        status.start_time.get_or_insert(Time(now));
    }
    let (value, condition, event, message) = match (suspended, marked) {
        (true, false) => ("True", "JobSuspended", "Suspended", "Job suspended"),
        (false, true) => ("False", "JobResumed", "Resumed", "Job resumed"),
        _ => return None,
    };
    set_condition(status, "Suspended", value, condition, message, now);
    if suspended {
        status.start_time = None;
    }
    Some((event, message))
}

/// Whether and how the Job ends.
fn judge(observed: &Observed<'_>, spec: &JobSpec, tally: &Tally, now: Timestamp) -> Option<Ending> {
    let limit = spec.backoff_limit.unwrap_or(6);
    let failed = |reason, message: &str| Some(Ending::failed(reason, message));
    if let Some(message) = &tally.fail_job {
        return failed("PodFailurePolicy", message);
    }
    if tally.failed > limit || restarts_exceed(observed, spec, limit) {
        return failed("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    if deadline(spec, &tally.status, now).is_some_and(|left| left.is_zero()) {
        return failed("DeadlineExceeded", "Job was active longer than specified deadline");
    }
    let failed_indexes = i32::try_from(tally.failed_indexes.len()).unwrap_or(i32::MAX);
    if spec.max_failed_indexes.is_some_and(|most| failed_indexes > most) {
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
            COMPLETIONS_REACHED,
            "Reached expected number of succeeded pods",
        ));
    }
    let all_decided = spec.completions == Some(tally.succeeded + failed_indexes);
    if failed_indexes > 0 && all_decided {
        return failed("FailedIndexes", "Job has failed indexes");
    }
    None
}

/// With `restartPolicy: OnFailure` container restarts count as failures.
fn restarts_exceed(observed: &Observed<'_>, spec: &JobSpec, limit: i32) -> bool {
    let policy = spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let alive = observed.pods.iter().filter(|pod| is_active(pod));
    let statuses = alive.flat_map(|pod| pod.status.iter()).flat_map(|status| {
        let init = status.init_container_statuses.iter().flatten();
        status.container_statuses.iter().flatten().chain(init)
    });
    let restarts: i32 = statuses.map(|status| status.restart_count).sum();
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

/// How long the Job may still be active; zero when its deadline has passed.
fn deadline(spec: &JobSpec, status: &JobStatus, now: Timestamp) -> Option<Duration> {
    let seconds = spec.active_deadline_seconds.filter(|_| spec.suspend != Some(true))?;
    let start = status.start_time.as_ref()?.0;
    let end = start.checked_add(SignedDuration::from_secs(seconds)).ok()?;
    Some(Duration::try_from(end.duration_since(now)).unwrap_or(Duration::ZERO))
}

/// Deletes the remaining pods, and sets the final condition once there are none.
fn finish(plan: &mut Plan, tally: &mut Tally, ending: &Ending, now: Timestamp) {
    plan.delete.clone_from(&tally.active);
    let left = !tally.active.is_empty() || tally.terminating > 0;
    if set_ending(&mut tally.status, ending, !left, now) {
        plan.ended = Some(ending.clone());
    }
}
