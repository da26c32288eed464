//! The task of one pod: observe, plan, apply, until nothing of the pod is left.

pub mod handle;
mod observe;
mod outcome;
mod probing;
pub mod state;
mod stopping;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::Instrument;

use super::apply::{Outcome, PodActions, StartRequest};
use super::context::Context;
use super::declared::{Declared, declared};
use super::observed::Observed;
use super::plan::{Action, DEADLINE_EXCEEDED, Lifecycle, Plan, Termination, lifecycle, plan};
use super::pod_ext::PodExt;
use super::static_pods::with_status_of;
use super::status::{self, status};
use handle::WorkerHandle;
use state::{ImageState, Work, WorkerState};

use crate::containers::{ContainerId, ContainerStatus};
use crate::probe::ProbeKind;
use crate::probe::worker::{ProbeReport, ProbeWorker};
use crate::volume::MountedVolumes;
use stopping::Stopping;

/// Probe reports queued for the worker.
const PROBE_QUEUE: usize = 16;
/// Added to sleeps, so that they end late rather than early.
const TIMER_SLACK: Duration = Duration::from_millis(1);

/// The desired state of the pod.
#[derive(Clone, Debug)]
pub struct Desired {
    pub pod: Arc<Pod>,
    /// The apiserver's image of a static pod: it gets the status.
    pub mirror: Option<Arc<Pod>>,
    /// The object, or the file of a static pod, is gone.
    pub vanished: bool,
}

impl Desired {
    /// Whether the status in the apiserver is final.
    pub fn is_terminal(&self) -> bool {
        self.mirror.as_ref().unwrap_or(&self.pod).is_terminal()
    }
}

/// See the module documentation.
pub struct Worker {
    context: Arc<Context>,
    handle: Arc<WorkerHandle>,
    desired: watch::Receiver<Desired>,
    pod: Arc<Pod>,
    mirror: Option<Arc<Pod>>,
    vanished: bool,
    declared: Vec<Declared>,
    containers: Vec<ContainerStatus>,
    /// Whether the containers have to be listed again.
    stale: bool,
    /// Termination messages of exited containers.
    messages: HashMap<ContainerId, String>,
    state: WorkerState,
    volumes: MountedVolumes,
    image_ids: BTreeMap<String, String>,
    /// The status computed last.
    reported: Option<PodStatus>,
    status_busy: bool,
    /// The revision that the latest write of the status started from. The watch may be faster than
    /// the answer, so that the pod has its result already.
    status_base: Option<String>,
    status_retry_at: Option<Timestamp>,
    work: JoinSet<Outcome>,
    stops: HashMap<ContainerId, Stopping>,
    probes: HashMap<ContainerId, ProbeWorker>,
    probe_reports: (mpsc::Sender<ProbeReport>, mpsc::Receiver<ProbeReport>),
    /// When each probe's failure was last reported.
    unhealthy_at: HashMap<(ContainerId, ProbeKind), Timestamp>,
    terminating: bool,
    /// The waiting reason of each container in the previous round.
    waited: BTreeMap<String, String>,
}

impl Worker {
    pub fn new(
        context: Arc<Context>,
        handle: Arc<WorkerHandle>,
        mut desired: watch::Receiver<Desired>,
    ) -> Self {
        let Desired { pod, mirror, vanished } = desired.borrow_and_update().clone();
        let pod = with_status_of(&pod, mirror.as_ref());
        let terminal = pod.status.clone().filter(|_| pod.is_terminal()).map(Arc::new);
        Self {
            context,
            handle,
            desired,
            declared: declared(&pod),
            pod,
            mirror,
            vanished,
            containers: Vec::new(),
            stale: true,
            messages: HashMap::new(),
            state: WorkerState { terminal, ..WorkerState::default() },
            volumes: MountedVolumes::default(),
            image_ids: BTreeMap::new(),
            reported: None,
            status_busy: false,
            status_base: None,
            status_retry_at: None,
            work: JoinSet::new(),
            stops: HashMap::new(),
            probes: HashMap::new(),
            probe_reports: mpsc::channel(PROBE_QUEUE),
            unhealthy_at: HashMap::new(),
            terminating: false,
            waited: BTreeMap::new(),
        }
    }

