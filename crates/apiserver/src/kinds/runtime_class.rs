//! RuntimeClasses.

use super::check;
use super::path::Path;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::node::v1::RuntimeClass;
use serde_json::Value;

use super::{Column, Strategy, columns, fill};

/// The strategy of RuntimeClasses.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Handler", "Name of the runtime's configuration."),
    columns::AGE,
];

impl Strategy for Rules {
    type Object = RuntimeClass;

    fn default(&self, class: &mut RuntimeClass) {
        if let Some(overhead) = &mut class.overhead {
            fill::amounts(&mut overhead.pod_fixed);
        }
    }

    fn validate(&self, class: &RuntimeClass) -> Vec<FieldError> {
        let mut errors = Vec::new();
        check::dns_label(&class.handler, &Path::new("handler"), &mut errors);
        let overhead = class.overhead.as_ref();
        for (name, amount) in overhead.iter().flat_map(|all| all.pod_fixed.iter().flatten()) {
            let path = Path::new("overhead").child("podFixed").key(name);
            check::amount(amount, &path, &mut errors);
        }
        if let Some(scheduling) = &class.scheduling {
            let path = Path::new("scheduling").child("nodeSelector");
            check::labels(scheduling.node_selector.as_ref(), &path, &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &RuntimeClass, old: &RuntimeClass) -> Vec<FieldError> {
        if new.handler == old.handler {
            return Vec::new();
        }
        vec![FieldError::invalid("handler", &new.handler, check::IMMUTABLE)]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, class: &RuntimeClass, now: Timestamp) -> Vec<Value> {
        vec![
            columns::name(&class.metadata),
            class.handler.clone().into(),
            columns::age(&class.metadata, now),
        ]
    }
}
