//! When probes are due and what their results mean: pure.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};

use super::prober::CheckError;
use super::{ProbeKind, ProbeView};

/// A probe's settings with Kubernetes' defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub kind: ProbeKind,
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
    pub probe: Probe,
}

impl Settings {
    pub fn new(kind: ProbeKind, probe: &Probe) -> Self {
        let seconds = |value: Option<i32>, default: u64| {
            let value = value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default);
            Duration::from_secs(value)
        };
        let count = |value: Option<i32>, default: u32| {
            value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default).max(1)
        };
        Self {
            kind,
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10).max(Duration::from_secs(1)),
            timeout: seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1)),
            success_threshold: count(probe.success_threshold, 1),
            failure_threshold: count(probe.failure_threshold, 3),
            probe: probe.clone(),
        }
    }

    /// The probes of a container.
    pub fn of(container: &Container) -> Vec<Self> {
        [
            (ProbeKind::Startup, &container.startup_probe),
            (ProbeKind::Liveness, &container.liveness_probe),
            (ProbeKind::Readiness, &container.readiness_probe),
        ]
        .into_iter()
        .filter_map(|(kind, probe)| Some(Self::new(kind, probe.as_ref()?)))
        .collect()
    }
}

/// One probe over time. Times are since the container's start.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    pub settings: Settings,
    pub due: Duration,
    /// Whether a check is in progress.
    pub checking: bool,
    verdict: Option<bool>,
    last: Option<bool>,
    run: u32,
}

impl Track {
    pub fn new(settings: Settings, verdict: Option<bool>) -> Self {
        Self { due: settings.initial_delay, checking: false, verdict, last: None, run: 0, settings }
    }

    /// Records a result (`None`: unknown); the next check is one period after this one was due.
    fn record(&mut self, success: Option<bool>, at: Duration) {
        self.checking = false;
        if let Some(success) = success {
            self.count(success);
        }
        let next = self.due + self.settings.period;
        self.due = if next < at { at + self.settings.period } else { next };
    }

    fn count(&mut self, success: bool) {
        self.run = if self.last == Some(success) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let threshold =
            if success { self.settings.success_threshold } else { self.settings.failure_threshold };
        if self.run >= threshold {
            self.verdict = Some(success);
        }
    }
}

/// All probes of one container.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracks(Vec<Track>);

impl Tracks {
    /// `before`: results from before a restart of the kubelet.
    pub fn new(settings: Vec<Settings>, before: ProbeView) -> Self {
        let verdict = |kind| match kind {
            ProbeKind::Startup => before.startup,
            ProbeKind::Liveness => before.liveness,
            ProbeKind::Readiness => before.readiness,
        };
        Self(settings.into_iter().map(|one| Track::new(one.clone(), verdict(one.kind))).collect())
    }

    /// Records the result of a check of `kind`, at `at` after the container's start.
    pub fn record(&mut self, kind: ProbeKind, error: Option<&CheckError>, at: Duration) {
        let success = match error {
            None => Some(true),
            Some(CheckError::Failed(_)) => Some(false),
            Some(CheckError::Unknown(_)) => None,
        };
        let mut all = self.0.iter_mut();
        if let Some(track) = all.find(|track| track.settings.kind == kind) {
            track.record(success, at);
        }
    }

    pub fn view(&self) -> ProbeView {
        let verdict = |kind| {
            let track = self.0.iter().find(|track| track.settings.kind == kind);
            track.and_then(|track| track.verdict)
        };
        ProbeView {
            startup: verdict(ProbeKind::Startup),
            readiness: verdict(ProbeKind::Readiness),
            liveness: verdict(ProbeKind::Liveness),
        }
    }

