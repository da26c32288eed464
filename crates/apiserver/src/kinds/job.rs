//! Jobs.

mod policies;

use std::collections::BTreeMap;

use api::labels::Selector;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::at::At;
use super::columns::{self, CONTAINERS, IMAGES, SELECTOR, text};
use super::pod_spec::{defaults, validate};
use super::table::{Parts, Rows, age, name, status_apart};
use super::{Dependents, check, fill, workload};

/// Labels that tie pods to their Job, with their legacy names.
const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

/// Longest `managedBy`, in bytes.
const MAX_MANAGER: usize = 63;

/// Upstream's warning.
const PRESERVED: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";

pub static RULES: Rows<Job> = Rows {
    default: |job| {
        let spec = job.spec.get_or_insert_default();
        defaults::template(&mut spec.template);
        if spec.completions.is_none() && spec.parallelism.is_none() {
            spec.completions = Some(1);
        }
        fill::missing(&mut spec.parallelism, 1);
        let per_index = spec.backoff_limit_per_index.is_some();
        fill::missing(&mut spec.backoff_limit, if per_index { i32::MAX } else { 6 });
        fill::text(&mut spec.completion_mode, "NonIndexed");
        fill::missing(&mut spec.suspend, false);
        fill::missing(&mut spec.manual_selector, false);
        let replacement =
            if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
        fill::text(&mut spec.pod_replacement_policy, replacement);
        for rule in spec.pod_failure_policy.iter_mut().flat_map(|policy| policy.rules.iter_mut()) {
            for pattern in rule.on_pod_conditions.iter_mut().flatten() {
                fill::text(&mut pattern.status, "True");
            }
        }
        let labels = spec.template.metadata.as_ref().and_then(|metadata| metadata.labels.clone());
        if labels.is_some() && job.metadata.labels.as_ref().is_none_or(|own| own.is_empty()) {
            job.metadata.labels = labels;
        }
    },
    parts: Parts {
        // The selector is generated from the uid, unless the client manages it.
        create: |job, _| {
            generate_selector(job);
            job.status = Some(Default::default());
        },
        status: |new, old, _| new.spec.clone_from(&old.spec),
        ..status_apart!()
    },
    judge: |job, at| {
        if let Some(spec) = &job.spec {
            validate_spec(spec, true, &at.child("spec"));
        }
    },
    create: |job, at| {
        if let Some(spec) = &job.spec {
            validate_generated(job, spec, at);
            validate_hostnames(job, spec, at);
        }
    },
    update: |new, old, at| {
        if let (Some(spec), Some(was)) = (&new.spec, &old.spec) {
            validate_immutable(new, spec, was, at);
        }
    },
    generation: |new, old| Some(new.spec != old.spec),
    warnings: |new, old| {
        let same = old.is_some_and(|old| old.spec == new.spec);
        workload::warnings(&new.metadata, template(new).filter(|_| !same), old.is_none())
    },
    dependents: Dependents::Orphaned { warning: Some(PRESERVED) },
    columns: &[
        name(),
        text("Status", "Status of the job.").of(|job| status_text(job).into()),
        text("Completions", "Pods that succeeded, of those wanted.")
            .of(|job| completions(job).into()),
        text("Duration", "Time required to complete the job.")
            .now(|job, now| duration(job, now).into()),
        age(),
        CONTAINERS.of(|job| columns::container_names(template(job))),
        IMAGES.of(|job| columns::images(template(job))),
        SELECTOR
            .of(|job| columns::selector(job.spec.as_ref().and_then(|spec| spec.selector.as_ref()))),
    ],
    ..Rows::NEW
};

fn template(job: &Job) -> Option<&PodTemplateSpec> {
    job.spec.as_ref().map(|spec| &spec.template)
}

