//! Stops the pod's containers.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::Instrument;

use super::Worker;
use crate::containers::ContainerId;
use crate::pod::apply::Outcome;
use crate::pod::hooks::{Stop, stop, target};
use crate::pod::plan::StopCause;

/// How long to wait for a killed container to exit.
const STOP_AGAIN: std::time::Duration = std::time::Duration::from_secs(5);

/// A stop in progress. Dropping it cancels the stop.
#[derive(Debug)]
pub(super) struct Stopping {
    deadline: watch::Sender<Timestamp>,
    task: AbortHandle,
}

impl Drop for Stopping {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Worker {
    pub(super) fn stop_container(
        &mut self,
        name: &str,
        id: &ContainerId,
        deadline: Timestamp,
        cause: StopCause,
    ) {
        self.state.stops.insert(id.clone(), deadline);
        if let Some(stopping) = self.stops.get(id) {
            stopping.deadline.send_replace(deadline);
            return;
        }
        let declared = self.declared.iter().find(|one| one.name() == name).cloned();
        if let Some(declared) = &declared {
            let text = match cause {
                StopCause::PodTerminates => format!("Stopping container {name}"),
                StopCause::LivenessFailed => {
                    format!("Container {name} failed liveness probe, will be restarted")
                }
                StopCause::StartupFailed => {
                    format!("Container {name} failed startup probe, will be restarted")
                }
                StopCause::Changed => {
                    format!("Container {name} definition changed, will be restarted")
                }
            };
            self.context.recorder.normal(&self.pod, declared, "Killing", text);
        }
        let container = self.containers.iter().find(|one| one.id == *id);
        let ip = self.state.sandbox.as_ref().and_then(|sandbox| sandbox.ips.first().copied());
        let plain =
            crate::probe::prober::Target { id: id.clone(), container: Default::default(), ip };
        let (sender, receiver) = watch::channel(deadline);
        let request = Stop {
            context: Arc::clone(&self.context),
            pod: Arc::clone(&self.pod),
            target: declared.as_ref().map_or(plain, |declared| target(declared, id, ip)),
            declared,
            signal: container.map_or(0, |container| container.stop_signal),
            deadline: receiver,
        };
        let id_of_task = id.clone();
        let task = self.work.spawn(
            async move {
                if let Err(error) = stop(request).await {
                    tracing::warn!(%error, container = %id_of_task, "cannot stop a container");
                }
                // The exit of the container drops this task; if it does not exit, it is stopped
                // again.
                tokio::time::sleep(STOP_AGAIN).await;
                Outcome::Stopped(id_of_task)
            }
            .in_current_span(),
        );
        self.stops.insert(id.clone(), Stopping { deadline: sender, task });
    }
}
