//! The next step of a CronJob: a pure function (`k8s.io/kubernetes/pkg/controller/cronjob`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::schedule::{MISSED_MAX, Schedule, ScheduleError};
use crate::controllers::job::final_condition;
use crate::machinery::hash::with_label;
use crate::machinery::owner::{self, is_deleting, uid};

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// An event to record: whether it is a warning, its reason, its message.
pub type Event = (bool, &'static str, String);

#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Finished Jobs beyond the history limits, and those that a new run replaces.
    pub delete: Vec<Arc<Job>>,
    pub create: Option<Box<Job>>,
    pub status: CronJobStatus,
    pub events: Vec<Event>,
    pub requeue_after: Option<Duration>,
}

/// `jobs`: the Jobs that the CronJob controls.
pub fn plan(cron: &CronJob, jobs: &[Arc<Job>], now: Timestamp) -> Plan {
    let mut plan = Plan { status: cron.status.clone().unwrap_or_default(), ..Default::default() };
    update_status(&mut plan, jobs);
    if is_deleting(&cron.metadata) {
        return plan;
    }
    plan.delete = surplus(cron, jobs);
    let text = &cron.spec.schedule;
    match Schedule::parse(text, cron.spec.time_zone.as_deref()) {
        Err(ScheduleError::Zone { zone, message }) => {
            let message = format!("invalid timeZone: {zone:?}: {message}");
            plan.events.push((true, "UnknownTimeZone", message));
        }
        _ if cron.spec.suspend == Some(true) => {}
        Err(ScheduleError::Text(message)) => {
            let message = format!("unparseable schedule: {text:?} : {message}");
            plan.events.push((true, "UnparseableSchedule", message));
        }
        // Upstream computes the interval between two times that are the same then.
        Ok(schedule) if schedule.next(now).is_none() => {
            let message = format!(
                "invalid schedule: {text} : time difference between two schedules is less than 1 second"
            );
            plan.events.push((true, "InvalidSchedule", message));
        }
        Ok(schedule) => run(&mut plan, cron, jobs, &schedule, now),
    }
    plan
}

fn is_active(job: &Job) -> bool {
    job.status.as_ref().and_then(final_condition).is_none()
}

/// Whether the CronJob's status has all Jobs that run.
pub fn knows_all(cron: &CronJob, jobs: &[Arc<Job>]) -> bool {
    let known = |job: &Job| {
        let mut active = cron.status.iter().flat_map(|status| status.active.iter().flatten());
        active.any(|reference| reference.uid == job.metadata.uid)
    };
    jobs.iter().filter(|job| is_active(job)).all(|job| known(job))
}

/// Updates the active Jobs and the time of the last success.
fn update_status(plan: &mut Plan, jobs: &[Arc<Job>]) {
    let known: BTreeSet<String> =
        plan.status.active.iter().flatten().filter_map(|reference| reference.uid.clone()).collect();
    let mut active: Vec<ObjectReference> = Vec::new();
    for job in jobs {
        let name = job.metadata.name.as_deref().unwrap_or_default();
        if is_active(job) {
            if !known.contains(uid(&job.metadata)) {
                let message =
                    format!("Saw a job that the controller did not create or forgot: {name}");
                plan.events.push((true, "UnexpectedJob", message));
            }
            active.push(reference(job));
            continue;
        }
        let ending = job.status.as_ref().and_then(final_condition);
        let success = ending.is_some_and(|ending| ending.success);
        if known.contains(uid(&job.metadata)) {
            let condition = if success { "Complete" } else { "Failed" };
            let message = format!("Saw completed job: {name}, condition: {condition}");
            plan.events.push((false, "SawCompletedJob", message));
        }
        let completed = job.status.as_ref().and_then(|status| status.completion_time.clone());
        if success && completed > plan.status.last_successful_time {
            plan.status.last_successful_time = completed;
        }
    }
    for reference in plan.status.active.iter().flatten() {
        if !jobs.iter().any(|job| job.metadata.uid == reference.uid) {
            let name = reference.name.as_deref().unwrap_or_default();
            let message = format!("Active job went missing: {name}");
            plan.events.push((false, "MissingJob", message));
        }
    }
    active.sort_by(|one, other| one.name.cmp(&other.name));
    plan.status.active = (!active.is_empty()).then_some(active);
}