fn generate_selector(job: &mut Job) {
    let uid = job.metadata.uid.clone().unwrap_or_default();
    let name = job.metadata.name.clone().unwrap_or_default();
    let spec = job.spec.get_or_insert_default();
    if spec.manual_selector == Some(true) {
        return;
    }
    let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    for (keys, value) in [(UID_LABELS, &uid), (NAME_LABELS, &name)] {
        for key in keys {
            labels.entry(key.to_owned()).or_insert_with(|| value.clone());
        }
    }
    let selector = spec.selector.get_or_insert_default();
    let matched: &mut BTreeMap<_, _> = selector.match_labels.get_or_insert_default();
    matched.entry(UID_LABELS[0].to_owned()).or_insert(uid);
}

fn status_text(job: &Job) -> &'static str {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
    let has = |kind: &str| {
        conditions
            .into_iter()
            .flatten()
            .any(|condition| condition.type_ == kind && condition.status == "True")
    };
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if job.metadata.deletion_timestamp.is_some() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else {
        "Running"
    }
}

fn completions(job: &Job) -> String {
    let succeeded = job.status.as_ref().and_then(|status| status.succeeded).unwrap_or(0);
    let spec = job.spec.as_ref();
    match (spec.and_then(|spec| spec.completions), spec.and_then(|spec| spec.parallelism)) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, Some(parallelism)) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        _ => format!("{succeeded}/1"),
    }
}

fn duration(job: &Job, now: Timestamp) -> String {
    let status = job.status.as_ref();
    let Some(start) = status.and_then(|status| columns::moment(&status.start_time)) else {
        return String::new();
    };
    let end = status.and_then(|status| columns::moment(&status.completion_time)).unwrap_or(now);
    columns::since(Some(start), end)
}

/// Also the spec inside a CronJob, which has no selector yet.
pub fn validate_spec(spec: &JobSpec, with_selector: bool, at: &At<'_>) {
    at.none_negative(&[
        ("parallelism", spec.parallelism),
        ("completions", spec.completions),
        ("backoffLimit", spec.backoff_limit),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index),
        ("maxFailedIndexes", spec.max_failed_indexes),
    ]);
    at.child("activeDeadlineSeconds").not_negative(spec.active_deadline_seconds.unwrap_or(0));
    if let Some(manager) = &spec.managed_by {
        let at = at.child("managedBy");
        at.domain_prefixed_path(manager);
        at.max_bytes(manager.len(), MAX_MANAGER);
    }
    at.child("completionMode").one_of_or_unset(&spec.completion_mode, &["Indexed", "NonIndexed"]);
    policies::validate_indexed(spec, at);
    policies::validate_failure(spec, at);
    policies::validate_success(spec, at);
    let fails = spec.pod_failure_policy.is_some();
    let replacements = ["Failed", "TerminatingOrFailed"];
    let replacements = &replacements[..if fails { 1 } else { 2 }];
    at.child("podReplacementPolicy").one_of_or_unset(&spec.pod_replacement_policy, replacements);
    let template = at.child("template");
    match (&spec.selector, with_selector) {
        (Some(selector), true) => {
            at.child("selector").label_selector(Some(selector));
            workload::template(&spec.template, selector, &template);
        }
        (None, true) => at.child("selector").required(""),
        (_, false) => validate::template(&spec.template, &template),
    }
    let policy = spec.template.spec.as_ref().map_or("", |spec| check::text(&spec.restart_policy));
    let own = template.child("spec.restartPolicy");
    match policy {
        "" | "Always" => own.required("valid values: \"OnFailure\", \"Never\""),
        "OnFailure" | "Never" => {}
        other => own.not_supported(other, &["OnFailure", "Never"]),
    }
    if fails && policy != "Never" {
        own.invalid(policy, "only \"Never\" is supported when podFailurePolicy is specified");
    }
}

