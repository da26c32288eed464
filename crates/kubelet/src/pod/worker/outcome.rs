//! Records the outcomes of actions in the worker's state.

use tokio::task::JoinError;

use super::Worker;
use crate::pod::apply::{Outcome, Problem, after};
use crate::pod::backoff::{self, Backoff};
use crate::pod::pod_ext::PodExt;
use crate::pod::status::Written;
use crate::pod::worker::state::{Eviction, Failure, ImageState};

impl Worker {
    pub(super) fn joined(&mut self, joined: Result<Outcome, JoinError>) {
        match joined {
            Ok(outcome) => {
                if let Some(work) = outcome.work() {
                    self.state.in_flight.remove(&work);
                }
                self.record(outcome);
            }
            Err(error) if error.is_cancelled() => {}
            Err(error) => {
                // A bug in an action. It is unknown which, so all may be tried again.
                tracing::error!(%error, "an action of the pod panicked");
                self.state.in_flight.clear();
                self.status_busy = false;
            }
        }
    }

    fn record(&mut self, outcome: Outcome) {
        let now = self.context.clock.now();
        match outcome {
            Outcome::Devices(Ok(())) => {}
            Outcome::Devices(Err(rejection)) => {
                let message = rejection.message.clone();
                self.context.recorder.pod_warning(&self.pod, &rejection.reason, message);
                self.handle.evict(Eviction::rejected(rejection));
            }
            Outcome::Sandbox(Ok(sandbox)) => {
                self.state.sandbox = Some(*sandbox);
                self.state.sandbox_failure = None;
            }
            Outcome::Sandbox(Err(problem)) => {
                let failure = self.failed(self.state.sandbox_failure.clone(), problem);
                self.state.sandbox_failure = Some(failure);
            }
            Outcome::Volumes(Ok(volumes)) => {
                self.state.volumes_renew_at = volumes.renew_at;
                self.volumes = volumes;
                self.state.volumes_mounted = true;
                self.state.volumes_failure = None;
            }
            Outcome::Volumes(Err(problem)) => {
                let failure = self.failed(self.state.volumes_failure.clone(), problem);
                self.state.volumes_renew_at = None;
                self.state.volumes_failure = Some(failure);
            }
            Outcome::Image { container, attempt, result } => {
                self.imaged(container, attempt, result)
            }
            Outcome::Start { container, restart, result } => {
                self.started(container, restart, result)
            }
            Outcome::Resized { id, fingerprint, result } => {
                if let Err(problem) = result {
                    tracing::warn!(problem.message, container = %id, "cannot resize the container");
                }
                self.state.resized.insert(id, fingerprint);
            }
            Outcome::Removed(_) => self.stale = true,
            Outcome::TornDown(Ok(())) => {
                self.state.torn_down = true;
                self.state.tear_down_failure = None;
            }
            Outcome::TornDown(Err(problem)) | Outcome::PodRemoved(Err(problem)) => {
                let failure = self.failed(self.state.tear_down_failure.clone(), problem);
                self.state.tear_down_failure = Some(failure);
            }
            Outcome::PodRemoved(Ok(())) => self.state.removed = true,
            Outcome::ObjectDeleted(Ok(())) => self.state.deleted = true,
            Outcome::ObjectDeleted(Err(problem)) => {
                let previous = self.state.delete_failure.as_ref();
                let failure = after(previous, problem, backoff::RETRY, now);
                self.state.delete_failure = Some(failure);
            }
            Outcome::StatusWritten(written) => self.written(written),
            // If it is still running, it is stopped again.
            Outcome::Stopped(id) => {
                self.stops.remove(&id);
                self.state.stops.remove(&id);
                self.stale = true;
            }
        }
    }

    /// A failure with its next back-off; also recorded as an event.
    fn failed(&self, previous: Option<Failure>, problem: Problem) -> Failure {
        self.context.recorder.pod_warning(&self.pod, &problem.reason, problem.message.clone());
        after(previous.as_ref(), problem, backoff::RETRY, self.context.clock.now())
    }

    fn imaged(
        &mut self,
        container: String,
        attempt: u32,
        result: Result<String, (String, Problem)>,
    ) {
        let now = self.context.clock.now();
        match result {
            Ok(id) => {
                self.state.image_backoffs.remove(&container);
                self.image_ids.insert(container.clone(), id);
                self.state.images.insert(container, ImageState::Present { attempt });
            }
            Err((image, problem)) => {
                let previous = self.state.image_backoffs.get(&container).copied();
                let backoff = Backoff::next(previous, backoff::RESTART, now);
                self.state.image_backoffs.insert(container.clone(), backoff);
                let failure = Failure { reason: problem.reason, message: problem.message, backoff };
                self.state.images.insert(container, ImageState::Failed { image, failure });
            }
        }
    }

    fn started(
        &mut self,
        container: String,
        restart: Option<Backoff>,
        result: Result<(), Problem>,
    ) {
        self.stale = true;
        // The next start ensures its image again.
        self.state.images.remove(&container);
        match result {
            Ok(()) => {
                self.state.start_failures.remove(&container);
                if let Some(restart) = restart {
                    self.state.restarts.insert(container, restart);
                }
            }
            Err(problem) => {
                let previous = self.state.start_failures.get(&container);
                let now = self.context.clock.now();
                let failure = after(previous, problem, backoff::START, now);
                self.state.start_failures.insert(container, failure);
            }
        }
    }

    fn written(&mut self, written: Written) {
        self.status_busy = false;
        match written {
            Written::Done(pod) => {
                // What the apiserver does not keep must not be written over and over.
                if pod.metadata.resource_version == self.status_base {
                    let now = self.context.clock.now();
                    self.status_retry_at = now.saturating_add(backoff::RETRY.first).ok();
                }
                self.adopt_written(*pod);
            }
            Written::Stale(pod) => self.adopt_written(*pod),
            Written::Gone if self.pod.is_static() => self.mirror = None,
            Written::Gone => {
                self.vanished = true;
                self.state.deleted = true;
            }
            Written::Failed(error) => {
                tracing::warn!(%error, "cannot write the pod's status");
                let now = self.context.clock.now();
                self.status_retry_at = now.saturating_add(backoff::RETRY.first).ok();
            }
        }
    }
}
