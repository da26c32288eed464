//! CronJobs.

use super::columns;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::CronJob;
use serde_json::Value;

use super::pod_spec::defaults;
use super::rules::{generation_of_spec, status_apart};
use super::{Column, Strategy, fill};

/// The strategy of CronJobs.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Schedule", "When jobs are created, in cron format."),
    columns::text("Timezone", "The time zone of the schedule."),
    Column {
        kind: "boolean",
        ..columns::text("Suspend", "Whether further jobs are held back.")
    },
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
        defaults::template(&mut spec.job_template.spec.get_or_insert_default().template);
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
            status
                .and_then(|status| status.active.as_ref())
                .map_or(0, Vec::len)
                .into(),
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
