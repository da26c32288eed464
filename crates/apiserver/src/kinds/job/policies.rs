//! Failure and success policies of a Job, and the limits of indexed Jobs (upstream's
//! `validatePodFailurePolicy`, `validateSuccessPolicy`).

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule, SuccessPolicyRule,
};

use crate::kinds::at::At;
use crate::kinds::check;

/// Most rules of either policy.
const MAX_RULES: usize = 20;
/// Most patterns of conditions in one rule.
const MAX_CONDITIONS: usize = 20;
/// Most exit codes in one rule.
const MAX_EXIT_CODES: usize = 255;
/// Longest `succeededIndexes`, in bytes.
const MAX_INDEXES_BYTES: usize = 64 << 10;
/// Highest parallelism, and most failed indexes, of an indexed Job.
const MAX_INDEXED: i32 = 100_000;
/// With more completions than this, the two are limited further.
const MANY_COMPLETIONS: i32 = 100_000;
const LIMIT_OF_MANY: i32 = 10_000;

/// Fields that only indexed Jobs have, and their limits.
pub fn validate_indexed(spec: &JobSpec, at: &At<'_>) {
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        at.child("backoffLimitPerIndex").required("when maxFailedIndexes is specified");
    }
    let numbers = [
        ("backoffLimitPerIndex", spec.backoff_limit_per_index),
        ("maxFailedIndexes", spec.max_failed_indexes),
    ];
    if spec.completion_mode.as_deref() != Some("Indexed") {
        for (field, value) in numbers.iter().filter(|(_, value)| value.is_some()) {
            at.child(field).invalid(value, "requires indexed completion mode");
        }
        return;
    }
    if spec.completions.is_none() {
        at.child("completions").required("when completion mode is Indexed");
    }
    let at_most = |field: &str, value: Option<i32>, limit: i32, when: &str| {
        if let Some(value) = value.filter(|value| *value > limit) {
            at.child(field).invalid(value, format!("must be less than or equal to {limit}{when}"));
        }
    };
    let indexed = " when completion mode is Indexed";
    at_most("parallelism", spec.parallelism, MAX_INDEXED, indexed);
    let failed = spec.max_failed_indexes;
    at_most("maxFailedIndexes", failed, MAX_INDEXED, "");
    if let (Some(completions), Some(failed)) = (spec.completions, failed)
        && failed > completions
    {
        at.child("maxFailedIndexes").invalid(failed, "must be less than or equal to completions");
    }
    if spec.completions.unwrap_or(0) > MANY_COMPLETIONS && spec.backoff_limit_per_index.is_some() {
        many_completions(spec, at);
    }
}

fn many_completions(spec: &JobSpec, at: &At<'_>) {
    if spec.max_failed_indexes.is_none() {
        let problem = format!("must be specified when completions is above {MANY_COMPLETIONS}");
        at.child("maxFailedIndexes").required(problem);
    }
    let limited =
        [("parallelism", spec.parallelism), ("maxFailedIndexes", spec.max_failed_indexes)];
    for (field, value) in limited {
        if let Some(value) = value.filter(|value| *value > LIMIT_OF_MANY) {
            let problem = format!(
                "must be less than or equal to {LIMIT_OF_MANY} when completions are above {MANY_COMPLETIONS} and used with backoff limit per index"
            );
            at.child(field).invalid(value, problem);
        }
    }
}

/// Validates `podFailurePolicy`.
pub fn validate_failure(spec: &JobSpec, at: &At<'_>) {
    let Some(policy) = &spec.pod_failure_policy else {
        return;
    };
    let rules = at.child("podFailurePolicy.rules");
    at_most(policy.rules.len(), MAX_RULES, &rules);
    let pod = spec.template.spec.as_ref();
    let containers: BTreeSet<&str> = pod
        .into_iter()
        .flat_map(|pod| pod.containers.iter().chain(pod.init_containers.iter().flatten()))
        .map(|container| container.name.as_str())
        .collect();
    for (index, rule) in policy.rules.iter().enumerate() {
        let per_index = spec.backoff_limit_per_index.is_some();
        failure_rule(rule, per_index, &containers, &rules.index(index));
    }
}

fn failure_rule(
    rule: &PodFailurePolicyRule,
    per_index: bool,
    containers: &BTreeSet<&str>,
    at: &At<'_>,
) {
    let action = at.child("action");
    let actions = &["Count", "FailIndex", "FailJob", "Ignore"];
    if rule.action == "FailIndex" && !per_index {
        action.invalid(&rule.action, "requires the backoffLimitPerIndex to be set");
    }
    chosen(&rule.action, actions, &action);
    if let Some(codes) = &rule.on_exit_codes {
        exit_codes(codes, containers, &at.child("onExitCodes"));
    }
    let conditions = rule.on_pod_conditions.as_deref().unwrap_or_default();
    let patterns = at.child("onPodConditions");
    at_most(conditions.len(), MAX_CONDITIONS, &patterns);
    for (index, pattern) in conditions.iter().enumerate() {
        let at = patterns.index(index);
        at.child("type").qualified_name(&pattern.type_);
        let status = check::text(&pattern.status);
        chosen(status, &["False", "True", "Unknown"], &at.child("status"));
    }
    match (rule.on_exit_codes.is_some(), !conditions.is_empty()) {
        (true, true) => {
            at.invalid_whole("specifying both OnExitCodes and OnPodConditions is not supported")
        }
        (false, false) => {
            at.invalid_whole("specifying one of OnExitCodes and OnPodConditions is required")
        }
        _ => {}
    }
}

