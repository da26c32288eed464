//! Counts a Job's pods, each finished one exactly once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;

use super::plan::Observed;
use super::policy::{self, Verdict};
use super::status::final_condition;
use super::{indexes, job_pod};
use crate::machinery::owner::{is_deleting, uid};
use crate::machinery::pod_state::is_active;

/// Maximum number of uids in `uncountedTerminatedPods`.
const UNCOUNTED_MAX: usize = 500;

/// The counts of the pods and the status.
pub struct Tally {
    pub status: JobStatus,
    pub completed: BTreeSet<i32>,
    pub failed_indexes: BTreeSet<i32>,
    pub active: Vec<Arc<Pod>>,
    pub terminating: i32,
    pub succeeded: i32,
    pub failed: i32,
    pub fail_job: Option<String>,
    pub untrack: Vec<Arc<Pod>>,
}

pub fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// Whether a pod counts as failed as soon as it is being deleted, before it has terminated.
pub fn deletion_is_failure(spec: &JobSpec) -> bool {
    spec.pod_failure_policy.is_none() && spec.pod_replacement_policy.as_deref() != Some("Failed")
}

pub fn tally(observed: &Observed<'_>, spec: &JobSpec) -> Tally {
    let status = observed.job.status.clone().unwrap_or_default();
    let completions = spec.completions.unwrap_or(0);
    let parse = |text: &Option<String>| indexes::parse(text.as_deref().unwrap_or(""), completions);
    let is_terminating =
        |pod: &&Arc<Pod>| is_deleting(&pod.metadata) && !api::pod::is_terminal(pod);
    let terminating = observed.pods.iter().filter(is_terminating).count();
    let mut tally = Tally {
        completed: parse(&status.completed_indexes),
        failed_indexes: parse(&status.failed_indexes),
        active: observed.pods.iter().filter(|pod| is_active(pod)).cloned().collect(),
        terminating: i32::try_from(terminating).unwrap_or(i32::MAX),
        succeeded: 0,
        failed: 0,
        fail_job: None,
        untrack: Vec::new(),
        status,
    };
    settle_counted(&mut tally, &observed.pods);
    add_finished(&mut tally, observed, spec);
    let uncounted = tally.status.uncounted_terminated_pods.clone().unwrap_or_default();
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

/// Counts uids whose pods no longer have the finalizer; the others are untracked again.
fn settle_counted(tally: &mut Tally, pods: &[Arc<Pod>]) {
    let tracked: BTreeMap<&str, &Arc<Pod>> = pods
        .iter()
        .filter(|pod| job_pod::is_tracked(pod))
        .map(|pod| (uid(&pod.metadata), pod))
        .collect();
    let uncounted = tally.status.uncounted_terminated_pods.get_or_insert_default();
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

/// Adds pods that have finished and are not in the status yet.
fn add_finished(tally: &mut Tally, observed: &Observed<'_>, spec: &JobSpec) {
    let job = observed.job;
    let over = final_condition(&tally.status).is_some();
    let abandoned = spec.suspend == Some(true) || is_deleting(&job.metadata);
    let recorded: BTreeSet<String> =
        tally.untrack.iter().map(|pod| uid(&pod.metadata).into()).collect();
    let uncounted = tally.status.uncounted_terminated_pods.get_or_insert_default();
    let (succeeded, failed) =
        (uncounted.succeeded.get_or_insert_default(), uncounted.failed.get_or_insert_default());
    for pod in observed.pods.iter().filter(|pod| job_pod::is_tracked(pod)) {
        let own_uid = uid(&pod.metadata).to_owned();
        if recorded.contains(&own_uid) || succeeded.len() + failed.len() >= UNCOUNTED_MAX {
            continue;
        }
        let index = job_pod::index(pod).filter(|_| is_indexed(spec));
        match api::pod::phase(pod) {
            "Succeeded" => {
                // A second success of an index does not count again.
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
                    let used_up = job_pod::failures_before(pod) >= limit;
                    if verdict == Verdict::FailIndex || (verdict == Verdict::Count && used_up) {
                        tally.failed_indexes.insert(index);
                    } else if !over && !is_replaced(observed, index, pod) {
                        // It keeps the failure count of its index until a successor has it.
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
    let mine = job_pod::failures_before(pod);
    observed
        .pods
        .iter()
        .any(|other| job_pod::index(other) == Some(index) && job_pod::failures_before(other) > mine)
}