/// Labels and selector are as generated, unless the client manages them.
fn validate_generated(job: &Job, spec: &JobSpec, at: &At<'_>) {
    let Some(selector) = spec.selector.as_ref().filter(|_| spec.manual_selector != Some(true))
    else {
        return;
    };
    let uid = job.metadata.uid.as_deref().unwrap_or_default();
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let metadata = spec.template.metadata.as_ref();
    let labels = metadata.and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    let mut expected = BTreeMap::new();
    for (keys, value) in [(UID_LABELS, uid), (NAME_LABELS, name)] {
        for key in keys {
            expected.insert(key.to_owned(), value.to_owned());
            if labels.get(key).is_none_or(|found| found != value) {
                at.entry("spec.template.metadata.labels", key)
                    .invalid(&labels, format!("must be '{value}'"));
            }
        }
    }
    let matches =
        Selector::from_label_selector(Some(selector)).is_ok_and(|own| own.matches(Some(&expected)));
    if !matches {
        at.child("spec.selector")
            .invalid(workload::printed(selector), "`selector` not auto-generated");
    }
}

/// The last pod of an indexed Job has the longest hostname.
fn validate_hostnames(job: &Job, spec: &JobSpec, at: &At<'_>) {
    let completions = spec.completions.unwrap_or(0);
    if spec.completion_mode.as_deref() != Some("Indexed") || completions <= 0 {
        return;
    }
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let longest = format!("{name}-{}", completions - 1);
    if !api::names::dns_label(&longest).is_empty() {
        let problem = format!("will not able to create pod with invalid DNS label: {longest}");
        at.child("metadata.name").invalid(name, problem);
    }
}

fn validate_immutable(new: &Job, spec: &JobSpec, was: &JobSpec, at: &At<'_>) {
    let elastic =
        spec.completion_mode.as_deref() == Some("Indexed") && spec.completions == spec.parallelism;
    if spec.completions != was.completions && !elastic {
        at.child("spec.completions").invalid(spec.completions, check::IMMUTABLE);
    }
    if spec.selector != was.selector {
        let value = spec.selector.as_ref().map(workload::printed);
        at.child("spec.selector").invalid(value, check::IMMUTABLE);
    }
    let started = new.status.as_ref().is_some_and(|status| status.start_time.is_some());
    let mut template = spec.template.clone();
    if was.suspend == Some(true) && !started {
        scheduling_undone(&mut template, &was.template);
    }
    if template != was.template {
        at.child("spec.template").invalid("", check::IMMUTABLE);
    }
    if spec.completion_mode != was.completion_mode {
        at.child("spec.completionMode").invalid(&spec.completion_mode, check::IMMUTABLE);
    }
    if spec.managed_by != was.managed_by {
        at.child("spec.managedBy").invalid(&spec.managed_by, check::IMMUTABLE);
    }
    if spec.pod_failure_policy != was.pod_failure_policy {
        at.child("spec.podFailurePolicy").invalid("", check::IMMUTABLE);
    }
    if spec.success_policy != was.success_policy {
        at.child("spec.successPolicy").invalid("", check::IMMUTABLE);
    }
    if spec.backoff_limit_per_index != was.backoff_limit_per_index {
        let value = spec.backoff_limit_per_index;
        at.child("spec.backoffLimitPerIndex").invalid(value, check::IMMUTABLE);
    }
}

/// The scheduling constraints of a suspended job that has never run may change.
fn scheduling_undone(template: &mut PodTemplateSpec, was: &PodTemplateSpec) {
    if let (Some(new), Some(old)) = (&mut template.spec, &was.spec) {
        new.node_selector.clone_from(&old.node_selector);
        new.affinity.clone_from(&old.affinity);
        new.tolerations.clone_from(&old.tolerations);
        new.scheduling_gates.clone_from(&old.scheduling_gates);
    }
    if let (Some(new), Some(old)) = (&mut template.metadata, &was.metadata) {
        new.labels.clone_from(&old.labels);
        new.annotations.clone_from(&old.annotations);
    }
}
