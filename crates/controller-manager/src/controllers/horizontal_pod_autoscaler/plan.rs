//! What an autoscaler does: whether and how far it scales, and its status (`horizontal.go`).

use std::sync::Arc;

use api::labels::Selector;
use api::quantity::Quantity;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricStatus, HPAScalingRules, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus,
    MetricIdentifier, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
    ObjectMetricStatus, PodsMetricStatus, ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::behavior::{Memory, normalize};
use super::metrics::{Reading, Values};
use super::replicas::{Proposal, Scaled, Target, Tolerance};
use crate::machinery::cache::Key;

/// Tolerance where the rules have none (`--horizontal-pod-autoscaler-tolerance`).
const TOLERANCE: f64 = 0.1;

pub struct Observed<'a> {
    pub autoscaler: &'a HorizontalPodAutoscaler,
    /// The scale of the target, or why there is none.
    pub scale: Result<&'a Scale, &'a str>,
    /// Those that it selects.
    pub pods: Vec<Arc<Pod>>,
    /// All autoscalers of these pods, if there are several.
    pub rivals: Vec<Key>,
    /// One for each metric.
    pub readings: Vec<Reading>,
}

/// A change of the number of replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rescale {
    pub from: i32,
    pub to: i32,
    pub reason: String,
}

