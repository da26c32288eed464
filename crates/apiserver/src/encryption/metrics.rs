//! Counts of what is encrypted and decrypted, under upstream's names.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::configuration::hash;

/// Upper bounds of the buckets of durations in seconds: 5 microseconds, doubled each time, as upstream.
const FIRST_BUCKET: f64 = 5e-6;
const BUCKETS: u16 = 25;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    status: &'static str,
    transformation_type: &'static str,
    transformer_prefix: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Timed {
    transformation_type: &'static str,
    transformer_prefix: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeyUse {
    key_id_hash: String,
    provider_name: String,
    transformation_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reload {
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Configured {
    hash: String,
}

type Histograms = Family<Timed, Histogram, fn() -> Histogram>;

#[derive(Clone)]
pub struct EncryptionMetrics {
    operations: Family<Operation, Counter>,
    durations: Histograms,
    keys: Family<KeyUse, Counter>,
    reloads: Family<Reload, Counter>,
    reloaded: Family<Reload, Gauge<f64, AtomicU64>>,
    configured: Family<Configured, Gauge>,
}

impl Default for EncryptionMetrics {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || {
            Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(
                FIRST_BUCKET,
                2.0,
                BUCKETS,
            ))
        };
        Self {
            operations: Family::default(),
            durations: Family::new_with_constructor(histogram),
            keys: Family::default(),
            reloads: Family::default(),
            reloaded: Family::default(),
            configured: Family::default(),
        }
    }
}

impl EncryptionMetrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "apiserver_storage_transformation_operations",
            "Values encrypted and decrypted, by provider",
            self.operations.clone(),
        );
        registry.register(
            "apiserver_storage_transformation_duration_seconds",
            "How long that took",
            self.durations.clone(),
        );
        registry.register(
            "apiserver_envelope_encryption_key_id_hash",
            "Keys of plugins that were used for seeds",
            self.keys.clone(),
        );
        registry.register(
            "apiserver_encryption_config_controller_automatic_reloads",
            "Reloads of the configuration of encryption",
            self.reloads.clone(),
        );
        registry.register(
            "apiserver_encryption_config_controller_automatic_reload_last_timestamp_seconds",
            "When the configuration of encryption was last reloaded",
            self.reloaded.clone(),
        );
        registry.register(
            "apiserver_encryption_config_controller_last_config_info",
            "The configuration of encryption in use",
            self.configured.clone(),
        );
    }

    pub fn transformed(
        &self,
        transformation_type: &'static str,
        prefix: &str,
        good: bool,
        took: Duration,
    ) {
        let prefix = if prefix.is_empty() { "identity" } else { prefix };
        let transformer_prefix = prefix.to_owned();
        let labels = Timed { transformation_type, transformer_prefix: prefix.to_owned() };
        self.durations.get_or_create(&labels).observe(took.as_secs_f64());
        let status = if good { "OK" } else { "Unknown" };
        let labels = Operation { status, transformation_type, transformer_prefix };
        self.operations.get_or_create(&labels).inc();
    }

    /// A value that no provider knows.
    pub fn unknown(&self) {
        self.transformed("from_storage", "unknown", false, Duration::ZERO);
    }

    pub fn key_used(&self, transformation_type: &'static str, provider: &str, key_id: &str) {
        let labels = KeyUse {
            key_id_hash: hash(key_id),
            provider_name: provider.to_owned(),
            transformation_type,
        };
        self.keys.get_or_create(&labels).inc();
    }

    pub fn reloaded(&self, good: bool) {
        let labels = Reload { status: if good { "success" } else { "failure" } };
        self.reloads.get_or_create(&labels).inc();
        let now = clock::now().as_millisecond() as f64 / 1_000.0;
        self.reloaded.get_or_create(&labels).set(now);
    }

    pub fn configured(&self, text: &str) {
        self.configured.clear();
        self.configured.get_or_create(&Configured { hash: hash(text) }).set(1);
    }
}
