//! PodTemplates.

use k8s_openapi::api::core::v1::PodTemplate;

use super::columns::{self, text};
use super::pod_spec::{defaults, validate};
use super::table::{Rows, name};

pub static RULES: Rows<PodTemplate> = Rows {
    default: |object| {
        defaults::template(object.template.get_or_insert_default());
    },
    judge: |object, at| {
        if let Some(template) = &object.template {
            validate::template(template, &at.child("template"));
        }
    },
    generation: |new, old| Some(new.template != old.template),
    columns: &[
        name(),
        text("Containers", "Names of each container in the template.")
            .of(|it| columns::container_names(it.template.as_ref())),
        text("Images", "Images of each container in the template.")
            .of(|it| columns::images(it.template.as_ref())),
        text("Pod Labels", "Labels of the pods.").of(|it| {
            let metadata = it.template.as_ref().and_then(|template| template.metadata.as_ref());
            columns::labels(metadata.and_then(|metadata| metadata.labels.as_ref()))
        }),
    ],
    ..Rows::NEW
};