    /// The probe that is due next, of those without a check in progress. Until a startup probe has
    /// passed it is the only one; once it or the liveness probe has failed there is none, since the
    /// container will be stopped.
    pub fn next_due(&mut self) -> Option<&mut Track> {
        let stopping = self.0.iter().any(|track| {
            track.settings.kind != ProbeKind::Readiness && track.verdict == Some(false)
        });
        if stopping {
            return None;
        }
        let startup = self.0.iter().position(|track| {
            track.settings.kind == ProbeKind::Startup && track.verdict != Some(true)
        });
        if let Some(startup) = startup {
            return self.0.get_mut(startup).filter(|track| !track.checking);
        }
        self.0
            .iter_mut()
            .filter(|track| track.settings.kind != ProbeKind::Startup && !track.checking)
            .min_by_key(|track| track.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(startup: bool, failure_threshold: i32) -> Container {
        let probe = |delay| Probe {
            initial_delay_seconds: Some(delay),
            period_seconds: Some(5),
            failure_threshold: Some(failure_threshold),
            ..Default::default()
        };
        Container {
            startup_probe: startup.then(|| probe(0)),
            readiness_probe: Some(Probe { success_threshold: Some(2), ..probe(0) }),
            liveness_probe: Some(probe(3)),
            ..Default::default()
        }
    }

    fn step(tracks: &mut Tracks, success: bool) -> (ProbeKind, u64) {
        let track = tracks.next_due().expect("a probe is due");
        let (kind, due) = (track.settings.kind, track.due);
        track.record(Some(success), due);
        (kind, due.as_secs())
    }

    #[test]
    fn an_unknown_result_does_not_count() {
        let mut tracks = Tracks::new(Settings::of(&container(false, 1)), ProbeView::default());
        let unknown = CheckError::Unknown("no such command".to_owned());
        let failed = CheckError::Failed("exited with 1".to_owned());
        for (error, liveness) in [(unknown, None), (failed, Some(false))] {
            tracks.record(ProbeKind::Liveness, Some(&error), Duration::from_secs(3));
            assert_eq!(tracks.view().liveness, liveness, "{error:?}");
        }
    }

    #[test]
    fn a_check_in_progress_does_not_delay_others() {
        let mut tracks = Tracks::new(Settings::of(&container(false, 1)), ProbeView::default());
        tracks.next_due().expect("the readiness probe").checking = true;
        assert_eq!(step(&mut tracks, true), (ProbeKind::Liveness, 3));
        assert_eq!(step(&mut tracks, true), (ProbeKind::Liveness, 8));
        tracks.record(ProbeKind::Readiness, None, Duration::from_secs(9));
        assert_eq!(step(&mut tracks, true).0, ProbeKind::Liveness);
        assert_eq!(step(&mut tracks, true), (ProbeKind::Readiness, 14));
    }

    #[test]
    fn order_and_thresholds() {
        use ProbeKind::{Liveness, Readiness};
        let mut tracks = Tracks::new(Settings::of(&container(false, 2)), ProbeView::default());
        assert_eq!(step(&mut tracks, true), (Readiness, 0));
        assert_eq!(tracks.view().readiness, None, "two successes are needed");
        assert_eq!(step(&mut tracks, true), (Liveness, 3));
        assert_eq!(step(&mut tracks, true), (Readiness, 5));
        assert_eq!(tracks.view().readiness, Some(true));
        assert_eq!(step(&mut tracks, false), (Liveness, 8));
        assert_eq!(tracks.view().liveness, Some(true), "one failure is not enough");
        assert_eq!(step(&mut tracks, false), (Readiness, 10));
        assert_eq!(tracks.view().readiness, Some(true));
        assert_eq!(step(&mut tracks, false), (Liveness, 13));
        assert_eq!(tracks.view().liveness, Some(false));
        assert!(tracks.next_due().is_none(), "it will be stopped");
    }

    #[test]
    fn the_startup_probe_delays_the_others() {
        let mut tracks = Tracks::new(Settings::of(&container(true, 3)), ProbeView::default());
        assert_eq!(step(&mut tracks, false), (ProbeKind::Startup, 0));
        assert_eq!(step(&mut tracks, true), (ProbeKind::Startup, 5));
        assert_eq!(tracks.view().startup, Some(true));
        assert_eq!(step(&mut tracks, true), (ProbeKind::Readiness, 0));
    }

    #[test]
    fn a_restarted_kubelet_keeps_the_results() {
        let before = ProbeView { startup: Some(true), readiness: Some(true), liveness: Some(true) };
        let mut tracks = Tracks::new(Settings::of(&container(true, 1)), before);
        assert_eq!(tracks.view(), before);
        assert_ne!(step(&mut tracks, true).0, ProbeKind::Startup);
    }
}
