//! PriorityClasses.

use super::columns;
use jiff::Timestamp;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::Value;

use super::{Column, Strategy, fill};

/// The strategy of PriorityClasses.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::integer("Value", "The priority."),
    Column {
        kind: "boolean",
        ..columns::text(
            "Global-Default",
            "Whether pods without a class get this one.",
        )
    },
    columns::AGE,
    columns::text(
        "PreemptionPolicy",
        "Whether pods of this class push out others.",
    ),
];

impl Strategy for Rules {
    type Object = PriorityClass;

    fn default(&self, class: &mut PriorityClass) {
        fill::text(&mut class.preemption_policy, "PreemptLowerPriority");
    }

    /// A class has a generation that never rises, since only its description can change.
    fn generation_changes(&self, _: &PriorityClass, _: &PriorityClass) -> Option<bool> {
        Some(false)
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, class: &PriorityClass, now: Timestamp) -> Vec<Value> {
        vec![
            columns::name(&class.metadata),
            class.value.into(),
            class.global_default.unwrap_or(false).into(),
            columns::age(&class.metadata, now),
            class.preemption_policy.clone().unwrap_or_default().into(),
        ]
    }
}
