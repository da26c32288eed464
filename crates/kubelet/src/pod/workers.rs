//! Starts a worker for each pod that is bound to the node or comes from one of its files, and notifies
//! workers of events.

mod admission;
mod orphans;
mod static_pods;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use client::{Event, InformerOptions, informer};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::manager::PodManager;
use super::pod_ext::PodExt;
use super::static_pods::{StaticPods, with_status_of};
use super::worker::handle::{SyncReason, WorkerHandle};
use super::worker::{Desired, Worker};
use crate::containers::{ContainerId, ContainerState, RuntimeEvent};
use crate::node::pressure::Pressures;
use admission::Preemptor;
use static_pods::Mirrors;

/// Relist interval, in case events were lost.
const RELIST: Duration = Duration::from_secs(60);

/// Pause before the worker of a pod is restarted after a panic.
const AFTER_PANIC: Duration = Duration::from_secs(5);

struct RunningWorker {
    handle: Arc<WorkerHandle>,
    desired: watch::Sender<Desired>,
    rejected: bool,
    task: tokio::task::Id,
}

impl RunningWorker {
    fn update(&self, desired: Desired) {
        self.desired.send_replace(desired);
        self.handle.notify(SyncReason::PodUpdated);
    }

    /// The object, or the file of a static pod, is gone; its last version may be known.
    fn vanish(&self, pod: Option<Arc<Pod>>) {
        let Desired { pod: known, mirror, .. } = self.desired.borrow().clone();
        self.update(Desired { pod: pod.unwrap_or(known), mirror, vanished: true });
    }
}

/// See the module documentation.
pub struct PodWorkers {
    context: Arc<Context>,
    pods: PodManager,
    /// The Node object.
    node: watch::Receiver<Arc<Node>>,
    /// The node's shortages.
    pressures: watch::Receiver<Pressures>,
    workers: HashMap<String, RunningWorker>,
    tasks: JoinSet<String>,
    /// Pods found on the node when the kubelet started.
    survivors: BTreeSet<String>,
    /// Pods received since the last `Init`.
    initial: Option<Vec<Arc<Pod>>>,
    begun: bool,
    /// Container states at the last relist.
    seen: HashMap<ContainerId, (String, u8)>,
    /// Critical pods that wait until others have made room for them, by uid.
    preemptors: BTreeMap<String, Preemptor>,
    static_pods: Option<watch::Receiver<StaticPods>>,
    mirrors: Mirrors,
}

impl PodWorkers {
    pub fn new(
        context: Arc<Context>,
        pods: PodManager,
        node: watch::Receiver<Arc<Node>>,
        pressures: watch::Receiver<Pressures>,
        static_pods: Option<watch::Receiver<StaticPods>>,
    ) -> Self {
        Self {
            context,
            pods,
            node,
            pressures,
            workers: HashMap::new(),
            tasks: JoinSet::new(),
            survivors: BTreeSet::new(),
            initial: None,
            begun: false,
            seen: HashMap::new(),
            preemptors: BTreeMap::new(),
            static_pods,
            mirrors: Mirrors::default(),
        }
    }

