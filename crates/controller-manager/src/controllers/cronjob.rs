//! CronJobs: Jobs on a schedule (`k8s.io/kubernetes/pkg/controller/cronjob`).

mod plan;
mod schedule;

use std::sync::Arc;

use client::events::EventRecorder;
use client::{Api, Client, DeleteOptions};
use clock::SharedClock;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};

use crate::Error;
use crate::machinery::cache::{Cache, Key};
use crate::machinery::error::During;
use crate::machinery::owner::{controlled_by, uid};
use crate::machinery::pod_control::is_namespace_terminating;
use crate::machinery::queue::{Controller, Next};
use crate::machinery::status;
use crate::wire::Wiring;
use plan::{Plan, plan};

struct CronJobs {
    client: Client,
    recorder: EventRecorder,
    clock: SharedClock,
    cron_jobs: Arc<Cache<CronJob>>,
    jobs: Arc<Cache<Job>>,
}

/// Adds the controller; its keys are CronJobs.
pub fn start(wiring: &mut Wiring) {
    let controller = CronJobs {
        client: wiring.client.clone(),
        recorder: wiring.recorder.named("cronjob-controller"),
        clock: wiring.clock.clone(),
        cron_jobs: wiring.cache(),
        jobs: wiring.cache(),
    };
    wiring.controller(controller).of::<CronJob>().owns::<CronJob, Job>().start();
}

impl Controller for CronJobs {
    const NAME: &'static str = "cronjob";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(cron) = self.cron_jobs.get(key) else {
            return Ok(Next::Change);
        };
        let mut jobs = self.jobs.indexed(&controlled_by(uid(&cron.metadata)));
        let Some(cron) = self.with_active(cron, &jobs).await? else {
            return Ok(Next::Change);
        };
        self.add_unseen(&cron, &mut jobs).await?;
        let plan = plan(&cron, &jobs, self.clock.now());
        let next = plan.requeue_after.into();
        self.apply(&cron, plan).await?;
        Ok(next)
    }
}

impl CronJobs {
    /// The CronJob as the server has it, if the cached one does not know a Job that runs: its status
    /// may be behind. `None`: it is gone.
    async fn with_active(
        &self,
        cron: Arc<CronJob>,
        jobs: &[Arc<Job>],
    ) -> Result<Option<Arc<CronJob>>, Error> {
        if plan::knows_all(&cron, jobs) {
            return Ok(Some(cron));
        }
        let key = Key::of(&*cron);
        let cron_jobs = Api::<CronJob>::namespaced(&self.client, &key.namespace);
        let live = cron_jobs.get_opt(&key.name).await.during(|| format!("get cronjob {key}"))?;
        Ok(live.filter(|live| live.metadata.uid == cron.metadata.uid).map(Arc::new))
    }

    /// Adds active Jobs that the cache does not have (yet), but the server has.
    async fn add_unseen(&self, cron: &CronJob, jobs: &mut Vec<Arc<Job>>) -> Result<(), Error> {
        for reference in cron.status.iter().flat_map(|status| status.active.iter().flatten()) {
            if jobs.iter().any(|job| job.metadata.uid == reference.uid) {
                continue;
            }
            let key = Key::of(cron);
            let api = Api::<Job>::namespaced(&self.client, &key.namespace);
            let name = reference.name.as_deref().unwrap_or_default();
            match api.get(name).await {
                Ok(job) if job.metadata.uid == reference.uid => jobs.push(Arc::new(job)),
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error).during(|| format!("get job {name} of {key}")),
            }
        }
        Ok(())
    }

    async fn apply(&self, cron: &CronJob, plan: Plan) -> Result<(), Error> {
        self.recorder.all(cron, plan.events);
        for job in &plan.delete {
            self.delete(cron, job).await?;
        }
        let mut status = plan.status;
        if let Some(job) = plan.create
            && let Some(created) = self.create(cron, &job).await?
        {
            let active = status.active.get_or_insert_default();
            active.push(plan::reference(&created));
        }
        self.write_status(cron, status).await
    }

    /// `None`: the Job exists already, or its namespace is being deleted.
    async fn create(&self, cron: &CronJob, job: &Job) -> Result<Option<Job>, Error> {
        let key = Key::of(job);
        let jobs = Api::<Job>::namespaced(&self.client, &key.namespace);
        match jobs.create(job).await {
            Ok(created) => {
                tracing::info!(cronjob = %Key::of(cron), job = key.name, "started a job");
                let message = format!("Created job {}", key.name);
                self.recorder.normal(cron, "SuccessfulCreate", message);
                Ok(Some(created))
            }
            Err(error) if error.is_already_exists() || is_namespace_terminating(&error) => Ok(None),
            Err(error) => {
                let message = format!("Error creating job: {error}");
                self.recorder.warning(cron, "FailedCreate", message);
                Err(error).during(|| format!("create job {key}"))
            }
        }
    }

    async fn delete(&self, cron: &CronJob, job: &Job) -> Result<(), Error> {
        let key = Key::of(job);
        let options =
            DeleteOptions { propagation_policy: Some("Background"), ..Default::default() };
        let jobs = Api::<Job>::namespaced(&self.client, &key.namespace);
        match jobs.delete_exactly(job, &options).await {
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => {
                self.recorder.warning(cron, "FailedDelete", format!("Deleted job: {error}"));
                Err(error).during(|| format!("delete job {key}"))
            }
            Ok(_) => {
                let message = format!("Deleted job {}", key.name);
                self.recorder.normal(cron, "SuccessfulDelete", message);
                Ok(())
            }
        }
    }

    async fn write_status(&self, cron: &CronJob, status: CronJobStatus) -> Result<(), Error> {
        if cron.status.is_none() && status == CronJobStatus::default() {
            return Ok(());
        }
        status::update(&self.client, cron, |cron| cron.status = Some(status)).await.map(drop)
    }
}
