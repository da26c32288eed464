//! Connects the engine to the cluster: informers in, bindings, conditions, deletions of victims and
//! events out.

mod observe;
mod write;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::events::EventRecorder;
use client::{Api, Client, PatchKind};
use clock::SharedClock;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim};
use rpc::api_v1::BindRequest;
use rpc::scheduler_v1::Explanation;
use runtime::health::Health;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::bind::{self, IN_FLIGHT, Outcome};
use crate::engine::{Decision, Engine, Nomination};
use crate::pod::PodInfo;
use crate::profile::Profile;
use crate::queue::Backoff;
use crate::volumes::waiting::{Waiter, Waiting};
use crate::volumes::{self, SELECTED_NODE};
use observe::{INFORMERS, Informers};
use write::{PREEMPTIONS, Preempted, Preempting, StatusWrite, WRITES};

/// Maximum number of decisions before changes are processed again.
const BATCH: usize = 64;

/// What the scheduler is asked while it runs.
pub struct Question {
    /// Of a pod.
    pub uid: String,
    pub answer: oneshot::Sender<Vec<Explanation>>,
}

/// How the scheduler is set up.
pub struct Setup {
    pub profiles: Vec<Profile>,
    pub backoff: Backoff,
    pub clock: SharedClock,
    /// Becomes ready (`synced`) when the engine has the current state of the cluster.
    pub health: Health,
    /// Reports leadership.
    pub leading: oneshot::Receiver<()>,
    pub questions: mpsc::Receiver<Question>,
}

impl Setup {
    /// The default profile; nobody asks it anything.
    pub fn unasked(clock: SharedClock, health: Health, leading: oneshot::Receiver<()>) -> Self {
        let (profiles, backoff) = (vec![Profile::new("default-scheduler")], Backoff::default());
        let (_, questions) = mpsc::channel(1);
        Self { profiles, backoff, clock, health, leading, questions }
    }
}

/// Runs the scheduler until `shutdown`. Nothing is scheduled before the state of the cluster is
/// known, nor before leadership. A standby replica follows the cluster too, so that it can schedule
/// as soon as it leads.
pub async fn run(client: Client, setup: Setup, shutdown: CancellationToken) {
    let (binds, bind_queue) = mpsc::channel(IN_FLIGHT);
    let (outcome_sender, outcomes) = mpsc::channel(IN_FLIGHT);
    let (statuses, status_queue) = mpsc::channel(WRITES);
    let (preemptions, preemption_queue) = mpsc::channel(PREEMPTIONS);
    let (preempted_sender, preempted) = mpsc::channel(PREEMPTIONS);
    let recorder = EventRecorder::new(client.clone(), "default-scheduler", "");
    let tasks = [
        tokio::spawn(bind::run(client.clone(), bind_queue, outcome_sender, shutdown.clone())),
        tokio::spawn(write::statuses(client.clone(), status_queue)),
        tokio::spawn(write::preemptions(
            client.clone(),
            recorder.clone(),
            preemption_queue,
            preempted_sender,
        )),
    ];
    let driver = Driver {
        names: setup.profiles.iter().map(|profile| profile.scheduler_name).collect(),
        engine: Engine::new(setup.profiles, setup.backoff),
        clock: setup.clock,
        health: setup.health,
        recorder,
        client,
        binds,
        statuses,
        preemptions,
        preempting: 0,
        binding: HashMap::new(),
        waiting: Waiting::default(),
        next_id: 0,
        unsynced: INFORMERS,
        leads: false,
    };
    let sources =
        Sources { leading: setup.leading, questions: setup.questions, outcomes, preempted };
    driver.run(sources, shutdown).await;
    for task in tasks {
        if let Err(error) = task.await {
            tracing::error!(%error, "a task failed");
        }
    }
}

/// What the driver listens to besides informers.
struct Sources {
    leading: oneshot::Receiver<()>,
    questions: mpsc::Receiver<Question>,
    outcomes: mpsc::Receiver<Outcome>,
    preempted: mpsc::Receiver<Preempted>,
}

/// A task of the driver has ended: the process does.
struct Ended;

