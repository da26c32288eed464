//! What the apiserver counts, in Prometheus' text form.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::core::Core;

/// Counters of the process.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: AtomicU64,
    failures: AtomicU64,
}

impl Metrics {
    /// Counts a request by the code of its answer.
    pub fn count(&self, code: u16) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if code >= 500 {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The text of `/metrics`.
    pub fn encode(&self, core: &Core) -> String {
        let mut out = String::new();
        let mut counter = |name: &str, kind: &str, help: &str, value: u64| {
            writeln!(
                out,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
            )
            .ok();
        };
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        counter(
            "skiff_apiserver_requests_total",
            "counter",
            "Requests answered.",
            read(&self.requests),
        );
        counter(
            "skiff_apiserver_failures_total",
            "counter",
            "Requests answered with 5xx.",
            read(&self.failures),
        );
        counter(
            "skiff_apiserver_cache_revision",
            "gauge",
            "Revision that the watch cache has reached.",
            core.cache.revision(),
        );
        out.push_str("# HELP apiserver_storage_objects Objects by resource.\n# TYPE apiserver_storage_objects gauge\n");
        for resource in core.cache.resources() {
            let name = resource.row.qualified_resource();
            writeln!(
                out,
                "apiserver_storage_objects{{resource=\"{name}\"}} {}",
                resource.len()
            )
            .ok();
        }
        out
    }
}
