//! Jobs.

mod policies;

use super::check::{self, Errors};
use super::columns;
use super::path::Path;
use super::pod_spec::validate;
use super::workload;
use api::labels::Selector;
use api::status::FieldError;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::pod_spec::{defaults, warnings};
use super::rules::generation_of_spec;
use super::{Column, Context, Dependents, Strategy, fill};

/// Labels that tie pods to their Job, with their legacy names.
const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

/// Longest `managedBy`, in bytes.
const MAX_MANAGER: usize = 63;

/// Upstream's warning.
const PRESERVED: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";

/// The strategy of Jobs.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Status", "Status of the job."),
    columns::text("Completions", "Pods that succeeded, of those wanted."),
    columns::text("Duration", "Time required to complete the job."),
    columns::AGE,
    columns::CONTAINERS,
    columns::IMAGES,
    columns::SELECTOR,
];

impl Strategy for Rules {
    type Object = Job;

    fn dependents(&self) -> Dependents {
        Dependents::Orphaned { warning: Some(PRESERVED) }
    }

    generation_of_spec!();

    fn default(&self, job: &mut Job) {
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
    }

    /// The selector is generated from the uid, unless the client manages it.
    fn prepare_create(&self, job: &mut Job, _: &Context<'_>) {
        generate_selector(job);
        job.status = Some(Default::default());
    }

    fn prepare_update(&self, new: &mut Job, old: &Job, _: &Context<'_>) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(&self, new: &mut Job, old: &Job, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
    }

    fn warnings(&self, new: &Job, old: Option<&Job>) -> Vec<String> {
        if old.is_some_and(|old| old.spec == new.spec) {
            return Vec::new();
        }
        let mut all = Vec::new();
        if old.is_none() {
            all.extend(warnings::name(&new.metadata, "Pod names and hostnames"));
        }
        if let Some(spec) = &new.spec {
            all.extend(warnings::template(&spec.template));
        }
        all
    }

    fn validate(&self, job: &Job) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Some(spec) = &job.spec {
            validate_spec(spec, true, &Path::new("spec"), &mut errors);
        }
        errors
    }

    fn validate_create(&self, job: &Job) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Some(spec) = &job.spec {
            validate_generated(job, spec, &mut errors);
            validate_hostnames(job, spec, &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &Job, old: &Job) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let (Some(spec), Some(was)) = (&new.spec, &old.spec) {
            validate_immutable(new, spec, was, &mut errors);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, job: &Job, now: Timestamp) -> Vec<Value> {
        let spec = job.spec.as_ref();
        let [names, images] = columns::template(spec.map(|spec| &spec.template));
        vec![
            columns::name(&job.metadata),
            status_text(job).into(),
            completions(job).into(),
            duration(job, now).into(),
            columns::age(&job.metadata, now),
            names,
            images,
            columns::selector(spec.and_then(|spec| spec.selector.as_ref())),
        ]
    }
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
pub fn validate_spec(spec: &JobSpec, with_selector: bool, path: &Path, errors: &mut Errors) {
    let numbers = [
        ("parallelism", spec.parallelism),
        ("completions", spec.completions),
        ("backoffLimit", spec.backoff_limit),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index),
        ("maxFailedIndexes", spec.max_failed_indexes),
    ];
    workload::not_negative(&numbers, path, errors);
    check::not_negative(
        spec.active_deadline_seconds.unwrap_or(0),
        &path.child("activeDeadlineSeconds"),
        errors,
    );
    if let Some(manager) = &spec.managed_by {
        let path = path.child("managedBy");
        check::domain_prefixed_path(manager, &path, errors);
        if manager.len() > MAX_MANAGER {
            errors.push(FieldError::too_long(&path, MAX_MANAGER));
        }
    }
    check::one_of_or_unset(
        &spec.completion_mode,
        &["Indexed", "NonIndexed"],
        &path.child("completionMode"),
        errors,
    );
    policies::validate_indexed(spec, path, errors);
    policies::validate_failure(spec, path, errors);
    policies::validate_success(spec, path, errors);
    let replacements: &[&str] = if spec.pod_failure_policy.is_some() {
        &["Failed"]
    } else {
        &["Failed", "TerminatingOrFailed"]
    };
    check::one_of_or_unset(
        &spec.pod_replacement_policy,
        replacements,
        &path.child("podReplacementPolicy"),
        errors,
    );
    let template = path.child("template");
    match (&spec.selector, with_selector) {
        (Some(selector), true) => {
            check::label_selector(Some(selector), &path.child("selector"), errors);
            workload::template(&spec.template, selector, &template, errors);
        }
        (None, true) => errors.push(FieldError::required(path.child("selector"), "")),
        (_, false) => validate::template(&spec.template, &template, errors),
    }
    let policy = spec
        .template
        .spec
        .as_ref()
        .and_then(|spec| spec.restart_policy.as_deref())
        .unwrap_or_default();
    let own = template.child("spec").child("restartPolicy");
    match policy {
        "" | "Always" => {
            errors.push(FieldError::required(own, "valid values: \"OnFailure\", \"Never\""))
        }
        "OnFailure" | "Never" => {}
        other => errors.push(FieldError::not_supported(own, other, &["OnFailure", "Never"])),
    }
    if spec.pod_failure_policy.is_some() && policy != "Never" {
        let problem = "only \"Never\" is supported when podFailurePolicy is specified";
        errors.push(FieldError::invalid(
            template.child("spec").child("restartPolicy"),
            policy,
            problem,
        ));
    }
}

