//! A Job's pod failure policy and success policy.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{Job, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::indexes;
use crate::machinery::cache::Key;

/// How a failed pod is treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Count,
    Ignore,
    FailIndex,
    FailJob(String),
}

/// Applies the first rule that matches a failed pod.
pub fn judge(job: &Job, pod: &Pod) -> Verdict {
    let policy = job.spec.as_ref().and_then(|spec| spec.pod_failure_policy.as_ref());
    let rules = policy.map(|policy| policy.rules.as_slice()).unwrap_or_default();
    for (index, rule) in rules.iter().enumerate() {
        if let Some(why) = matches(rule, pod) {
            return match rule.action.as_str() {
                "Ignore" => Verdict::Ignore,
                "FailIndex" => Verdict::FailIndex,
                "FailJob" => {
                    Verdict::FailJob(format!("{why} matching FailJob rule at index {index}"))
                }
                _ => Verdict::Count,
            };
        }
    }
    Verdict::Count
}

fn matches(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let key = Key::of(pod);
    if let Some(codes) = &rule.on_exit_codes {
        let of = |status: &&ContainerStatus| {
            codes.container_name.as_ref().is_none_or(|name| *name == status.name)
        };
        for status in container_statuses(pod).filter(of) {
            let Some(code) = exit_code(status).filter(|code| *code != 0) else {
                continue;
            };
            let listed = codes.values.contains(&code);
            if listed == (codes.operator == "In") {
                let name = &status.name;
                return Some(format!(
                    "Container {name} for pod {key} failed with exit code {code}"
                ));
            }
        }
    }
    for pattern in rule.on_pod_conditions.iter().flatten() {
        let wanted = pattern.status.as_deref().unwrap_or("True");
        let condition = crate::machinery::pod_state::condition(pod, &pattern.type_);
        if condition.is_some_and(|condition| condition.status == wanted) {
            return Some(format!("Pod {key} has condition {}", pattern.type_));
        }
    }
    None
}

fn container_statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|status| {
        let regular = status.container_statuses.iter().flatten();
        regular.chain(status.init_container_statuses.iter().flatten())
    })
}

fn exit_code(status: &ContainerStatus) -> Option<i32> {
    let state = status.state.as_ref()?;
    state.terminated.as_ref().map(|terminated| terminated.exit_code)
}

/// The condition message of the first rule of the success policy that is met.
pub fn success(job: &Job, completed: &BTreeSet<i32>) -> Option<String> {
    let spec = job.spec.as_ref()?;
    let policy = spec.success_policy.as_ref()?;
    let completions = spec.completions.unwrap_or(0);
    let met = policy.rules.iter().position(|rule| {
        let among = match &rule.succeeded_indexes {
            None => completed.clone(),
            Some(text) => {
                let wanted = indexes::parse(text, completions);
                let met: BTreeSet<i32> = wanted.intersection(completed).copied().collect();
                if rule.succeeded_count.is_none() && met.len() < wanted.len() {
                    return false;
                }
                met
            }
        };
        let count = i32::try_from(among.len()).unwrap_or(i32::MAX);
        rule.succeeded_count.is_none_or(|wanted| count >= wanted)
    })?;
    Some(format!("Matched rules at index {met}"))
}
