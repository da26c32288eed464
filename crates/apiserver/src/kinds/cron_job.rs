//! CronJobs.

use super::check::{self, Errors};
use super::columns;
use super::job;
use super::path::Path;
use super::workload;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, JobSpec};
use serde_json::Value;

use super::pod_spec::{defaults, warnings};
use super::rules::{generation_of_spec, status_apart};
use super::{Column, Strategy, fill};

/// Eleven characters are reserved for the names of its jobs.
const MAX_NAME: usize = 52;

/// The strategy of CronJobs.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Schedule", "When jobs are created, in cron format."),
    columns::text("Timezone", "The time zone of the schedule."),
    Column { kind: "boolean", ..columns::text("Suspend", "Whether further jobs are held back.") },
    columns::integer("Active", "Number of running jobs."),
    columns::text("Last Schedule", "Time since a job was last created."),
    columns::AGE,
    columns::CONTAINERS,
    columns::IMAGES,
    columns::SELECTOR,
];

impl Strategy for Rules {
    type Object = CronJob;

    status_apart!();
    generation_of_spec!();

    fn default(&self, cron: &mut CronJob) {
        let spec = &mut cron.spec;
        fill::text(&mut spec.concurrency_policy, "Allow");
        fill::missing(&mut spec.suspend, false);
        fill::missing(&mut spec.successful_jobs_history_limit, 3);
        fill::missing(&mut spec.failed_jobs_history_limit, 1);
        spec.job_template.metadata.get_or_insert_default();
        defaults::template(&mut spec.job_template.spec.get_or_insert_default().template);
    }

    fn warnings(&self, new: &CronJob, old: Option<&CronJob>) -> Vec<String> {
        if old.is_some_and(|old| old.spec == new.spec) {
            return Vec::new();
        }
        let mut all = Vec::new();
        if old.is_none() {
            all.extend(warnings::name(&new.metadata, "Pod names and hostnames"));
        }
        if new.spec.schedule.contains("TZ") {
            all.push(
                "spec.schedule: CRON_TZ or TZ used in spec.schedule is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
                    .to_owned(),
            );
        }
        let path = Path::new("spec").child("jobTemplate").child("spec");
        if let Some(job) = &new.spec.job_template.spec {
            all.extend(warnings::template_at(&job.template, &path.child("template")));
        }
        all
    }

    fn validate(&self, cron: &CronJob) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (spec, path) = (&cron.spec, Path::new("spec"));
        let name = cron.metadata.name.as_deref().unwrap_or_default();
        if name.len() > MAX_NAME {
            let problem = format!("must be no more than {MAX_NAME} characters");
            errors.push(FieldError::invalid("metadata.name", name, problem));
        }
        validate_schedule(&spec.schedule, &path.child("schedule"), &mut errors);
        validate_time_zone(spec.time_zone.as_deref(), &path.child("timeZone"), &mut errors);
        let deadline = spec.starting_deadline_seconds.unwrap_or(0);
        check::not_negative(deadline, &path.child("startingDeadlineSeconds"), &mut errors);
        let policy = check::text(&spec.concurrency_policy);
        check::one_of(
            policy,
            &["Allow", "Forbid", "Replace"],
            &path.child("concurrencyPolicy"),
            &mut errors,
        );
        let numbers = [
            ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
            ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
        ];
        workload::not_negative(&numbers, &path, &mut errors);
        if let Some(job) = &spec.job_template.spec {
            job::validate_spec(job, false, &path.child("jobTemplate").child("spec"), &mut errors);
            validate_selector(job, &path.child("jobTemplate").child("spec"), &mut errors);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, cron: &CronJob, now: Timestamp) -> Vec<Value> {
        let status = cron.status.as_ref();
        let last = status.and_then(|status| columns::moment(&status.last_schedule_time));
        let job = cron.spec.job_template.spec.as_ref();
        let [names, images] = columns::template(job.map(|job| &job.template));
        vec![
            columns::name(&cron.metadata),
            cron.spec.schedule.clone().into(),
            columns::or_none(cron.spec.time_zone.as_deref()),
            columns::flag(cron.spec.suspend),
            status.and_then(|status| status.active.as_ref()).map_or(0, Vec::len).into(),
            last.map_or_else(
                || columns::NONE.into(),
                |last| columns::since(Some(last), now).into(),
            ),
            columns::age(&cron.metadata, now),
            names,
            images,
            columns::selector(job.and_then(|job| job.selector.as_ref())),
        ]
    }
}

fn validate_schedule(schedule: &str, path: &Path, errors: &mut Errors) {
    if schedule.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    if schedule.contains("TZ") {
        let problem = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(FieldError::invalid(path, schedule, problem));
        return;
    }
    if let Some(interval) = schedule.strip_prefix("@every ") {
        if interval.parse::<jiff::SignedDuration>().is_err() {
            let problem = format!("failed to parse duration {schedule}");
            errors.push(FieldError::invalid(path, schedule, problem));
        }
        return;
    }
    let fields = schedule.split_whitespace().count();
    if !schedule.starts_with('@') && fields != 5 {
        let problem = format!("expected exactly 5 fields, found {fields}: [{schedule}]");
        errors.push(FieldError::invalid(path, schedule, problem));
    } else if let Err(error) = schedule.parse::<croner::Cron>() {
        errors.push(FieldError::invalid(path, schedule, error.to_string()));
    }
}

/// The selector of each job is generated.
fn validate_selector(job: &JobSpec, path: &Path, errors: &mut Errors) {
    if let Some(selector) = &job.selector {
        let problem = "`selector` will be auto-generated";
        errors.push(FieldError::invalid(
            path.child("selector"),
            workload::printed(selector),
            problem,
        ));
    }
    if job.manual_selector == Some(true) {
        let path = path.child("manualSelector");
        errors.push(FieldError::not_supported(path, true, &["nil", "false"]));
    }
}

fn validate_time_zone(zone: Option<&str>, path: &Path, errors: &mut Errors) {
    let problem = match zone {
        None => return,
        Some("") => "timeZone must be nil or non-empty string".to_owned(),
        Some(zone) if zone.eq_ignore_ascii_case("local") => {
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
                .to_owned()
        }
        Some(zone) if jiff::tz::TimeZone::get(zone).is_err() => format!("unknown time zone {zone}"),
        Some(_) => return,
    };
    errors.push(FieldError::invalid(path, zone.unwrap_or_default(), problem));
}
