//! Shortages of memory, disk and process ids, and which pod to evict: pure.

use jiff::{SignedDuration, Timestamp};

/// A condition lasts at least this long, so that it does not flap.
const TRANSITION: SignedDuration = SignedDuration::from_secs(300);

/// Using more than this part of the possible process ids is a shortage.
const PIDS_MAX_PERCENT: u8 = 95;

/// What is available on the node now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    pub memory_available_bytes: u64,
    pub disk_bytes: u64,
    pub disk_available_bytes: u64,
    pub inodes: u64,
    pub inodes_free: u64,
    pub pids_max: u64,
    pub pids: u64,
}

/// Hard eviction thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    pub memory_available_bytes: u64,
    pub disk_available_percent: u8,
    pub inodes_free_percent: u8,
}

/// The node's conditions, and until when they last at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressures {
    pub memory: bool,
    pub disk: bool,
    pub pids: bool,
    memory_seen: Option<Timestamp>,
    disk_seen: Option<Timestamp>,
    pids_seen: Option<Timestamp>,
}

/// The resource that is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    Memory,
    Disk,
    Pids,
}

impl Shortage {
    /// The resource that pods request.
    pub fn resource(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "ephemeral-storage",
            Self::Pids => "pids",
        }
    }

    /// Why pods are evicted: upstream's message (`pkg/kubelet/eviction/helpers.go`).
    pub fn message(self, sample: &Sample, thresholds: &Thresholds) -> String {
        let kibibytes = |bytes: u64| format!("{}Ki", bytes / 1024);
        let share = |whole: u64, percent: u8| {
            u64::try_from(u128::from(whole) * u128::from(percent) / 100).unwrap_or(u64::MAX)
        };
        let (resource, threshold, available) = match self {
            Self::Memory => (
                "memory",
                kibibytes(thresholds.memory_available_bytes),
                kibibytes(sample.memory_available_bytes),
            ),
            Self::Disk if sample.disk_is_short(thresholds) => (
                "ephemeral-storage",
                share(sample.disk_bytes, thresholds.disk_available_percent).to_string(),
                kibibytes(sample.disk_available_bytes),
            ),
            Self::Disk => (
                "inodes",
                share(sample.inodes, thresholds.inodes_free_percent).to_string(),
                sample.inodes_free.to_string(),
            ),
            Self::Pids => (
                "pids",
                share(sample.pids_max, 100 - PIDS_MAX_PERCENT).to_string(),
                sample.pids_max.saturating_sub(sample.pids).to_string(),
            ),
        };
        format!(
            "The node was low on resource: {resource}. Threshold quantity: {threshold}, available: {available}. "
        )
    }
}

impl Sample {
    /// Whether bytes are short, not (only) inodes.
    fn disk_is_short(&self, thresholds: &Thresholds) -> bool {
        below(self.disk_available_bytes, self.disk_bytes, thresholds.disk_available_percent)
    }
}

/// Whether the part is less than the share of the whole; never if the whole is unknown.
fn below(part: u64, whole: u64, percent: u8) -> bool {
    whole > 0 && u128::from(part) * 100 < u128::from(whole) * u128::from(percent)
}

/// What is short now.
pub fn shortages(sample: &Sample, thresholds: &Thresholds) -> Vec<Shortage> {
    let mut short = Vec::new();
    if sample.memory_available_bytes < thresholds.memory_available_bytes {
        short.push(Shortage::Memory);
    }
    let disk = sample.disk_is_short(thresholds);
    let inodes = below(sample.inodes_free, sample.inodes, thresholds.inodes_free_percent);
    if disk || inodes {
        short.push(Shortage::Disk);
    }
    let pids_max = sample.pids_max.saturating_mul(u64::from(PIDS_MAX_PERCENT));
    if sample.pids_max > 0 && sample.pids.saturating_mul(100) > pids_max {
        short.push(Shortage::Pids);
    }
    short
}

