//! Applies a Deployment's plan.

use client::{Api, DeleteOptions, PatchKind};
use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use serde_json::json;

use super::Deployments;
use super::plan::{Plan, Update};
use super::sets::{REVISION, size};
use super::status;
use crate::Error;
use crate::machinery::cache::Key;
use crate::machinery::error::During;
use crate::machinery::hash::equal_but_hash;
use crate::machinery::owner::{controller_of, uid};
use crate::machinery::pod_control::is_namespace_terminating;
use crate::machinery::status::{omit_zeros, write};

const SCALING: &str = "ScalingReplicaSet";

impl Deployments {
    pub(super) async fn apply(&self, deployment: &Deployment, plan: Plan) -> Result<(), Error> {
        let mut status = plan.status;
        if let Some(set) = plan.create {
            self.create(deployment, &set, &mut status).await?;
        }
        try_join_all(plan.updates.iter().map(|update| self.update(deployment, update))).await?;
        for set in &plan.delete {
            self.delete(set).await?;
        }
        if let Some(revision) = plan.revision {
            self.write_revision(deployment, &revision).await?;
            // The annotation changed the resource version: the status is written when that
            // change arrives.
            return Ok(());
        }
        self.write_status(deployment, status).await
    }

    async fn create(
        &self,
        deployment: &Deployment,
        set: &ReplicaSet,
        status: &mut DeploymentStatus,
    ) -> Result<(), Error> {
        let key = Key::of(set);
        let sets = Api::<ReplicaSet>::namespaced(&self.client, &key.namespace);
        match sets.create(set).await {
            Ok(_) => {
                tracing::info!(deployment = %Key::of(deployment), set = key.name, replicas = size(set), "created a replica set");
                if size(set) > 0 {
                    let message =
                        format!("Scaled up replica set {} from 0 to {}", key.name, size(set));
                    self.recorder.normal(deployment, SCALING, message);
                }
                Ok(())
            }
            Err(error) if error.is_already_exists() => {
                self.resolve_collision(deployment, set, status).await
            }
            Err(error) if is_namespace_terminating(&error) => Ok(()),
            Err(error) => {
                let message = format!("Failed to create new replica set {:?}: {error}", key.name);
                self.recorder.warning(deployment, "ReplicaSetCreateError", message.clone());
                if status::deadline(deployment).is_some() {
                    status::set_condition(
                        status,
                        status::PROGRESSING,
                        "False",
                        "ReplicaSetCreateError",
                        message,
                        self.clock.now(),
                    );
                    self.write_status(deployment, status.clone()).await?;
                }
                Err(error).during(|| format!("create replicaset {key}"))
            }
        }
    }

    /// A set of that name exists: ours and not in the cache yet, or one with other content and the
    /// same hash, in which case the collision count changes the next hash.
    async fn resolve_collision(
        &self,
        deployment: &Deployment,
        set: &ReplicaSet,
        status: &mut DeploymentStatus,
    ) -> Result<(), Error> {
        let key = Key::of(set);
        let existing = Api::<ReplicaSet>::namespaced(&self.client, &key.namespace)
            .get(&key.name)
            .await
            .during(|| format!("get replicaset {key}"))?;
        let ours = controller_of(&existing.metadata)
            .is_some_and(|controller| controller.uid == uid(&deployment.metadata));
        let same = set.spec.template.as_ref().zip(existing.spec.template.as_ref());
        if ours && same.is_some_and(|(one, other)| equal_but_hash(one, other)) {
            return Ok(());
        }
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        Ok(())
    }

    async fn update(&self, deployment: &Deployment, update: &Update) -> Result<(), Error> {
        let key = Key::of(&*update.before);
        Api::<ReplicaSet>::namespaced(&self.client, &key.namespace)
            .replace(&update.after)
            .await
            .during(|| format!("replace replicaset {key}"))?;
        let (from, to) = (size(&update.before), size(&update.after));
        if from != to {
            tracing::info!(deployment = %Key::of(deployment), set = key.name, from, to, "scaled a replica set");
            let direction = if to > from { "up" } else { "down" };
            let message =
                format!("Scaled {direction} replica set {} from {from} to {to}", key.name);
            self.recorder.normal(deployment, SCALING, message);
        }
        Ok(())
    }

    async fn delete(&self, set: &ReplicaSet) -> Result<(), Error> {
        let key = Key::of(set);
        let options = DeleteOptions {
            precondition_resource_version: set.metadata.resource_version.clone(),
            propagation_policy: Some("Background"),
            ..Default::default()
        };
        let sets = Api::<ReplicaSet>::namespaced(&self.client, &key.namespace);
        match sets.delete_exactly(set, &options).await {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome.during(|| format!("delete replicaset {key}")),
        }
    }

    async fn write_revision(&self, deployment: &Deployment, revision: &str) -> Result<(), Error> {
        let key = Key::of(deployment);
        let patch = json!({"metadata": {
            "uid": deployment.metadata.uid,
            "resourceVersion": deployment.metadata.resource_version,
            "annotations": {REVISION: revision},
        }});
        // Through the status subresource, as upstream does: it leaves the generation unchanged.
        Api::<Deployment>::namespaced(&self.client, &key.namespace)
            .patch_status(&key.name, PatchKind::Merge, &patch)
            .await
            .during(|| format!("write the revision of deployment {key}"))?;
        Ok(())
    }

    async fn write_status(
        &self,
        deployment: &Deployment,
        mut status: DeploymentStatus,
    ) -> Result<(), Error> {
        omit_zeros([
            &mut status.replicas,
            &mut status.updated_replicas,
            &mut status.ready_replicas,
            &mut status.available_replicas,
            &mut status.unavailable_replicas,
        ]);
        let mut changed = deployment.clone();
        changed.status = Some(status);
        write(&self.client, deployment, &changed).await
    }
}
