//! What a kubelet measured at one moment, and what was used between two of them.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

/// How long a container has to have run before its usage since its start is taken for what it uses
/// (metrics-server's `freshContainerMinMetricsResolution`).
const FRESH_MIN: Duration = Duration::from_secs(10);

/// Processor time so far, and memory at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub time: Timestamp,
    /// When the counter was zero.
    pub start: Option<Timestamp>,
    pub cpu_ns: u64,
    pub memory_bytes: u64,
}

/// The figures of a node.
#[derive(Debug, Default)]
pub struct Sample {
    pub node: Option<Point>,
    /// By `namespace/name`: points by container.
    pub pods: HashMap<String, Vec<(String, Point)>>,
}

/// What was used over a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub time: Timestamp,
    pub window: Duration,
    /// Billionths of a processor.
    pub cpu_nanos: u64,
    pub memory_bytes: u64,
}

impl Point {
    /// What was used since an earlier point of the same counter; of a fresh container since its
    /// start. `None`: that cannot be told yet.
    pub fn since(&self, before: Option<&Self>) -> Option<Usage> {
        let before = before.filter(|before| before.start == self.start);
        let (from, cpu_ns) = match (before, self.start) {
            (Some(before), _) => (before.time, before.cpu_ns),
            (None, Some(start)) if elapsed(start, self.time)? >= FRESH_MIN => (start, 0),
            _ => return None,
        };
        let window = elapsed(from, self.time).filter(|window| !window.is_zero())?;
        let used = u128::from(self.cpu_ns.checked_sub(cpu_ns)?);
        let per_second = used * 1_000_000_000 / window.as_nanos();
        Some(Usage {
            time: self.time,
            window,
            cpu_nanos: u64::try_from(per_second).ok()?,
            memory_bytes: self.memory_bytes,
        })
    }
}

fn elapsed(from: Timestamp, to: Timestamp) -> Option<Duration> {
    Duration::try_from(to.duration_since(from)).ok()
}

impl Sample {
    /// Reads a kubelet's `stats/summary`. What has no figures is left out.
    ///
    /// # Errors
    /// When it is not such a summary.
    pub fn parse(json: &[u8]) -> serde_json::Result<Self> {
        let summary: Summary = serde_json::from_slice(json)?;
        let mut pods: HashMap<String, Vec<(String, Point)>> = HashMap::new();
        for pod in summary.pods {
            let points = pods.entry(format!("{}/{}", pod.pod_ref.namespace, pod.pod_ref.name));
            let points = points.or_default();
            for container in pod.containers {
                if let Some(point) = container.stats.point() {
                    points.push((container.name, point));
                }
            }
        }
        Ok(Self { node: summary.node.point(), pods })
    }
}

#[derive(Deserialize)]
struct Summary {
    node: Stats,
    #[serde(default)]
    pods: Vec<PodStats>,
}

#[derive(Deserialize)]
struct PodStats {
    #[serde(rename = "podRef")]
    pod_ref: PodRef,
    #[serde(default)]
    containers: Vec<ContainerStats>,
}

#[derive(Deserialize)]
struct PodRef {
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct ContainerStats {
    name: String,
    #[serde(flatten)]
    stats: Stats,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    start_time: Option<Timestamp>,
    cpu: Option<Cpu>,
    memory: Option<Memory>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cpu {
    time: Timestamp,
    usage_core_nano_seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    working_set_bytes: Option<u64>,
}

impl Stats {
    fn point(&self) -> Option<Point> {
        let cpu = self.cpu.as_ref()?;
        Some(Point {
            time: cpu.time,
            start: self.start_time,
            cpu_ns: cpu.usage_core_nano_seconds?,
            memory_bytes: self.memory.as_ref()?.working_set_bytes?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(second: i64, start: Option<i64>, cpu_ns: u64) -> Point {
        let at = |second| Timestamp::from_second(second).unwrap();
        Point { time: at(second), start: start.map(at), cpu_ns, memory_bytes: 7 }
    }

    #[test]
    fn usage_is_the_rate_between_two_points() {
        let usage = point(12, None, 5_000_000_000).since(Some(&point(10, None, 4_000_000_000)));
        let usage = usage.unwrap();
        assert_eq!((usage.cpu_nanos, usage.memory_bytes), (500_000_000, 7));
        assert_eq!(usage.window, Duration::from_secs(2));
        let last = point(12, None, 5);
        assert_eq!(last.since(None), None, "one point of a node tells nothing");
        assert_eq!(last.since(Some(&last)), None, "no time has passed");
        assert_eq!(last.since(Some(&point(10, None, 6))), None, "a counter never sinks");
    }

    #[test]
    fn a_container_that_was_started_again_counts_from_its_start() {
        let before = point(10, Some(0), 9_000_000_000);
        assert_eq!(point(25, Some(16), 900).since(Some(&before)), None, "it is too young");
        let usage = point(26, Some(16), 5_000_000_000).since(Some(&before)).unwrap();
        assert_eq!((usage.cpu_nanos, usage.window.as_secs()), (500_000_000, 10));
    }

    #[test]
    fn summaries_are_read_and_what_has_no_figures_is_left_out() {
        let cpu = r#""cpu":{"time":"2026-01-01T00:00:00Z","usageCoreNanoSeconds":5}"#;
        let memory = r#""memory":{"workingSetBytes":6}"#;
        let json = format!(
            r#"{{"node":{{{cpu},{memory}}},"pods":[{{"podRef":{{"namespace":"n","name":"p"}},"containers":[
            {{"name":"a","startTime":"2025-01-01T00:00:00Z",{cpu},{memory}}},{{"name":"b",{cpu}}}]}}]}}"#
        );
        let sample = Sample::parse(json.as_bytes()).unwrap();
        assert_eq!(sample.node.map(|point| (point.cpu_ns, point.start)), Some((5, None)));
        let [(name, point)] = sample.pods["n/p"].as_slice() else { panic!("{sample:?}") };
        assert_eq!((name.as_str(), point.memory_bytes, point.start.is_some()), ("a", 6, true));
        for bad in ["", "[]", r#"{"pods":[]}"#, r#"{"node":{"cpu":{"time":5}}}"#] {
            assert!(Sample::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
