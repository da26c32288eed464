//! The plan for a pod that should run.

use jiff::{SignedDuration, Timestamp};

use super::{Action, Plan, StopCause, Waiting};
use crate::containers::ContainerStatus;
use crate::pod::backoff::{self, Backoff};
use crate::pod::container_config::SANDBOX_ANNOTATION;
use crate::pod::declared::{Declared, Role};
use crate::pod::observed::{ContainerStatusExt, Observed};
use crate::pod::pod_ext::PodExt;
use crate::pod::resources as resource_rules;
use crate::pod::worker::state::{Failure, ImageState, Work};

/// How long a failed pull is shown as an error before it is shown as backing off.
const PULL_ERROR_SHOWN: SignedDuration = SignedDuration::from_secs(2);

struct Planner<'a> {
    observed: &'a Observed,
    now: Timestamp,
    plan: &'a mut Plan,
    /// Whether a container is being started: one at a time, in order.
    start_taken: bool,
}

pub(super) fn sync(observed: &Observed, now: Timestamp, plan: &mut Plan) {
    let start_taken = observed.state.in_flight.iter().any(|work| matches!(work, Work::Start(_)));
    let mut planner = Planner { observed, now, plan, start_taken };
    if planner.devices() {
        return;
    }
    planner.sandbox();
    planner.volumes();
    planner.containers();
    for declared in &observed.declared {
        planner.health(declared);
        planner.changes(declared);
    }
}

