//! How many replicas a metric asks for (`replica_calculator.go`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::quantity::Quantity;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::machinery::owner::is_deleting;
use crate::machinery::pod_state::{condition, is_ready};

/// How long after its start a pod's usage of processors counts only while it is ready
/// (`--horizontal-pod-autoscaler-cpu-initialization-period`).
const CPU_INITIALIZATION: Duration = Duration::from_secs(300);
/// A pod that has been unready since no longer after its start has never been ready
/// (`--horizontal-pod-autoscaler-initial-readiness-delay`).
const INITIAL_READINESS: Duration = Duration::from_secs(30);

/// The value of a metric for a pod, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PodValue {
    pub value: i64,
    pub time: Timestamp,
    pub window: Duration,
}

pub type PodValues = BTreeMap<String, PodValue>;

/// By how much a metric may miss its target without anything being done.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    pub up: f64,
    pub down: f64,
}

impl Tolerance {
    fn allows(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// What is aimed at.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// Percent of what the pods request.
    Utilization(i32),
    /// Thousandths for a pod.
    Average(i64),
}

/// What a metric asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    pub replicas: i32,
    /// The average, in thousandths.
    pub value: i64,
    /// In percent of the requests.
    pub utilization: Option<i32>,
}

/// The pods that a metric is about.
pub struct Scaled<'a> {
    pub pods: &'a [Arc<Pod>],
    pub current: i32,
    pub tolerance: Tolerance,
    pub now: Timestamp,
}

/// Pods by what their metrics are good for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Groups {
    ready: usize,
    /// Not running yet, or not ready.
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
    /// About to be gone.
    ignored: BTreeSet<String>,
}

/// The ratio of usage to target, the average, and the utilization.
type Measured = (f64, i64, Option<i32>);

