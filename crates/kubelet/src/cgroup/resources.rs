//! Resource limits, and the arithmetic from Kubernetes' units to the kernel's.

use std::collections::BTreeMap;

/// The controller of huge pages, which many machines do not have.
pub(super) const HUGETLB: &str = "hugetlb";

/// Limits of one cgroup. `None` leaves the kernel's value unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// CPU weight in v1's unit (1024 is one core), from [`cpu_shares`].
    pub cpu_shares: Option<u64>,
    /// CPU time per period in microseconds, from [`cpu_quota_us`]; -1 means unlimited.
    pub cpu_quota_us: Option<i64>,
    /// Period in microseconds; 100,000 by default.
    pub cpu_period_us: Option<u64>,
    /// Memory limit in bytes; -1 means unlimited.
    pub memory_limit_bytes: Option<i64>,
    /// Number of processes; -1 means unlimited.
    pub pids_limit: Option<i64>,
    /// CPUs that may be used (`0-3`), for exclusive cores.
    pub cpuset_cpus: Option<String>,
    /// NUMA nodes that may be used.
    pub cpuset_mems: Option<String>,
    /// Limits of huge pages in bytes, by page size in bytes. Not applied where the kernel's
    /// controller for them is not mounted: then only their reservation limits them, as upstream.
    pub huge_pages: BTreeMap<u64, u64>,
}

/// The kernel's minimum CPU weight in v1's unit.
pub const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
/// The default CPU period in microseconds.
pub const DEFAULT_PERIOD_US: u64 = 100_000;
/// The kernel refuses a smaller quota.
const MIN_QUOTA_US: i64 = 1_000;

/// CPU request in thousandths of a core to v1 shares. A request of 0 gives the minimum weight.
pub fn cpu_shares(milli_cpu: u64) -> u64 {
    (milli_cpu.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// CPU limit in thousandths of a core to microseconds per default period. 0 means unlimited (-1).
pub fn cpu_quota_us(milli_cpu: u64) -> i64 {
    if milli_cpu == 0 {
        return -1;
    }
    let quota = milli_cpu.saturating_mul(DEFAULT_PERIOD_US) / 1000;
    i64::try_from(quota).unwrap_or(i64::MAX).max(MIN_QUOTA_US)
}

/// v1 shares (2..=262144) to a v2 weight (1..=10000), linearly, as the OCI runtimes do.
pub(super) fn shares_to_weight(shares: u64) -> u64 {
    1 + ((shares.clamp(MIN_SHARES, MAX_SHARES) - MIN_SHARES) * 9_999) / (MAX_SHARES - MIN_SHARES)
}

/// One file of a cgroup and what to write to it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// Controller: the v1 hierarchy it lives in.
    pub controller: &'static str,
    /// File name.
    pub file: String,
    /// What to write.
    pub value: String,
}

impl Setting {
    fn new(controller: &'static str, file: impl Into<String>, value: impl ToString) -> Self {
        Setting { controller, file: file.into(), value: value.to_string() }
    }
}

/// A page size as the kernel names it in files: `2MB`.
pub fn page_size_name(bytes: u64) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1 << 30) => format!("{}GB", bytes >> 30),
        _ if bytes.is_multiple_of(1 << 20) => format!("{}MB", bytes >> 20),
        _ => format!("{}KB", bytes >> 10),
    }
}

fn huge_pages<'a>(
    resources: &'a Resources,
    file: &'a str,
) -> impl Iterator<Item = Setting> + use<'a> {
    resources.huge_pages.iter().map(move |(size, limit)| {
        Setting::new(HUGETLB, format!("hugetlb.{}.{file}", page_size_name(*size)), limit)
    })
}

/// The v1 files that apply `resources`.
pub(super) fn settings_v1(resources: &Resources) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(shares) = resources.cpu_shares {
        settings.push(Setting::new("cpu", "cpu.shares", shares));
    }
    if let Some(quota) = resources.cpu_quota_us {
        let period = resources.cpu_period_us.unwrap_or(DEFAULT_PERIOD_US);
        settings.push(Setting::new("cpu", "cpu.cfs_period_us", period));
        settings.push(Setting::new("cpu", "cpu.cfs_quota_us", quota));
    }
    if let Some(limit) = resources.memory_limit_bytes {
        settings.push(Setting::new("memory", "memory.limit_in_bytes", limit));
    }
    if let Some(limit) = resources.pids_limit {
        settings.push(Setting::new("pids", "pids.max", number_or_max(limit)));
    }
    if let Some(cpus) = &resources.cpuset_cpus {
        settings.push(Setting::new("cpuset", "cpuset.cpus", cpus));
    }
    if let Some(mems) = &resources.cpuset_mems {
        settings.push(Setting::new("cpuset", "cpuset.mems", mems));
    }
    settings.extend(huge_pages(resources, "limit_in_bytes"));
    settings
}

/// The v2 files that apply `resources`.
pub(super) fn settings_v2(resources: &Resources) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(shares) = resources.cpu_shares {
        settings.push(Setting::new("cpu", "cpu.weight", shares_to_weight(shares)));
    }
    if let Some(quota) = resources.cpu_quota_us {
        let period = resources.cpu_period_us.unwrap_or(DEFAULT_PERIOD_US);
        settings.push(Setting::new("cpu", "cpu.max", format!("{} {period}", number_or_max(quota))));
    }
    if let Some(limit) = resources.memory_limit_bytes {
        settings.push(Setting::new("memory", "memory.max", number_or_max(limit)));
    }
    if let Some(limit) = resources.pids_limit {
        settings.push(Setting::new("pids", "pids.max", number_or_max(limit)));
    }
    if let Some(cpus) = &resources.cpuset_cpus {
        settings.push(Setting::new("cpuset", "cpuset.cpus", cpus));
    }
    if let Some(mems) = &resources.cpuset_mems {
        settings.push(Setting::new("cpuset", "cpuset.mems", mems));
    }
    settings.extend(huge_pages(resources, "max"));
    settings
}

fn number_or_max(value: i64) -> String {
    if value < 0 { "max".to_string() } else { value.to_string() }
}
