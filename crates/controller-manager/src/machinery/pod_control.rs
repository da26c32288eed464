//! Creating and deleting pods for an owner: expectations, events, slow start.

use std::sync::Arc;

use api::Kind;
use client::events::Recorder;
use client::{Api, Client, DeleteOptions};
use clock::SharedClock;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::Error;
use crate::machinery::cache::{Cache, Key};
use crate::machinery::error::During;
use crate::machinery::expectations::Expectations;
use crate::machinery::owner::uid;

/// Writes at a time.
const BATCH_MAX: usize = 64;

/// Why a pod could not be made.
#[derive(Debug)]
pub struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub reason: &'static str,
    pub error: client::Error,
}

impl<T> During<T> for Result<T, Failure> {
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|failure| failure.error).during(operation)
    }
}

/// Makes and deletes pods for one controller's objects.
pub struct PodControl {
    pub expectations: Expectations<Pod>,
    client: Client,
    recorder: Recorder,
    clock: SharedClock,
}

impl PodControl {
    pub fn new(
        client: Client,
        recorder: Recorder,
        clock: SharedClock,
        pods: Arc<Cache<Pod>>,
    ) -> Self {
        Self { expectations: Expectations::new(pods), client, recorder, clock }
    }

    /// Creates pods in batches of 1, 2, 4, ... so that what fails for all of them fails once.
    /// Stops after the first batch with a failure, and returns that failure.
    pub async fn create_all<O: Kind>(&self, owner: &O, pods: Vec<Pod>) -> Result<(), Failure> {
        let (mut rest, mut batch) = (pods.as_slice(), 1);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(batch.min(rest.len()));
            let outcomes = join_all(now.iter().map(|pod| self.create(owner, pod))).await;
            outcomes.into_iter().collect::<Result<Vec<()>, _>>()?;
            rest = later;
            batch = (batch * 2).min(BATCH_MAX);
        }
        Ok(())
    }

    /// Creates one pod. A namespace that is being deleted takes none, which is no failure.
    pub async fn create<O: Kind>(&self, owner: &O, pod: &Pod) -> Result<(), Failure> {
        let key = Key::of(owner);
        match Api::namespaced(&self.client, &key.namespace).create(pod).await {
            Ok(created) => {
                self.expectations.created(&key, &created, self.clock.now());
                let name = created.metadata.name.unwrap_or_default();
                self.recorder.normal(owner, "SuccessfulCreate", done(owner, "create", &name));
                Ok(())
            }
            Err(error) if is_namespace_terminating(&error) => Ok(()),
            Err(error) => {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                let message = not_done(owner, "create", name, &error);
                self.recorder.warning(owner, "FailedCreate", message);
                Err(Failure { reason: "FailedCreate", error })
            }
        }
    }

    /// Deletes pods, each only if it is still the one that was seen.
    pub async fn delete_all<O: Kind>(&self, owner: &O, pods: &[Arc<Pod>]) -> Result<(), Failure> {
        for batch in pods.chunks(BATCH_MAX) {
            let outcomes = join_all(batch.iter().map(|pod| self.delete(owner, pod))).await;
            outcomes.into_iter().collect::<Result<Vec<()>, _>>()?;
        }
        Ok(())
    }

    /// Deletes one pod if it is still the one that was seen; one that is gone is deleted.
    pub async fn delete<O: Kind>(&self, owner: &O, pod: &Pod) -> Result<(), Failure> {
        let (key, name) = (Key::of(owner), Key::of(pod).name);
        let options = DeleteOptions {
            precondition_uid: Some(uid(&pod.metadata).to_owned()),
            ..Default::default()
        };
        let pods = Api::<Pod>::namespaced(&self.client, &key.namespace);
        match pods.delete(&name, &options).await {
            Ok(()) => {
                self.expectations.deleted(&key, pod, self.clock.now());
                self.recorder.normal(owner, "SuccessfulDelete", done(owner, "delete", &name));
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => {
                let message = not_done(owner, "delete", &name, &error);
                self.recorder.warning(owner, "FailedDelete", message);
                Err(Failure { reason: "FailedDelete", error })
            }
        }
    }
}

/// A pod made from a template, controlled by `owner`. The name is `generateName`'s, from `prefix`.
pub fn from_template(
    template: &PodTemplateSpec,
    namespace: &str,
    prefix: &str,
    owner: OwnerReference,
) -> Pod {
    let given = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{prefix}-")),
            namespace: Some(namespace.to_owned()),
            labels: given.labels,
            annotations: given.annotations,
            finalizers: given.finalizers,
            owner_references: Some(vec![owner]),
            ..Default::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// The event for a pod that was made or deleted. StatefulSets have words of their own.
fn done<O: Kind>(owner: &O, verb: &str, pod: &str) -> String {
    if O::KIND == "StatefulSet" {
        let set = Key::of(owner).name;
        return format!("{verb} Pod {pod} in StatefulSet {set} successful");
    }
    match verb {
        "create" => format!("Created pod: {pod}"),
        _ => format!("Deleted pod: {pod}"),
    }
}

fn not_done<O: Kind>(owner: &O, verb: &str, pod: &str, error: &client::Error) -> String {
    if O::KIND == "StatefulSet" {
        let set = Key::of(owner).name;
        return format!("{verb} Pod {pod} in StatefulSet {set} failed error: {error}");
    }
    match verb {
        "create" => format!("Error creating: {error}"),
        _ => format!("Error deleting: {error}"),
    }
}

/// The server refuses new content because the namespace is being deleted.
pub fn is_namespace_terminating(error: &client::Error) -> bool {
    let Some(details) = error.api().and_then(|error| error.status().details.as_ref()) else {
        return false;
    };
    details
        .causes
        .iter()
        .flatten()
        .any(|cause| cause.reason.as_deref() == Some("NamespaceTerminating"))
}
