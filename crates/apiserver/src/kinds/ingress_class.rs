//! IngressClasses.

use super::columns;
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
