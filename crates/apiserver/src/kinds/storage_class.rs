//! StorageClasses.

use super::columns;
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
            class
                .allow_volume_expansion
                .unwrap_or(false)
                .to_string()
                .into(),
            columns::age(&class.metadata, now),
        ]
    }
}
