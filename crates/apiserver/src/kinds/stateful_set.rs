//! StatefulSets.

use super::check::{self, Errors};
use super::columns;
use super::path::Path;
use super::semantic;
use super::workload;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use serde_json::Value;

use super::pod_spec::{defaults, warnings};
use super::rules::{generation_of_spec, status_apart};
use super::{Column, Strategy, fill, persistent_volume_claim, status};

/// The strategy of StatefulSets.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Ready", "Ready pods of wanted pods."),
    columns::AGE,
    columns::CONTAINERS,
    columns::IMAGES,
];

impl Strategy for Rules {
    type Object = StatefulSet;

    status_apart!();
    generation_of_spec!();

    fn default(&self, set: &mut StatefulSet) {
        let spec = &mut set.spec;
        defaults::template(&mut spec.template);
        fill::text(&mut spec.pod_management_policy, "OrderedReady");
        let update = spec.update_strategy.get_or_insert_default();
        if update.type_.as_deref().unwrap_or_default().is_empty() {
            fill::text(&mut update.type_, "RollingUpdate");
            update.rolling_update.get_or_insert_default();
        }
        if let Some(rolling) = &mut update.rolling_update
            && update.type_.as_deref() == Some("RollingUpdate")
        {
            fill::missing(&mut rolling.partition, 0);
        }
        let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
        fill::text(&mut retention.when_deleted, "Retain");
        fill::text(&mut retention.when_scaled, "Retain");
        fill::missing(&mut spec.replicas, 1);
        fill::missing(&mut spec.revision_history_limit, 10);
        for claim in spec.volume_claim_templates.iter_mut().flatten() {
            persistent_volume_claim::default(claim);
        }
    }

    fn validate_status_update(&self, new: &StatefulSet, old: &StatefulSet) -> Vec<FieldError> {
        let (now, before) =
            (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
        let counts = [
            ("replicas", Some(now.replicas)),
            ("readyReplicas", now.ready_replicas),
            ("currentReplicas", now.current_replicas),
            ("updatedReplicas", now.updated_replicas),
            ("availableReplicas", now.available_replicas),
        ];
        let mut errors = status::replicas(&counts, now.observed_generation, "status.readyReplicas");
        errors.extend(status::collisions(now.collision_count, before.collision_count));
        errors
    }

    fn warnings(&self, new: &StatefulSet, old: Option<&StatefulSet>) -> Vec<String> {
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

    fn validate(&self, set: &StatefulSet) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (spec, path) = (&set.spec, Path::new("spec"));
        validate_policies(spec, &path, &mut errors);
        let numbers = [
            ("replicas", spec.replicas),
            ("minReadySeconds", spec.min_ready_seconds),
            ("revisionHistoryLimit", spec.revision_history_limit),
        ];
        workload::not_negative(&numbers, &path, &mut errors);
        let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start);
        workload::not_negative(&[("start", start)], &path.child("ordinals"), &mut errors);
        workload::selector(&spec.selector, "statefulset", &path.child("selector"), &mut errors);
        let own = path.child("template");
        workload::stateful_template(&spec.template, &spec.selector, &own, &mut errors);
        workload::runs_for_ever(&spec.template, "StatefulSet", &own, &mut errors);
        errors
    }

    fn validate_update(&self, new: &StatefulSet, old: &StatefulSet) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut kept = new.clone();
        let (spec, was) = (&mut kept.spec, &old.spec);
        spec.replicas = was.replicas;
        spec.template.clone_from(&was.template);
        spec.update_strategy.clone_from(&was.update_strategy);
        spec.min_ready_seconds = was.min_ready_seconds;
        spec.ordinals.clone_from(&was.ordinals);
        spec.revision_history_limit = was.revision_history_limit;
        spec.persistent_volume_claim_retention_policy
            .clone_from(&was.persistent_volume_claim_retention_policy);
        if semantic::field(&kept, "spec") != semantic::field(old, "spec") {
            errors.push(FieldError::forbidden("spec", "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, set: &StatefulSet, now: Timestamp) -> Vec<Value> {
        let ready = set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
        let [names, images] = columns::template(Some(&set.spec.template));
        vec![
            columns::name(&set.metadata),
            format!("{ready}/{}", set.spec.replicas.unwrap_or(0)).into(),
            columns::age(&set.metadata, now),
            names,
            images,
        ]
    }
}

fn validate_policies(spec: &StatefulSetSpec, path: &Path, errors: &mut Errors) {
    let own = path.child("podManagementPolicy");
    match check::text(&spec.pod_management_policy) {
        "" => errors.push(FieldError::required(own, "")),
        "OrderedReady" | "Parallel" => {}
        other => {
            errors.push(FieldError::invalid(own, other, "must be 'OrderedReady' or 'Parallel'"))
        }
    }
    let path_of_retention = path.child("persistentVolumeClaimRetentionPolicy");
    if let Some(policy) = &spec.persistent_volume_claim_retention_policy {
        for (field, value) in
            [("whenDeleted", &policy.when_deleted), ("whenScaled", &policy.when_scaled)]
        {
            let value = check::text(value);
            check::one_of(value, &["Delete", "Retain"], &path_of_retention.child(field), errors);
        }
    }
    let own = path.child("updateStrategy");
    let Some(update) = &spec.update_strategy else {
        return;
    };
    match (check::text(&update.type_), &update.rolling_update) {
        ("", _) => errors.push(FieldError::required(own, "")),
        ("OnDelete", Some(_)) => {
            let problem = "only allowed for updateStrategy 'RollingUpdate'";
            errors.push(FieldError::invalid(own.child("rollingUpdate"), "", problem));
        }
        ("RollingUpdate", Some(rolling)) => {
            let own = own.child("rollingUpdate");
            check::not_negative(rolling.partition.unwrap_or(0), &own.child("partition"), errors);
            if let Some(unavailable) = &rolling.max_unavailable {
                let own = own.child("maxUnavailable");
                check::number_or_percent(unavailable, &own, errors);
                check::not_more_than_all(unavailable, &own, errors);
                if check::is_zero(Some(unavailable)) {
                    errors.push(FieldError::invalid(
                        own,
                        check::printed(unavailable),
                        "cannot be 0",
                    ));
                }
            }
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        (other, _) => {
            errors.push(FieldError::invalid(own, other, "must be 'RollingUpdate' or 'OnDelete'"))
        }
    }
}
