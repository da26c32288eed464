//! Watches for resource shortages and relieves them: unused images are removed first, then a pod is
//! evicted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::pod::Side;
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Node, Pod};
use runtime::errors::cause_chain;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::local_storage::{exceeded, tree_bytes, volume_bytes};
use super::machine_info::{Disk, memory};
use super::pressure::{Candidate, Pressures, Sample, Shortage, Thresholds, shortages, victim};
use crate::image::{GcPolicy, GcReport};
use crate::pod::admission::is_critical;
use crate::pod::context::Context;
use crate::pod::manager::{ManagedPod, PodManager};
use crate::pod::pod_ext::PodExt;
use crate::pod::resources::{pod_request, request};
use crate::pod::worker::state::Eviction;

/// How often the node is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Images are garbage-collected on every n-th check, if the disk is fuller than the policy allows.
const CHECKS_PER_COLLECTION: u32 = 30;

const EPHEMERAL_STORAGE: &str = "ephemeral-storage";

/// See the module documentation.
pub struct EvictionManager {
    pub context: Arc<Context>,
    pub node: watch::Receiver<Arc<Node>>,
    pub pods: PodManager,
    pub thresholds: Thresholds,
    pub images: GcPolicy,
    pub pressures: watch::Sender<Pressures>,
    pub disk: PathBuf,
}