    /// Runs until nothing of the pod is left.
    pub async fn run(mut self) {
        let span = tracing::info_span!(
            "pod",
            namespace = self.pod.pod_namespace(),
            name = self.pod.pod_name()
        );
        async move {
            loop {
                let (done, wake_at) = self.sync().await;
                if done {
                    break;
                }
                self.sleep(wake_at).await;
            }
            self.context.objects.release(&self.handle);
            tracing::info!("the pod is gone");
        }
        .instrument(span)
        .await;
    }

    /// One round. Returns whether nothing of the pod is left, and when to run again without a
    /// notification.
    async fn sync(&mut self) -> (bool, Option<Timestamp>) {
        let observed = self.observe().await;
        let now = self.context.clock.now();
        let lifecycle = lifecycle(&observed, now);
        if let Lifecycle::Terminate(termination) = lifecycle
            && !self.terminating
        {
            self.terminating = true;
            self.record_deadline_exceeded(&termination);
            self.state.terminating_since = Some(now);
            self.stop_probing_health();
        }
        let mut observed = observed;
        observed.state.terminating_since = self.state.terminating_since;
        let mut plan = plan(&observed, now);
        self.record_waiting(&plan);
        self.report(&observed, &plan, now);
        // The apiserver may have the current status by now: plan what waits for that.
        if self.state.status_written != observed.state.status_written {
            observed.state.status_written = self.state.status_written;
            plan = super::plan::plan(&observed, now);
        }
        self.probe(&observed);
        let wake_at = [plan.wake_at, self.status_retry_at].into_iter().flatten().min();
        let done = plan.done;
        self.apply(plan);
        (done, wake_at)
    }

    async fn sleep(&mut self, wake_at: Option<Timestamp>) {
        let left = wake_at.map(|at| {
            let left = at.duration_since(self.context.clock.now());
            Duration::try_from(left).unwrap_or_default() + TIMER_SLACK
        });
        tokio::select! {
            () = self.handle.notified() => {}
            Some(outcome) = self.work.join_next(), if !self.work.is_empty() => self.joined(outcome),
            Some(report) = self.probe_reports.1.recv() => self.probed(report),
            () = tokio::time::sleep(left.unwrap_or_default()), if left.is_some() => {}
        }
        while let Some(outcome) = self.work.try_join_next() {
            self.joined(outcome);
        }
        while let Ok(report) = self.probe_reports.1.try_recv() {
            self.probed(report);
        }
    }

    /// Writes the status if it differs from the apiserver's.
    fn report(&mut self, observed: &Observed, plan: &Plan, now: Timestamp) {
        if self.vanished || self.rediscovering(observed) {
            return;
        }
        let Some(base) = self.written_to() else {
            return;
        };
        let before = self.reported.as_ref().unwrap_or_else(|| self.pod.status_ref());
        let computed = status(observed, plan, before, now);
        let difference = status::patch(&base, &computed);
        self.reported = Some(computed);
        self.state.status_written = difference.is_none();
        if self.status_busy {
            self.state.status_written = false;
            return;
        }
        if self.status_retry_at.is_some_and(|at| at > now) {
            return;
        }
        self.status_retry_at = None;
        if let Some(difference) = difference {
            self.status_busy = true;
            self.status_base.clone_from(&base.metadata.resource_version);
            let client = self.context.client.clone();
            self.work.spawn(
                async move { Outcome::StatusWritten(status::write(client, base, difference).await) }
                    .in_current_span(),
            );
        }
    }

    /// The object whose status is the pod's. A static pod has none until its mirror is made.
    fn written_to(&self) -> Option<Arc<Pod>> {
        if self.pod.is_static() { self.mirror.clone() } else { Some(Arc::clone(&self.pod)) }
    }

    /// After a restart of the kubelet: containers are running, and their sandbox has yet to be
    /// found. The status in the apiserver is better than what is known here.
    fn rediscovering(&self, observed: &Observed) -> bool {
        !self.terminating
            && observed.any_running()
            && self.state.sandbox.is_none()
            && self.state.sandbox_failure.is_none()
    }

