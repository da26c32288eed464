//! The task that probes one container.

use std::time::Duration;

use clock::SharedClock;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use rand::RngExt;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::prober::{CheckError, Prober, Target};
use super::state::{Settings, Tracks};
use super::{ProbeKind, ProbeView};
use crate::containers::ContainerId;

/// A report of a probe worker.
#[derive(Clone, Debug)]
pub enum ProbeReport {
    /// The results have changed.
    Changed { id: ContainerId, view: ProbeView },
    /// A check failed, or its result is unknown.
    Failed { id: ContainerId, kind: ProbeKind, error: CheckError },
}

/// Dropping it stops probing.
#[derive(Debug)]
pub struct ProbeWorker(AbortHandle);

impl Drop for ProbeWorker {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// When a container was started, and its known probe results.
#[derive(Clone, Debug)]
pub struct Start {
    pub started_at: Timestamp,
    pub before: ProbeView,
}

/// Starts probing; `None` if the container has no probes.
pub fn start(
    prober: Prober,
    clock: SharedClock,
    target: Target,
    start: Start,
    reports: mpsc::Sender<ProbeReport>,
) -> Option<ProbeWorker> {
    let settings = Settings::of(&target.container);
    if settings.is_empty() {
        return None;
    }
    let tracks = Tracks::new(settings, start.before);
    let task = tokio::spawn(run(prober, clock, target, tracks, start.started_at, reports));
    Some(ProbeWorker(task.abort_handle()))
}

async fn run(
    prober: Prober,
    clock: SharedClock,
    target: Target,
    mut tracks: Tracks,
    started_at: Timestamp,
    reports: mpsc::Sender<ProbeReport>,
) {
    let age = || Duration::try_from(clock.now().duration_since(started_at)).unwrap_or_default();
    // A restarted kubelet does not probe everything at once.
    if age() > Duration::from_secs(2) {
        tokio::time::sleep(jitter_ms(1000)).await;
    }
    let mut reported = tracks.view();
    // At most one of each kind: a slow check does not delay others.
    let mut checks = FuturesUnordered::new();
    loop {
        let wait = match tracks.next_due() {
            Some(track) => {
                let wait = track.due.saturating_sub(age());
                if wait.is_zero() {
                    track.checking = true;
                    checks.push(check(&prober, &target, track.settings.clone()));
                    continue;
                }
                Some(wait)
            }
            None if checks.is_empty() => return,
            None => None,
        };
        let (kind, result) = tokio::select! {
            Some(checked) = checks.next() => checked,
            () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => continue,
        };
        tracks.record(kind, result.as_ref().err(), age());
        if let Err(error) = result {
            let id = target.id.clone();
            let failed = ProbeReport::Failed { id, kind, error };
            if reports.send(failed).await.is_err() {
                return;
            }
        }
        let view = tracks.view();
        if view != reported {
            reported = view;
            let id = target.id.clone();
            if reports.send(ProbeReport::Changed { id, view }).await.is_err() {
                return;
            }
        }
    }
}

async fn check(
    prober: &Prober,
    target: &Target,
    settings: Settings,
) -> (ProbeKind, Result<(), CheckError>) {
    let result = prober.check(target, &settings.probe, settings.timeout);
    (settings.kind, result.await)
}

fn jitter_ms(most: u64) -> Duration {
    Duration::from_millis(rand::rng().random_range(0..most))
}
