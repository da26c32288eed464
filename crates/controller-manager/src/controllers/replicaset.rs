//! Keeps a number of identical pods: ReplicaSet and ReplicationController
//! (`k8s.io/kubernetes/pkg/controller/replicaset`).

mod plan;
mod replicated;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::Client;
use clock::SharedClock;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::Error;
use crate::machinery::cache::{Cache, Key};
use crate::machinery::error::During;
use crate::machinery::owner::{self, controlled_by, controller_of, is_deleting, uid};
use crate::machinery::pod_control::{Failure, PodControl};
use crate::machinery::pod_ranking::count_per_node;
use crate::machinery::pod_state::is_active;
use crate::machinery::queue::{Controller, Next};
use crate::machinery::status;
use crate::wire::Wiring;

use plan::{Observed, Plan, new_pods, plan};
pub use replicated::Replicated;
use replicated::{ReplicaFailure, Status};

struct Sets<K> {
    client: Client,
    clock: SharedClock,
    sets: Arc<Cache<K>>,
    pods: Arc<Cache<Pod>>,
    control: PodControl,
}

/// Adds the controller for one of the two kinds; its keys are the sets.
pub fn start<K: Replicated>(wiring: &mut Wiring) {
    let controller = Sets::<K> {
        client: wiring.client.clone(),
        clock: wiring.clock.clone(),
        sets: wiring.cache(),
        pods: wiring.cache(),
        control: wiring.pod_control(K::RECORDER),
    };
    wiring.controller(controller).of::<K>().selects::<K, Pod>(K::selector).start();
}

impl<K: Replicated> Controller for Sets<K> {
    const NAME: &'static str = K::CONTROLLER;

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let now = self.clock.now();
        // Checked before the pods are read, so that the pods include what the check saw.
        let expectations_met = self.control.expectations.satisfied(key);
        let Some(set) = self.sets.get(key) else {
            self.control.expectations.forget(key);
            return Ok(Next::Change);
        };
        let selector = set.selector();
        let pods = owner::claim_all(&self.client, &*set, selector, &self.pods, is_active).await?;
        let plan = plan(&self.observe(&set, pods, expectations_met), now);
        let next = plan.requeue_after.into();
        self.apply(&set, plan).await?;
        Ok(next)
    }
}

impl<K: Replicated> Sets<K> {
    fn observe<'a>(&self, set: &'a K, pods: Vec<Arc<Pod>>, expectations_met: bool) -> Observed<'a> {
        let metadata = set.metadata();
        Observed {
            replicas: set.replicas(),
            min_ready_seconds: set.min_ready_seconds(),
            generation: metadata.generation,
            deleting: is_deleting(metadata),
            template: set.template(),
            status: set.status(),
            reports_terminating: K::REPORTS_TERMINATING,
            per_node: self.related_per_node(set, &pods),
            pods,
            expectations_met,
        }
    }

    /// Active pods by node, of all sets with the same controller: during a rolling update a node
    /// may run pods of several.
    fn related_per_node(
        &self,
        set: &K,
        own: &[Arc<Pod>],
    ) -> std::collections::HashMap<String, usize> {
        let Some(controller) = controller_of(set.metadata()) else {
            return count_per_node(own.iter().map(|pod| &**pod));
        };
        let siblings = self.sets.indexed(&controlled_by(&controller.uid));
        let mut related = Vec::new();
        for sibling in siblings {
            related.extend(self.pods.indexed(&controlled_by(uid(sibling.metadata()))));
        }
        count_per_node(related.iter().map(|pod| &**pod))
    }

    async fn apply(&self, set: &K, plan: Plan) -> Result<(), Error> {
        if !plan.delete.is_empty() || plan.create > 0 {
            tracing::info!(kind = K::KIND, set = %Key::of(set), create = plan.create, delete = plan.delete.len(), "scaling");
        }
        let mut outcome = Ok(());
        if plan.create > 0 {
            let pods = new_pods(set, plan.create);
            outcome = self.control.create_all(set, pods).await;
        } else if !plan.delete.is_empty() {
            outcome = self.control.delete_all(set, &plan.delete).await;
        }
        let mut status = plan.status;
        if let Err(failure) = &outcome {
            status.failure = Some(self.failed(set, failure));
        }
        self.write_status(set, status).await?;
        outcome.during(|| format!("scale {} {}", K::KIND, Key::of(set)))
    }

    fn failed(&self, set: &K, failure: &Failure) -> ReplicaFailure {
        let before = set.status().failure.and_then(|failed| failed.since);
        ReplicaFailure {
            reason: failure.reason.to_owned(),
            message: failure.error.to_string(),
            since: before.or_else(|| Some(Time(self.clock.now()))),
        }
    }

    async fn write_status(&self, set: &K, status: Status) -> Result<(), Error> {
        if status == set.status() {
            return Ok(());
        }
        status::update(&self.client, set, |set| set.set_status(status)).await.map(drop)
    }
}