pub fn reference(job: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some("batch/v1".into()),
        kind: Some("Job".into()),
        namespace: job.metadata.namespace.clone(),
        name: job.metadata.name.clone(),
        uid: job.metadata.uid.clone(),
        resource_version: job.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// Finished Jobs beyond the history limits, oldest first.
fn surplus(cron: &CronJob, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let mut gone = Vec::new();
    let limits = [
        (true, cron.spec.successful_jobs_history_limit.unwrap_or(3)),
        (false, cron.spec.failed_jobs_history_limit.unwrap_or(1)),
    ];
    for (success, limit) in limits {
        let has_outcome = |job: &&Arc<Job>| {
            let ending = job.status.as_ref().and_then(final_condition);
            ending.is_some_and(|ending| ending.success == success)
        };
        let mut finished: Vec<&Arc<Job>> = jobs.iter().filter(has_outcome).collect();
        finished.sort_by_key(|job| {
            let start = job.status.as_ref().and_then(|status| status.start_time.clone());
            (start.map(|time| time.0), job.metadata.name.clone())
        });
        let excess = finished.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        gone.extend(finished.into_iter().take(excess).cloned());
    }
    gone
}

fn run(plan: &mut Plan, cron: &CronJob, jobs: &[Arc<Job>], schedule: &Schedule, now: Timestamp) {
    let created = cron.metadata.creation_timestamp.as_ref();
    let last = plan.status.last_schedule_time.as_ref().or(created);
    let mut from = last.map_or(now, |time| time.0);
    plan.requeue_after = schedule.wait(from, now);
    let deadline = cron.spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    if let Some(oldest) = deadline.and_then(|deadline| now.checked_sub(deadline).ok()) {
        from = from.max(oldest);
    }
    let Some(due) = schedule.due(from, now) else {
        return;
    };
    if due.missed > MISSED_MAX {
        let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        plan.events.push((true, "TooManyMissedTimes", message.into()));
    }
    let name = job_name(cron, due.at);
    if jobs.iter().any(|job| job.metadata.name.as_ref() == Some(&name)) {
        plan.status.last_schedule_time = Some(Time(due.at));
        return;
    }
    let active: Vec<&Arc<Job>> = jobs.iter().filter(|job| is_active(job)).collect();
    match cron.spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            plan.events.push((false, "JobAlreadyActive", message.into()));
            return;
        }
        Some("Replace") => {
            let replaced = active.into_iter().filter(|job| !is_deleting(&job.metadata));
            plan.delete.extend(replaced.cloned());
        }
        _ => {}
    }
    plan.create = Some(Box::new(new_job(cron, name, due.at)));
    plan.status.last_schedule_time = Some(Time(due.at));
    plan.requeue_after = schedule.wait(due.at, now);
}

/// The name is derived from the scheduled time, so that a run is never started twice.
fn job_name(cron: &CronJob, at: Timestamp) -> String {
    let name = cron.metadata.name.as_deref().unwrap_or_default();
    format!("{name}-{}", at.as_second() / 60)
}

