//! StorageClasses.

use k8s_openapi::api::storage::v1::StorageClass;

use super::{Strategy, fill};

/// The strategy of StorageClasses.
pub struct Rules;

impl Strategy for Rules {
    type Object = StorageClass;

    fn default(&self, class: &mut StorageClass) {
        fill::text(&mut class.reclaim_policy, "Delete");
        fill::text(&mut class.volume_binding_mode, "Immediate");
    }
}