impl Planner<'_> {
    fn in_flight(&self, work: &Work) -> bool {
        self.observed.state.in_flight.contains(work)
    }

    /// Whether the back-off of `failure` is over; otherwise plans again when it is.
    fn due(&mut self, failure: Option<&Failure>) -> bool {
        match failure.map(|failure| failure.backoff.until()) {
            Some(until) if until > self.now => {
                self.plan.wake(until);
                false
            }
            _ => true,
        }
    }

    /// Returns whether everything has to wait for devices: the pod is not admitted without. Of a pod
    /// that has containers already, those that still need devices get them when they start.
    fn devices(&mut self) -> bool {
        let waits = self.observed.state.devices_wanted && self.observed.containers.is_empty();
        if waits && !self.in_flight(&Work::Devices) {
            self.plan.actions.push(Action::AllocateDevices);
        }
        waits
    }

    fn sandbox(&mut self) {
        let state = &self.observed.state;
        let network = self.observed.network_available || self.observed.pod.host_network();
        if state.sandbox.is_none()
            && network
            && !self.in_flight(&Work::Sandbox)
            && self.due(state.sandbox_failure.as_ref())
        {
            self.plan.actions.push(Action::SetUpSandbox);
        }
    }

    fn volumes(&mut self) {
        let state = &self.observed.state;
        let renew = match state.volumes_renew_at {
            Some(at) if at > self.now => {
                self.plan.wake(at);
                false
            }
            at => at.is_some(),
        };
        let wanted = !state.volumes_mounted || state.volumes_dirty || renew;
        // After a change of a source, try again at once.
        if wanted
            && !self.in_flight(&Work::Volumes)
            && (state.volumes_dirty || self.due(state.volumes_failure.as_ref()))
        {
            self.plan.actions.push(Action::SyncVolumes);
        }
    }

    /// Starts what should run, in Kubernetes' order.
    fn containers(&mut self) {
        let observed = self.observed;
        let begun = observed.declared.iter().any(|one| {
            let latest = observed.latest(one.name());
            one.role == Role::App && latest.is_some_and(|latest| self.of_this_sandbox(latest))
        });
        let mut initialized = true;
        for declared in &observed.declared {
            let waits = match declared.role {
                Role::Init if begun || !initialized => false,
                Role::Init => self.init(declared),
                Role::Sidecar if !initialized => false,
                Role::Sidecar => self.sidecar(declared) && !begun,
                Role::App | Role::Ephemeral => {
                    if initialized {
                        self.app(declared);
                    }
                    false
                }
            };
            initialized &= !waits;
        }
    }

    /// Returns whether the following containers have to wait for this one.
    fn init(&mut self, declared: &Declared) -> bool {
        let latest = self.observed.latest(declared.name());
        match latest.map(|container| (container.running(), container.exit())) {
            Some((_, Some((0, _)))) if latest.is_some_and(|one| self.of_this_sandbox(one)) => {
                return false;
            }
            Some((true, _)) => {}
            _ => self.start(declared),
        }
        true
    }

    /// Returns false for a container from before a reboot of the node: what it had prepared may be
    /// gone, so the pod's init containers run again.
    fn of_this_sandbox(&self, container: &ContainerStatus) -> bool {
        let made_for = container.annotations.get(SANDBOX_ANNOTATION);
        match (&self.observed.state.sandbox, made_for) {
            (Some(now), Some(then)) => *then == now.sandbox.id,
            _ => true,
        }
    }

    fn sidecar(&mut self, declared: &Declared) -> bool {
        if !self.observed.is_running(declared.name()) {
            self.start(declared);
        }
        !self.observed.started(declared)
    }

    fn app(&mut self, declared: &Declared) {
        let latest = self.observed.latest(declared.name());
        let wanted = match latest {
            None => true,
            Some(container) if container.running() => false,
            Some(container) => container
                .exit()
                .is_none_or(|(code, _)| declared.restart_policy(&self.observed.pod).restarts(code)),
        };
        if wanted {
            self.start(declared);
        }
    }

    fn start(&mut self, declared: &Declared) {
        let name = declared.name();
        if self.in_flight(&Work::Start(name.to_owned())) {
            return;
        }
        let latest = self.observed.latest(name);
        let Some((attempt, restart)) = self.next_attempt(declared, latest) else {
            return;
        };
        if let Some(failure) = self.observed.state.start_failures.get(name).cloned() {
            self.wait(name, &failure.reason, &failure.message);
            if !self.due(Some(&failure)) {
                return;
            }
        }
        if !self.image(declared, attempt) {
            return;
        }
        let state = &self.observed.state;
        if state.sandbox.is_some() && state.volumes_mounted && !self.start_taken {
            self.start_taken = true;
            self.plan.actions.push(Action::StartContainer {
                container: name.to_owned(),
                attempt,
                restart,
            });
        }
    }

    /// The attempt to start now and the back-off after it; `None` if it has to wait.
    fn next_attempt(
        &mut self,
        declared: &Declared,
        latest: Option<&ContainerStatus>,
    ) -> Option<(u32, Option<Backoff>)> {
        let Some(latest) = latest else {
            return Some((0, None));
        };
        let Some((_, finished)) = latest.exit() else {
            // Created and never started: the same attempt again.
            return Some((latest.attempt, None));
        };
        let known = self
            .observed
            .state
            .restarts
            .get(declared.name())
            .copied()
            .filter(|known| finished.duration_since(known.since) < backoff::RESTART.forget);
        if let Some(known) = known {
            let until = finished.saturating_add(known.delay).unwrap_or(Timestamp::MAX);
            if until > self.now {
                self.plan.wake(until);
                let text = format!(
                    "back-off {} restarting failed container={} pod={}_{}({})",
                    duration(known.delay),
                    declared.name(),
                    self.observed.pod.pod_name(),
                    self.observed.pod.pod_namespace(),
                    self.observed.pod.uid()
                );
                self.wait(declared.name(), "CrashLoopBackOff", &text);
                return None;
            }
        }
        let next = match known {
            Some(known) => (known.delay * 2).min(backoff::RESTART.longest),
            None => backoff::RESTART.first,
        };
        let restart = Backoff { delay: next, since: self.now };
        Some((latest.attempt + 1, Some(restart)))
    }

    /// Returns whether the image is present for this attempt; otherwise plans to ensure it.
    fn image(&mut self, declared: &Declared, attempt: u32) -> bool {
        let name = declared.name();
        match self.observed.state.images.get(name) {
            Some(ImageState::Present { attempt: present }) if *present == attempt => return true,
            Some(ImageState::Failed { image, failure }) => {
                let failure = failure.clone();
                self.wait_for_image(declared, image, &failure);
                if !self.due(Some(&failure)) {
                    return false;
                }
            }
            _ => {}
        }
        if !self.in_flight(&Work::Image(name.to_owned())) {
            self.plan.actions.push(Action::EnsureImage { container: name.to_owned(), attempt });
        }
        false
    }

    fn wait_for_image(&mut self, declared: &Declared, image: &str, failure: &Failure) {
        let shown_until =
            failure.backoff.since.saturating_add(PULL_ERROR_SHOWN).unwrap_or(Timestamp::MAX);
        let backs_off = failure.reason == "ErrImagePull";
        if backs_off && shown_until <= self.now {
            let text = format!(
                "Back-off pulling image \"{image}\": {}: {}",
                failure.reason, failure.message
            );
            self.wait(declared.name(), "ImagePullBackOff", &text);
        } else {
            if backs_off {
                self.plan.wake(shown_until);
            }
            self.wait(declared.name(), &failure.reason, &failure.message);
        }
    }

    fn wait(&mut self, name: &str, reason: &str, message: &str) {
        self.plan.waiting.insert(
            name.to_owned(),
            Waiting { reason: reason.to_owned(), message: message.to_owned() },
        );
    }

    /// Stops a container whose liveness or startup probe has failed.
    fn health(&mut self, declared: &Declared) {
        let Some(container) = self.observed.latest(declared.name()) else {
            return;
        };
        let Some(probes) = self.observed.state.probes.get(&container.id) else {
            return;
        };
        let (cause, probe) = if probes.startup == Some(false) {
            (StopCause::StartupFailed, &declared.container.startup_probe)
        } else if probes.liveness == Some(false) {
            (StopCause::LivenessFailed, &declared.container.liveness_probe)
        } else {
            return;
        };
        let seconds = probe.as_ref().and_then(|probe| probe.termination_grace_period_seconds);
        self.stop(container, seconds, cause);
    }

    /// Stops a container whose definition has changed, so that it is started again.
    fn changes(&mut self, declared: &Declared) {
        if declared.role == Role::Ephemeral || declared.role == Role::Init {
            return;
        }
        let Some(container) = self.observed.latest(declared.name()) else {
            return;
        };
        if container.spec_hash != declared.spec_hash() {
            self.stop(container, None, StopCause::Changed);
            return;
        }
        self.limits(declared, container);
    }

    fn limits(&mut self, declared: &Declared, container: &ContainerStatus) {
        let wanted = resource_rules::fingerprint(&declared.container);
        let in_force = self
            .observed
            .state
            .resized
            .get(&container.id)
            .or_else(|| container.annotations.get(resource_rules::ANNOTATION));
        let Some(in_force) = in_force.filter(|in_force| **in_force != wanted) else {
            return;
        };
        if resource_rules::resize_restarts(&declared.container, in_force) {
            self.stop(container, None, StopCause::Changed);
        } else if container.running() && !self.in_flight(&Work::Resize(container.id.clone())) {
            self.plan.actions.push(Action::Resize {
                container: declared.name().to_owned(),
                id: container.id.clone(),
            });
        }
    }

    fn stop(&mut self, container: &ContainerStatus, seconds: Option<i64>, cause: StopCause) {
        if !container.running() || self.observed.state.stops.contains_key(&container.id) {
            return;
        }
        let seconds = seconds.unwrap_or_else(|| self.observed.pod.spec_grace_seconds());
        let deadline = self
            .now
            .saturating_add(SignedDuration::from_secs(seconds.max(1)))
            .unwrap_or(Timestamp::MAX);
        self.plan.actions.push(Action::StopContainer {
            container: container.name.clone(),
            id: container.id.clone(),
            deadline,
            cause,
        });
    }
}

/// `10s`, `2m40s`, as Kubernetes prints durations.
fn duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}