struct Driver {
    engine: Engine,
    /// Names of the schedulers that this one is.
    names: Vec<&'static str>,
    clock: SharedClock,
    health: Health,
    recorder: EventRecorder,
    client: Client,
    binds: mpsc::Sender<BindRequest>,
    statuses: mpsc::Sender<StatusWrite>,
    preemptions: mpsc::Sender<Preempting>,
    /// Number of preemptions in progress.
    preempting: usize,
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
    async fn run(mut self, mut sources: Sources, shutdown: CancellationToken) {
        let mut informers = Informers::new(&self.client);
        loop {
            let pause = self.pause();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                lead = &mut sources.leading, if !self.leads => match lead {
                    Ok(()) => self.leads = true,
                    Err(_) => return,
                },
                Some(outcome) = sources.outcomes.recv() => self.bound(outcome),
                Some(preempted) = sources.preempted.recv() => self.preempted(&preempted),
                observe = informers.next() => observe(&mut self),
                Some(question) = sources.questions.recv() => self.answer(question),
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {
                    if self.decide().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Whether as much is in progress as may be: an outcome must come first.
    fn is_busy(&self) -> bool {
        self.binding.len() >= IN_FLIGHT || self.preempting >= PREEMPTIONS
    }

    /// How long until there is something to schedule; `None`: wait for changes.
    fn pause(&self) -> Option<Duration> {
        if self.unsynced > 0 || !self.leads || self.is_busy() {
            return None;
        }
        let now = self.clock.now();
        let timers = [self.engine.next_timer(now), self.waiting.next_timer(now)];
        let next = timers.into_iter().flatten().min();
        next.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default())
    }

    async fn decide(&mut self) -> Result<(), Ended> {
        self.bind_waiting().await?;
        for _ in 0..BATCH {
            if self.is_busy() {
                return Ok(());
            }
            let Some(decision) = self.engine.next(self.clock.now()) else {
                return Ok(());
            };
            match decision {
                Decision::Unschedulable { pod, message, nomination } => {
                    self.unschedulable(pod, message, nomination).await?
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

    async fn bind(&mut self, pod: Arc<PodInfo>, node: Arc<str>) -> Result<(), Ended> {
        self.next_id += 1;
        let request = BindRequest {
            id: self.next_id,
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            node: node.to_string(),
        };
        self.binding.insert(pod.uid.clone(), (pod, node));
        self.binds.send(request).await.map_err(|_| Ended)
    }

    /// Binds the pods whose claims are bound now, and schedules those again whose claims cannot be.
    async fn bind_waiting(&mut self) -> Result<(), Ended> {
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
                    self.unschedulable(ended.pod, message, Nomination::Clear).await?;
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
        &mut self,
        pod: Arc<PodInfo>,
        message: String,
        nomination: Nomination,
    ) -> Result<(), Ended> {
        tracing::debug!(namespace = pod.namespace, name = pod.name, %message, "unschedulable");
        self.recorder_of(&pod).record(
            reference(&pod),
            "Warning",
            "FailedScheduling",
            message.clone(),
        );
        let nominated = match &nomination {
            Nomination::Keep => None,
            Nomination::Clear => Some(None),
            Nomination::Preempt(preemption) => Some(Some(preemption.node.clone())),
        };
        let write = StatusWrite { pod: pod.clone(), message, nominated, at: self.clock.now() };
        if write.is_needed() {
            self.statuses.send(write).await.map_err(|_| Ended)?;
        }
        if let Nomination::Preempt(preemption) = nomination
            && !preemption.victims.is_empty()
        {
            tracing::info!(
                namespace = pod.namespace,
                name = pod.name,
                node = %preemption.node,
                victims = preemption.victims.len(),
                "preempting"
            );
            self.preempting += 1;
            let preempting = Preempting { pod, preemption, at: self.clock.now() };
            self.preemptions.send(preempting).await.map_err(|_| Ended)?;
        }
        Ok(())
    }

    fn preempted(&mut self, preempted: &Preempted) {
        self.preempting = self.preempting.saturating_sub(1);
        self.engine.preempted(&preempted.uid, preempted.failed, self.clock.now());
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
                self.recorder_of(&pod).record(reference(&pod), "Normal", "Scheduled", message);
            }
            Err(message) => {
                tracing::warn!(namespace = pod.namespace, name = pod.name, %node, %message, "binding failed");
                self.engine.bind_failed(&outcome.uid, self.clock.now());
            }
        }
    }

    fn answer(&mut self, question: Question) {
        let explanations = self.engine.explain(&question.uid, self.clock.now());
        if question.answer.send(explanations).is_err() {
            tracing::debug!("nobody waits for the explanation any more");
        }
    }

    /// Events are recorded under the name of the pod's scheduler.
    fn recorder_of(&self, pod: &PodInfo) -> EventRecorder {
        let name = self.names.iter().find(|name| **name == pod.scheduler_name);
        name.map_or_else(|| self.recorder.clone(), |name| self.recorder.named(name))
    }
}

/// A reference to a pod, for events.
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
