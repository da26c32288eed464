//! `stats/summary`: resource usage of the node and its pods, in the format of upstream's kubelet.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};
use tonic::Status;

use super::service::Service;
use super::target::status;
use crate::cgroup::{CgroupPath, CgroupStats};
use crate::containers::{ContainerStats, PodRef};
use crate::node::machine_info::Disk;

impl Service {
    pub(super) async fn summary(&self) -> Result<String, Status> {
        let now = self.context.clock.now();
        let runtime = &self.context.runtime;
        let stats = runtime.stats().await.map_err(|error| status(&error))?;
        let root = runtime.cgroup_stats(&CgroupPath::new("/")).await;
        let root = root.map_err(|error| status(&error))?.unwrap_or_default();
        let pods: Vec<Value> =
            by_pod(stats).iter().map(|(pod, stats)| of_pod(pod, stats, now)).collect();
        let summary = json!({
            "node": {
                "nodeName": self.context.node.name,
                "cpu": cpu(&root, now),
                "memory": memory(&root, self.context.node.memory_bytes, now),
                "fs": disk(self.context.directories.root(), now),
            },
            "pods": pods,
        });
        Ok(summary.to_string())
    }
}

/// Containers grouped by pod.
pub(super) fn by_pod(stats: Vec<ContainerStats>) -> BTreeMap<PodRef, Vec<ContainerStats>> {
    let mut pods: BTreeMap<PodRef, Vec<ContainerStats>> = BTreeMap::new();
    for one in stats {
        pods.entry(one.pod.clone()).or_default().push(one);
    }
    pods
}

/// The total usage of containers.
pub(super) fn sum(stats: &[ContainerStats]) -> CgroupStats {
    let mut sum = CgroupStats::default();
    for one in stats {
        sum.cpu_usage_ns += one.usage.cpu_usage_ns;
        sum.memory_usage_bytes += one.usage.memory_usage_bytes;
        sum.memory_working_set_bytes += one.usage.memory_working_set_bytes;
        sum.memory_rss_bytes += one.usage.memory_rss_bytes;
        sum.page_faults += one.usage.page_faults;
        sum.major_page_faults += one.usage.major_page_faults;
        sum.pids += one.usage.pids;
    }
    sum
}

fn of_pod(pod: &PodRef, stats: &[ContainerStats], now: Timestamp) -> Value {
    let sum = sum(stats);
    let containers: Vec<Value> = stats
        .iter()
        .map(|one| {
            json!({
                "name": one.name,
                "startTime": one.started_at.to_string(),
                "cpu": cpu(&one.usage, now),
                "memory": memory(&one.usage, one.usage.memory_limit_bytes.unwrap_or(0), now),
            })
        })
        .collect();
    let start = stats.iter().map(|one| one.started_at).min().unwrap_or(now);
    json!({
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": start.to_string(),
        "containers": containers,
        "cpu": cpu(&sum, now),
        "memory": memory(&sum, 0, now),
        "process_stats": {"process_count": sum.pids},
    })
}

fn cpu(stats: &CgroupStats, now: Timestamp) -> Value {
    json!({"time": now.to_string(), "usageCoreNanoSeconds": stats.cpu_usage_ns})
}

fn memory(stats: &CgroupStats, limit: u64, now: Timestamp) -> Value {
    let mut value = json!({
        "time": now.to_string(),
        "usageBytes": stats.memory_usage_bytes,
        "workingSetBytes": stats.memory_working_set_bytes,
        "rssBytes": stats.memory_rss_bytes,
        "pageFaults": stats.page_faults,
        "majorPageFaults": stats.major_page_faults,
    });
    if limit > 0 {
        value["availableBytes"] = limit.saturating_sub(stats.memory_working_set_bytes).into();
    }
    value
}

fn disk(root: &std::path::Path, now: Timestamp) -> Value {
    match Disk::of(root) {
        Err(_) => Value::Null,
        Ok(disk) => json!({
            "time": now.to_string(),
            "capacityBytes": disk.bytes,
            "availableBytes": disk.available_bytes,
            "usedBytes": disk.used_bytes,
            "inodes": disk.inodes,
            "inodesFree": disk.inodes_free,
        }),
    }
}
