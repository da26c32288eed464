//! RuntimeClasses.

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
