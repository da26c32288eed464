//! Jobs: pods that run to completion (`k8s.io/kubernetes/pkg/controller/job`).

mod indexes;
mod job_pod;
mod manage;
mod orphans;
mod plan;
mod policy;
mod status;
mod tally;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::labels::{Selector, SelectorError};
use client::Client;
use client::events::EventRecorder;
use clock::SharedClock;
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;

use crate::Error;
use crate::machinery::cache::{Cache, Key};
use crate::machinery::error::During;
use crate::machinery::owner;
use crate::machinery::pod_control::PodControl;
use crate::machinery::pod_state::is_active;
use crate::machinery::queue::{Controller, Next};
use crate::machinery::status::{omit_zeros, update};
use crate::wire::Wiring;
use orphans::untrack;
use plan::{Observed, Plan, plan};
pub use status::final_condition;

/// `spec.managedBy` of the Jobs that this controller manages.
const OURS: &str = "kubernetes.io/job-controller";

struct Jobs {
    client: Client,
    recorder: EventRecorder,
    clock: SharedClock,
    jobs: Arc<Cache<Job>>,
    pods: Arc<Cache<Pod>>,
    control: PodControl,
}

/// Adds the controller; its keys are Jobs.
pub fn start(wiring: &mut Wiring) {
    let controller = Jobs {
        client: wiring.client.clone(),
        recorder: wiring.recorder.named("job-controller"),
        clock: wiring.clock.clone(),
        jobs: wiring.cache(),
        pods: wiring.cache(),
        control: wiring.pod_control("job-controller"),
    };
    wiring.controller(controller).of::<Job>().selects::<Job, Pod>(selector).start();
    orphans::start(wiring);
}

fn selector(job: &Job) -> Result<Selector, SelectorError> {
    let spec = job.spec.as_ref();
    Selector::from_label_selector(spec.and_then(|spec| spec.selector.as_ref()))
}

impl Controller for Jobs {
    const NAME: &'static str = "job";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let now = self.clock.now();
        let expectations_met = self.control.expectations.satisfied(key);
        let Some(job) = self.jobs.get(key) else {
            self.control.expectations.forget(key);
            return Ok(Next::Change);
        };
        let managed_by = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
        if managed_by.is_some_and(|managed_by| managed_by != OURS) {
            return Ok(Next::Change);
        }
        let pods =
            owner::claim_all(&self.client, &*job, selector(&job), &self.pods, is_active).await?;
        let observed = Observed { job: &job, pods, expectations_met };
        let plan = plan(&observed, now);
        let next = plan.requeue_after.into();
        self.apply(&job, plan).await?;
        Ok(next)
    }
}

impl Jobs {
    async fn apply(&self, job: &Job, plan: Plan) -> Result<(), Error> {
        let key = Key::of(job);
        if !plan.create.is_empty() || !plan.delete.is_empty() {
            tracing::info!(job = %key, create = plan.create.len(), delete = plan.delete.len(), "managing job pods");
        }
        let deleted = self.control.delete_all(job, &plan.delete).await;
        let operation = || format!("manage the pods of job {key}");
        // The status is written first: it holds the uids of the pods whose finalizers are removed
        // next.
        self.write_status(job, plan.status).await?;
        untrack(&self.client, &plan.untrack).await?;
        if let Some((reason, message)) = plan.suspension {
            self.recorder.normal(job, reason, message);
        }
        for (reason, message) in plan.surplus {
            self.recorder.warning(job, reason, message);
        }
        if let Some(ending) = plan.ended {
            if ending.success {
                self.recorder.normal(job, "Completed", "Job completed");
            } else {
                self.recorder.warning(job, &ending.reason, ending.message);
            }
        }
        deleted.during(operation)?;
        let new = plan.create.into_iter();
        let new = new.filter_map(|(index, failures)| job_pod::new(job, index, failures));
        let created = self.control.create_all(job, new.collect()).await;
        created.during(operation)
    }

    async fn write_status(&self, job: &Job, mut status: JobStatus) -> Result<(), Error> {
        omit_zeros([&mut status.active, &mut status.succeeded, &mut status.failed]);
        if let Some(uncounted) = &mut status.uncounted_terminated_pods {
            for uids in [&mut uncounted.succeeded, &mut uncounted.failed] {
                uids.take_if(|uids| uids.is_empty());
            }
        }
        update(&self.client, job, |job| job.status = Some(status)).await.map(drop)
    }
}
