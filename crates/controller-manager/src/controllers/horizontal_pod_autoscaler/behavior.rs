//! From the number of replicas that the metrics ask for to the one that is set: stabilization,
//! policies, and limits.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{
    HPAScalingRules, HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec,
};

/// How long the highest recommendation holds if the rules say nothing
/// (`--horizontal-pod-autoscaler-downscale-stabilization`).
const DOWNSCALE_WINDOW_SECONDS: i32 = 300;
/// The longest window and period that validation allows: what is older is forgotten.
const KEPT_SECONDS: i32 = 3_600;
/// Recommendations and changes that are kept of an autoscaler: one for every look at it, and some
/// for those between them.
const KEPT_MAX: usize = 1_000;
/// Without rules, the number of replicas may at most be doubled, or become this.
const SCALE_UP_LEAST: i32 = 4;

/// What an autoscaler has recommended and done lately, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    recommendations: Vec<(Timestamp, i32)>,
    ups: Vec<(Timestamp, i32)>,
    downs: Vec<(Timestamp, i32)>,
}

impl Memory {
    /// Remembers what there is as a recommendation, if there is none yet.
    pub fn begin(&mut self, current: i32, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.recommendations.len() + self.ups.len() + self.downs.len()
    }

    /// Remembers a change of the number of replicas.
    pub fn changed(&mut self, before: i32, after: i32, now: Timestamp) {
        let (changes, by) = match after > before {
            true => (&mut self.ups, after.saturating_sub(before)),
            false => (&mut self.downs, before.saturating_sub(after)),
        };
        keep(changes, (now, by), now);
    }
}

fn keep(all: &mut Vec<(Timestamp, i32)>, one: (Timestamp, i32), now: Timestamp) {
    all.retain(|(time, _)| is_within(*time, KEPT_SECONDS, now));
    if all.len() >= KEPT_MAX {
        all.remove(0);
    }
    all.push(one);
}

fn is_within(time: Timestamp, seconds: i32, now: Timestamp) -> bool {
    now.checked_sub(SignedDuration::from_secs(seconds.into())).is_ok_and(|since| time > since)
}

/// What is set, and the reasons and messages of two conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normalized {
    pub replicas: i32,
    pub able_to_scale: (&'static str, &'static str),
    pub is_limited: bool,
    pub scaling_limited: (&'static str, &'static str),
}

const STABLE_UP: (&str, &str) = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const STABLE_DOWN: (&str, &str) = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const READY: (&str, &str) = ("ReadyForNewScale", "recommended size matches current size");
const WITHIN: (&str, &str) =
    ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_MANY: (&str, &str) =
    ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: (&str, &str) =
    ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const UP_LIMIT: (&str, &str) =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: (&str, &str) = (
    "ScaleDownLimit",
    "the desired replica count is decreasing faster than the maximum scale rate",
);

/// What becomes of a wish for `desired` replicas, which is remembered.
pub fn normalize(
    spec: &HorizontalPodAutoscalerSpec,
    memory: &mut Memory,
    (current, desired, least): (i32, i32, i32),
    now: Timestamp,
) -> Normalized {
    let none = HPAScalingRules::default();
    let behavior = spec.behavior.as_ref();
    let rules = |of: fn(&HorizontalPodAutoscalerBehavior) -> Option<&HPAScalingRules>| {
        behavior.and_then(of).unwrap_or(&none)
    };
    let (up, down) = (rules(|all| all.scale_up.as_ref()), rules(|all| all.scale_down.as_ref()));
    let stable = match behavior {
        None => highest(memory, desired, DOWNSCALE_WINDOW_SECONDS, now),
        Some(_) => stabilized(memory, (current, desired), (up, down), now),
    };
    keep(&mut memory.recommendations, (now, desired), now);
    let able_to_scale = match stable == desired {
        true => READY,
        false if behavior.is_some() && desired >= current => STABLE_UP,
        false => STABLE_DOWN,
    };
    let (most, rising) = match behavior {
        None => (current.saturating_mul(2).max(SCALE_UP_LEAST), true),
        Some(_) => (up_limit(current, memory, up, now).max(current), stable > current),
    };
    let (lowest, falling) = match behavior {
        None => (least, true),
        Some(_) => (down_limit(current, memory, down, now).min(current), stable < current),
    };
    let (ceiling, over) = match spec.max_replicas > most {
        true => (most, UP_LIMIT),
        false => (spec.max_replicas, TOO_MANY),
    };
    let (floor, under) = match least < lowest {
        true => (lowest, DOWN_LIMIT),
        false => (least, TOO_FEW),
    };
    let (replicas, scaling_limited) = if falling && stable < floor {
        (floor, under)
    } else if rising && stable > ceiling {
        (ceiling, over)
    } else {
        (stable, WITHIN)
    };
    Normalized { replicas, able_to_scale, is_limited: replicas != stable, scaling_limited }
}

