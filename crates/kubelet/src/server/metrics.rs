//! Metrics in Prometheus' text format, on the same paths as upstream's kubelet: its own, cAdvisor's
//! for containers, and the resource metrics that metrics-server reads.

use std::fmt::Write;

use rpc::kubelet_v1::MetricsPage;
use tonic::Status;

use super::service::Service;
use super::stats::{by_pod, sum};
use super::target::status;
use crate::cgroup::{CgroupPath, CgroupStats};
use crate::containers::{ContainerStats, PodRef};
use crate::pod::pod_ext::PodExt;

/// Name, type and help of a metric.
type Family = (&'static str, &'static str, &'static str);
type Read = fn(&CgroupStats) -> f64;

const START_TIME: Family =
    ("container_start_time_seconds", "gauge", "Start time of the container since unix epoch.");
const CONTAINER_CPU: Family =
    ("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed.");
const CONTAINER_WORKING_SET: Family =
    ("container_memory_working_set_bytes", "gauge", "Current working set.");

/// cAdvisor's metrics of each container.
const CONTAINER: [(Family, Read); 6] = [
    (CONTAINER_CPU, cpu_seconds),
    (CONTAINER_WORKING_SET, working_set),
    (
        (
            "container_memory_usage_bytes",
            "gauge",
            "Current memory usage, including all memory regardless of when it was accessed.",
        ),
        |usage| usage.memory_usage_bytes as f64,
    ),
    (("container_memory_rss", "gauge", "Size of RSS."), |usage| usage.memory_rss_bytes as f64),
    (
        ("container_processes", "gauge", "Number of processes and threads in the container."),
        |usage| usage.pids as f64,
    ),
    (("container_oom_events_total", "counter", "Count of out of memory events."), |usage| {
        usage.oom_kills as f64
    }),
];

fn cpu_seconds(usage: &CgroupStats) -> f64 {
    usage.cpu_usage_ns as f64 / 1e9
}

fn working_set(usage: &CgroupStats) -> f64 {
    usage.memory_working_set_bytes as f64
}

impl Service {
    pub(super) async fn metrics_text(&self, page: MetricsPage) -> Result<String, Status> {
        let runtime = &self.context.runtime;
        let stats = runtime.stats().await.map_err(|error| status(&error))?;
        let mut text = Text::default();
        match page {
            MetricsPage::Kubelet => self.write_own(&stats, &mut text),
            MetricsPage::Cadvisor => {
                for (family, read) in CONTAINER {
                    text.containers(family, &stats, read);
                }
                text.start_times(&stats);
                let memory =
                    ("machine_memory_bytes", "gauge", "Amount of memory installed on the machine.");
                text.one(memory, "", self.context.node.memory_bytes as f64);
            }
            MetricsPage::Resource => {
                let root = runtime.cgroup_stats(&CgroupPath::new("/")).await;
                let root = root.map_err(|error| status(&error))?.unwrap_or_default();
                write_resources(&root, stats, &mut text);
            }
        }
        Ok(text.0)
    }

    fn write_own(&self, stats: &[ContainerStats], text: &mut Text) {
        let pods = self.pods.all();
        let running = pods.iter().filter(|known| !known.pod.is_terminal()).count();
        let family = ("kubelet_running_pods", "gauge", "Number of pods that are not finished.");
        text.one(family, "", running as f64);
        let family = ("kubelet_running_containers", "gauge", "Number of running containers.");
        text.one(family, "", stats.len() as f64);
        let family = ("kubelet_node_name", "gauge", "The node's name. The count is always 1.");
        let labels = format!("node=\"{}\"", self.context.node.name);
        text.one(family, &labels, 1.0);
    }
}

fn write_resources(root: &CgroupStats, stats: Vec<ContainerStats>, text: &mut Text) {
    let node_cpu = (
        "node_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the node in core-seconds.",
    );
    text.one(node_cpu, "", cpu_seconds(root));
    let node_memory =
        ("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes.");
    text.one(node_memory, "", working_set(root));
    text.containers(CONTAINER_CPU, &stats, cpu_seconds);
    text.containers(CONTAINER_WORKING_SET, &stats, working_set);
    text.start_times(&stats);
    let pods: Vec<(PodRef, CgroupStats)> =
        by_pod(stats).into_iter().map(|(pod, stats)| (pod, sum(&stats))).collect();
    let pod_cpu = (
        "pod_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the pod in core-seconds.",
    );
    let pod_memory =
        ("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes.");
    for (family, read) in [(pod_cpu, cpu_seconds as Read), (pod_memory, working_set as Read)] {
        let samples = pods.iter().map(|(pod, usage)| (of_pod(pod), read(usage)));
        text.family(family, samples);
    }
    let failed = (
        "resource_scrape_error",
        "gauge",
        "1 if there was an error while getting container metrics, 0 otherwise.",
    );
    text.one(failed, "", 0.0);
}

fn of_pod(pod: &PodRef) -> String {
    format!("namespace=\"{}\",pod=\"{}\"", pod.namespace, pod.name)
}

fn of_container(one: &ContainerStats) -> String {
    format!("container=\"{}\",{}", one.name, of_pod(&one.pod))
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, family: Family, samples: impl Iterator<Item = (String, f64)>) {
        let (name, kind, help) = family;
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        for (labels, value) in samples {
            if labels.is_empty() {
                self.write(format_args!("{name} {value}\n"));
            } else {
                self.write(format_args!("{name}{{{labels}}} {value}\n"));
            }
        }
    }

    fn one(&mut self, family: Family, labels: &str, value: f64) {
        self.family(family, std::iter::once((labels.to_owned(), value)));
    }

    fn containers(&mut self, family: Family, stats: &[ContainerStats], read: Read) {
        let samples = stats.iter().map(|one| (of_container(one), read(&one.usage)));
        self.family(family, samples);
    }

    fn start_times(&mut self, stats: &[ContainerStats]) {
        let samples =
            stats.iter().map(|one| (of_container(one), one.started_at.as_second() as f64));
        self.family(START_TIME, samples);
    }

    fn write(&mut self, what: std::fmt::Arguments<'_>) {
        self.0.write_fmt(what).expect("a string takes everything");
    }
}