impl Scaled<'_> {
    /// What a metric of pods asks for. `resource`: of which, and in which container.
    ///
    /// # Errors
    /// In upstream's words.
    pub fn by_pods(
        &self,
        values: &PodValues,
        target: Target,
        resource: Option<(&str, Option<&str>)>,
    ) -> Result<Proposal, String> {
        if self.pods.is_empty() {
            return Err("no pods returned by selector while calculating replica count".to_owned());
        }
        let groups = self.group(values, resource.is_some_and(|(name, _)| name == "cpu"));
        let requests = match (target, resource) {
            (Target::Utilization(_), Some((name, container))) => self.requests(name, container)?,
            _ => BTreeMap::new(),
        };
        let counted =
            |name: &&String| !groups.unready.contains(*name) && !groups.ignored.contains(*name);
        let counted = values.iter().filter(|(name, _)| counted(name));
        let mut values: BTreeMap<String, i64> =
            counted.map(|(name, value)| (name.clone(), value.value)).collect();
        if values.is_empty() {
            return Err(
                "did not receive metrics for targeted pods (pods might be unready)".to_owned()
            );
        }
        let (ratio, value, utilization) = measure(&values, target, &requests)?;
        let proposal = |replicas| Proposal { replicas, value, utilization };
        let rebalances = !groups.unready.is_empty() && ratio > 1.0;
        if !rebalances && groups.missing.is_empty() {
            let replicas = match self.tolerance.allows(ratio) {
                true => self.current,
                false => up(ratio * count(groups.ready)),
            };
            return Ok(proposal(replicas));
        }
        for name in &groups.missing {
            match target {
                // What is not known must not scale further than it could: down, it uses all that it
                // may; up, nothing.
                Target::Utilization(percent) if ratio < 1.0 => {
                    let request = requests.get(name).copied().unwrap_or_default();
                    values.insert(name.clone(), request * i64::from(percent.max(100)) / 100);
                }
                Target::Utilization(_) if ratio > 1.0 => {
                    values.insert(name.clone(), 0);
                }
                Target::Utilization(_) => {}
                Target::Average(target) => {
                    values.insert(name.clone(), if ratio < 1.0 { target } else { 0 });
                }
            }
        }
        if rebalances {
            values.extend(groups.unready.iter().map(|name| (name.clone(), 0)));
        }
        let (again, _, _) = measure(&values, target, &requests)?;
        let turns = (ratio < 1.0 && again > 1.0) || (ratio > 1.0 && again < 1.0);
        if self.tolerance.allows(again) || turns {
            return Ok(proposal(self.current));
        }
        let replicas = up(again * count(values.len()));
        let contrary =
            (again < 1.0 && replicas > self.current) || (again > 1.0 && replicas < self.current);
        Ok(proposal(if contrary { self.current } else { replicas }))
    }

    /// What a value for all pods together asks for.
    ///
    /// # Errors
    /// In upstream's words.
    pub fn by_value(&self, value: i64, target: i64) -> Result<Proposal, String> {
        let ratio = number(value) / number(target);
        let proposal = |replicas| Ok(Proposal { replicas, value, utilization: None });
        if self.current == 0 {
            return proposal(up(ratio));
        }
        if self.tolerance.allows(ratio) {
            return proposal(self.current);
        }
        if self.pods.is_empty() {
            let problem = "no pods returned by selector while calculating replica count";
            return Err(format!("unable to calculate ready pods: {problem}"));
        }
        let running = |pod: &&Arc<Pod>| phase(pod) == "Running" && is_ready(pod);
        proposal(up(ratio * count(self.pods.iter().filter(running).count())))
    }

    /// The same if the target is for one pod. `present`: how many there are.
    pub fn by_value_per_pod(&self, value: i64, target: i64, present: i32) -> Proposal {
        let ratio = number(value) / (number(target) * f64::from(present));
        let replicas = match self.tolerance.allows(ratio) {
            true => present,
            false => up(number(value) / number(target)),
        };
        let average = (number(value) / f64::from(present)).ceil();
        Proposal { replicas, value: average as i64, utilization: None }
    }

    fn group(&self, values: &PodValues, cpu: bool) -> Groups {
        let mut groups = Groups::default();
        for pod in self.pods {
            let name = pod.metadata.name.clone().unwrap_or_default();
            if is_deleting(&pod.metadata) || phase(pod) == "Failed" {
                groups.ignored.insert(name);
            } else if phase(pod) == "Pending" {
                groups.unready.insert(name);
            } else {
                match values.get(&name) {
                    None => _ = groups.missing.insert(name),
                    Some(value) if cpu && self.is_starting(pod, value) => {
                        groups.unready.insert(name);
                    }
                    Some(_) => groups.ready += 1,
                }
            }
        }
        groups
    }

    /// Whether what a pod uses of processors is that of its start.
    fn is_starting(&self, pod: &Pod, value: &PodValue) -> bool {
        let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
        let ready = condition(pod, "Ready");
        let (Some(started), Some(ready)) = (started, ready) else { return true };
        let changed = ready.last_transition_time.as_ref().map_or(Timestamp::MIN, |time| time.0);
        let unready = ready.status == "False";
        if after(started.0, CPU_INITIALIZATION) > self.now {
            return unready || value.time < after(changed, value.window);
        }
        unready && after(started.0, INITIAL_READINESS) > changed
    }

    /// What each pod requests of a resource, in thousandths.
    fn requests(
        &self,
        resource: &str,
        container: Option<&str>,
    ) -> Result<BTreeMap<String, i64>, String> {
        let mut requests = BTreeMap::new();
        for pod in self.pods {
            let name = pod.metadata.name.clone().unwrap_or_default();
            let spec = pod.spec.as_ref();
            let sidecars = spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
            let sidecars = sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always"));
            let all = spec.iter().flat_map(|spec| &spec.containers).chain(sidecars);
            let mut sum = 0;
            for one in all.filter(|one| container.is_none_or(|name| one.name == name)) {
                let requested = one.resources.as_ref().and_then(|all| all.requests.as_ref());
                let amount = requested.and_then(|all| all.get(resource)).ok_or_else(|| {
                    format!(
                        "missing request for {resource} in container {} of Pod {name}",
                        one.name
                    )
                })?;
                sum += Quantity::of(amount).millis();
            }
            requests.insert(name, sum);
        }
        Ok(requests)
    }
}

fn measure(
    values: &BTreeMap<String, i64>,
    target: Target,
    requests: &BTreeMap<String, i64>,
) -> Result<Measured, String> {
    match target {
        Target::Utilization(percent) => {
            let known =
                values.iter().filter_map(|(name, value)| Some((value, requests.get(name)?)));
            let (mut used, mut requested, mut entries) = (0_i64, 0_i64, 0_i64);
            for (value, request) in known {
                used = used.saturating_add(*value);
                requested = requested.saturating_add(*request);
                entries += 1;
            }
            if requested == 0 {
                return Err("no metrics returned matched known pods".to_owned());
            }
            let utilization = i128::from(used) * 100 / i128::from(requested);
            let utilization = i32::try_from(utilization).unwrap_or(i32::MAX);
            let ratio = f64::from(utilization) / f64::from(percent);
            Ok((ratio, used / entries, Some(utilization)))
        }
        Target::Average(target) => {
            let total: i64 = values.values().fold(0, |sum, value| sum.saturating_add(*value));
            let average = total / i64::try_from(values.len()).unwrap_or(i64::MAX).max(1);
            Ok((number(average) / number(target), average, None))
        }
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn after(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// Exact as far as metrics are.
fn number(value: i64) -> f64 {
    value as f64
}

fn count(pods: usize) -> f64 {
    pods as f64
}

/// Rounded up; what is beyond the range of replicas is its end.
fn up(replicas: f64) -> i32 {
    replicas.ceil() as i32
}