/// Whether it is a warning, its reason, and its message.
pub type Event = (bool, &'static str, String);

#[derive(Debug)]
pub struct Plan {
    pub rescale: Option<Rescale>,
    pub status: HorizontalPodAutoscalerStatus,
    pub events: Vec<Event>,
    pub memory: Memory,
}

/// Why a metric asks for nothing: the reason of the condition, its error, and that of the whole.
struct Failure {
    reason: &'static str,
    error: String,
    whole: String,
}

/// Decides what is done.
pub fn plan(observed: &Observed<'_>, mut memory: Memory, now: Timestamp) -> Plan {
    let spec = &observed.autoscaler.spec;
    let mut status = observed.autoscaler.status.clone().unwrap_or_default();
    let mut events = Vec::new();
    let scale = match observed.scale {
        Ok(scale) => scale,
        Err(error) => {
            let message =
                format!("the HPA controller was unable to get the target's current scale: {error}");
            set(&mut status, "AbleToScale", false, ("FailedGetScale", &message), now);
            events.push((true, "FailedGetScale", error.to_owned()));
            return Plan { rescale: None, status, events, memory };
        }
    };
    let message = "the HPA controller was able to get the target's current scale";
    set(&mut status, "AbleToScale", true, ("SucceededGetScale", message), now);
    let current = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
    memory.begin(current, now);
    status.current_replicas = Some(current);
    let least = spec.min_replicas.unwrap_or(1);
    let mut reason = String::new();
    let mut desired = current;
    if current == 0 && least != 0 {
        let message = "scaling is disabled since the replica count of the target is zero";
        set(&mut status, "ScalingActive", false, ("ScalingDisabled", message), now);
        status.current_metrics = None;
    } else if current > spec.max_replicas {
        reason = "Current number of replicas above Spec.MaxReplicas".to_owned();
        desired = spec.max_replicas;
        status.current_metrics = None;
    } else if current < least {
        reason = "Current number of replicas below Spec.MinReplicas".to_owned();
        desired = least;
        status.current_metrics = None;
    } else {
        match by_metrics(observed, scale, current, (&mut status, &mut events), now) {
            Err(error) => {
                events.push((true, "FailedComputeMetricsReplicas", error));
                return Plan { rescale: None, status, events, memory };
            }
            Ok((wanted, metric)) => {
                if wanted > current {
                    reason = format!("{metric} above target");
                } else if wanted < current {
                    reason = "All metrics below target".to_owned();
                }
                let wish = (current, wanted, least);
                let normalized = normalize(spec, &mut memory, wish, now);
                set(&mut status, "AbleToScale", true, normalized.able_to_scale, now);
                let limited = normalized.is_limited;
                set(&mut status, "ScalingLimited", limited, normalized.scaling_limited, now);
                desired = normalized.replicas;
            }
        }
    }
    status.desired_replicas = desired;
    let rescale = (desired != current).then_some(Rescale { from: current, to: desired, reason });
    Plan { rescale, status, events, memory }
}

impl Plan {
    /// The plan once the scale has been written, or has failed to be.
    pub fn after(
        mut self,
        autoscaler: &HorizontalPodAutoscaler,
        done: Result<(), String>,
        now: Timestamp,
    ) -> Self {
        let Some(Rescale { from, to, reason }) = &self.rescale else { return self };
        match done {
            Ok(()) => {
                let message =
                    format!("the HPA controller was able to update the target scale to {to}");
                let is = ("SucceededRescale", message.as_str());
                set(&mut self.status, "AbleToScale", true, is, now);
                self.status.last_scale_time = Some(Time(now));
                let message = format!("New size: {to}; reason: {reason}");
                self.events.push((false, "SuccessfulRescale", message));
                self.memory.changed(*from, *to, now);
            }
            Err(error) => {
                let message =
                    format!("the HPA controller was unable to update the target scale: {error}");
                let is = ("FailedUpdateScale", message.as_str());
                set(&mut self.status, "AbleToScale", false, is, now);
                let before = autoscaler.status.as_ref().map(|status| status.desired_replicas);
                self.status.desired_replicas = before.unwrap_or_default();
                let message = format!("New size: {to}; reason: {reason}; error: {error}");
                self.events.push((true, "FailedRescale", message));
            }
        }
        self
    }
}

/// How many replicas the metrics ask for, and the one that asks for the most.
fn by_metrics(
    observed: &Observed<'_>,
    scale: &Scale,
    current: i32,
    (status, events): (&mut HorizontalPodAutoscalerStatus, &mut Vec<Event>),
    now: Timestamp,
) -> Result<(i32, String), String> {
    let of_scale = scale.status.clone().unwrap_or_default();
    let selector = of_scale.selector.unwrap_or_default();
    if selector.is_empty() {
        let message = "the HPA target's scale is missing a selector";
        set(status, "ScalingActive", false, ("InvalidSelector", message), now);
        events.push((true, "SelectorRequired", "selector is required".to_owned()));
        return Err("selector is required".to_owned());
    }
    if let Err(error) = Selector::parse(&selector) {
        let message = format!(
            "couldn't convert selector into a corresponding internal selector object: {error}"
        );
        set(status, "ScalingActive", false, ("InvalidSelector", &message), now);
        events.push((true, "InvalidSelector", message.clone()));
        return Err(message);
    }
    if !observed.rivals.is_empty() {
        let rivals: Vec<String> = observed.rivals.iter().map(ToString::to_string).collect();
        let message = format!(
            "pods by selector {selector} are controlled by multiple HPAs: [{}]",
            rivals.join(" ")
        );
        set(status, "ScalingActive", false, ("AmbiguousSelector", &message), now);
        events.push((true, "AmbiguousSelector", message.clone()));
        return Err(message);
    }
    let spec = &observed.autoscaler.spec;
    let scaled = Scaled { pods: &observed.pods, current, tolerance: tolerance(spec), now };
    let metrics = spec.metrics.as_deref().unwrap_or_default();
    let mut statuses = Vec::new();
    let (mut replicas, mut name) = (0, String::new());
    let mut failures = Vec::new();
    for (metric, reading) in metrics.iter().zip(&observed.readings) {
        match of_metric(&scaled, metric, reading, of_scale.replicas) {
            Ok((proposal, own)) => {
                if name.is_empty() || proposal.replicas > replicas {
                    (replicas, name) = (proposal.replicas, own);
                }
                statuses.push(shown(metric, &proposal));
            }
            Err(failure) => {
                // Upstream leaves an empty status where a metric has none.
                statuses.push(MetricStatus::default());
                events.push((true, failure.reason, failure.error.clone()));
                failures.push(failure);
            }
        }
    }
    let count = failures.len();
    if let Some(first) = failures.first()
        && (count == metrics.len() || replicas < current)
    {
        let message = format!("the HPA was unable to compute the replica count: {}", first.error);
        set(status, "ScalingActive", false, (first.reason, &message), now);
        let (all, whole) = (metrics.len(), &first.whole);
        return Err(format!(
            "invalid metrics ({count} invalid out of {all}), first error is: {whole}"
        ));
    }
    let message = format!("the HPA was able to successfully calculate a replica count from {name}");
    set(status, "ScalingActive", true, ("ValidMetricFound", &message), now);
    status.current_metrics = (!statuses.is_empty()).then_some(statuses);
    Ok((replicas, name))
}

fn tolerance(spec: &HorizontalPodAutoscalerSpec) -> Tolerance {
    let of = |rules: Option<&HPAScalingRules>| {
        let own = rules.and_then(|rules| rules.tolerance.as_ref());
        own.map_or(TOLERANCE, |own| Quantity::of(own).millis() as f64 / 1_000.0)
    };
    let behavior = spec.behavior.as_ref();
    Tolerance {
        up: of(behavior.and_then(|behavior| behavior.scale_up.as_ref())),
        down: of(behavior.and_then(|behavior| behavior.scale_down.as_ref())),
    }
}

/// What a metric asks for, and how it is called.
fn of_metric(
    scaled: &Scaled<'_>,
    metric: &MetricSpec,
    reading: &Reading,
    present: i32,
) -> Result<(Proposal, String), Failure> {
    let fail = |reason, error: String, what: &str| Failure {
        reason,
        whole: format!("failed to get {what} metric value: {error}"),
        error,
    };
    if let Some(resource) = &metric.resource {
        let outcome = of_resource(scaled, &resource.name, None, &resource.target, reading);
        let what = format!("{} resource", resource.name);
        return outcome.map_err(|error| fail("FailedGetResourceMetric", error, &what));
    }
    if let Some(one) = &metric.container_resource {
        let outcome = of_resource(scaled, &one.name, Some(&one.container), &one.target, reading);
        let what = format!("{} container", one.name);
        return outcome.map_err(|error| fail("FailedGetContainerResourceMetric", error, &what));
    }
    if let Some(source) = &metric.pods {
        let name = &source.metric.name;
        let outcome = match reading {
            Ok(Values::Pods(values)) => {
                scaled.by_pods(values, Target::Average(millis(&source.target)), None)
            }
            Ok(Values::Sum(_)) => Err("the metric has no value for each pod".to_owned()),
            Err(error) => Err(format!("unable to get metric {name}: {error}")),
        };
        let outcome = outcome.map_err(|error| fail("FailedGetPodsMetric", error, "pods"));
        return Ok((outcome?, format!("pods metric {name}")));
    }
    if let Some(source) = &metric.object {
        let (name, of) = (&source.metric.name, &source.described_object);
        let unread = |error: &str| {
            format!("unable to get metric {name}: {} on {}: {error}", of.kind, of.name)
        };
        let outcome = of_value(scaled, &source.target, reading, present, unread);
        let outcome = outcome.map_err(|error| fail("FailedGetObjectMetric", error, "object"));
        let own = match source.target.average_value {
            Some(_) => format!("external metric {name}({})", selector_text(&source.metric)),
            None => format!("{} metric {name}", of.kind),
        };
        return Ok((outcome?, own));
    }
    if let Some(source) = &metric.external {
        let (name, selector) = (&source.metric.name, selector_text(&source.metric));
        let unread =
            |error: &str| format!("unable to get external metric {name}({selector}): {error}");
        let outcome = of_value(scaled, &source.target, reading, present, unread);
        let what = format!("{name} external");
        let outcome = outcome.map_err(|error| fail("FailedGetExternalMetric", error, &what));
        return Ok((outcome?, format!("external metric {name}({selector})")));
    }
    let error = format!("unknown metric source type {:?}", metric.type_);
    Err(Failure { reason: "InvalidMetricSourceType", whole: error.clone(), error })
}

fn of_resource(
    scaled: &Scaled<'_>,
    name: &str,
    container: Option<&String>,
    target: &MetricTarget,
    reading: &Reading,
) -> Result<(Proposal, String), String> {
    let (wanted, what, own) = match (&target.average_value, target.average_utilization) {
        (Some(_), _) => (Target::Average(millis(target)), "usage", ""),
        (None, Some(percent)) => {
            (Target::Utilization(percent), "utilization", " utilization (percentage of request)")
        }
        (None, None) => {
            let problem =
                "neither an average utilization target nor an average value target was set";
            return Err(format!("invalid resource metric source: {problem}"));
        }
    };
    let resource = Some((name, container.map(String::as_str)));
    let outcome = match reading {
        Ok(Values::Pods(values)) => scaled.by_pods(values, wanted, resource),
        Ok(Values::Sum(_)) => Err("the metric has no value for each pod".to_owned()),
        Err(error) => Err(format!("unable to get metrics for resource {name}: {error}")),
    };
    let own = match container {
        None => format!("{name} resource{own}"),
        Some(_) => format!("{name} container resource{own}"),
    };
    outcome
        .map(|proposal| (proposal, own))
        .map_err(|error| format!("failed to get {name} {what}: {error}"))
}

/// What a value for all pods asks for; `unread` words why there is none.
fn of_value(
    scaled: &Scaled<'_>,
    target: &MetricTarget,
    reading: &Reading,
    present: i32,
    unread: impl Fn(&str) -> String,
) -> Result<Proposal, String> {
    let value = match reading {
        Ok(Values::Sum(value)) => *value,
        Ok(Values::Pods(_)) => return Err("the metric has a value for each pod".to_owned()),
        Err(error) => return Err(unread(error)),
    };
    match target.average_value {
        Some(_) => Ok(scaled.by_value_per_pod(value, millis(target), present)),
        None => scaled.by_value(value, millis(target)),
    }
}

/// The target that is set, in thousandths.
fn millis(target: &MetricTarget) -> i64 {
    let amount = target.average_value.as_ref().or(target.value.as_ref());
    amount.map(Quantity::of).unwrap_or_default().millis().max(1)
}

/// As Go prints the selector of a metric.
fn selector_text(metric: &MetricIdentifier) -> String {
    let Some(selector) = &metric.selector else { return "nil".to_owned() };
    let labels = selector.match_labels.iter().flatten();
    let labels: String = labels.map(|(name, value)| format!("{name}: {value},")).collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{}},}}"
    )
}