impl EvictionManager {
    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut timer = tokio::time::interval(CHECK_INTERVAL);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut checks = 0_u32;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = timer.tick() => {}
            }
            self.check().await;
            self.limit_volumes().await;
            self.limit_containers().await;
            checks = checks.wrapping_add(1);
            if checks.is_multiple_of(CHECKS_PER_COLLECTION) {
                self.keep_space_free().await;
            }
        }
    }

    /// Garbage-collects images by the node's policy.
    async fn keep_space_free(&self) {
        let report = self.collect_images(&self.images).await.unwrap_or_default();
        if report.missing_bytes > 0 {
            let wanted = report.missing_bytes.saturating_add(report.freed_bytes);
            let message = format!(
                "Failed to garbage collect required amount of images. Attempted to free {wanted} \
                 bytes, but only found {} bytes eligible to free.",
                report.freed_bytes
            );
            self.warn_node("FreeDiskSpaceFailed", message);
        }
    }

    async fn check(&self) {
        let short = shortages(&sample(&self.disk), &self.thresholds);
        let now = self.context.clock.now();
        let next = self.pressures.borrow().next(&short, now);
        self.pressures.send_if_modified(|pressures| {
            let before = (pressures.memory, pressures.disk, pressures.pids);
            *pressures = next;
            before != (next.memory, next.disk, next.pids)
        });
        let Some(first) = short.first().copied() else {
            return;
        };
        if short.contains(&Shortage::Disk) {
            // Everything that is unused, whatever its age.
            let all = GcPolicy {
                high_threshold_percent: 0,
                low_threshold_percent: 0,
                minimum_age: Duration::ZERO,
            };
            self.collect_images(&all).await;
            if !shortages(&sample(&self.disk), &self.thresholds).contains(&first) {
                return;
            }
        }
        self.relieve(first, &sample(&self.disk)).await;
    }

    async fn collect_images(&self, policy: &GcPolicy) -> Option<GcReport> {
        let mut in_use = BTreeSet::new();
        if let Ok(containers) = self.context.runtime.list().await {
            in_use.extend(containers.into_iter().map(|container| container.image_id));
        }
        for known in self.pods.all() {
            let spec = known.pod.spec_ref();
            let images = spec
                .volumes
                .iter()
                .flatten()
                .filter_map(|volume| volume.image.as_ref()?.reference.as_deref());
            for image in spec
                .containers
                .iter()
                .chain(spec.init_containers.iter().flatten())
                .filter_map(|container| container.image.as_deref())
                .chain(images)
            {
                if let Ok(Some(found)) = self.context.images.status(image).await {
                    in_use.insert(found.id);
                }
            }
        }
        match self.context.images.garbage_collect(policy, &in_use).await {
            Ok(report) => {
                if !report.removed.is_empty() {
                    tracing::info!(
                        removed = report.removed.len(),
                        freed_bytes = report.freed_bytes,
                        "garbage-collected images"
                    );
                }
                Some(report)
            }
            Err(error) => {
                self.warn_node("ImageGCFailed", cause_chain(&error));
                None
            }
        }
    }

    fn warn_node(&self, reason: &'static str, message: String) {
        tracing::warn!(reason, message, "image garbage collection");
        self.context.recorder.node(&self.node.borrow(), ("Warning", reason, message));
    }

    async fn relieve(&self, shortage: Shortage, sample: &Sample) {
        let pods = self.pods.all();
        // One at a time: that may be enough.
        let leaving = |known: &ManagedPod| {
            known.worker.eviction().is_some() || known.pod.deletion_deadline().is_some()
        };
        if pods.iter().any(|known| leaving(known) && !known.pod.is_terminal()) {
            return;
        }
        let left: Vec<&ManagedPod> =
            pods.iter().filter(|known| !known.pod.is_terminal() && !leaving(known)).collect();
        let used = self.usage(shortage, &left).await;
        let candidates: Vec<Candidate> = left
            .iter()
            .map(|known| Candidate {
                uid: known.pod.uid().to_owned(),
                priority: known.pod.spec_ref().priority.unwrap_or(0),
                critical: is_critical(&known.pod),
                used: used.get(known.pod.uid()).map_or(0, PodUsage::sum),
                requested: u64::try_from(pod_request(&known.pod, shortage.resource()).units())
                    .unwrap_or(0),
            })
            .collect();
        let Some(chosen) = victim(&candidates) else {
            return;
        };
        if let Some(known) = pods.iter().find(|known| known.pod.uid() == chosen.uid) {
            let mut message = shortage.message(sample, &self.thresholds);
            if let Some(used) = used.get(known.pod.uid()) {
                message.push_str(&excess(&known.pod, shortage, used));
            }
            self.evict(known, message);
        }
    }

    /// What each pod uses of a scarce resource, by uid.
    async fn usage(&self, shortage: Shortage, pods: &[&ManagedPod]) -> BTreeMap<String, PodUsage> {
        let mut used: BTreeMap<String, PodUsage> = BTreeMap::new();
        if shortage == Shortage::Disk {
            return self.disk_usage(pods).await;
        }
        match self.context.runtime.stats().await {
            Ok(stats) => {
                for one in stats {
                    let amount = match shortage {
                        Shortage::Pids => one.usage.pids,
                        _ => one.usage.memory_working_set_bytes,
                    };
                    let pod = used.entry(one.pod.uid).or_default();
                    *pod.containers.entry(one.name).or_default() += amount;
                }
            }
            Err(error) => tracing::warn!(%error, "cannot determine what pods use"),
        }
        used
    }

    /// Volumes, logs, and what containers have written to their root file systems.
    async fn disk_usage(&self, pods: &[&ManagedPod]) -> BTreeMap<String, PodUsage> {
        let containers = match self.context.runtime.list().await {
            Ok(containers) => containers,
            Err(error) => {
                tracing::warn!(%error, "cannot determine what containers have written");
                Vec::new()
            }
        };
        let mut written = Vec::new();
        let wanted: BTreeSet<&str> = pods.iter().map(|known| known.pod.uid()).collect();
        for container in containers {
            if !wanted.contains(container.pod.uid.as_str()) {
                continue;
            }
            let bytes = self.context.runtime.written_bytes(&container.id).await;
            written.push((container, bytes.unwrap_or(0)));
        }
        let directories = self.context.directories.clone();
        let pods: Vec<Arc<Pod>> = pods.iter().map(|known| Arc::clone(&known.pod)).collect();
        let counting = tokio::task::spawn_blocking(move || {
            let mut used: BTreeMap<String, PodUsage> = BTreeMap::new();
            for pod in pods {
                let volumes = volume_bytes(&pod, &directories);
                used.entry(pod.uid().to_owned()).or_default().volumes = volumes;
            }
            for (container, written) in written {
                let logs = container.log_path.parent().map_or(0, tree_bytes);
                let pod = used.entry(container.pod.uid).or_default();
                *pod.containers.entry(container.name).or_default() += logs + written;
            }
            used
        });
        counting.await.unwrap_or_else(|error| {
            tracing::error!(%error, "measuring the disk usage of pods failed");
            BTreeMap::new()
        })
    }

    /// Evicts pods with a volume that exceeds its limit.
    async fn limit_volumes(&self) {
        let pods = self.pods.all();
        let directories = self.context.directories.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let each = pods.into_iter().filter(|known| !known.pod.is_terminal());
            each.filter_map(|known| Some((exceeded(&known.pod, &directories)?, known)))
                .collect::<Vec<_>>()
        });
        match looked.await {
            Ok(found) => found
                .into_iter()
                .filter(|(_, known)| known.worker.eviction().is_none())
                .for_each(|(message, known)| self.evict(&known, message)),
            Err(error) => tracing::error!(%error, "measuring volumes failed"),
        }
    }

    /// Evicts pods that exceed their `ephemeral-storage` limits. Pods without such limits are not
    /// measured.
    async fn limit_containers(&self) {
        let all = self.pods.all();
        let limited: Vec<&ManagedPod> = all
            .iter()
            .filter(|known| !known.pod.is_terminal() && known.worker.eviction().is_none())
            .filter(|known| is_limited(&known.pod))
            .collect();
        if limited.is_empty() {
            return;
        }
        let used = self.disk_usage(&limited).await;
        for known in limited {
            let used = used.get(known.pod.uid());
            if let Some(message) = used.and_then(|used| over_limit(&known.pod, used)) {
                self.evict(known, message);
            }
        }
    }

    fn evict(&self, known: &ManagedPod, message: String) {
        tracing::warn!(
            pod = known.pod.pod_name(),
            namespace = known.pod.pod_namespace(),
            message,
            "evicting a pod"
        );
        let recorder = &self.context.recorder;
        recorder.pod_warning(&known.pod, "Evicted", message.clone());
        known.worker.evict(Eviction::evicted(message));
    }
}

