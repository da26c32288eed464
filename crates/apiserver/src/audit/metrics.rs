//! Metrics of audit, under upstream's names (`apiserver_audit_*`).

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use super::Level;

/// The least time between two lines about losses.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PluginLabels {
    plugin: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LevelLabels {
    level: &'static str,
}

#[derive(Clone, Debug, Default)]
pub struct AuditMetrics {
    events: Counter,
    errors: Family<PluginLabels, Counter>,
    levels: Family<LevelLabels, Counter>,
    refused: Counter,
    /// When a loss was logged the last time.
    told: Arc<Mutex<Option<Instant>>>,
}

impl AuditMetrics {
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("apiserver_audit");
        registry.register("event", "Events sent to the backends", self.events.clone());
        registry.register("error", "Events that a backend has lost", self.errors.clone());
        registry.register("level", "Requests by the level of the policy", self.levels.clone());
        registry.register(
            "requests_rejected",
            "Requests that were refused because a backend failed",
            self.refused.clone(),
        );
    }

    pub fn sent(&self) {
        self.events.inc();
    }

    /// Counts events that a backend has lost, and says so in the log, not more often than clients
    /// could fill it with.
    pub fn lost(&self, plugin: &'static str, events: usize, why: &str) {
        let count = u64::try_from(events).unwrap_or(u64::MAX);
        self.errors.get_or_create(&PluginLabels { plugin }).inc_by(count);
        let (now, mut told) = (clock::instant(), self.told.lock());
        if told.is_none_or(|told| now - told >= TELL_INTERVAL) {
            *told = Some(now);
            tracing::error!(plugin, events, why, "audit events are lost");
        }
    }

    pub fn decided(&self, level: Level) {
        self.levels.get_or_create(&LevelLabels { level: level.text() }).inc();
    }

    pub fn refused(&self) {
        self.refused.inc();
    }
}
