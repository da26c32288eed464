//! Deployments.

use super::check::{self, Errors};
use super::columns;
use super::path::Path;
use super::workload;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStrategy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::pod_spec::{defaults, warnings};
use super::rules::status_apart;
use super::{Column, Strategy, fill, status};

/// The strategy of Deployments.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Ready", "Ready pods of wanted pods."),
    columns::integer("Up-to-date", "Number of pods of the latest template."),
    columns::integer("Available", "Number of pods that have been ready for long enough."),
    columns::AGE,
    columns::CONTAINERS,
    columns::IMAGES,
    columns::SELECTOR,
];

impl Strategy for Rules {
    type Object = Deployment;

    status_apart!();

    fn default(&self, deployment: &mut Deployment) {
        let spec = &mut deployment.spec;
        defaults::template(&mut spec.template);
        fill::missing(&mut spec.replicas, 1);
        let strategy = spec.strategy.get_or_insert_default();
        fill::text(&mut strategy.type_, "RollingUpdate");
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let rolling = strategy.rolling_update.get_or_insert_default();
            let quarter = || IntOrString::String("25%".to_owned());
            fill::missing(&mut rolling.max_unavailable, quarter());
            fill::missing(&mut rolling.max_surge, quarter());
        }
        fill::missing(&mut spec.revision_history_limit, 10);
        fill::missing(&mut spec.progress_deadline_seconds, 600);
    }

    /// Annotations count as well: the deployment controller copies them to its ReplicaSets.
    fn generation_changes(&self, new: &Deployment, old: &Deployment) -> Option<bool> {
        Some(new.spec != old.spec || new.metadata.annotations != old.metadata.annotations)
    }

    fn validate_status_update(&self, new: &Deployment, old: &Deployment) -> Vec<FieldError> {
        let (now, before) =
            (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
        let counts = [
            ("unavailableReplicas", now.unavailable_replicas),
            ("terminatingReplicas", now.terminating_replicas),
            ("replicas", now.replicas),
            ("updatedReplicas", now.updated_replicas),
            ("readyReplicas", now.ready_replicas),
            ("availableReplicas", now.available_replicas),
        ];
        let mut errors = status::replicas(&counts, now.observed_generation, "readyReplicas");
        errors.extend(status::collisions(now.collision_count, before.collision_count));
        errors
    }

    fn warnings(&self, new: &Deployment, old: Option<&Deployment>) -> Vec<String> {
        if old.is_some_and(|old| old.spec == new.spec) {
            return Vec::new();
        }
        let mut all = Vec::new();
        if old.is_none() {
            all.extend(warnings::name(&new.metadata, "Pod names and hostnames"));
        }
        all.extend(warnings::template(&new.spec.template));
        all
    }

    fn validate(&self, deployment: &Deployment) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (spec, path) = (&deployment.spec, Path::new("spec"));
        workload::not_negative(&[("replicas", spec.replicas)], &path, &mut errors);
        workload::selector(&spec.selector, "deployment", &path.child("selector"), &mut errors);
        let template = path.child("template");
        workload::template(&spec.template, &spec.selector, &template, &mut errors);
        workload::runs_for_ever(&spec.template, "ReplicaSet", &template, &mut errors);
        if let Some(strategy) = &spec.strategy {
            validate_strategy(strategy, &path.child("strategy"), &mut errors);
        }
        let numbers = [
            ("minReadySeconds", spec.min_ready_seconds),
            ("revisionHistoryLimit", spec.revision_history_limit),
        ];
        workload::not_negative(&numbers, &path, &mut errors);
        if let Some(deadline) = spec.progress_deadline_seconds {
            let path = path.child("progressDeadlineSeconds");
            check::not_negative(deadline, &path, &mut errors);
            if deadline <= spec.min_ready_seconds.unwrap_or(0) {
                errors.push(FieldError::invalid(
                    path,
                    deadline,
                    "must be greater than minReadySeconds",
                ));
            }
        }
        errors
    }

    fn validate_update(&self, new: &Deployment, old: &Deployment) -> Vec<FieldError> {
        let mut errors = Vec::new();
        workload::immutable_selector(&new.spec.selector, &old.spec.selector, &mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, deployment: &Deployment, now: Timestamp) -> Vec<Value> {
        let status = deployment.status.clone().unwrap_or_default();
        let [names, images] = columns::template(Some(&deployment.spec.template));
        vec![
            columns::name(&deployment.metadata),
            format!(
                "{}/{}",
                status.ready_replicas.unwrap_or(0),
                deployment.spec.replicas.unwrap_or(0)
            )
            .into(),
            status.updated_replicas.unwrap_or(0).into(),
            status.available_replicas.unwrap_or(0).into(),
            columns::age(&deployment.metadata, now),
            names,
            images,
            columns::selector(Some(&deployment.spec.selector)),
        ]
    }
}

fn validate_strategy(strategy: &DeploymentStrategy, path: &Path, errors: &mut Errors) {
    let own = path.child("rollingUpdate");
    match (check::text(&strategy.type_), &strategy.rolling_update) {
        ("Recreate", Some(_)) => {
            let problem = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(FieldError::forbidden(own, problem));
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => {
            errors.push(FieldError::required(own, "this should be defaulted and never be nil"));
        }
        ("RollingUpdate", Some(rolling)) => {
            let (unavailable, surge) =
                (rolling.max_unavailable.as_ref(), rolling.max_surge.as_ref());
            if let Some(unavailable) = unavailable {
                check::number_or_percent(unavailable, &own.child("maxUnavailable"), errors);
                check::not_more_than_all(unavailable, &own.child("maxUnavailable"), errors);
            }
            if let Some(surge) = surge {
                check::number_or_percent(surge, &own.child("maxSurge"), errors);
            }
            if check::is_zero(unavailable) && check::is_zero(surge) {
                let value = unavailable.map(check::printed).unwrap_or_default();
                let problem = "may not be 0 when `maxSurge` is 0";
                errors.push(FieldError::invalid(own.child("maxUnavailable"), value, problem));
            }
        }
        (other, _) => {
            errors.push(FieldError::not_supported(
                path.child("type"),
                other,
                &["Recreate", "RollingUpdate"],
            ));
        }
    }
}
