//! Probes the pod's running containers.

use k8s_openapi::api::core::v1::ContainerStatus as ApiStatus;

use super::Worker;
use crate::containers::{ContainerId, ContainerState};
use crate::pod::hooks::target;
use crate::pod::observed::{ContainerStatusExt, Observed};
use crate::pod::pod_ext::PodExt;
use crate::probe::prober::CheckError;
use crate::probe::worker::{ProbeReport, Start, start};
use crate::probe::{ProbeKind, ProbeView};

/// Limits the events of a probe that keeps failing.
const UNHEALTHY_AT_MOST_EVERY: jiff::SignedDuration = jiff::SignedDuration::from_secs(10);

impl Worker {
    /// Starts probing containers that have started, and stops probing those that have exited.
    pub(super) fn probe(&mut self, observed: &Observed) {
        let runs =
            |id: &ContainerId| observed.containers.iter().any(|one| one.id == *id && one.running());
        self.probes.retain(|id, _| runs(id));
        self.unhealthy_at.retain(|(id, _), _| runs(id));
        self.state.probes.retain(|id, _| observed.containers.iter().any(|one| one.id == *id));
        for declared in &observed.declared {
            let Some(container) = observed.latest(declared.name()) else {
                continue;
            };
            let ContainerState::Running { started_at, .. } = container.state else {
                continue;
            };
            let settled = self.state.sandbox.is_some() && !observed.starting(declared.name());
            if !settled || self.probes.contains_key(&container.id) {
                continue;
            }
            let known = self.state.probes.get(&container.id).copied();
            let before = known.unwrap_or_default();
            let ip = self.state.sandbox.as_ref().and_then(|sandbox| sandbox.ips.first().copied());
            let mut target = target(declared, &container.id, ip);
            if self.terminating {
                target.container.liveness_probe = None;
                target.container.startup_probe = None;
            }
            let task = start(
                self.context.prober.clone(),
                self.context.clock.clone(),
                target,
                Start { started_at, before },
                self.probe_reports.0.clone(),
            );
            if let Some(task) = task {
                self.state.probes.insert(container.id.clone(), before);
                self.probes.insert(container.id.clone(), task);
            }
        }
    }

    /// Restores the probe results of running containers from before a restart of the kubelet.
    pub(super) fn remember_probes(&mut self) {
        for container in self.containers.iter().filter(|one| one.running()) {
            if !self.state.probes.contains_key(&container.id) {
                let before = self.reported_before(&container.id);
                self.state.probes.insert(container.id.clone(), before);
            }
        }
    }

    /// The probe results of this container in the status, written before a restart of the kubelet.
    fn reported_before(&self, id: &ContainerId) -> ProbeView {
        let status = self.pod.status_ref();
        let mut all =
            status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        let same = |one: &&ApiStatus| one.container_id == Some(id.to_status());
        match all.find(same) {
            Some(one) => ProbeView {
                startup: one.started.filter(|started| *started),
                readiness: one.ready.then_some(true),
                liveness: None,
            },
            None => ProbeView::default(),
        }
    }

    /// Containers of a terminating pod are not restarted, but may still become unready.
    pub(super) fn stop_probing_health(&mut self) {
        self.probes.clear();
    }

    pub(super) fn probed(&mut self, report: ProbeReport) {
        match report {
            ProbeReport::Changed { id, view } => {
                if self.containers.iter().any(|one| one.id == id) {
                    self.state.probes.insert(id, view);
                }
            }
            ProbeReport::Failed { id, kind, error } => self.unhealthy(&id, kind, &error),
        }
    }

    /// Records an event, rate-limited per probe.
    fn unhealthy(&mut self, id: &ContainerId, kind: ProbeKind, error: &CheckError) {
        let now = self.context.clock.now();
        let key = (id.clone(), kind);
        let last = self.unhealthy_at.get(&key);
        if last.is_some_and(|last| now.duration_since(*last) < UNHEALTHY_AT_MOST_EVERY) {
            return;
        }
        self.unhealthy_at.insert(key, now);
        let container = self.containers.iter().find(|one| one.id == *id);
        let declared = container.and_then(|container| {
            let mut all = self.declared.iter();
            all.find(|one| one.name() == container.name)
        });
        if let Some(declared) = declared {
            let outcome = match error {
                CheckError::Failed(_) => "failed",
                CheckError::Unknown(_) => "errored and resulted in unknown state",
            };
            let text = format!("{} probe {outcome}: {error}", kind.as_str());
            let recorder = &self.context.recorder;
            recorder.warning(&self.pod, declared, "Unhealthy", text);
        }
    }
}