fn new_job(cron: &CronJob, name: String, at: Timestamp) -> Job {
    let template = &cron.spec.job_template;
    let given = template.metadata.clone().unwrap_or_default();
    let zone = cron.spec.time_zone.as_deref();
    let zoned = zone.and_then(|zone| at.in_tz(zone).ok());
    let stamp = zoned
        .map_or_else(|| at.to_string(), |zoned| zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string());
    Job {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: cron.metadata.namespace.clone(),
            labels: given.labels,
            annotations: Some(with_label(given.annotations.as_ref(), SCHEDULED_AT, &stamp)),
            owner_references: Some(vec![owner::reference(cron)]),
            ..Default::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::batch::v1::JobCondition;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn cron(policy: &str) -> CronJob {
        let mut cron = CronJob::default();
        cron.metadata.name = Some("c".into());
        cron.metadata.creation_timestamp = Some(Time(time("2026-03-01T10:00:00Z")));
        cron.spec.schedule = "*/10 * * * *".into();
        cron.spec.concurrency_policy = Some(policy.into());
        cron
    }

    fn job(name: &str, ended: Option<&str>) -> Arc<Job> {
        let mut job = Job::default();
        job.metadata.name = Some(name.into());
        job.metadata.uid = Some(format!("uid-{name}"));
        let status = job.status.get_or_insert_default();
        status.start_time = Some(Time(time("2026-03-01T10:00:00Z")));
        if let Some(type_) = ended {
            status.completion_time =
                (type_ == "Complete").then(|| Time(time("2026-03-01T10:01:00Z")));
            status.conditions = Some(vec![JobCondition {
                type_: type_.into(),
                status: "True".into(),
                ..Default::default()
            }]);
        }
        Arc::new(job)
    }

    #[test]
    fn a_job_is_created_once_when_it_is_due() {
        let mut cron = cron("Allow");
        let early = plan(&cron, &[], time("2026-03-01T10:08:00Z"));
        assert_eq!((early.create, early.requeue_after), (None, Some(Duration::from_secs(120))));
        let due = plan(&cron, &[], time("2026-03-01T10:10:05Z"));
        let made = due.create.unwrap();
        let annotations = made.metadata.annotations.as_ref().unwrap();
        assert_eq!(annotations[SCHEDULED_AT], "2026-03-01T10:10:00Z");
        assert_eq!(due.requeue_after, Some(Duration::from_secs(595)));
        // The same scheduled time requeue_after: the Job exists, or the status has the time.
        let again = plan(&cron, &[Arc::new(*made)], time("2026-03-01T10:10:06Z"));
        assert_eq!(again.create, None);
        cron.status = Some(again.status);
        assert_eq!(plan(&cron, &[], time("2026-03-01T10:10:07Z")).create, None);
    }

    #[test]
    fn a_job_that_the_status_does_not_know_is_unexpected() {
        let cron = cron("Allow");
        let forgotten = [job("c-1", None), job("c-2", Some("Complete"))];
        assert!(!knows_all(&cron, &forgotten));
        let now = time("2026-03-01T10:00:30Z");
        let first = plan(&cron, &forgotten, now);
        let message = "Saw a job that the controller did not create or forgot: c-1";
        assert_eq!(first.events, [(true, "UnexpectedJob", message.to_owned())]);
        let mut cron = cron;
        cron.status = Some(first.status);
        assert!(knows_all(&cron, &forgotten));
        assert_eq!(plan(&cron, &forgotten, now).events, []);
    }

    #[test]
    fn events_tell_what_is_wrong() {
        let now = time("2026-03-01T10:08:00Z");
        let event = |schedule: &str, zone: Option<&str>| {
            let mut cron = cron("Allow");
            cron.spec.schedule = schedule.into();
            cron.spec.time_zone = zone.map(Into::into);
            let plan = plan(&cron, &[], now);
            assert_eq!((plan.create, plan.requeue_after), (None, None), "{schedule}");
            plan.events.into_iter().next().unwrap()
        };
        let (_, reason, message) = event("59 23 31 2 *", None);
        assert_eq!(reason, "InvalidSchedule");
        let never = "time difference between two schedules is less than 1 second";
        assert_eq!(message, format!("invalid schedule: 59 23 31 2 * : {never}"));
        assert_eq!(event("* * *", None).1, "UnparseableSchedule");
        let (_, reason, message) = event("* * * * *", Some("Nowhere/Town"));
        assert_eq!(reason, "UnknownTimeZone");
        assert!(message.starts_with("invalid timeZone: \"Nowhere/Town\": "), "{message}");
    }

    #[test]
    fn an_active_job_that_is_gone_is_reported_once() {
        let mut cron = cron("Forbid");
        let (there, gone) = (job("there", None), job("gone", None));
        cron.status = Some(CronJobStatus {
            active: Some(vec![reference(&there), reference(&gone)]),
            ..Default::default()
        });
        let now = time("2026-03-01T10:08:00Z");
        let first = plan(&cron, std::slice::from_ref(&there), now);
        let missing = (false, "MissingJob", "Active job went missing: gone".to_owned());
        assert_eq!(first.events, [missing]);
        cron.status = Some(first.status);
        assert!(plan(&cron, &[there], now).events.is_empty());
    }

    #[test]
    fn concurrency_policies() {
        let now = time("2026-03-01T10:10:05Z");
        let running = [job("old", None)];
        let cron = |policy| {
            let mut cron = cron(policy);
            cron.status.get_or_insert_default().active = Some(vec![reference(&running[0])]);
            cron
        };
        assert!(plan(&cron("Allow"), &running, now).create.is_some());
        let forbid = plan(&cron("Forbid"), &running, now);
        assert_eq!(forbid.create, None);
        assert_eq!(forbid.events[0].1, "JobAlreadyActive");
        assert_eq!(forbid.status.last_schedule_time, None);
        let replace = plan(&cron("Replace"), &running, now);
        assert!(replace.create.is_some() && replace.delete.len() == 1);
        let mut suspended = cron("Allow");
        suspended.spec.suspend = Some(true);
        let plan = plan(&suspended, &running, now);
        assert_eq!((plan.create, plan.requeue_after), (None, None));
        assert_eq!(plan.status.active.unwrap().len(), 1);
    }

    #[test]
    fn a_run_past_its_starting_deadline_is_skipped() {
        let mut cron = cron("Allow");
        cron.spec.starting_deadline_seconds = Some(30);
        assert_eq!(plan(&cron, &[], time("2026-03-01T10:11:00Z")).create, None);
        assert!(plan(&cron, &[], time("2026-03-01T10:10:20Z")).create.is_some());
    }

    #[test]
    fn history_limits_are_enforced() {
        let mut cron = cron("Allow");
        cron.spec.suspend = Some(true);
        let names = ["a", "b", "c", "d"];
        let mut jobs: Vec<_> = names.iter().map(|name| job(name, Some("Complete"))).collect();
        jobs.extend([job("x", Some("Failed")), job("y", Some("Failed"))]);
        let plan = plan(&cron, &jobs, time("2026-03-01T10:30:00Z"));
        let gone: Vec<_> =
            plan.delete.iter().map(|job| job.metadata.name.as_deref().unwrap()).collect();
        assert_eq!(gone, ["a", "x"]);
        assert_eq!(plan.status.last_successful_time, Some(Time(time("2026-03-01T10:01:00Z"))));
    }
}
