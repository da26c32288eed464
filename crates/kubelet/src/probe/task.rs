//! The task that probes one container.

use std::time::Duration;

use ::runtime::clock::SharedClock;
use jiff::Timestamp;
use rand::RngExt;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::check::{CheckError, Checker, Target};
use super::state::{Settings, Tracks};
use super::{ProbeKind, ProbeView};
use crate::runtime::ContainerId;

/// What a probe task tells.
#[derive(Clone, Debug)]
pub enum ProbeReport {
    /// The verdicts have changed.
    Changed { id: ContainerId, view: ProbeView },
    /// A check did not pass.
    Failed {
        id: ContainerId,
        kind: ProbeKind,
        error: CheckError,
    },
}

/// Dropping it ends the task.
#[derive(Debug)]
pub struct ProbeTask(AbortHandle);

impl Drop for ProbeTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where a container's life began, and what is known of it.
#[derive(Clone, Debug)]
pub struct Start {
    pub started_at: Timestamp,
    pub before: ProbeView,
}

/// Starts probing; `None` when the container has no probes.
pub fn start(
    checker: Checker,
    clock: SharedClock,
    target: Target,
    start: Start,
    reports: mpsc::Sender<ProbeReport>,
) -> Option<ProbeTask> {
    let settings = Settings::of(&target.container);
    if settings.is_empty() {
        return None;
    }
    let tracks = Tracks::new(settings, start.before);
    let task = tokio::spawn(run(
        checker,
        clock,
        target,
        tracks,
        start.started_at,
        reports,
    ));
    Some(ProbeTask(task.abort_handle()))
}

async fn run(
    checker: Checker,
    clock: SharedClock,
    target: Target,
    mut tracks: Tracks,
    started_at: Timestamp,
    reports: mpsc::Sender<ProbeReport>,
) {
    let age = || Duration::try_from(clock.now().duration_since(started_at)).unwrap_or_default();
    // A kubelet that has just come back does not probe everything at once.
    let settled = age() > Duration::from_secs(2);
    let mut jitter = if settled {
        jitter_ms(1000)
    } else {
        Duration::ZERO
    };
    let mut told = tracks.view();
    while let Some(track) = tracks.next_due() {
        let wait = track.due.saturating_sub(age()) + jitter;
        jitter = Duration::ZERO;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let settings = track.settings.clone();
        let result = checker
            .check(&target, &settings.probe, settings.timeout)
            .await;
        track.record(result.is_ok(), age());
        if let Err(error) = result {
            let failed = ProbeReport::Failed {
                id: target.id.clone(),
                kind: settings.kind,
                error,
            };
            if reports.send(failed).await.is_err() {
                return;
            }
        }
        let view = tracks.view();
        if view != told {
            told = view;
            let changed = ProbeReport::Changed {
                id: target.id.clone(),
                view,
            };
            if reports.send(changed).await.is_err() {
                return;
            }
        }
    }
}

fn jitter_ms(most: u64) -> Duration {
    Duration::from_millis(rand::rng().random_range(0..most))
}