/// What one pod uses of a scarce resource.
#[derive(Debug, Default)]
struct PodUsage {
    containers: BTreeMap<String, u64>,
    /// On the disk, in volumes that its containers share.
    volumes: u64,
}

impl PodUsage {
    fn sum(&self) -> u64 {
        self.volumes + self.containers.values().sum::<u64>()
    }
}

fn is_limited(pod: &Pod) -> bool {
    api::pod::resources(pod.spec_ref(), Side::Limits).contains_key(EPHEMERAL_STORAGE)
}

/// The message for the pod's eviction, if it or one of its containers exceeds its disk limit
/// (`k8s.io/kubernetes/pkg/kubelet/eviction`, `localStorageEviction`).
fn over_limit(pod: &Pod, used: &PodUsage) -> Option<String> {
    let over = |used: u64, limit: Quantity| used > u64::try_from(limit.units()).unwrap_or(0);
    let spec = pod.spec_ref();
    let limits = api::pod::resources(spec, Side::Limits);
    let limit_of = |container: &Container| {
        let limits = container.resources.as_ref()?.limits.as_ref()?;
        limits.get(EPHEMERAL_STORAGE).map(Quantity::of)
    };
    if let Some(limit) = limits.get(EPHEMERAL_STORAGE)
        && over(used.sum(), *limit)
    {
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "
        ));
    }
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    containers
        .filter_map(|container| Some((container, limit_of(container)?)))
        .find(|(container, limit)| {
            let used = used.containers.get(&container.name).copied();
            over(used.unwrap_or(0), *limit)
        })
        .map(|(container, limit)| {
            let name = &container.name;
            format!("Container {name} exceeded its local ephemeral storage limit \"{limit}\". ")
        })
}

/// Names the containers that use more than they requested.
fn excess(pod: &Pod, shortage: Shortage, used: &PodUsage) -> String {
    let resource = shortage.resource();
    let mut text = String::new();
    for container in &pod.spec_ref().containers {
        let used = used.containers.get(&container.name).copied().unwrap_or(0);
        let asked = request(container.resources.as_ref(), resource);
        if used <= u64::try_from(asked.units()).unwrap_or(0) {
            continue;
        }
        let amount = match shortage {
            Shortage::Pids => used.to_string(),
            _ => format!("{}Ki", used / 1024),
        };
        text.push_str(&format!(
            "Container {} was using {amount}, request is {asked}, has larger consumption of {resource}. ",
            container.name
        ));
    }
    text
}

/// What is available now. A figure that cannot be read counts as plenty.
fn sample(disk: &std::path::Path) -> Sample {
    let mut sample = Sample {
        memory_available_bytes: memory("MemAvailable").unwrap_or(u64::MAX),
        ..Default::default()
    };
    if let Ok(disk) = Disk::of(disk) {
        sample.disk_bytes = disk.bytes;
        sample.disk_available_bytes = disk.available_bytes;
        sample.inodes = disk.inodes;
        sample.inodes_free = disk.inodes_free;
    }
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse().ok();
    sample.pids_max = number("/proc/sys/kernel/pid_max").unwrap_or(0);
    // The fourth field of loadavg: running/all threads.
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let threads = load.split_whitespace().nth(3).and_then(|field| field.split_once('/'));
    sample.pids = threads.and_then(|(_, all)| all.parse().ok()).unwrap_or(0);
    sample
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

    fn container(name: &str, limit: Option<&str>) -> Container {
        Container {
            name: name.into(),
            resources: limit.map(|limit| ResourceRequirements {
                limits: Some([(EPHEMERAL_STORAGE.into(), Text(limit.into()))].into()),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn limits_of_containers_and_of_all_of_them() {
        let pod = |second: Option<&str>| Pod {
            spec: Some(PodSpec {
                containers: vec![container("a", Some("1Ki")), container("b", second)],
                ..Default::default()
            }),
            ..Default::default()
        };
        let used = |a: u64, volumes: u64| PodUsage {
            containers: [("a".into(), a), ("b".into(), 100)].into(),
            volumes,
        };
        let of_a = "Container a exceeded its local ephemeral storage limit \"1Ki\". ";
        let of_first =
            "Pod ephemeral local storage usage exceeds the total limit of containers 1Ki. ";
        let of_all =
            "Pod ephemeral local storage usage exceeds the total limit of containers 3Ki. ";
        for (second, a, volumes, expected) in [
            (None, 900, 0, None),
            (None, 900, 100, Some(of_first)),
            (Some("2Ki"), 1025, 0, Some(of_a)),
            (Some("2Ki"), 1024, 2000, Some(of_all)),
            (Some("2Ki"), 1024, 1000, None),
        ] {
            let found = over_limit(&pod(second), &used(a, volumes));
            assert_eq!(found.as_deref(), expected, "{second:?} {a} {volumes}");
        }
        assert!(is_limited(&pod(None)) && !is_limited(&Pod::default()));
    }
}
