//! ReplicaSets.

use super::columns;
use super::path::Path;
use super::workload;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::Value;

use super::pod_spec::{defaults, warnings};
use super::rules::{generation_of_spec, status_apart};
use super::{Column, Strategy, fill, status};

/// The strategy of ReplicaSets.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::integer("Desired", "Number of pods wanted."),
    columns::integer("Current", "Number of pods there are."),
    columns::integer("Ready", "Number of pods that are ready."),
    columns::AGE,
    columns::CONTAINERS,
    columns::IMAGES,
    columns::SELECTOR,
];

impl Strategy for Rules {
    type Object = ReplicaSet;

    status_apart!();
    generation_of_spec!();

    fn default(&self, set: &mut ReplicaSet) {
        let spec = &mut set.spec;
        fill::missing(&mut spec.replicas, 1);
        defaults::template(spec.template.get_or_insert_default());
    }

    fn validate_status_update(&self, new: &ReplicaSet, _: &ReplicaSet) -> Vec<FieldError> {
        let now = new.status.clone().unwrap_or_default();
        let counts = [
            ("replicas", Some(now.replicas)),
            ("fullyLabeledReplicas", now.fully_labeled_replicas),
            ("readyReplicas", now.ready_replicas),
            ("availableReplicas", now.available_replicas),
        ];
        status::replicas(&counts, now.observed_generation, "readyReplicas")
    }

    fn warnings(&self, new: &ReplicaSet, old: Option<&ReplicaSet>) -> Vec<String> {
        if old.is_some_and(|old| old.spec == new.spec) {
            return Vec::new();
        }
        let mut all = Vec::new();
        if old.is_none() {
            all.extend(warnings::name(&new.metadata, "Pod names and hostnames"));
        }
        if let Some(template) = &new.spec.template {
            all.extend(warnings::template(template));
        }
        all
    }

    fn validate(&self, set: &ReplicaSet) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (spec, path) = (&set.spec, Path::new("spec"));
        let numbers = [("replicas", spec.replicas), ("minReadySeconds", spec.min_ready_seconds)];
        workload::not_negative(&numbers, &path, &mut errors);
        workload::selector(&spec.selector, "deployment", &path.child("selector"), &mut errors);
        let own = path.child("template");
        match &spec.template {
            None => errors.push(FieldError::required(own, "")),
            Some(template) => {
                workload::template(template, &spec.selector, &own, &mut errors);
                workload::runs_for_ever(template, "ReplicaSet", &own, &mut errors);
            }
        }
        errors
    }

    fn validate_update(&self, new: &ReplicaSet, old: &ReplicaSet) -> Vec<FieldError> {
        let mut errors = Vec::new();
        workload::immutable_selector(&new.spec.selector, &old.spec.selector, &mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, set: &ReplicaSet, now: Timestamp) -> Vec<Value> {
        let status = set.status.clone().unwrap_or_default();
        let [names, images] = columns::template(set.spec.template.as_ref());
        vec![
            columns::name(&set.metadata),
            set.spec.replicas.unwrap_or(0).into(),
            status.replicas.into(),
            status.ready_replicas.unwrap_or(0).into(),
            columns::age(&set.metadata, now),
            names,
            images,
            columns::selector(Some(&set.spec.selector)),
        ]
    }
}
