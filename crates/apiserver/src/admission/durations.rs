//! How long plugins take, as upstream counts it (`k8s.io/apiserver/pkg/admission/metrics`).

use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::webhooks::Operation;

/// Upper bounds of the buckets in seconds, as upstream.
const BUCKETS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];

/// A phase of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Mutating,
    Validating,
}

impl Phase {
    fn text(self) -> &'static str {
        match self {
            Self::Mutating => "admit",
            Self::Validating => "validate",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    operation: &'static str,
    rejected: &'static str,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PluginLabels {
    name: &'static str,
    operation: &'static str,
    rejected: &'static str,
    r#type: &'static str,
}

/// Durations of single plugins, and of all of a phase.
pub struct AdmissionMetrics {
    plugins: Family<PluginLabels, Histogram, fn() -> Histogram>,
    phases: Family<StepLabels, Histogram, fn() -> Histogram>,
}

impl Default for AdmissionMetrics {
    fn default() -> Self {
        Self {
            plugins: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            phases: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
        }
    }
}

impl AdmissionMetrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "apiserver_admission_controller_admission_duration_seconds",
            "Time that an admission plugin took, by whether it refused the request",
            self.plugins.clone(),
        );
        registry.register(
            "apiserver_admission_step_admission_duration_seconds",
            "Time that all admission plugins of a phase took, by whether one refused the request",
            self.phases.clone(),
        );
    }

    pub fn plugin(
        &self,
        name: &'static str,
        phase: Phase,
        operation: Operation,
        refused: bool,
        started: Instant,
    ) {
        let (operation, rejected) = (operation.text(), text(refused));
        let labels = PluginLabels { name, operation, rejected, r#type: phase.text() };
        self.plugins.get_or_create(&labels).observe(started.elapsed().as_secs_f64());
    }

    pub fn phase(&self, phase: Phase, operation: Operation, refused: bool, started: Instant) {
        let (operation, rejected) = (operation.text(), text(refused));
        let labels = StepLabels { operation, rejected, r#type: phase.text() };
        self.phases.get_or_create(&labels).observe(started.elapsed().as_secs_f64());
    }
}

fn text(refused: bool) -> &'static str {
    if refused { "true" } else { "false" }
}