fn exit_codes(
    wanted: &PodFailurePolicyOnExitCodesRequirement,
    containers: &BTreeSet<&str>,
    at: &At<'_>,
) {
    let operators = &["In", "NotIn"];
    chosen(&wanted.operator, operators, &at.child("operator"));
    if let Some(name) = &wanted.container_name
        && !containers.contains(name.as_str())
    {
        at.child("containerName").invalid(
            name,
            "must be one of the container or initContainer names in the pod template",
        );
    }
    let values = at.child("values");
    if wanted.values.is_empty() {
        values.invalid(&wanted.values, "at least one value is required");
    }
    at_most(wanted.values.len(), MAX_EXIT_CODES, &values);
    let mut seen = BTreeSet::new();
    for (index, code) in wanted.values.iter().enumerate() {
        let at = values.index(index);
        if wanted.operator == "In" && *code == 0 {
            at.invalid(code, "must not be 0 for the In operator");
        }
        if !seen.insert(code) {
            at.duplicate(code);
        }
    }
    if !wanted.values.is_sorted() {
        values.invalid(&wanted.values, "must be ordered");
    }
}

/// Validates `successPolicy`.
pub fn validate_success(spec: &JobSpec, at: &At<'_>) {
    let Some(policy) = &spec.success_policy else {
        return;
    };
    let at = at.child("successPolicy");
    if spec.completion_mode.as_deref() != Some("Indexed") {
        let problem = "requires indexed completion mode";
        let rules: Vec<_> = policy.rules.iter().map(printed).collect();
        let value = serde_json::json!({ "rules": rules });
        at.invalid(value, problem);
        return;
    }
    let rules = at.child("rules");
    if policy.rules.is_empty() {
        rules.required("at least one rules must be specified when the successPolicy is specified");
    }
    at_most(policy.rules.len(), MAX_RULES, &rules);
    let completions = spec.completions.unwrap_or(0);
    for (index, rule) in policy.rules.iter().enumerate() {
        success_rule(rule, completions, &rules.index(index));
    }
}

fn printed(rule: &SuccessPolicyRule) -> serde_json::Value {
    serde_json::json!({
        "succeededIndexes": rule.succeeded_indexes,
        "succeededCount": rule.succeeded_count,
    })
}

fn success_rule(rule: &SuccessPolicyRule, completions: i32, at: &At<'_>) {
    if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
        at.required("at least one of succeededCount or succeededIndexes must be specified");
    }
    let mut named = None;
    if let Some(indexes) = &rule.succeeded_indexes {
        let at = at.child("succeededIndexes");
        at.max_bytes(indexes.len(), MAX_INDEXES_BYTES);
        named = Some(0);
        match count_indexes(indexes, completions) {
            Ok(count) => named = Some(count),
            Err(why) => at.invalid(indexes, format!("error parsing succeededIndexes: {why}")),
        }
    }
    let Some(count) = rule.succeeded_count else {
        return;
    };
    let at = at.child("succeededCount");
    at.not_negative(count);
    let limits = [
        (Some(completions), "specified completions"),
        (named, "indexes in the specified succeededIndexes field"),
    ];
    for (limit, what) in limits {
        if let Some(limit) = limit.filter(|limit| count > *limit) {
            let problem = format!("must be less than or equal to {limit} (the number of {what})");
            at.invalid(count, problem);
        }
    }
}

/// How many indexes `1,3-5` names; all must be below `completions` and ascending.
fn count_indexes(text: &str, completions: i32) -> Result<i32, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let number = |text: &str| -> Result<i32, String> {
        let value: i32 = text
            .parse()
            .map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
        if value >= completions {
            return Err(format!("too large index: {text:?}"));
        }
        Ok(value)
    };
    let (mut count, mut last) = (0, None);
    for interval in text.split(',') {
        let limits: Vec<&str> = interval.split('-').collect();
        if limits.len() > 2 {
            return Err(format!(
                "the fragment {interval:?} violates the requirement that an index interval can have at most two parts separated by '-'"
            ));
        }
        let first = number(limits[0])?;
        if let Some(last) = last
            && last >= first
        {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        let end = match limits.get(1) {
            None => first,
            Some(end) => {
                let end = number(end)?;
                if end <= first {
                    return Err(format!("non-increasing order, previous: {first}, current: {end}"));
                }
                end
            }
        };
        count += end - first + 1;
        last = Some(end);
    }
    Ok(count)
}

/// `value` must be set and one of `known`.
fn chosen(value: &str, known: &[&str], at: &At<'_>) {
    if value.is_empty() {
        let list: Vec<String> = known.iter().map(|value| format!("{value:?}")).collect();
        at.required(format!("valid values: [{}]", list.join(" ")));
    } else if !known.contains(&value) {
        at.not_supported(value, known);
    }
}

fn at_most(count: usize, limit: usize, at: &At<'_>) {
    if count > limit {
        at.too_many(count, limit);
    }
}

#[cfg(test)]
mod tests {
    use super::count_indexes;

    #[test]
    fn indexes_are_counted() {
        for (text, count) in [("", 0), ("1", 1), ("1,3-5", 4), ("0-9", 10)] {
            assert_eq!(count_indexes(text, 10), Ok(count), "{text}");
        }
        for text in ["x", "1-", "10", "3,1", "3-3", "1-2-3", "1,,2", "1-3,3"] {
            count_indexes(text, 10).unwrap_err();
        }
    }
}
