//! Metrics of the aggregator, under upstream's names (`aggregator_*`).

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::snapshot::Snapshot;

/// The APIService of which upstream says that the start has made the document of OpenAPI.
const ALL: &str = "*";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NameLabels {
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LostLabels {
    name: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RegeneratedLabels {
    apiservice: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// Why the document of OpenAPI v2 is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regenerated {
    Startup,
    Add,
    Update,
    Delete,
}

impl Regenerated {
    fn text(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Add => "add",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

#[derive(Clone, Debug)]
pub struct AggregatorMetrics {
    unavailable: Family<NameLabels, Gauge>,
    // Gauges, since the names of upstream's counters are not those that counters have here.
    lost: Family<LostLabels, Gauge>,
    regenerated: Family<RegeneratedLabels, Gauge>,
    durations: Family<ReasonLabels, Gauge<f64, AtomicU64>>,
    /// Why the document is going to be made again.
    pending: Arc<Mutex<Regenerated>>,
}

impl Default for AggregatorMetrics {
    fn default() -> Self {
        let metrics = Self {
            unavailable: Family::default(),
            lost: Family::default(),
            regenerated: Family::default(),
            durations: Family::default(),
            pending: Arc::new(Mutex::new(Regenerated::Startup)),
        };
        metrics.regenerates(ALL, Regenerated::Startup);
        metrics
    }
}

impl AggregatorMetrics {
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("aggregator");
        registry.register(
            "unavailable_apiservice",
            "Whether an APIService is not available",
            self.unavailable.clone(),
        );
        let help = "Times that an APIService became unavailable";
        registry.register("unavailable_apiservice_total", help, self.lost.clone());
        registry.register(
            "openapi_v2_regeneration_count",
            "Times that the document of OpenAPI v2 had to be made again",
            self.regenerated.clone(),
        );
        registry.register(
            "openapi_v2_regeneration_duration",
            "How long it took to make the document of OpenAPI v2 the last time, in seconds",
            self.durations.clone(),
        );
    }

    /// Shows which APIServices are available.
    pub fn observe(&self, snapshot: &Snapshot) {
        self.unavailable.clear();
        for service in snapshot.all() {
            let labels = NameLabels { name: service.name.clone() };
            self.unavailable.get_or_create(&labels).set(i64::from(!service.available));
        }
    }

    /// An APIService that was available is no longer.
    pub fn lost(&self, name: &str, reason: &'static str) {
        self.lost.get_or_create(&LostLabels { name: name.to_owned(), reason }).inc();
    }

    /// The document of OpenAPI v2 is out of date because of an APIService.
    pub fn regenerates(&self, name: &str, why: Regenerated) {
        let labels = RegeneratedLabels { apiservice: name.to_owned(), reason: why.text() };
        self.regenerated.get_or_create(&labels).inc();
        *self.pending.lock() = why;
    }

    /// The document has been made.
    pub fn regenerated(&self, took: Duration) {
        let labels = ReasonLabels { reason: self.pending.lock().text() };
        self.durations.get_or_create(&labels).set(took.as_secs_f64());
    }
}
