//! Connects the engine to the cluster: informers in, bindings, conditions and events out.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::Kind;
use client::events::EventRecorder;
use client::{Api, Change, Client, InformerOptions, PatchKind, changes};
use clock::SharedClock;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{
    Namespace, Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod,
};
use k8s_openapi::api::storage::v1::StorageClass;
use rpc::api_v1::BindRequest;
use runtime::health::Health;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::bind::{self, IN_FLIGHT, Outcome};
use crate::engine::{Decision, Engine};
use crate::pod::PodInfo;
use crate::volumes::waiting::{Waiter, Waiting};
use crate::volumes::{self, SELECTED_NODE};

/// Maximum number of decisions before changes are processed again.
const BATCH: usize = 64;
/// Maximum number of conditions waiting to be written, and of concurrent writes.
const CONDITIONS: usize = 1024;
const WRITERS: usize = 16;
/// Number of informers that must be synced before anything is scheduled.
const INFORMERS: usize = 6;

type Changes<K> = Pin<Box<dyn Stream<Item = Change<K>> + Send>>;

/// Runs the scheduler until `shutdown`. `health` becomes ready (`synced`) when the engine has the
/// current state of the cluster; nothing is scheduled before that, nor before `leading` reports
/// leadership. A standby replica follows the cluster too, so that it can schedule as soon as it
/// leads.
pub async fn run(
    client: Client,
    scheduler_name: &str,
    clock: SharedClock,
    health: Health,
    leading: oneshot::Receiver<()>,
    shutdown: CancellationToken,
) {
    let (binds, bind_queue) = mpsc::channel(IN_FLIGHT);
    let (outcome_sender, outcomes) = mpsc::channel(IN_FLIGHT);
    let (conditions, condition_queue) = mpsc::channel(CONDITIONS);
    let bind_task =
        tokio::spawn(bind::run(client.clone(), bind_queue, outcome_sender, shutdown.clone()));
    let condition_task = tokio::spawn(write_conditions(client.clone(), condition_queue));
    let driver = Driver {
        engine: Engine::new(scheduler_name),
        clock,
        health,
        recorder: EventRecorder::new(client.clone(), "default-scheduler", ""),
        client,
        binds,
        conditions,
        binding: HashMap::new(),
        waiting: Waiting::default(),
        next_id: 0,
        unsynced: INFORMERS,
        leads: false,
    };
    driver.run(leading, outcomes, shutdown).await;
    for task in [bind_task, condition_task] {
        if let Err(error) = task.await {
            tracing::error!(%error, "a task failed");
        }
    }
}

struct Driver {
    engine: Engine,
    clock: SharedClock,
    health: Health,
    recorder: EventRecorder,
    client: Client,
    binds: mpsc::Sender<BindRequest>,
    conditions: mpsc::Sender<Condition>,
    /// Pods being bound, by uid, for the event that reports the binding.
    binding: HashMap<String, (Arc<PodInfo>, Arc<str>)>,
    /// Pods whose claims are being bound.
    waiting: Waiting,
    next_id: u64,
    /// Number of informers that are not synced yet.
    unsynced: usize,
    leads: bool,
}

