//! Shortages of memory, disk and process ids, and which pod has to go: pure.

use jiff::{SignedDuration, Timestamp};

/// A condition that was seen keeps its state for at least this long, so that it does not flap.
const TRANSITION: SignedDuration = SignedDuration::from_secs(300);

/// What is free on the node now.
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

/// Which conditions the node has, and until when at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressures {
    pub memory: bool,
    pub disk: bool,
    pub pids: bool,
    memory_seen: Option<Timestamp>,
    disk_seen: Option<Timestamp>,
    pids_seen: Option<Timestamp>,
}

/// What a shortage is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    Memory,
    Disk,
    Pids,
}

impl Shortage {
    /// As the message of an eviction names it.
    pub fn resource(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "ephemeral-storage",
            Self::Pids => "pids",
        }
    }
}

/// What is short at this moment.
pub fn shortages(sample: &Sample, thresholds: &Thresholds) -> Vec<Shortage> {
    let percent = |part: u64, whole: u64, threshold: u8| {
        whole > 0 && u128::from(part) * 100 < u128::from(whole) * u128::from(threshold)
    };
    let mut short = Vec::new();
    if sample.memory_available_bytes < thresholds.memory_available_bytes {
        short.push(Shortage::Memory);
    }
    let disk = percent(
        sample.disk_available_bytes,
        sample.disk_bytes,
        thresholds.disk_available_percent,
    );
    let inodes = percent(
        sample.inodes_free,
        sample.inodes,
        thresholds.inodes_free_percent,
    );
    if disk || inodes {
        short.push(Shortage::Disk);
    }
    if sample.pids_max > 0 && sample.pids.saturating_mul(100) > sample.pids_max.saturating_mul(95) {
        short.push(Shortage::Pids);
    }
    short
}

impl Pressures {
    /// After one more look.
    pub fn next(self, short: &[Shortage], now: Timestamp) -> Self {
        let step = |what: Shortage, seen: Option<Timestamp>| {
            let seen = if short.contains(&what) {
                Some(now)
            } else {
                seen
            };
            let holds = seen
                .is_some_and(|seen| short.contains(&what) || now.duration_since(seen) < TRANSITION);
            (holds, seen.filter(|_| holds))
        };
        let (memory, memory_seen) = step(Shortage::Memory, self.memory_seen);
        let (disk, disk_seen) = step(Shortage::Disk, self.disk_seen);
        let (pids, pids_seen) = step(Shortage::Pids, self.pids_seen);
        Self {
            memory,
            disk,
            pids,
            memory_seen,
            disk_seen,
            pids_seen,
        }
    }
}

/// A pod as eviction sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub uid: String,
    pub priority: i32,
    /// Critical pods are left alone.
    pub critical: bool,
    /// Of the scarce resource.
    pub used: u64,
    pub requested: u64,
}

/// The pod to evict: first those that use more than they asked for, of these the least important,
/// of these the one that is furthest beyond its request.
pub fn victim(candidates: &[Candidate]) -> Option<&Candidate> {
    let rank = |one: &&Candidate| {
        let beyond = one.used.saturating_sub(one.requested);
        (
            one.used <= one.requested,
            one.priority,
            std::cmp::Reverse(beyond),
            one.uid.clone(),
        )
    };
    candidates
        .iter()
        .filter(|one| !one.critical)
        .min_by_key(rank)
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
            (
                Sample {
                    memory_available_bytes: 99,
                    ..sample()
                },
                Shortage::Memory,
            ),
            (
                Sample {
                    disk_available_bytes: 99,
                    ..sample()
                },
                Shortage::Disk,
            ),
            (
                Sample {
                    inodes_free: 4,
                    ..sample()
                },
                Shortage::Disk,
            ),
            (
                Sample {
                    pids: 96,
                    ..sample()
                },
                Shortage::Pids,
            ),
        ] {
            assert_eq!(shortages(&worse, &THRESHOLDS), [expected]);
        }
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
    fn who_goes_first() {
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