    /// Records an event for a pod that exceeds its active deadline.
    fn record_deadline_exceeded(&self, termination: &Termination) {
        if let Some((reason, message)) = &termination.outcome
            && reason == DEADLINE_EXCEEDED
        {
            self.context.recorder.pod_normal(&self.pod, reason, message);
        }
    }

    /// Records events for containers that have just started to back off.
    fn record_waiting(&mut self, plan: &Plan) {
        let mut now = BTreeMap::new();
        for (name, waiting) in &plan.waiting {
            now.insert(name.clone(), waiting.reason.clone());
            if self.waited.get(name) == Some(&waiting.reason) {
                continue;
            }
            let Some(declared) = self.declared.iter().find(|one| one.name() == name) else {
                continue;
            };
            let text = match waiting.reason.as_str() {
                "CrashLoopBackOff" => format!(
                    "Back-off restarting failed container {name} in pod {}_{}({})",
                    self.pod.pod_name(),
                    self.pod.pod_namespace(),
                    self.pod.uid()
                ),
                "ImagePullBackOff" => {
                    let image = match self.state.images.get(name) {
                        Some(ImageState::Failed { image, .. }) => image,
                        _ => declared.image(),
                    };
                    format!("Back-off pulling image \"{image}\"")
                }
                _ => continue,
            };
            let recorder = &self.context.recorder;
            if waiting.reason == "ImagePullBackOff" {
                recorder.normal(&self.pod, declared, "BackOff", text);
                recorder.warning(&self.pod, declared, "Failed", "Error: ImagePullBackOff");
            } else {
                recorder.warning(&self.pod, declared, "BackOff", text);
            }
        }
        self.waited = now;
    }

    fn actions(&self) -> PodActions {
        PodActions {
            context: Arc::clone(&self.context),
            pod: Arc::clone(&self.pod),
            worker: Arc::clone(&self.handle),
        }
    }

    fn apply(&mut self, plan: Plan) {
        if !plan.actions.is_empty() {
            tracing::debug!(actions = ?plan.actions, "applying the plan");
        }
        for action in plan.actions {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        let actions = self.actions();
        match action {
            Action::AllocateDevices => self.spawn(Work::Devices, actions.allocate_devices()),
            Action::SetUpSandbox => self.spawn(Work::Sandbox, actions.set_up_sandbox()),
            Action::SyncVolumes => {
                self.state.volumes_dirty = false;
                let sandbox = self.state.sandbox.clone();
                self.spawn(Work::Volumes, actions.sync_volumes(sandbox));
            }
            Action::EnsureImage { container, attempt } => {
                self.spawn(
                    Work::Image(container.clone()),
                    actions.ensure_image(container, attempt),
                );
            }
            Action::StartContainer { container, attempt, restart } => {
                let Some(sandbox) = self.state.sandbox.clone() else {
                    return;
                };
                let request = StartRequest {
                    image_id: self.image_ids.get(&container).cloned().unwrap_or_default(),
                    volumes: self.volumes.clone(),
                    sandbox,
                    attempt,
                    restart,
                    container,
                };
                self.spawn(
                    Work::Start(request.container.clone()),
                    actions.start_container(request),
                );
            }
            Action::StopContainer { container, id, deadline, cause } => {
                self.stop_container(&container, &id, deadline, cause);
            }
            Action::Resize { container, id } => {
                self.spawn(Work::Resize(id.clone()), actions.resize(container, id));
            }
            Action::RemoveContainer { id } => {
                self.spawn(Work::Remove(id.clone()), actions.remove_container(id));
            }
            Action::TearDown => self.spawn(Work::TearDown, actions.tear_down()),
            Action::RemovePod => self.spawn(Work::RemovePod, actions.remove_pod()),
            Action::DeleteObject => self.spawn(Work::DeleteObject, actions.delete_object()),
        }
    }

    fn spawn(&mut self, work: Work, action: impl Future<Output = Outcome> + Send + 'static) {
        self.state.in_flight.insert(work);
        self.work.spawn(action.in_current_span());
    }
}
