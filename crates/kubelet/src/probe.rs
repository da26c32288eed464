//! Probes: startup, readiness and liveness checks of running containers.
//!
//! One [`worker`] per container sleeps until the next of its probes is due, lets the [`prober`]
//! make the check, and feeds the result to the pure counters of [`state`]; only changed results
//! leave the worker. It must not decide what becomes of the container.

pub mod prober;
pub mod state;
pub mod worker;

/// The probe results of a container. `None`: no result yet, or no such probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeView {
    pub startup: Option<bool>,
    pub readiness: Option<bool>,
    pub liveness: Option<bool>,
}

/// The three kinds of probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    /// As in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}