impl Driver {
    async fn run(
        mut self,
        mut leading: oneshot::Receiver<()>,
        mut outcomes: mpsc::Receiver<Outcome>,
        shutdown: CancellationToken,
    ) {
        let mut pods = self.watch(|pod: &Pod| pod.metadata.uid.clone().unwrap_or_default());
        let mut nodes = self.watch(name::<Node>);
        let mut namespaces = self.watch(name::<Namespace>);
        let mut claims = self.watch(volumes::claim_key);
        let mut volumes = self.watch(name::<PersistentVolume>);
        let mut classes = self.watch(name::<StorageClass>);
        loop {
            let pause = self.pause();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                lead = &mut leading, if !self.leads => match lead {
                    Ok(()) => self.leads = true,
                    Err(_) => return,
                },
                Some(outcome) = outcomes.recv() => self.bound(outcome),
                Some(change) = nodes.next() => self.node(change),
                Some(change) = pods.next() => self.pod(change),
                Some(change) = claims.next() => self.claim(change),
                Some(change) = volumes.next() => self.volume(change),
                Some(change) = classes.next() => self.class(change),
                Some(change) = namespaces.next() => self.namespace(change),
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {
                    if self.decide().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn watch<K: Kind>(&self, key: fn(&K) -> String) -> Changes<K> {
        Box::pin(changes(self.client.clone(), InformerOptions::default(), key))
    }

    /// How long until there is something to schedule; `None`: wait for changes.
    fn pause(&self) -> Option<Duration> {
        // At the limit of bindings in flight, wait for an outcome.
        if self.unsynced > 0 || !self.leads || self.binding.len() >= IN_FLIGHT {
            return None;
        }
        let now = self.clock.now();
        let timers = [self.engine.next_timer(now), self.waiting.next_timer(now)];
        let next = timers.into_iter().flatten().min();
        next.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default())
    }

    async fn decide(&mut self) -> Result<(), mpsc::error::SendError<()>> {
        self.bind_waiting().await?;
        for _ in 0..BATCH {
            if self.binding.len() >= IN_FLIGHT {
                return Ok(());
            }
            let Some(decision) = self.engine.next(self.clock.now()) else {
                return Ok(());
            };
            match decision {
                Decision::Unschedulable { pod, message } => {
                    self.unschedulable(&pod, message).await?
                }
                Decision::Bind { pod, node, unbound_claims } => {
                    if unbound_claims.is_empty() {
                        self.bind(pod, node).await?;
                    } else {
                        let claims = self.select_node(&pod, &node, &unbound_claims).await;
                        let waiter = Waiter { pod, node, claims };
                        self.waiting.add(waiter, &self.engine.volumes, self.clock.now());
                    }
                }
            }
        }
        Ok(())
    }

    async fn bind(
        &mut self,
        pod: Arc<PodInfo>,
        node: Arc<str>,
    ) -> Result<(), mpsc::error::SendError<()>> {
        self.next_id += 1;
        let request = BindRequest {
            id: self.next_id,
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            node: node.to_string(),
        };
        self.binding.insert(pod.uid.clone(), (pod, node));
        self.binds.send(request).await.map_err(|_| mpsc::error::SendError(()))
    }

    /// Binds the pods whose claims are bound now, and schedules those again whose claims cannot be.
    async fn bind_waiting(&mut self) -> Result<(), mpsc::error::SendError<()>> {
        let now = self.clock.now();
        self.waiting.expire(now);
        while self.binding.len() < IN_FLIGHT
            && let Some(ended) = self.waiting.next()
        {
            match ended.bound {
                Ok(()) => self.bind(ended.pod, ended.node).await?,
                Err(why) => {
                    self.engine.bind_failed(&ended.pod.uid, now);
                    let message =
                        format!("running PreBind plugin \"VolumeBinding\": binding volumes: {why}");
                    self.unschedulable(&ended.pod, message).await?;
                }
            }
        }
        Ok(())
    }

    /// Records the node of the first consumer on the claims, for the volume binder; returns the keys
    /// of the claims, and the revisions from which on they have it.
    async fn select_node(
        &self,
        pod: &PodInfo,
        node: &str,
        claims: &[String],
    ) -> Vec<(String, u64)> {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(&self.client, &pod.namespace);
        let mut selected = Vec::new();
        for claim in claims {
            let patch = serde_json::json!({"metadata": {"annotations": {SELECTED_NODE: node}}});
            let revision = match api.patch(claim, PatchKind::Merge, &patch).await {
                Ok(claim) => volumes::revision(&claim),
                Err(error) => {
                    tracing::warn!(namespace = pod.namespace, claim, %error, "cannot set the node of the claim");
                    // As it is now, it has no node: the pod is scheduled again.
                    0
                }
            };
            selected.push((format!("{}/{claim}", pod.namespace), revision));
        }
        selected
    }

    async fn unschedulable(
        &self,
        pod: &Arc<PodInfo>,
        message: String,
    ) -> Result<(), mpsc::error::SendError<()>> {
        tracing::debug!(namespace = pod.namespace, name = pod.name, %message, "unschedulable");
        self.recorder.record(reference(pod), "Warning", "FailedScheduling", message.clone());
        let condition = Condition { pod: pod.clone(), message, at: self.clock.now() };
        self.conditions.send(condition).await.map_err(|_| mpsc::error::SendError(()))
    }

    fn bound(&mut self, outcome: Outcome) {
        let Some((pod, node)) = self.binding.remove(&outcome.uid) else {
            return;
        };
        match outcome.result {
            Ok(()) => {
                self.engine.bound(&outcome.uid);
                let message =
                    format!("Successfully assigned {}/{} to {node}", pod.namespace, pod.name);
                self.recorder.record(reference(&pod), "Normal", "Scheduled", message);
            }
            Err(message) => {
                tracing::warn!(namespace = pod.namespace, name = pod.name, %node, %message, "binding failed");
                self.engine.bind_failed(&outcome.uid, self.clock.now());
            }
        }
    }

    fn synced(&mut self) {
        self.unsynced = self.unsynced.saturating_sub(1);
        if self.unsynced == 0 {
            self.health.set("synced", true);
        }
    }

    fn pod(&mut self, change: Change<Pod>) {
        let now = self.clock.now();
        match change {
            Change::Set(pod) => {
                if api::pod::node_name(&pod).is_some() {
                    self.waiting.remove(pod.metadata.uid.as_deref().unwrap_or_default());
                }
                self.engine.set_pod(&pod, now);
            }
            Change::Remove(uid) => {
                self.waiting.remove(&uid);
                self.engine.remove_pod(&uid, now);
            }
            Change::Synced => self.synced(),
        }
    }

    fn node(&mut self, change: Change<Node>) {
        match change {
            Change::Set(node) => self.engine.set_node(&node, self.clock.now()),
            Change::Remove(name) => {
                self.waiting.node_removed(&name);
                self.engine.remove_node(&name, self.clock.now());
            }
            Change::Synced => self.synced(),
        }
    }

    fn namespace(&mut self, change: Change<Namespace>) {
        match change {
            Change::Set(namespace) => {
                let labels = namespace.metadata.labels.clone().unwrap_or_default();
                self.engine.snapshot.set_namespace(&name(&namespace), labels);
                self.engine.volumes_or_namespaces_changed(self.clock.now());
            }
            Change::Remove(name) => self.engine.snapshot.remove_namespace(&name),
            Change::Synced => self.synced(),
        }
    }

    fn claim(&mut self, change: Change<PersistentVolumeClaim>) {
        match change {
            Change::Set(claim) => {
                if self.engine.volumes.set_claim(&claim) {
                    self.engine.volumes_or_namespaces_changed(self.clock.now());
                }
                self.waiting.claim_changed(&volumes::claim_key(&claim), &self.engine.volumes);
            }
            Change::Remove(key) => {
                self.engine.volumes.remove_claim(&key);
                self.waiting.claim_changed(&key, &self.engine.volumes);
            }
            Change::Synced => self.synced(),
        }
    }

    fn volume(&mut self, change: Change<PersistentVolume>) {
        match change {
            Change::Set(volume) => {
                if self.engine.volumes.set_volume(&volume) {
                    self.engine.volumes_or_namespaces_changed(self.clock.now());
                }
            }
            Change::Remove(name) => self.engine.volumes.remove_volume(&name),
            Change::Synced => self.synced(),
        }
    }

    fn class(&mut self, change: Change<StorageClass>) {
        match change {
            Change::Set(class) => {
                if self.engine.volumes.set_class(&class) {
                    self.engine.volumes_or_namespaces_changed(self.clock.now());
                }
            }
            Change::Remove(name) => self.engine.volumes.remove_class(&name),
            Change::Synced => self.synced(),
        }
    }
}

fn name<K: Kind>(object: &K) -> String {
    object.metadata().name.clone().unwrap_or_default()
}

fn reference(pod: &PodInfo) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace.clone()),
        name: Some(pod.name.clone()),
        uid: Some(pod.uid.clone()),
        ..Default::default()
    }
}

/// The condition of an unschedulable pod, to be written to its status.
struct Condition {
    pod: Arc<PodInfo>,
    message: String,
    at: jiff::Timestamp,
}

/// Writes conditions concurrently until the channel is closed. Failures are logged: the next
/// attempt to schedule the pod writes its condition again.
async fn write_conditions(client: Client, queue: mpsc::Receiver<Condition>) {
    tokio_stream::wrappers::ReceiverStream::new(queue)
        .for_each_concurrent(WRITERS, |condition| {
            let client = &client;
            async move {
                let pod = &condition.pod;
                let patch = serde_json::json!({
                    "metadata": {"uid": pod.uid},
                    "status": {"conditions": [{
                        "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                        "message": condition.message, "observedGeneration": pod.generation,
                        "lastTransitionTime": condition.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                    }]},
                });
                let pods: Api<Pod> = Api::namespaced(client, &pod.namespace);
                match pods.patch_status(&pod.name, PatchKind::Strategic, &patch).await {
                    Err(error) if !error.is_not_found() => {
                        tracing::warn!(namespace = pod.namespace, name = pod.name, %error, "cannot write PodScheduled");
                    }
                    Ok(_) | Err(_) => {}
                }
            }
        })
        .await;
}
