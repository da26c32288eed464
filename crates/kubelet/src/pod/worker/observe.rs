//! Gathers what a plan is computed from.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;

use super::{Desired, Worker};
use crate::containers::{ContainerState, ContainerStatus};
use crate::logs::{LogQuery, log_is_complete, read_log};
use crate::pod::apply::INSPECT_ERROR;
use crate::pod::declared::declared;
use crate::pod::files;
use crate::pod::observed::{ContainerStatusExt, Observed};
use crate::pod::pod_ext::PodExt;
use crate::pod::static_pods::with_status_of;
use crate::pod::status::{MESSAGE_LOG_BYTES, MESSAGE_LOG_LINES};
use crate::pod::worker::handle::SyncReason;
use crate::pod::worker::state::ImageState;

/// How long the log of an exited container may take to be complete: its writer exits with the
/// container's shim, unless a process that the container has left behind still writes.
const LOG_COMPLETE_TIMEOUT: Duration = Duration::from_secs(5);

impl Worker {
    pub(super) async fn observe(&mut self) -> Observed {
        let reasons = self.handle.take_reasons();
        if self.desired.has_changed().unwrap_or(false) {
            let Desired { pod, mirror, vanished } = self.desired.borrow_and_update().clone();
            self.vanished |= vanished;
            if pod.is_static() {
                self.mirror = mirror;
            }
            self.adopt(with_status_of(&pod, self.mirror.as_ref()));
        }
        self.state.eviction = self.handle.eviction();
        self.state.devices_wanted = self.context.devices.is_wanted(&self.pod);
        self.state.devices = self.context.devices.health(self.pod.uid());
        if reasons.has(SyncReason::ReferencedObjectChanged) {
            self.state.volumes_dirty = true;
            // What was missing may exist now.
            self.state.start_failures.clear();
        }
        if reasons.has(SyncReason::RuntimeReconnected) {
            self.state.start_failures.clear();
            self.state.sandbox_failure = None;
            self.state.tear_down_failure = None;
            self.state.images.retain(|_, image| match image {
                ImageState::Present { .. } => true,
                ImageState::Failed { failure, .. } => failure.reason != INSPECT_ERROR,
            });
        }
        self.stale |= reasons.has(SyncReason::ContainerChanged)
            || reasons.has(SyncReason::RuntimeReconnected);
        if self.stale && !self.state.removed {
            self.list().await;
        }
        self.forget_stopped();
        Observed {
            pod: Arc::clone(&self.pod),
            vanished: self.vanished,
            declared: self.declared.clone(),
            containers: self.containers.clone(),
            state: self.state.clone(),
            network_available: self.context.network.borrow().is_some(),
            host_ips: self.context.node.ips.clone(),
        }
    }

    /// Adopts a version of the object, unless a newer one is known.
    pub(super) fn adopt(&mut self, pod: Arc<Pod>) {
        let revision = |pod: &Pod| {
            let text = pod.metadata.resource_version.as_deref();
            text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
        };
        if revision(&pod) < revision(&self.pod) {
            return;
        }
        if pod.spec != self.pod.spec {
            self.declared = declared(&pod);
            self.state.start_failures.clear();
        }
        // Labels and annotations may be used by a downward API volume or a container's environment.
        if pod.metadata.labels != self.pod.metadata.labels
            || pod.metadata.annotations != self.pod.metadata.annotations
        {
            self.state.volumes_dirty = true;
            self.state.start_failures.clear();
        }
        if pod.is_terminal() && self.state.terminal.is_none() {
            self.state.terminal = pod.status.clone().map(Arc::new);
        }
        self.pod = pod;
    }

    /// Adopts the object as it is after a write of its status.
    pub(super) fn adopt_written(&mut self, object: Pod) {
        let object = Arc::new(object);
        if self.pod.is_static() {
            let pod = with_status_of(&self.pod, Some(&object));
            self.mirror = Some(object);
            self.adopt(pod);
        } else {
            self.adopt(object);
        }
    }

    async fn list(&mut self) {
        match self.context.runtime.list_pod(self.pod.uid()).await {
            Ok(containers) => {
                self.stale = false;
                self.containers = containers;
                self.remember_probes();
                self.read_termination_messages().await;
            }
            // It stays stale; there is an event when containerd is back.
            Err(error) => tracing::warn!(%error, "cannot list the pod's containers"),
        }
    }

    /// Termination messages, read once per container.
    async fn read_termination_messages(&mut self) {
        for index in 0..self.containers.len() {
            let container = &self.containers[index];
            let failed = match &container.state {
                ContainerState::Exited(exit) if exit.message.is_empty() => exit.exit_code != 0,
                _ => continue,
            };
            let text = match self.messages.get(&container.id) {
                Some(text) => text.clone(),
                None => {
                    // What the status says has ended has a whole log, for this and for everybody.
                    let complete = log_is_complete(&container.log_path);
                    if tokio::time::timeout(LOG_COMPLETE_TIMEOUT, complete).await.is_err() {
                        tracing::info!(container = %container.id, "the log of an exited container is not complete yet");
                    }
                    self.termination_message(container, failed).await
                }
            };
            self.messages.insert(container.id.clone(), text.clone());
            if let ContainerState::Exited(exit) = &mut self.containers[index].state {
                exit.message = text;
            }
        }
        let known: Vec<_> = self.containers.iter().map(|one| one.id.clone()).collect();
        self.messages.retain(|id, _| known.contains(id));
    }

    async fn termination_message(&self, container: &ContainerStatus, failed: bool) -> String {
        let directory = self.context.directories.container(self.pod.uid(), &container.name);
        let text = files::read_message_file(&directory, container.attempt);
        let declared = self.declared.iter().find(|one| one.name() == container.name);
        let policy = declared.and_then(|one| one.container.termination_message_policy.as_deref());
        if !text.is_empty() || !failed || policy != Some("FallbackToLogsOnError") {
            return text;
        }
        let query = LogQuery { tail_lines: Some(MESSAGE_LOG_LINES as u64), ..Default::default() };
        let mut log = read_log(&container.log_path, query);
        let mut tail = Vec::new();
        while let Some(Ok(chunk)) = log.next().await {
            tail.extend_from_slice(&chunk);
            tail.drain(..tail.len().saturating_sub(MESSAGE_LOG_BYTES));
        }
        String::from_utf8_lossy(&tail).into_owned()
    }

    /// Exited containers need no more stopping.
    fn forget_stopped(&mut self) {
        let containers = &self.containers;
        let runs = |id: &crate::containers::ContainerId| {
            containers.iter().any(|one| one.id == *id && one.running())
        };
        self.stops.retain(|id, _| runs(id));
        self.state.stops.retain(|id, _| runs(id));
        self.state.resized.retain(|id, _| runs(id));
    }
}
