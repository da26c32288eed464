//! Creates and deletes pods for an owner, with expectations, events and slow start.

use std::sync::Arc;

use api::Kind;
use client::events::EventRecorder;
use client::{Api, Client, DeleteOptions};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::Error;
use crate::machinery::cache::{Cache, Key};
use crate::machinery::error::During;
use crate::machinery::expectations::Expectations;

/// Maximum number of concurrent writes.
const BATCH_MAX: usize = 64;

/// Why a pod could not be created or deleted.
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

/// Creates and deletes pods for the objects of one controller.
pub struct PodControl {
    pub expectations: Expectations<Pod>,
    client: Client,
    recorder: EventRecorder,
}

impl PodControl {
    pub fn new(client: Client, recorder: EventRecorder, pods: Arc<Cache<Pod>>) -> Self {
        Self { expectations: Expectations::new(pods), client, recorder }
    }

    /// Creates pods in batches of 1, 2, 4, ... so that an error that would affect all of them
    /// occurs once. Stops after the first batch with a failure, and returns that failure.
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

    /// Creates one pod. That a namespace is being deleted and accepts none is not a failure.
    pub async fn create<O: Kind>(&self, owner: &O, pod: &Pod) -> Result<(), Failure> {
        let key = Key::of(owner);
        match Api::namespaced(&self.client, &key.namespace).create(pod).await {
            Ok(created) => {
                self.expectations.created(&key, &created);
                let name = created.metadata.name.unwrap_or_default();
                self.recorder.normal(
                    owner,
                    "SuccessfulCreate",
                    success_message(owner, "create", &name),
                );
                Ok(())
            }
            Err(error) if is_namespace_terminating(&error) => Ok(()),
            Err(error) => {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                let message = failure_message(owner, "create", name, &error);
                self.recorder.warning(owner, "FailedCreate", message);
                Err(Failure { reason: "FailedCreate", error })
            }
        }
    }

    /// Deletes pods, with their uids as preconditions.
    pub async fn delete_all<O: Kind>(&self, owner: &O, pods: &[Arc<Pod>]) -> Result<(), Failure> {
        for batch in pods.chunks(BATCH_MAX) {
            let outcomes = join_all(batch.iter().map(|pod| self.delete(owner, pod))).await;
            outcomes.into_iter().collect::<Result<Vec<()>, _>>()?;
        }
        Ok(())
    }

    /// Deletes one pod, with its uid as the precondition. A pod that is gone counts as deleted.
    pub async fn delete<O: Kind>(&self, owner: &O, pod: &Pod) -> Result<(), Failure> {
        let (key, name) = (Key::of(owner), Key::of(pod).name);
        let pods = Api::<Pod>::namespaced(&self.client, &key.namespace);
        match pods.delete_exactly(pod, &DeleteOptions::default()).await {
            Ok(()) => {
                self.expectations.deleted(&key, pod);
                self.recorder.normal(
                    owner,
                    "SuccessfulDelete",
                    success_message(owner, "delete", &name),
                );
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => {
                let message = failure_message(owner, "delete", &name, &error);
                self.recorder.warning(owner, "FailedDelete", message);
                Err(Failure { reason: "FailedDelete", error })
            }
        }
    }
}

/// A pod from a template, controlled by `owner`, with a name generated from `prefix`.
pub fn from_template(
    template: &PodTemplateSpec,
    namespace: &str,
    prefix: &str,
    owner: OwnerReference,
) -> Pod {
    let metadata = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{prefix}-")),
            namespace: Some(namespace.to_owned()),
            labels: metadata.labels,
            annotations: metadata.annotations,
            finalizers: metadata.finalizers,
            owner_references: Some(vec![owner]),
            ..Default::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// The message of the event for a pod that was created or deleted. StatefulSets have their own.
fn success_message<O: Kind>(owner: &O, verb: &str, pod: &str) -> String {
    if O::KIND == "StatefulSet" {
        let set = Key::of(owner).name;
        return format!("{verb} Pod {pod} in StatefulSet {set} successful");
    }
    match verb {
        "create" => format!("Created pod: {pod}"),
        _ => format!("Deleted pod: {pod}"),
    }
}

fn failure_message<O: Kind>(owner: &O, verb: &str, pod: &str, error: &client::Error) -> String {
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