/// The status of a metric.
fn shown(metric: &MetricSpec, proposal: &Proposal) -> MetricStatus {
    let value = Some(Quantity::from_millis(proposal.value).to_text());
    let average = MetricValueStatus {
        average_utilization: proposal.utilization,
        average_value: value.clone(),
        value: None,
    };
    let by_target = |target: &MetricTarget| match target.average_value {
        Some(_) => average.clone(),
        None => MetricValueStatus { value: value.clone(), ..MetricValueStatus::default() },
    };
    MetricStatus {
        type_: metric.type_.clone(),
        resource: metric.resource.as_ref().map(|source| ResourceMetricStatus {
            name: source.name.clone(),
            current: average.clone(),
        }),
        container_resource: metric.container_resource.as_ref().map(|source| {
            ContainerResourceMetricStatus {
                name: source.name.clone(),
                container: source.container.clone(),
                current: average.clone(),
            }
        }),
        pods: metric.pods.as_ref().map(|source| PodsMetricStatus {
            metric: source.metric.clone(),
            current: average.clone(),
        }),
        object: metric.object.as_ref().map(|source| ObjectMetricStatus {
            described_object: source.described_object.clone(),
            metric: source.metric.clone(),
            current: by_target(&source.target),
        }),
        external: metric.external.as_ref().map(|source| ExternalMetricStatus {
            metric: source.metric.clone(),
            current: by_target(&source.target),
        }),
    }
}

/// Sets a condition; its time is that of the last change of its status.
fn set(
    status: &mut HorizontalPodAutoscalerStatus,
    kind: &str,
    holds: bool,
    (reason, message): (&str, &str),
    now: Timestamp,
) {
    let all = status.conditions.get_or_insert_default();
    let holds = if holds { "True" } else { "False" };
    let index = all.iter().position(|condition| condition.type_ == kind).unwrap_or(all.len());
    if index == all.len() {
        let type_ = kind.to_owned();
        all.push(HorizontalPodAutoscalerCondition { type_, ..Default::default() });
    }
    let condition = &mut all[index];
    if condition.status != holds {
        condition.last_transition_time = Some(Time(now));
    }
    condition.status = holds.to_owned();
    condition.reason = Some(reason.to_owned());
    condition.message = Some(message.to_owned());
}
