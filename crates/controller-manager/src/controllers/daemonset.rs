//! DaemonSets: one pod on every suitable node (`k8s.io/kubernetes/pkg/controller/daemon`).

mod plan;
mod template;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::labels::{Selector, SelectorError};
use client::Client;
use client::events::EventRecorder;
use clock::SharedClock;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::Error;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::error::During;
use crate::machinery::owner::{self, controlled_by, is_deleting, uid};
use crate::machinery::pod_control::PodControl;
use crate::machinery::pod_state::is_active;
use crate::machinery::queue::{Controller, Next};
use crate::machinery::revisions::{self, HASH_LABEL};
use crate::machinery::status;
use crate::wire::Wiring;
use plan::{Observed, Plan, plan};

struct DaemonSets {
    client: Client,
    recorder: EventRecorder,
    clock: SharedClock,
    sets: Arc<Cache<DaemonSet>>,
    nodes: Arc<Cache<Node>>,
    pods: Arc<Cache<Pod>>,
    revisions: Arc<Cache<ControllerRevision>>,
    control: PodControl,
}

/// Adds the controller; its keys are DaemonSets.
pub fn start(wiring: &mut Wiring) {
    let controller = DaemonSets {
        client: wiring.client.clone(),
        recorder: wiring.recorder.named("daemonset-controller"),
        clock: wiring.clock.clone(),
        sets: wiring.cache(),
        nodes: wiring.cache(),
        pods: wiring.cache(),
        revisions: wiring.cache(),
        control: wiring.pod_control("daemonset-controller"),
    };
    let sets = wiring.cache::<DaemonSet>();
    wiring
        .controller(controller)
        .of::<DaemonSet>()
        .selects::<DaemonSet, Pod>(selector)
        .owns::<DaemonSet, ControllerRevision>()
        .maps(
            move |change| if affects_placement(change) { sets.keys(|_| true) } else { Vec::new() },
        )
        .start();
}

fn collision_count(set: &DaemonSet) -> Option<i32> {
    set.status.as_ref().and_then(|status| status.collision_count)
}

fn selector(set: &DaemonSet) -> Result<Selector, SelectorError> {
    Selector::from_label_selector(Some(&set.spec.selector))
}

/// Whether a change of a node may affect where daemon pods run.
fn affects_placement(change: &Change<Node>) -> bool {
    let relevant = |node: &Arc<Node>| {
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone());
        (node.metadata.labels.clone(), taints, node.metadata.uid.clone())
    };
    change.old.as_ref().map(relevant) != change.new.as_ref().map(relevant)
}

impl Controller for DaemonSets {
    const NAME: &'static str = "daemonset";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let now = self.clock.now();
        let expectations_met = self.control.expectations.satisfied(key);
        let Some(set) = self.sets.get(key) else {
            self.control.expectations.forget(key);
            return Ok(Next::Change);
        };
        let own = controlled_by(uid(&set.metadata));
        let pods =
            owner::claim_all(&self.client, &*set, selector(&set), &self.pods, is_active).await?;
        if is_deleting(&set.metadata) {
            return Ok(Next::Change);
        }
        let history = self.revisions.indexed(&own);
        let (template, collisions) = (&set.spec.template, collision_count(&set));
        let revision = revisions::sync(&self.client, &*set, template, collisions, &history).await?;
        let Some(revision) = revision else {
            // The change of the status triggers the next attempt, with another hash.
            let mut status = set.status.clone().unwrap_or_default();
            status.collision_count = Some(collisions.unwrap_or(0) + 1);
            self.write_status(&set, status).await?;
            return Ok(Next::Change);
        };
        let hash = revisions::hash_of(&revision).to_owned();
        let observed =
            Observed { set: &set, nodes: self.nodes.list(), pods, hash, expectations_met };
        let plan = plan(&observed, now);
        let next = plan.requeue_after.into();
        self.apply(&set, plan, &observed.hash).await?;
        self.clean_up(&set, &history, &observed).await?;
        Ok(next)
    }
}

impl DaemonSets {
    async fn apply(&self, set: &DaemonSet, plan: Plan, hash: &str) -> Result<(), Error> {
        if !plan.create.is_empty() || !plan.delete.is_empty() {
            tracing::info!(set = %Key::of(set), create = plan.create.len(), delete = plan.delete.len(), "managing daemon pods");
        }
        for pod in &plan.failed {
            let message = format!(
                "Found failed daemon pod {} on node {}, will try to kill it",
                Key::of(&**pod),
                api::pod::node_name(pod).unwrap_or_default()
            );
            self.recorder.warning(set, "FailedDaemonPod", message);
        }
        for pod in &plan.succeeded {
            let message = format!(
                "Found succeeded daemon pod {} on node {}, will try to delete it",
                Key::of(&**pod),
                api::pod::node_name(pod).unwrap_or_default()
            );
            self.recorder.normal(set, "SucceededDaemonPod", message);
        }
        let pods = plan.create.iter();
        let pods = pods.map(|node| template::pod_for(set, node, hash)).collect();
        let created = self.control.create_all(set, pods).await;
        let deleted = self.control.delete_all(set, &plan.delete).await;
        self.write_status(set, plan.status).await?;
        created.and(deleted).during(|| format!("manage the pods of daemonset {}", Key::of(set)))
    }

    async fn clean_up(
        &self,
        set: &DaemonSet,
        history: &[Arc<ControllerRevision>],
        observed: &Observed<'_>,
    ) -> Result<(), Error> {
        let limit = set.spec.revision_history_limit;
        let in_use = |revision: &ControllerRevision| {
            let hash = revisions::hash_of(revision);
            hash == observed.hash
                || observed.pods.iter().any(|pod| {
                    let labels = pod.metadata.labels.as_ref();
                    labels.and_then(|labels| labels.get(HASH_LABEL)).map(String::as_str)
                        == Some(hash)
                })
        };
        revisions::clean_up(&self.client, history, limit, in_use).await
    }

    async fn write_status(
        &self,
        set: &DaemonSet,
        mut status: DaemonSetStatus,
    ) -> Result<(), Error> {
        status::omit_zeros([
            &mut status.updated_number_scheduled,
            &mut status.number_available,
            &mut status.number_unavailable,
        ]);
        status::update(&self.client, set, |set| set.status = Some(status)).await.map(drop)
    }
}
