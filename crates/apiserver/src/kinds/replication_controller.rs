//! ReplicationControllers.

use super::columns;
use super::path::Path;
use super::workload;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::pod_spec::{defaults, warnings};
use super::rules::{generation_of_spec, status_apart};
use super::{Column, Dependents, Strategy, fill, status};

/// The strategy of ReplicationControllers.
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
    type Object = ReplicationController;

    fn dependents(&self) -> Dependents {
        Dependents::Orphaned { warning: None }
    }

    status_apart!();
    generation_of_spec!();

    fn default(&self, controller: &mut ReplicationController) {
        let spec = controller.spec.get_or_insert_default();
        fill::missing(&mut spec.replicas, 1);
        let Some(template) = &mut spec.template else {
            return;
        };
        defaults::template(template);
        let labels = template.metadata.as_ref().and_then(|metadata| metadata.labels.clone());
        if let Some(labels) = labels {
            if spec.selector.as_ref().is_none_or(|selector| selector.is_empty()) {
                spec.selector = Some(labels.clone());
            }
            if controller.metadata.labels.as_ref().is_none_or(|own| own.is_empty()) {
                controller.metadata.labels = Some(labels);
            }
        }
    }

    fn validate_status_update(
        &self,
        new: &ReplicationController,
        _: &ReplicationController,
    ) -> Vec<FieldError> {
        let now = new.status.clone().unwrap_or_default();
        let counts = [
            ("replicas", Some(now.replicas)),
            ("fullyLabeledReplicas", now.fully_labeled_replicas),
            ("readyReplicas", now.ready_replicas),
            ("availableReplicas", now.available_replicas),
        ];
        status::replicas(&counts, now.observed_generation, "readyReplicas")
    }

    fn warnings(
        &self,
        new: &ReplicationController,
        old: Option<&ReplicationController>,
    ) -> Vec<String> {
        if old.is_some_and(|old| old.spec == new.spec) {
            return Vec::new();
        }
        let mut all = Vec::new();
        if old.is_none() {
            all.extend(warnings::name(&new.metadata, "Pod names and hostnames"));
        }
        if let Some(template) = new.spec.as_ref().and_then(|spec| spec.template.as_ref()) {
            all.extend(warnings::template(template));
        }
        all
    }

    fn validate(&self, controller: &ReplicationController) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = Path::new("spec");
        let Some(spec) = &controller.spec else {
            return errors;
        };
        let numbers = [("minReadySeconds", spec.min_ready_seconds), ("replicas", spec.replicas)];
        workload::not_negative(&numbers, &path, &mut errors);
        let selector =
            LabelSelector { match_labels: spec.selector.clone(), match_expressions: None };
        if spec.selector.as_ref().is_none_or(|selector| selector.is_empty()) {
            errors.push(FieldError::required(path.child("selector"), ""));
        }
        let own = path.child("template");
        match &spec.template {
            None => errors.push(FieldError::required(own, "")),
            Some(template) => {
                workload::template(template, &selector, &own, &mut errors);
                workload::runs_for_ever(template, "ReplicationController", &own, &mut errors);
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, controller: &ReplicationController, now: Timestamp) -> Vec<Value> {
        let status = controller.status.clone().unwrap_or_default();
        let spec = controller.spec.as_ref();
        let [names, images] = columns::template(spec.and_then(|spec| spec.template.as_ref()));
        vec![
            columns::name(&controller.metadata),
            spec.and_then(|spec| spec.replicas).unwrap_or(0).into(),
            status.replicas.into(),
            status.ready_replicas.unwrap_or(0).into(),
            columns::age(&controller.metadata, now),
            names,
            images,
            columns::labels(spec.and_then(|spec| spec.selector.as_ref())),
        ]
    }
}
