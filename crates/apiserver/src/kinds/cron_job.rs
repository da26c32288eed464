//! CronJobs.

use k8s_openapi::api::batch::v1::{CronJob, JobSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::at::At;
use super::columns::{self, CONTAINERS, IMAGES, SELECTOR, boolean, integer, text};
use super::pod_spec::{defaults, warnings};
use super::table::{Rows, age, name, status_apart};
use super::{check, fill, job, workload};

/// Eleven characters are reserved for the names of its jobs.
const MAX_NAME: usize = 52;

pub static RULES: Rows<CronJob> = Rows {
    default: |cron| {
        let spec = &mut cron.spec;
        fill::text(&mut spec.concurrency_policy, "Allow");
        fill::missing(&mut spec.suspend, false);
        fill::missing(&mut spec.successful_jobs_history_limit, 3);
        fill::missing(&mut spec.failed_jobs_history_limit, 1);
        spec.job_template.metadata.get_or_insert_default();
        defaults::template(&mut spec.job_template.spec.get_or_insert_default().template);
    },
    parts: status_apart!(),
    judge: |cron, at| {
        let name = check::text(&cron.metadata.name);
        if name.len() > MAX_NAME {
            let problem = format!("must be no more than {MAX_NAME} characters");
            at.child("metadata.name").invalid(name, problem);
        }
        let (spec, at) = (&cron.spec, at.child("spec"));
        validate_schedule(&spec.schedule, &at.child("schedule"));
        validate_time_zone(spec.time_zone.as_deref(), &at.child("timeZone"));
        let deadline = spec.starting_deadline_seconds.unwrap_or(0);
        at.child("startingDeadlineSeconds").not_negative(deadline);
        let policy = check::text(&spec.concurrency_policy);
        at.child("concurrencyPolicy").one_of(policy, &["Allow", "Forbid", "Replace"]);
        at.none_negative(&[
            ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
            ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
        ]);
        if let Some(job) = &spec.job_template.spec {
            job::validate_spec(job, false, &at.child("jobTemplate.spec"));
            validate_selector(job, &at.child("jobTemplate.spec"));
        }
    },
    generation: |new, old| Some(new.spec != old.spec),
    warnings: |new, old| {
        if old.is_some_and(|old| old.spec == new.spec) {
            return Vec::new();
        }
        let mut all = workload::warnings(&new.metadata, None, old.is_none());
        if new.spec.schedule.contains("TZ") {
            all.push(
                "spec.schedule: CRON_TZ or TZ used in spec.schedule is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
                    .to_owned(),
            );
        }
        if let Some(job) = &new.spec.job_template.spec {
            let path = "spec.jobTemplate.spec.template";
            all.extend(warnings::template_at(&job.template, path));
        }
        all
    },
    columns: &[
        name(),
        text("Schedule", "When jobs are created, in cron format.").at("spec.schedule"),
        text("Timezone", "The time zone of the schedule.").or("spec.timeZone", columns::NONE),
        boolean("Suspend", "Whether further jobs are held back.")
            .of(|cron| columns::flag(cron.spec.suspend)),
        integer("Active", "Number of running jobs.").of(|cron| {
            let active = cron.status.as_ref().and_then(|status| status.active.as_ref());
            active.map_or(0, Vec::len).into()
        }),
        text("Last Schedule", "Time since a job was last created.").now(|cron, now| {
            let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
            let since = |last: &Time| columns::since(Some(last.0), now);
            last.map_or_else(|| columns::NONE.to_owned(), since).into()
        }),
        age(),
        CONTAINERS.of(|cron| columns::container_names(template(cron))),
        IMAGES.of(|cron| columns::images(template(cron))),
        SELECTOR.of(|cron| {
            let job = cron.spec.job_template.spec.as_ref();
            columns::selector(job.and_then(|job| job.selector.as_ref()))
        }),
    ],
    ..Rows::NEW
};

fn validate_schedule(schedule: &str, at: &At<'_>) {
    if schedule.is_empty() {
        at.required("");
        return;
    }
    if schedule.contains("TZ") {
        at.invalid(schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
        return;
    }
    if let Some(interval) = schedule.strip_prefix("@every ") {
        if interval.parse::<jiff::SignedDuration>().is_err() {
            at.invalid(schedule, format!("failed to parse duration {schedule}"));
        }
        return;
    }
    let fields = schedule.split_whitespace().count();
    if !schedule.starts_with('@') && fields != 5 {
        at.invalid(schedule, format!("expected exactly 5 fields, found {fields}: [{schedule}]"));
    } else if let Err(error) = schedule.parse::<croner::Cron>() {
        at.invalid(schedule, error.to_string());
    }
}

/// The selector of each job is generated.
fn validate_selector(job: &JobSpec, at: &At<'_>) {
    if let Some(selector) = &job.selector {
        at.child("selector")
            .invalid(workload::printed(selector), "`selector` will be auto-generated");
    }
    if job.manual_selector == Some(true) {
        let at = at.child("manualSelector");
        at.not_supported(true, &["nil", "false"]);
    }
}

fn validate_time_zone(zone: Option<&str>, at: &At<'_>) {
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
    at.invalid(zone.unwrap_or_default(), problem);
}

fn template(cron: &CronJob) -> Option<&PodTemplateSpec> {
    cron.spec.job_template.spec.as_ref().map(|job| &job.template)
}
