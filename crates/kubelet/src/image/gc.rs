//! Image garbage collection: removes unused images when the disk fills up.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use clock::{Clock, SystemClock};
use jiff::Timestamp;
use parking_lot::Mutex;

use super::error::{ImageError, Result};
use super::service::ImageService;

/// When to remove images: upstream's settings of the same names.
#[derive(Debug, Clone, PartialEq)]
pub struct GcPolicy {
    /// `imageGCHighThresholdPercent`: start above this disk usage (85).
    pub high_threshold_percent: u8,
    /// `imageGCLowThresholdPercent`: remove until below (80).
    pub low_threshold_percent: u8,
    /// `imageMinimumGCAge`: never remove a younger image (2 minutes).
    pub minimum_age: Duration,
}

impl Default for GcPolicy {
    fn default() -> Self {
        GcPolicy {
            high_threshold_percent: 85,
            low_threshold_percent: 80,
            minimum_age: Duration::from_secs(120),
        }
    }
}

/// Usage of the disk that images are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DiskUsage {
    /// Its size in bytes.
    pub capacity_bytes: u64,
    /// Available bytes.
    pub available_bytes: u64,
}

/// An image that may be removed.
#[derive(Debug, Clone, PartialEq)]
struct GcCandidate {
    /// Image id.
    pub id: String,
    /// Bytes that removing it frees.
    pub size_bytes: u64,
    /// When it was first seen here.
    pub detected_at: Timestamp,
    /// When a container last used it.
    pub last_used_at: Timestamp,
    /// Whether a container uses it, or it is pinned.
    pub in_use: bool,
}

/// The result of a collection.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GcReport {
    /// Ids of the removed images.
    pub removed: Vec<String>,
    /// Freed bytes.
    pub freed_bytes: u64,
    /// Bytes that should have been freed but could not: every other image is in use or too young.
    pub missing_bytes: u64,
}

/// How many bytes to free: none at or below the high threshold, else down to the low one.
fn bytes_to_free(disk: DiskUsage, policy: &GcPolicy) -> u64 {
    let used = disk.capacity_bytes.saturating_sub(disk.available_bytes);
    let share = |percent: u8| disk.capacity_bytes / 100 * u64::from(percent);
    if used <= share(policy.high_threshold_percent) {
        return 0;
    }
    used.saturating_sub(share(policy.low_threshold_percent))
}

/// Decides which images to remove, least recently used first, until `bytes_to_free` is reached.
fn plan_garbage_collection(
    candidates: &[GcCandidate],
    bytes_to_free: u64,
    policy: &GcPolicy,
    now: Timestamp,
) -> Vec<String> {
    let is_old = |candidate: &GcCandidate| {
        now.duration_since(candidate.detected_at).unsigned_abs() >= policy.minimum_age
    };
    let mut old: Vec<&GcCandidate> =
        candidates.iter().filter(|candidate| !candidate.in_use && is_old(candidate)).collect();
    old.sort_by(|a, b| {
        (a.last_used_at, a.detected_at, &a.id).cmp(&(b.last_used_at, b.detected_at, &b.id))
    });
    let mut freed = 0_u64;
    let mut plan = Vec::new();
    for candidate in old {
        if freed >= bytes_to_free {
            break;
        }
        freed = freed.saturating_add(candidate.size_bytes);
        plan.push(candidate.id.clone());
    }
    plan
}

/// When images were first seen and last used. Starts empty with the process, as upstream's does.
#[derive(Default)]
pub(super) struct UsageLog {
    seen: Mutex<HashMap<String, (Timestamp, Timestamp)>>,
}

impl UsageLog {
    /// Records which images are here and in use now; forgets those that are gone.
    fn observe(
        &self,
        images: &[super::Image],
        in_use: &BTreeSet<String>,
        now: Timestamp,
    ) -> Vec<GcCandidate> {
        let mut seen = self.seen.lock();
        seen.retain(|id, _| images.iter().any(|image| image.id == *id));
        let candidate = |image: &super::Image| {
            let used = in_use.contains(&image.id);
            let times = seen.entry(image.id.clone()).or_insert((now, Timestamp::UNIX_EPOCH));
            if used {
                times.1 = now;
            }
            GcCandidate {
                id: image.id.clone(),
                size_bytes: image.size_bytes,
                detected_at: times.0,
                last_used_at: times.1,
                in_use: used,
            }
        };
        images.iter().map(candidate).collect()
    }
}

