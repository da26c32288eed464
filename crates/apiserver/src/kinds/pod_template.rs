//! PodTemplates.

use k8s_openapi::api::core::v1::PodTemplate;

use super::Strategy;
use super::pod_spec::defaults;

/// The strategy of PodTemplates.
pub struct Rules;

impl Strategy for Rules {
    type Object = PodTemplate;

    fn default(&self, object: &mut PodTemplate) {
        defaults::template(object.template.get_or_insert_default());
    }

    fn generation_changes(&self, new: &PodTemplate, old: &PodTemplate) -> Option<bool> {
        Some(new.template != old.template)
    }
}
