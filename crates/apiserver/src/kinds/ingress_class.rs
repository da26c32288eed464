//! IngressClasses.

use super::columns;
use super::path::Path;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::IngressClass;
use serde_json::Value;

use super::rules::generation_of_spec;
use super::{Column, Strategy, fill};

/// The strategy of IngressClasses.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Controller", "Controller that handles the class."),
    columns::text("Parameters", "Object with further settings."),
    columns::AGE,
];

impl Strategy for Rules {
    type Object = IngressClass;

    generation_of_spec!();

    fn default(&self, class: &mut IngressClass) {
        if let Some(parameters) = &mut class.spec.get_or_insert_default().parameters {
            fill::text(&mut parameters.scope, "Cluster");
        }
    }

    fn validate(&self, class: &IngressClass) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = Path::new("spec").child("controller");
        let controller = class
            .spec
            .as_ref()
            .and_then(|spec| spec.controller.as_deref())
            .unwrap_or_default();
        if controller.is_empty() || !controller.contains('/') {
            let problem = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.push(FieldError::invalid(&path, controller, problem));
        }
        errors
    }

    fn validate_update(&self, new: &IngressClass, old: &IngressClass) -> Vec<FieldError> {
        let controller =
            |class: &IngressClass| class.spec.as_ref().and_then(|spec| spec.controller.clone());
        if controller(new) == controller(old) {
            return Vec::new();
        }
        vec![FieldError::invalid(
            "spec.controller",
            controller(new),
            "field is immutable",
        )]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, class: &IngressClass, now: Timestamp) -> Vec<Value> {
        let spec = class.spec.clone().unwrap_or_default();
        let parameters = spec.parameters.map(|parameters| {
            let group = parameters
                .api_group
                .map(|group| format!(".{group}"))
                .unwrap_or_default();
            format!("{}{group}/{}", parameters.kind, parameters.name)
        });
        vec![
            columns::name(&class.metadata),
            spec.controller.unwrap_or_default().into(),
            columns::or_none(parameters.as_deref()),
            columns::age(&class.metadata, now),
        ]
    }
}