impl Pressures {
    /// The node's conditions that are true.
    pub fn conditions(&self) -> Vec<&'static str> {
        [(self.memory, "MemoryPressure"), (self.disk, "DiskPressure"), (self.pids, "PIDPressure")]
            .into_iter()
            .filter_map(|(holds, name)| holds.then_some(name))
            .collect()
    }

    /// After one more check.
    pub fn next(self, short: &[Shortage], now: Timestamp) -> Self {
        let step = |what: Shortage, seen: Option<Timestamp>| {
            let seen = if short.contains(&what) { Some(now) } else { seen };
            let holds = seen
                .is_some_and(|seen| short.contains(&what) || now.duration_since(seen) < TRANSITION);
            (holds, seen.filter(|_| holds))
        };
        let (memory, memory_seen) = step(Shortage::Memory, self.memory_seen);
        let (disk, disk_seen) = step(Shortage::Disk, self.disk_seen);
        let (pids, pids_seen) = step(Shortage::Pids, self.pids_seen);
        Self { memory, disk, pids, memory_seen, disk_seen, pids_seen }
    }
}

/// A pod that may be evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub uid: String,
    pub priority: i32,
    /// Critical pods are not evicted.
    pub critical: bool,
    /// Usage of the scarce resource.
    pub used: u64,
    pub requested: u64,
}

/// The pod to evict: first those that use more than they requested, of these the one with the
/// lowest priority, of these the one that exceeds its request the most.
pub fn victim(candidates: &[Candidate]) -> Option<&Candidate> {
    let rank = |one: &&Candidate| {
        let beyond = one.used.saturating_sub(one.requested);
        (one.used <= one.requested, one.priority, std::cmp::Reverse(beyond), one.uid.clone())
    };
    candidates.iter().filter(|one| !one.critical).min_by_key(rank)
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: Thresholds = Thresholds {
        memory_available_bytes: 100,
        disk_available_percent: 10,
        inodes_free_percent: 5,
    };

    fn sample() -> Sample {
        Sample {
            memory_available_bytes: 100,
            disk_bytes: 1000,
            disk_available_bytes: 100,
            inodes: 100,
            inodes_free: 5,
            pids_max: 100,
            pids: 95,
        }
    }

    #[test]
    fn thresholds() {
        let at_the_edge = sample();
        assert!(shortages(&at_the_edge, &THRESHOLDS).is_empty());
        for (worse, expected) in [
            (Sample { memory_available_bytes: 99, ..sample() }, Shortage::Memory),
            (Sample { disk_available_bytes: 99, ..sample() }, Shortage::Disk),
            (Sample { inodes_free: 4, ..sample() }, Shortage::Disk),
            (Sample { pids: 96, ..sample() }, Shortage::Pids),
        ] {
            assert_eq!(shortages(&worse, &THRESHOLDS), [expected]);
        }
    }

    #[test]
    fn messages_have_threshold_and_available_amount() {
        let low = Sample {
            memory_available_bytes: 2048,
            disk_available_bytes: 5120,
            disk_bytes: 100_000,
            inodes_free: 4,
            ..sample()
        };
        let text = |shortage: Shortage, sample: &Sample| shortage.message(sample, &THRESHOLDS);
        assert_eq!(
            text(Shortage::Disk, &low),
            "The node was low on resource: ephemeral-storage. Threshold quantity: 10000, available: 5Ki. "
        );
        let enough = Sample { disk_available_bytes: 50_000, ..low };
        assert_eq!(
            text(Shortage::Disk, &enough),
            "The node was low on resource: inodes. Threshold quantity: 5, available: 4. "
        );
        assert!(text(Shortage::Memory, &low).contains("available: 2Ki"));
    }

    #[test]
    fn conditions_last_five_minutes_longer() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let pressures = Pressures::default().next(&[Shortage::Disk], at(0));
        assert!(pressures.disk && !pressures.memory);
        let pressures = pressures.next(&[], at(299));
        assert!(pressures.disk);
        assert!(!pressures.next(&[], at(300)).disk);
    }

    #[test]
    fn eviction_order() {
        let pod = |uid: &str, priority, used, requested| Candidate {
            uid: uid.into(),
            priority,
            critical: uid == "critical",
            used,
            requested,
        };
        let pods = [
            pod("critical", 0, 900, 0),
            pod("modest", -5, 10, 10),
            pod("important", 5, 500, 0),
            pod("greedy", 0, 200, 100),
            pod("greedier", 0, 400, 100),
        ];
        assert_eq!(victim(&pods).unwrap().uid, "greedier");
        assert_eq!(victim(&pods[..2]).unwrap().uid, "modest");
        assert_eq!(victim(&pods[..1]), None);
    }
}