    /// Runs until `shutdown`. Containers keep running.
    pub async fn run(mut self, shutdown: CancellationToken) {
        match self.context.runtime.pods().await {
            Ok(uids) => self.survivors = uids.into_iter().collect(),
            Err(error) => tracing::warn!(%error, "cannot list the pods on the node"),
        }
        let options = InformerOptions {
            field_selector: format!("spec.nodeName={}", self.context.node.name),
            ..Default::default()
        };
        // Static pods do not wait for the apiserver. The others are admitted to the node as it has it.
        let (client, mut node) = (self.context.client.clone(), self.node.clone());
        let registered = async move {
            let known = node.wait_for(|node| node.metadata.uid.is_some()).await;
            known.map(drop).map(|()| informer::<Pod>(client, options))
        };
        let objects =
            stream::once(registered).filter_map(|known| std::future::ready(known.ok())).flatten();
        let mut objects = Box::pin(objects);
        let mut events = self.context.runtime.events();
        let mut network = self.context.network.clone();
        let mut devices = self.context.devices.changes();
        let mut relist = tokio::time::interval(RELIST);
        relist.reset();
        let mut static_pods = self.static_pods.clone();
        self.sync_static_pods();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(event) = objects.next() => {
                    self.object(event);
                    self.admit_preemptors();
                    self.sync_static_pods();
                }
                () = changed(&mut static_pods) => {
                    self.admit_preemptors();
                    self.sync_static_pods();
                }
                Some(ended) = self.mirrors.ended() => {
                    self.mirrors.record(ended);
                    self.sync_static_pods();
                }
                event = receive(&mut events) => self.happened(event),
                Ok(()) = network.changed() => self.notify_all(SyncReason::PodUpdated),
                Ok(()) = devices.changed() => self.notify_all(SyncReason::PodUpdated),
                _ = relist.tick() => self.relist().await,
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => match ended {
                    Ok(uid) => self.gone(&uid),
                    Err(error) => self.panicked(&error),
                },
            }
        }
    }

    fn object(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.initial = Some(Vec::new()),
            Event::InitApply(pod) => self.initial.get_or_insert_default().push(Arc::new(pod)),
            Event::InitDone => self.initialized(),
            Event::Apply(pod) if api::pod::is_mirror(&pod) => self.mirrors.put(Arc::new(pod)),
            Event::Delete(pod) if api::pod::is_mirror(&pod) => self.mirrors.remove(&pod),
            Event::Apply(pod) => self.desired(Arc::new(pod)),
            Event::Delete(pod) => self.vanished(&Arc::new(pod)),
        }
    }

    /// All pods are known: start workers, first for pods found on the node, then by age.
    fn initialized(&mut self) {
        let pods = self.initial.take().unwrap_or_default();
        let (mirrors, mut pods): (Vec<_>, Vec<_>) =
            pods.into_iter().partition(|pod| api::pod::is_mirror(pod));
        self.mirrors.replace(mirrors);
        let mut uids: BTreeSet<String> = pods.iter().map(|pod| pod.uid().to_owned()).collect();
        uids.extend(self.wanted().into_keys());
        let age = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        pods.sort_by_key(|pod| (!self.survivors.contains(pod.uid()), age(pod)));
        if let Err(error) = self.context.devices.retain(&uids) {
            tracing::warn!(%error, "cannot free the devices of pods that are gone");
        }
        self.preemptors.retain(|uid, _| uids.contains(uid));
        for pod in pods {
            self.desired(pod);
        }
        for (uid, running) in &self.workers {
            if !uids.contains(uid) {
                running.vanish(None);
            }
        }
        if !self.begun {
            self.begun = true;
            let context = Arc::clone(&self.context);
            tokio::spawn(orphans::remove(context, uids));
        }
    }

    fn desired(&mut self, pod: Arc<Pod>) {
        let uid = pod.uid().to_owned();
        self.pods.put(Arc::clone(&pod), None);
        if let Some(running) = self.workers.get(&uid) {
            running.update(Desired { pod, mirror: None, vanished: false });
            return;
        }
        if let Some(preemptor) = self.preemptors.get_mut(&uid)
            && pod.deletion_deadline().is_none()
        {
            preemptor.pod = pod;
            return;
        }
        self.preemptors.remove(&uid);
        self.admit(pod);
    }

    fn start(
        &mut self,
        desired: Desired,
        handle: Arc<WorkerHandle>,
        rejected: bool,
        after: Duration,
    ) {
        let uid = desired.pod.uid().to_owned();
        let shown = with_status_of(&desired.pod, desired.mirror.as_ref());
        self.pods.put(shown, Some(Arc::clone(&handle)));
        let (sender, desired) = watch::channel(desired);
        let worker = Worker::new(Arc::clone(&self.context), Arc::clone(&handle), desired);
        let of_task = uid.clone();
        let task = self.tasks.spawn(async move {
            tokio::time::sleep(after).await;
            worker.run().await;
            of_task
        });
        let running = RunningWorker { handle, desired: sender, rejected, task: task.id() };
        self.workers.insert(uid, running);
    }

    /// Restarts a worker that panicked, which is a bug.
    fn panicked(&mut self, error: &JoinError) {
        tracing::error!(%error, "a pod's worker panicked");
        let mut workers = self.workers.iter();
        let found = workers.find(|(_, running)| running.task == error.id());
        let Some(uid) = found.map(|(uid, _)| uid.clone()) else {
            return;
        };
        if let Some(running) = self.workers.remove(&uid) {
            self.context.objects.release(&running.handle);
            let desired = running.desired.borrow().clone();
            let handle = Arc::new(WorkerHandle::default());
            if let Some(eviction) = running.handle.eviction() {
                handle.evict(eviction);
            }
            self.start(desired, handle, running.rejected, AFTER_PANIC);
        }
    }

    fn vanished(&mut self, pod: &Arc<Pod>) {
        let uid = pod.uid();
        self.preemptors.remove(uid);
        if let Some(running) = self.workers.get(uid) {
            running.vanish(Some(Arc::clone(pod)));
        }
    }

    fn gone(&mut self, uid: &str) {
        self.workers.remove(uid);
        self.survivors.remove(uid);
        self.pods.remove(uid);
        self.admit_preemptors();
        self.sync_static_pods();
    }

    fn happened(&mut self, event: RuntimeEvent) {
        match event {
            RuntimeEvent::Resync => self.notify_all(SyncReason::RuntimeReconnected),
            RuntimeEvent::Container { pod_uid, .. } => {
                if let Some(running) = self.workers.get(&pod_uid) {
                    running.handle.notify(SyncReason::ContainerChanged);
                }
            }
        }
    }

    fn notify_all(&self, reason: SyncReason) {
        for running in self.workers.values() {
            running.handle.notify(reason);
        }
    }

    /// Notifies the workers of pods whose containers have changed since the last relist.
    async fn relist(&mut self) {
        let containers = match self.context.runtime.list().await {
            Ok(containers) => containers,
            Err(error) => {
                tracing::warn!(%error, "cannot list the containers");
                return;
            }
        };
        let state = |state: &ContainerState| match state {
            ContainerState::Created => 0,
            ContainerState::Running { .. } => 1,
            ContainerState::Exited(_) => 2,
        };
        let now: HashMap<ContainerId, (String, u8)> =
            containers.into_iter().map(|one| (one.id, (one.pod.uid, state(&one.state)))).collect();
        let changed = now
            .iter()
            .filter(|(id, one)| self.seen.get(*id) != Some(one))
            .chain(self.seen.iter().filter(|(id, _)| !now.contains_key(*id)));
        let uids: BTreeSet<&String> = changed.map(|(_, (uid, _))| uid).collect();
        for uid in uids {
            if let Some(running) = self.workers.get(uid) {
                running.handle.notify(SyncReason::ContainerChanged);
            }
        }
        self.seen = now;
    }
}

/// Waits for changed files; forever, if there are none to wait for.
async fn changed(static_pods: &mut Option<watch::Receiver<StaticPods>>) {
    if let Some(pods) = static_pods
        && pods.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// The next event; pending forever if the stream has ended, which does not happen.
async fn receive(events: &mut mpsc::Receiver<RuntimeEvent>) -> RuntimeEvent {
    match events.recv().await {
        Some(event) => event,
        None => std::future::pending().await,
    }
}