impl ImageService {
    /// Removes unused images if the disk is fuller than the policy allows, least recently used
    /// first. `in_use` holds the ids ([`super::Image::id`]) of images that a container or a pod
    /// uses. Call it regularly: it also records which images are in use.
    pub async fn garbage_collect(
        &self,
        policy: &GcPolicy,
        in_use: &BTreeSet<String>,
    ) -> Result<GcReport> {
        let now = SystemClock.now();
        let images = self.list().await?;
        let here = images.iter().map(|image| image.id.as_str()).collect();
        self.records().prune(&here, now).await?;
        let candidates = self.usage().observe(&images, in_use, now);
        let wanted = bytes_to_free(self.disk_usage().await?, policy);
        let mut report = GcReport::default();
        for id in plan_garbage_collection(&candidates, wanted, policy, now) {
            self.remove(&id).await?;
            let size = candidates
                .iter()
                .find(|candidate| candidate.id == id)
                .map_or(0, |candidate| candidate.size_bytes);
            report.freed_bytes += size;
            report.removed.push(id);
        }
        report.missing_bytes = wanted.saturating_sub(report.freed_bytes);
        if wanted > 0 {
            let removed = report.removed.len();
            tracing::info!(
                removed,
                freed = report.freed_bytes,
                missing = report.missing_bytes,
                "collected images"
            );
        }
        Ok(report)
    }

    /// Usage of the disk that holds the images' layers.
    pub(super) async fn disk_usage(&self) -> Result<DiskUsage> {
        let root = self.store().snapshot_root().await?;
        let work = move || nix::sys::statvfs::statvfs(root.as_str());
        let stat =
            tokio::task::spawn_blocking(work).await.expect("reading disk usage does not panic");
        let stat = stat.map_err(|errno| ImageError::Io {
            operation: "read the usage of the image disk".into(),
            source: errno.into(),
        })?;
        let unit = stat.fragment_size();
        Ok(DiskUsage {
            capacity_bytes: stat.blocks().saturating_mul(unit),
            available_bytes: stat.blocks_available().saturating_mul(unit),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn candidate(id: &str, last_used: i64, in_use: bool) -> GcCandidate {
        GcCandidate {
            id: id.into(),
            size_bytes: 100,
            detected_at: at(0),
            last_used_at: at(last_used),
            in_use,
        }
    }

    #[test]
    fn nothing_is_removed_below_the_high_threshold() {
        let policy = GcPolicy::default();
        let disk = |available_bytes| DiskUsage { capacity_bytes: 1000, available_bytes };
        assert_eq!(bytes_to_free(disk(500), &policy), 0);
        assert_eq!(bytes_to_free(disk(150), &policy), 0);
        assert_eq!(bytes_to_free(disk(140), &policy), 60);
        assert_eq!(bytes_to_free(disk(0), &policy), 200);
    }

    #[test]
    fn the_least_recently_used_is_removed_first() {
        let images =
            [candidate("new", 50, false), candidate("used", 1, true), candidate("old", 10, false)];
        let plan = |bytes| plan_garbage_collection(&images, bytes, &GcPolicy::default(), at(1000));
        assert_eq!(plan(0), Vec::<String>::new());
        assert_eq!(plan(1), ["old"]);
        assert_eq!(plan(101), ["old", "new"]);
        assert_eq!(plan(1_000_000), ["old", "new"]);
    }

    #[test]
    fn young_images_are_kept() {
        let young = GcCandidate { detected_at: at(950), ..candidate("young", 0, false) };
        assert!(plan_garbage_collection(&[young], 1, &GcPolicy::default(), at(1000)).is_empty());
    }

    #[test]
    fn last_use_is_recorded() {
        let log = UsageLog::default();
        let image = super::super::Image { id: "a".into(), ..Default::default() };
        let used = BTreeSet::from(["a".to_string()]);
        assert!(log.observe(std::slice::from_ref(&image), &used, at(5))[0].in_use);
        let later = &log.observe(&[image], &BTreeSet::new(), at(9))[0];
        assert_eq!((later.detected_at, later.last_used_at, later.in_use), (at(5), at(5), false));
        log.observe(&[], &BTreeSet::new(), at(10));
        assert!(log.seen.lock().is_empty());
    }
}
