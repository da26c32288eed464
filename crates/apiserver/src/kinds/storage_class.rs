//! StorageClasses.

use super::check;
use super::columns;
use super::path::Path;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::Value;

use super::{Column, Strategy, fill};

/// Annotations that make a class the default one.
const DEFAULT_ANNOTATIONS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

/// The strategy of StorageClasses.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Provisioner", "Who makes the volumes."),
    columns::text("ReclaimPolicy", "What happens when a claim is gone."),
    columns::text("VolumeBindingMode", "When volumes are made and bound."),
    columns::text("AllowVolumeExpansion", "Whether volumes can grow."),
    columns::AGE,
];

impl Strategy for Rules {
    type Object = StorageClass;

    fn default(&self, class: &mut StorageClass) {
        fill::text(&mut class.reclaim_policy, "Delete");
        fill::text(&mut class.volume_binding_mode, "Immediate");
    }

    fn validate(&self, class: &StorageClass) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if class.provisioner.is_empty() {
            errors.push(FieldError::required("provisioner", &class.provisioner));
        } else {
            let name = class.provisioner.to_lowercase();
            check::invalid(
                api::names::qualified_name(&name),
                &class.provisioner,
                &Path::new("provisioner"),
                &mut errors,
            );
        }
        if class.parameters.iter().flatten().any(|(key, _)| key.is_empty()) {
            errors.push(FieldError::invalid("parameters", "", "field must not be empty."));
        }
        check::one_of_or_unset(
            &class.reclaim_policy,
            &["Delete", "Retain"],
            &Path::new("reclaimPolicy"),
            &mut errors,
        );
        let mode = check::text(&class.volume_binding_mode);
        check::one_of(
            mode,
            &["Immediate", "WaitForFirstConsumer"],
            &Path::new("volumeBindingMode"),
            &mut errors,
        );
        errors
    }

    fn validate_update(&self, new: &StorageClass, old: &StorageClass) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if new.parameters.clone().unwrap_or_default() != old.parameters.clone().unwrap_or_default()
        {
            errors
                .push(FieldError::forbidden("parameters", "updates to parameters are forbidden."));
        }
        if new.provisioner != old.provisioner {
            errors.push(FieldError::forbidden(
                "provisioner",
                "updates to provisioner are forbidden.",
            ));
        }
        if new.reclaim_policy != old.reclaim_policy {
            errors.push(FieldError::forbidden(
                "reclaimPolicy",
                "updates to reclaimPolicy are forbidden.",
            ));
        }
        if new.volume_binding_mode != old.volume_binding_mode {
            errors.push(FieldError::invalid(
                "volumeBindingMode",
                &new.volume_binding_mode,
                check::IMMUTABLE,
            ));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, class: &StorageClass, now: Timestamp) -> Vec<Value> {
        let is_default = DEFAULT_ANNOTATIONS.iter().any(|key| {
            class
                .metadata
                .annotations
                .as_ref()
                .and_then(|all| all.get(*key))
                .is_some_and(|value| value == "true")
        });
        let name = class.metadata.name.clone().unwrap_or_default();
        vec![
            format!("{name}{}", if is_default { " (default)" } else { "" }).into(),
            class.provisioner.clone().into(),
            class.reclaim_policy.clone().unwrap_or_default().into(),
            class.volume_binding_mode.clone().unwrap_or_default().into(),
            class.allow_volume_expansion.unwrap_or(false).to_string().into(),
            columns::age(&class.metadata, now),
        ]
    }
}
