//! StorageClasses.

use api::storage_class;
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::Value;

use super::columns::{NAME, text};
use super::fill;
use super::storage::provisioner;
use super::table::{Check, Fixed, Rows, age, text_at};

pub static RULES: Rows<StorageClass> = Rows {
    default: |class| {
        fill::text(&mut class.reclaim_policy, "Delete");
        fill::text(&mut class.volume_binding_mode, "Immediate");
    },
    checks: &[
        ("provisioner", Check::RequiredText(provisioner)),
        (
            "parameters",
            Check::Relation(|parameters, at| {
                if parameters.get("").is_some() {
                    at.invalid("", "field must not be empty.");
                }
            }),
        ),
        ("reclaimPolicy", Check::SetOneOf(&["Delete", "Retain"])),
        ("volumeBindingMode", Check::RequiredOneOf(&["Immediate", "WaitForFirstConsumer"])),
    ],
    fixed: &[
        ("parameters", Fixed::Forbidden("updates to parameters are forbidden.")),
        ("provisioner", Fixed::Forbidden("updates to provisioner are forbidden.")),
        ("reclaimPolicy", Fixed::Forbidden("updates to reclaimPolicy are forbidden.")),
        ("volumeBindingMode", Fixed::Immutable),
    ],
    columns: &[
        NAME.json(marked_name),
        text("Provisioner", "Who makes the volumes.").at("provisioner"),
        text("ReclaimPolicy", "What happens when a claim is gone.").at("reclaimPolicy"),
        text("VolumeBindingMode", "When volumes are made and bound.").at("volumeBindingMode"),
        text("AllowVolumeExpansion", "Whether volumes can grow.")
            .of(|class| class.allow_volume_expansion.unwrap_or(false).to_string().into()),
        age(),
    ],
    ..Rows::NEW
};

/// `standard (default)`
fn marked_name(class: &Value) -> Value {
    let name = text_at(class, "metadata.name");
    let annotations = &class["metadata"]["annotations"];
    let is_default =
        storage_class::DEFAULT_ANNOTATIONS.iter().any(|key| annotations[key] == "true");
    format!("{name}{}", if is_default { " (default)" } else { "" }).into()
}
