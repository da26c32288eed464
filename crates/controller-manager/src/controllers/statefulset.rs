//! StatefulSets: pods with stable names and storage
//! (`k8s.io/kubernetes/pkg/controller/statefulset`).

mod claims;
mod identity;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::Kind;
use api::labels::{Selector, SelectorError};
use client::Client;
use clock::SharedClock;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplate, PodTemplateSpec};
use serde_json::json;

use crate::Error;
use crate::machinery::cache::{Cache, Key};
use crate::machinery::error::During;
use crate::machinery::owner::{self, controlled_by, is_deleting, uid};
use crate::machinery::pod_control::PodControl;
use crate::machinery::pod_state::is_active;
use crate::machinery::queue::{Controller, Next};
use crate::machinery::revisions;
use crate::machinery::status;
use crate::wire::Wiring;
use plan::{Observed, Plan, plan};

struct StatefulSets {
    client: Client,
    clock: SharedClock,
    sets: Arc<Cache<StatefulSet>>,
    pods: Arc<Cache<Pod>>,
    claims: Arc<Cache<PersistentVolumeClaim>>,
    revisions: Arc<Cache<ControllerRevision>>,
    control: PodControl,
}

/// Adds the controller; its keys are StatefulSets.
pub fn start(wiring: &mut Wiring) {
    let controller = StatefulSets {
        client: wiring.client.clone(),
        clock: wiring.clock.clone(),
        sets: wiring.cache(),
        pods: wiring.cache(),
        claims: wiring.cache(),
        revisions: wiring.cache(),
        control: wiring.pod_control("statefulset-controller"),
    };
    wiring
        .controller(controller)
        .of::<StatefulSet>()
        .selects::<StatefulSet, Pod>(selector)
        .owns::<StatefulSet, ControllerRevision>()
        .start();
}

fn collision_count(set: &StatefulSet) -> Option<i32> {
    set.status.as_ref().and_then(|status| status.collision_count)
}

fn selector(set: &StatefulSet) -> Result<Selector, SelectorError> {
    Selector::from_label_selector(Some(&set.spec.selector))
}

impl Controller for StatefulSets {
    const NAME: &'static str = "statefulset";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let now = self.clock.now();
        let expectations_met = self.control.expectations.satisfied(key);
        let Some(set) = self.sets.get(key) else {
            self.control.expectations.forget(key);
            return Ok(Next::Change);
        };
        let own = controlled_by(uid(&set.metadata));
        let adoptable = |pod: &Pod| is_active(pod) && identity::ordinal(&set, pod).is_some();
        let pods =
            owner::claim_all(&self.client, &*set, selector(&set), &self.pods, adoptable).await?;
        if is_deleting(&set.metadata) {
            return Ok(Next::Change);
        }
        let history = self.revisions.indexed(&own);
        let (template, collisions) = (&set.spec.template, collision_count(&set));
        let update = revisions::sync(&self.client, &*set, template, collisions, &history).await?;
        let Some(update) = update else {
            // The change of the status triggers the next attempt, with another hash.
            let mut status = set.status.clone().unwrap_or_default();
            status.collision_count = Some(collisions.unwrap_or(0) + 1);
            self.write_status(&set, status).await?;
            return Ok(Next::Change);
        };
        let observed = Observed {
            current: current_revision(&set, &update),
            update: revision_name(&update),
            collision_count: collisions,
            set: &set,
            pods,
            expectations_met,
        };
        let plan = plan(&observed, now);
        let next = plan.requeue_after.into();
        self.apply(&observed, plan, &history).await?;
        self.clean_up(&observed, &history).await?;
        Ok(next)
    }
}

fn revision_name(revision: &ControllerRevision) -> String {
    revision.metadata.name.clone().unwrap_or_default()
}

/// The revision that the status names, or else the newest.
fn current_revision(set: &StatefulSet, update: &ControllerRevision) -> String {
    let status = set.status.as_ref();
    let named = status.and_then(|status| status.current_revision.clone());
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| revision_name(update))
}

/// The pod template in a revision.
fn template_of(revision: &ControllerRevision) -> Result<PodTemplateSpec, Error> {
    let mut template = revision.data.0["spec"]["template"].clone();
    if let Some(fields) = template.as_object_mut() {
        fields.remove("$patch");
    }
    let whole = json!({"template": template}).to_string();
    let decoded = PodTemplate::decode(whole.as_bytes());
    let decoded = decoded.map_err(|error| Error::Invalid(error.to_string()))?;
    Ok(decoded.template.unwrap_or_default())
}

impl StatefulSets {
    async fn apply(
        &self,
        observed: &Observed<'_>,
        plan: Plan,
        history: &[Arc<ControllerRevision>],
    ) -> Result<(), Error> {
        let set = observed.set;
        if !plan.create.is_empty() || !plan.delete.is_empty() {
            tracing::info!(set = %Key::of(set), create = plan.create.len(), delete = plan.delete.len(), "managing stateful pods");
        }
        let mut pods = Vec::new();
        self.update_claim_owners(observed).await?;
        for (ordinal, revision) in &plan.create {
            self.create_claims(set, *ordinal).await?;
            let named = history.iter().find(|one| revision_name(one) == *revision);
            let template = match named.filter(|_| *revision != observed.update) {
                Some(found) => template_of(found)?,
                None => set.spec.template.clone(),
            };
            pods.push(identity::pod(set, &template, revision, *ordinal));
        }
        let created = self.control.create_all(set, pods).await;
        let deleted = self.control.delete_all(set, &plan.delete).await;
        self.write_status(set, plan.status).await?;
        created.and(deleted).during(|| format!("manage the pods of statefulset {}", Key::of(set)))
    }

    async fn clean_up(
        &self,
        observed: &Observed<'_>,
        history: &[Arc<ControllerRevision>],
    ) -> Result<(), Error> {
        let limit = observed.set.spec.revision_history_limit;
        let in_use = |revision: &ControllerRevision| {
            let name = revision_name(revision);
            name == observed.current
                || name == observed.update
                || observed.pods.iter().any(|pod| identity::revision(pod) == name)
        };
        revisions::clean_up(&self.client, history, limit, in_use).await
    }

    async fn write_status(
        &self,
        set: &StatefulSet,
        mut status: StatefulSetStatus,
    ) -> Result<(), Error> {
        status::omit_zeros([
            &mut status.ready_replicas,
            &mut status.current_replicas,
            &mut status.updated_replicas,
        ]);
        status::update(&self.client, set, |set| set.status = Some(status)).await.map(drop)
    }
}
