//! Which images to remove when the disk fills up.

use jiff::Timestamp;

/// When to remove images. Kubernetes' kubelet flags of the same names.
#[derive(Debug, Clone, PartialEq)]
pub struct GcPolicy {
    /// `imageGCHighThresholdPercent`: start above this use of the disk (85).
    pub high_threshold_percent: u8,
    /// `imageGCLowThresholdPercent`: remove until below (80).
    pub low_threshold_percent: u8,
    /// `imageMinimumGCAge`: never remove a younger one (2 minutes).
    pub minimum_age: std::time::Duration,
}

impl Default for GcPolicy {
    fn default() -> Self {
        GcPolicy {
            high_threshold_percent: 85,
            low_threshold_percent: 80,
            minimum_age: std::time::Duration::from_secs(120),
        }
    }
}

/// An image as the plan sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct GcCandidate {
    /// Image id.
    pub id: String,
    /// Bytes that removing it gives back.
    pub size_bytes: u64,
    /// When it came here.
    pub detected_at: Timestamp,
    /// When a container last used it.
    pub last_used_at: Timestamp,
    /// A container uses it now, or it is pinned.
    pub in_use: bool,
}

/// What a collection did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GcReport {
    /// Removed image ids.
    pub removed: Vec<String>,
    /// Bytes given back.
    pub freed_bytes: u64,
    /// Bytes that should have been freed but could not: every other image is in use or too young.
    pub missing_bytes: u64,
}

/// Decides which images go, oldest use first, until `bytes_to_free` is reached.
pub fn plan_garbage_collection(
    candidates: &[GcCandidate],
    bytes_to_free: u64,
    policy: &GcPolicy,
    now: Timestamp,
) -> Vec<String> {
    let mut old: Vec<&GcCandidate> = candidates
        .iter()
        .filter(|candidate| !candidate.in_use)
        .filter(|candidate| {
            now.duration_since(candidate.detected_at).unsigned_abs() >= policy.minimum_age
        })
        .collect();
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
