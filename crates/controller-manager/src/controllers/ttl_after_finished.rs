//! Deletes finished Jobs after their time to live
//! (`k8s.io/kubernetes/pkg/controller/ttlafterfinished`).

use std::sync::Arc;
use std::time::Duration;

use client::{Api, Client, DeleteOptions};
use clock::SharedClock;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;

use crate::Error;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::error::{During, Unless};
use crate::machinery::owner::is_deleting;
use crate::machinery::queue::{Controller, Next};
use crate::wire::Wiring;

struct Ttl {
    client: Client,
    clock: SharedClock,
    jobs: Arc<Cache<Job>>,
}

/// Adds the controller; its keys are Jobs.
pub fn start(wiring: &mut Wiring) {
    let controller =
        Ttl { client: wiring.client.clone(), clock: wiring.clock.clone(), jobs: wiring.cache() };
    let expires = |change: &Change<Job>| change.new.as_deref().and_then(expires_at).is_some();
    wiring.controller(controller).of_some(expires).start();
}

/// When a finished Job with a time to live expires.
fn expires_at(job: &Job) -> Option<Timestamp> {
    if is_deleting(&job.metadata) {
        return None;
    }
    let seconds = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let mut conditions = job.status.as_ref()?.conditions.iter().flatten();
    let finished = conditions.find(|condition| {
        matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True"
    })?;
    let at = finished.last_transition_time.as_ref()?.0;
    at.checked_add(SignedDuration::from_secs(seconds.into())).ok()
}

impl Controller for Ttl {
    const NAME: &'static str = "ttl-after-finished";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let job = self.jobs.get(key);
        let Some((job, at)) = job.and_then(|job| expires_at(&job).map(|at| (job, at))) else {
            return Ok(Next::Change);
        };
        let left = at.duration_since(self.clock.now());
        if let Ok(left) = Duration::try_from(left)
            && !left.is_zero()
        {
            return Ok(Next::After(left));
        }
        // The resource version is a precondition: the time to live may have been extended.
        let options = DeleteOptions {
            propagation_policy: Some("Foreground"),
            precondition_resource_version: job.metadata.resource_version.clone(),
            ..Default::default()
        };
        let jobs = Api::<Job>::namespaced(&self.client, &key.namespace);
        let deleted = jobs.delete_exactly(&job, &options).await.unless_gone();
        deleted.during(|| format!("delete job {key}"))?;
        Ok(Next::Change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::testing::at;
    use k8s_openapi::api::batch::v1::JobCondition;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn only_finished_jobs_with_a_time_to_live_expire() {
        let mut job = Job::default();
        job.spec.get_or_insert_default().ttl_seconds_after_finished = Some(30);
        assert_eq!(expires_at(&job), None);
        job.status.get_or_insert_default().conditions = Some(vec![JobCondition {
            type_: "Failed".into(),
            status: "True".into(),
            last_transition_time: Some(Time(at(100))),
            ..Default::default()
        }]);
        assert_eq!(expires_at(&job), Some(at(130)));
        job.spec.as_mut().unwrap().ttl_seconds_after_finished = None;
        assert_eq!(expires_at(&job), None);
    }
}