/// The highest recommendation of a window.
fn highest(memory: &Memory, desired: i32, window: i32, now: Timestamp) -> i32 {
    let recent = memory.recommendations.iter().filter(|(time, _)| is_within(*time, window, now));
    recent.map(|(_, replicas)| *replicas).fold(desired, i32::max)
}

fn lowest(memory: &Memory, desired: i32, window: i32, now: Timestamp) -> i32 {
    let recent = memory.recommendations.iter().filter(|(time, _)| is_within(*time, window, now));
    recent.map(|(_, replicas)| *replicas).fold(desired, i32::min)
}

/// The current number, moved only as far as all recent recommendations agree.
fn stabilized(
    memory: &Memory,
    (current, desired): (i32, i32),
    (up, down): (&HPAScalingRules, &HPAScalingRules),
    now: Timestamp,
) -> i32 {
    let rise = up.stabilization_window_seconds.unwrap_or(0);
    let fall = down.stabilization_window_seconds.unwrap_or(DOWNSCALE_WINDOW_SECONDS);
    let at_least = lowest(memory, desired, rise, now);
    let at_most = highest(memory, desired, fall, now);
    current.max(at_least).min(at_most)
}

/// By how much the number of replicas was changed in a period.
fn changed(changes: &[(Timestamp, i32)], seconds: i32, now: Timestamp) -> i32 {
    let recent = changes.iter().filter(|(time, _)| is_within(*time, seconds, now));
    recent.fold(0, |sum, (_, by)| sum.saturating_add(*by))
}

/// The number at the beginning of a period.
fn at_start(current: i32, memory: &Memory, seconds: i32, now: Timestamp) -> i32 {
    let (added, removed) =
        (changed(&memory.ups, seconds, now), changed(&memory.downs, seconds, now));
    current.saturating_sub(added).saturating_add(removed)
}

/// How many replicas the policies allow at most.
fn up_limit(current: i32, memory: &Memory, rules: &HPAScalingRules, now: Timestamp) -> i32 {
    let policies = rules.policies.iter().flatten().map(|policy| {
        let start = at_start(current, memory, policy.period_seconds, now);
        match &*policy.type_ {
            "Percent" => {
                let factor = 1.0 + f64::from(policy.value) / 100.0;
                (f64::from(start) * factor).ceil() as i32
            }
            _ => start.saturating_add(policy.value),
        }
    });
    match rules.select_policy.as_deref() {
        Some("Disabled") => current,
        Some("Min") => policies.min().unwrap_or(i32::MAX),
        _ => policies.max().unwrap_or(i32::MIN),
    }
}

/// How many replicas the policies allow at least.
fn down_limit(current: i32, memory: &Memory, rules: &HPAScalingRules, now: Timestamp) -> i32 {
    let policies = rules.policies.iter().flatten().map(|policy| {
        let start = at_start(current, memory, policy.period_seconds, now);
        match &*policy.type_ {
            "Percent" => (f64::from(start) * (1.0 - f64::from(policy.value) / 100.0)) as i32,
            _ => start.saturating_sub(policy.value),
        }
    });
    match rules.select_policy.as_deref() {
        Some("Disabled") => current,
        Some("Min") => policies.max().unwrap_or(i32::MIN),
        _ => policies.min().unwrap_or(i32::MAX),
    }
}
