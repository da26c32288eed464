//! CronJobs.

use k8s_openapi::api::batch::v1::CronJob;

use super::pod_spec::defaults;
use super::rules::{generation_of_spec, status_apart};
use super::{Strategy, fill};

/// The strategy of CronJobs.
pub struct Rules;

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
}
