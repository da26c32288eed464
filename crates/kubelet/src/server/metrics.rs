//! Metrics in Prometheus' text format: containers as cAdvisor names them, and the kubelet's own.

use std::fmt::Write;

use tonic::Status;

use super::service::Service;
use super::target::status;
use crate::pod::object::PodExt;
use crate::runtime::ContainerStats;

type Read = fn(&ContainerStats) -> f64;

/// Name, type, help and value of each figure of a container.
const FIGURES: [(&str, &str, &str, Read); 6] = [
    (
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed.",
        |one| one.usage.cpu_usage_ns as f64 / 1e9,
    ),
    (
        "container_memory_usage_bytes",
        "gauge",
        "Current memory usage, including all memory regardless of when it was accessed.",
        |one| one.usage.memory_usage_bytes as f64,
    ),
    (
        "container_memory_working_set_bytes",
        "gauge",
        "Current working set.",
        |one| one.usage.memory_working_set_bytes as f64,
    ),
    ("container_memory_rss", "gauge", "Size of RSS.", |one| {
        one.usage.memory_rss_bytes as f64
    }),
    (
        "container_processes",
        "gauge",
        "Number of processes and threads in the container.",
        |one| one.usage.pids as f64,
    ),
    (
        "container_oom_events_total",
        "counter",
        "Count of out of memory events.",
        |one| one.usage.oom_kills as f64,
    ),
];

impl Service {
    pub(super) async fn metrics_text(&self) -> Result<String, Status> {
        let stats = self
            .context
            .runtime
            .stats()
            .await
            .map_err(|error| status(&error))?;
        let mut text = String::new();
        for (name, kind, help, read) in FIGURES {
            head(&mut text, name, kind, help);
            for one in &stats {
                let labels = format!(
                    "container=\"{}\",namespace=\"{}\",pod=\"{}\"",
                    one.name, one.pod.namespace, one.pod.name
                );
                line(&mut text, name, &labels, read(one));
            }
        }
        head(
            &mut text,
            "container_start_time_seconds",
            "gauge",
            "Start time of the container since unix epoch.",
        );
        for one in &stats {
            let labels = format!(
                "container=\"{}\",namespace=\"{}\",pod=\"{}\"",
                one.name, one.pod.namespace, one.pod.name
            );
            line(
                &mut text,
                "container_start_time_seconds",
                &labels,
                one.started_at.as_second() as f64,
            );
        }
        let pods = self.pods.all();
        head(
            &mut text,
            "kubelet_running_pods",
            "gauge",
            "Number of pods that are not finished.",
        );
        let running = pods.iter().filter(|known| !known.pod.is_terminal()).count();
        line(&mut text, "kubelet_running_pods", "", running as f64);
        head(
            &mut text,
            "kubelet_running_containers",
            "gauge",
            "Number of containers that run.",
        );
        line(
            &mut text,
            "kubelet_running_containers",
            "",
            stats.len() as f64,
        );
        head(
            &mut text,
            "kubelet_node_name",
            "gauge",
            "The node's name. The count is always 1.",
        );
        line(
            &mut text,
            "kubelet_node_name",
            &format!("node=\"{}\"", self.context.node.name),
            1.0,
        );
        Ok(text)
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}")
        .expect("a string takes everything");
}

fn line(text: &mut String, name: &str, labels: &str, value: f64) {
    let labels = if labels.is_empty() {
        String::new()
    } else {
        format!("{{{labels}}}")
    };
    writeln!(text, "{name}{labels} {value}").expect("a string takes everything");
}
