//! PodTemplates.

use super::columns;
use super::path::Path;
use super::pod_spec::validate;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodTemplate;
use serde_json::Value;

use super::pod_spec::defaults;
use super::{Column, Strategy};

/// The strategy of PodTemplates.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Containers", "Names of each container in the template."),
    columns::text("Images", "Images of each container in the template."),
    columns::text("Pod Labels", "Labels of the pods."),
];

impl Strategy for Rules {
    type Object = PodTemplate;

    fn default(&self, object: &mut PodTemplate) {
        defaults::template(object.template.get_or_insert_default());
    }

    fn generation_changes(&self, new: &PodTemplate, old: &PodTemplate) -> Option<bool> {
        Some(new.template != old.template)
    }

    fn validate(&self, object: &PodTemplate) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Some(template) = &object.template {
            validate::template(template, &Path::new("template"), &mut errors);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &PodTemplate, _: Timestamp) -> Vec<Value> {
        let [names, images] = columns::template(object.template.as_ref());
        let metadata = object.template.as_ref().and_then(|template| template.metadata.as_ref());
        let labels = metadata.and_then(|metadata| metadata.labels.as_ref());
        vec![columns::name(&object.metadata), names, images, columns::labels(labels)]
    }
}
