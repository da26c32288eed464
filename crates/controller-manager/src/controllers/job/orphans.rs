//! Takes the tracking finalizer off pods that no Job counts any more: released because their labels
//! no longer match, orphaned by the deletion of their Job, or left behind by it.

use std::sync::Arc;

use client::Client;
use futures::future::try_join_all;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;

use super::job_pod;
use crate::Error;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::error::{During, Unless};
use crate::machinery::owner::{
    controlled_by, controller_key, controller_of, finalizers_without, patch_finalizers, uid,
};
use crate::machinery::queue::{Controller, Next};
use crate::wire::Wiring;

struct Orphans {
    client: Client,
    jobs: Arc<Cache<Job>>,
    pods: Arc<Cache<Pod>>,
}

/// Adds the controller; its keys are pods.
pub fn start(wiring: &mut Wiring) {
    let controller =
        Orphans { client: wiring.client.clone(), jobs: wiring.cache(), pods: wiring.cache() };
    let (jobs, pods) = (wiring.cache::<Job>(), wiring.cache::<Pod>());
    let left_behind = move |change: &Change<Job>| match (&change.old, &change.new) {
        (Some(gone), None) => pods.keys_of(&controlled_by(uid(&gone.metadata))),
        _ => Vec::new(),
    };
    wiring
        .controller(controller)
        .of_some(move |change| change.new.as_ref().is_some_and(|pod| is_orphan(pod, &jobs)))
        .maps(left_behind)
        .start();
}

impl Controller for Orphans {
    const NAME: &'static str = "job-orphans";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let orphan = self.pods.get(key).filter(|pod| is_orphan(pod, &self.jobs));
        if let Some(pod) = orphan {
            untrack(&self.client, &[pod]).await?;
        }
        Ok(Next::Change)
    }
}

/// Whether the pod is tracked, but by no Job that exists.
fn is_orphan(pod: &Pod, jobs: &Cache<Job>) -> bool {
    let job = controller_key::<Job>(&pod.metadata).and_then(|key| jobs.get(&key));
    let controller = controller_of(&pod.metadata).map(|controller| controller.uid.as_str());
    let counted = job.is_some_and(|job| controller == Some(uid(&job.metadata)));
    job_pod::is_tracked(pod) && !counted
}

/// Removes the tracking finalizer from pods.
///
/// # Errors
/// When the server refuses, or a pod has changed.
pub async fn untrack(client: &Client, pods: &[Arc<Pod>]) -> Result<(), Error> {
    try_join_all(pods.iter().map(async |pod| {
        let key = Key::of(&**pod);
        let rest = finalizers_without(&pod.metadata, job_pod::TRACKING);
        let patched = patch_finalizers::<Pod>(client, &pod.metadata, rest).await;
        patched.unless_gone().during(|| format!("untrack pod {key}"))
    }))
    .await?;
    Ok(())
}