/// Labels and selector are as generated, unless the client manages them.
fn validate_generated(job: &Job, spec: &JobSpec, errors: &mut Errors) {
    let Some(selector) = spec.selector.as_ref().filter(|_| spec.manual_selector != Some(true))
    else {
        return;
    };
    let uid = job.metadata.uid.as_deref().unwrap_or_default();
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let labels = spec
        .template
        .metadata
        .as_ref()
        .and_then(|metadata| metadata.labels.clone())
        .unwrap_or_default();
    let mut expected = BTreeMap::new();
    for (keys, value) in [(UID_LABELS, uid), (NAME_LABELS, name)] {
        for key in keys {
            expected.insert(key.to_owned(), value.to_owned());
            if labels.get(key).is_none_or(|found| found != value) {
                errors.push(FieldError::invalid(
                    format!("spec.template.metadata.labels[{key}]"),
                    &labels,
                    format!("must be '{value}'"),
                ));
            }
        }
    }
    let matches =
        Selector::from_label_selector(Some(selector)).is_ok_and(|own| own.matches(Some(&expected)));
    if !matches {
        let problem = "`selector` not auto-generated";
        errors.push(FieldError::invalid("spec.selector", workload::printed(selector), problem));
    }
}

/// The last pod of an indexed Job has the longest hostname.
fn validate_hostnames(job: &Job, spec: &JobSpec, errors: &mut Errors) {
    let completions = spec.completions.unwrap_or(0);
    if spec.completion_mode.as_deref() != Some("Indexed") || completions <= 0 {
        return;
    }
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let longest = format!("{name}-{}", completions - 1);
    if !api::names::dns_label(&longest).is_empty() {
        let problem = format!("will not able to create pod with invalid DNS label: {longest}");
        errors.push(FieldError::invalid("metadata.name", name, problem));
    }
}

fn validate_immutable(new: &Job, spec: &JobSpec, was: &JobSpec, errors: &mut Errors) {
    let elastic =
        spec.completion_mode.as_deref() == Some("Indexed") && spec.completions == spec.parallelism;
    if spec.completions != was.completions && !elastic {
        errors.push(FieldError::invalid("spec.completions", spec.completions, check::IMMUTABLE));
    }
    if spec.selector != was.selector {
        let value = spec.selector.as_ref().map(workload::printed);
        errors.push(FieldError::invalid("spec.selector", value, check::IMMUTABLE));
    }
    let started = new.status.as_ref().is_some_and(|status| status.start_time.is_some());
    let mut template = spec.template.clone();
    if was.suspend == Some(true) && !started {
        scheduling_undone(&mut template, &was.template);
    }
    if template != was.template {
        errors.push(FieldError::invalid("spec.template", "", check::IMMUTABLE));
    }
    let texts = [
        ("completionMode", &spec.completion_mode, &was.completion_mode),
        ("managedBy", &spec.managed_by, &was.managed_by),
    ];
    for (field, value, _) in texts.into_iter().filter(|(_, new, old)| new != old) {
        errors.push(FieldError::invalid(format!("spec.{field}"), value, check::IMMUTABLE));
    }
    if spec.pod_failure_policy != was.pod_failure_policy {
        errors.push(FieldError::invalid("spec.podFailurePolicy", "", check::IMMUTABLE));
    }
    if spec.success_policy != was.success_policy {
        errors.push(FieldError::invalid("spec.successPolicy", "", check::IMMUTABLE));
    }
    if spec.backoff_limit_per_index != was.backoff_limit_per_index {
        let value = spec.backoff_limit_per_index;
        errors.push(FieldError::invalid("spec.backoffLimitPerIndex", value, check::IMMUTABLE));
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
