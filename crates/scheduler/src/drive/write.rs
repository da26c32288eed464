//! Writes that the driver does not wait for: statuses of unschedulable pods, and preemptions.

use std::sync::Arc;

use client::events::EventRecorder;
use client::{Api, Client, DeleteOptions, Error, PatchKind};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::reference;
use crate::engine::Preemption;
use crate::pod::{PREEMPTION_BY_SCHEDULER, PodInfo};

/// Maximum number of statuses waiting to be written.
pub const WRITES: usize = 1024;
/// Maximum number of preemptions in progress.
pub const PREEMPTIONS: usize = 256;
/// Maximum number of concurrent writes of each sort.
const WRITERS: usize = 16;

/// The status of an unschedulable pod.
pub struct StatusWrite {
    pub pod: Arc<PodInfo>,
    pub message: String,
    /// The new `nominatedNodeName`: `Some(None)` clears it.
    pub nominated: Option<Option<Arc<str>>>,
    pub at: Timestamp,
}

impl StatusWrite {
    /// Whether the status says something else. A condition that says the same is left alone.
    pub fn is_needed(&self) -> bool {
        let nominated = self.pod.nominated_node.as_deref();
        self.pod.unschedulable.as_ref() != Some(&self.message)
            || self.nominated.as_ref().is_some_and(|new| new.as_deref() != nominated)
    }

    fn patch(&self) -> Value {
        let mut condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": self.message, "observedGeneration": self.pod.generation,
        });
        if self.pod.unschedulable.is_none() {
            condition["lastTransitionTime"] = time(self.at);
        }
        let mut status = json!({"conditions": [condition]});
        if let Some(node) = &self.nominated {
            status["nominatedNodeName"] = node.as_deref().map_or(Value::Null, Value::from);
        }
        json!({"metadata": {"uid": self.pod.uid}, "status": status})
    }
}

fn time(at: Timestamp) -> Value {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into()
}

/// Writes statuses until the channel is closed. Failures are logged: the next attempt to schedule
/// the pod writes its status again.
pub async fn statuses(client: Client, queue: mpsc::Receiver<StatusWrite>) {
    ReceiverStream::new(queue)
        .for_each_concurrent(WRITERS, |write| {
            let client = &client;
            async move {
                if let Err(error) = patch_status(client, &write.pod, &write.patch()).await {
                    let pod = &write.pod;
                    tracing::warn!(namespace = pod.namespace, name = pod.name, %error, "cannot write PodScheduled");
                }
            }
        })
        .await;
}

/// Patches the status of a pod that may be gone.
async fn patch_status(client: &Client, pod: &PodInfo, patch: &Value) -> Result<(), Error> {
    let pods: Api<Pod> = Api::namespaced(client, &pod.namespace);
    match pods.patch_status(&pod.name, PatchKind::Strategic, patch).await {
        Err(error) if !error.is_not_found() => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// A pod, and what makes room for it.
pub struct Preempting {
    pub pod: Arc<PodInfo>,
    pub preemption: Preemption,
    pub at: Timestamp,
}

/// A preemption has come to its end: its victims are being deleted, or some could not be.
#[derive(Debug)]
pub struct Preempted {
    /// Of the pod for which room is made.
    pub uid: String,
    pub failed: bool,
}

/// Carries out preemptions until the channel is closed.
pub async fn preemptions(
    client: Client,
    recorder: EventRecorder,
    queue: mpsc::Receiver<Preempting>,
    done: mpsc::Sender<Preempted>,
) {
    ReceiverStream::new(queue)
        .for_each_concurrent(WRITERS, |preempting| {
            let (client, recorder, done) = (&client, &recorder, &done);
            async move {
                let failed = !preempt(client, recorder, &preempting).await;
                let preempted = Preempted { uid: preempting.pod.uid.clone(), failed };
                if done.send(preempted).await.is_err() {
                    tracing::debug!("the scheduler has stopped");
                }
            }
        })
        .await;
}

/// Ends the nominations of lower priority and deletes the victims. Returns whether all are being
/// deleted.
async fn preempt(client: &Client, recorder: &EventRecorder, preempting: &Preempting) -> bool {
    let Preempting { pod, preemption, at } = preempting;
    for other in &preemption.outranked {
        let patch = json!({"metadata": {"uid": other.uid}, "status": {"nominatedNodeName": null}});
        if let Err(error) = patch_status(client, other, &patch).await {
            tracing::warn!(namespace = other.namespace, name = other.name, %error, "cannot clear nominatedNodeName");
        }
    }
    for victim in &preemption.victims {
        match evict(client, pod, victim, *at).await {
            Ok(()) => {
                let message = format!("Preempted by pod {} on node {}", pod.uid, preemption.node);
                recorder.record(reference(victim), "Normal", "Preempted", message);
            }
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => {
                tracing::warn!(namespace = victim.namespace, name = victim.name, %error, "cannot preempt");
                return false;
            }
        }
    }
    true
}

/// Marks a victim as disrupted, and deletes it with its own grace period.
async fn evict(
    client: &Client,
    pod: &PodInfo,
    victim: &PodInfo,
    at: Timestamp,
) -> Result<(), Error> {
    let message =
        format!("{}: preempting to accommodate a higher priority pod", pod.scheduler_name);
    let patch = json!({
        "metadata": {"uid": victim.uid},
        "status": {"conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": PREEMPTION_BY_SCHEDULER,
            "message": message, "observedGeneration": victim.generation,
            "lastTransitionTime": time(at),
        }]},
    });
    let pods: Api<Pod> = Api::namespaced(client, &victim.namespace);
    pods.patch_status(&victim.name, PatchKind::Strategic, &patch).await?;
    let options =
        DeleteOptions { precondition_uid: Some(victim.uid.clone()), ..DeleteOptions::default() };
    pods.delete(&victim.name, &options).await
}
