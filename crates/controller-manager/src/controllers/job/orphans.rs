//! Takes the tracking finalizer off pods that no Job counts any more: released because their labels
//! no longer match, orphaned by the deletion of their Job, or left behind by it.

use std::sync::Arc;

use client::{Api, Client, PatchKind};
use futures::future::try_join_all;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::job_pod;
use crate::Error;
use crate::machinery::cache::{Cache, Key};
use crate::machinery::error::During;
use crate::machinery::owner::{controlled_by, controller_key, controller_of, none_if_empty, uid};
use crate::machinery::queue::{Controller, Next, queue};
use crate::wire::Wiring;

struct Orphans {
    client: Client,
    jobs: Arc<Cache<Job>>,
    pods: Arc<Cache<Pod>>,
}

/// Adds the controller; its keys are pods.
pub fn start(wiring: &mut Wiring) {
    let (trigger, requests) = queue();
    let informers = &wiring.informers;
    let jobs = informers.jobs.cache();
    informers.pods.subscribe(&trigger, move |change| {
        let orphan = change.new.iter().filter(|pod| is_orphan(pod, &jobs));
        orphan.map(|pod| Key::of(&**pod)).collect()
    });
    let pods = informers.pods.cache();
    informers.jobs.subscribe(&trigger, move |change| match (&change.old, &change.new) {
        (Some(gone), None) => {
            let pods = pods.indexed(&controlled_by(uid(&gone.metadata)));
            pods.iter().map(|pod| Key::of(&**pod)).collect()
        }
        _ => Vec::new(),
    });
    let controller = Orphans {
        client: wiring.client.clone(),
        jobs: informers.jobs.cache(),
        pods: informers.pods.cache(),
    };
    wiring.run(controller, requests);
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
        let finalizers = pod.metadata.finalizers.iter().flatten();
        let rest: Vec<_> = finalizers.filter(|name| *name != job_pod::TRACKING).collect();
        let patch = json!({"metadata": {
            "uid": pod.metadata.uid,
            "resourceVersion": pod.metadata.resource_version,
            "finalizers": none_if_empty(rest),
        }});
        let api = Api::<Pod>::namespaced(client, &key.namespace);
        match api.patch(&key.name, PatchKind::Merge, &patch).await {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome.map(|_| ()).during(|| format!("untrack pod {key}")),
        }
    }))
    .await?;
    Ok(())
}
