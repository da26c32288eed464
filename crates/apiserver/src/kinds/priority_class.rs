//! PriorityClasses.

use super::check;
use super::columns;
use super::path::Path;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::Value;

use super::{Column, Strategy, fill};

/// Highest priority of a user-defined class.
const MAX_VALUE: i32 = 1_000_000_000;
/// The system's own classes.
const SYSTEM: &[(&str, i32)] =
    &[("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// The strategy of PriorityClasses.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::integer("Value", "The priority."),
    Column {
        kind: "boolean",
        ..columns::text("Global-Default", "Whether pods without a class get this one.")
    },
    columns::AGE,
    columns::text("PreemptionPolicy", "Whether pods of this class push out others."),
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

    fn validate(&self, class: &PriorityClass) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let name = class.metadata.name.as_deref().unwrap_or_default();
        let value = class.value.unwrap_or(0);
        let system = SYSTEM.contains(&(name, value));
        if name.starts_with("system-") && !system {
            let problem =
                "priority class names with 'system-' prefix are reserved for system use only";
            errors.push(FieldError::forbidden("metadata.name", problem));
        }
        if value > MAX_VALUE && !system {
            let problem =
                format!("maximum allowed value of a user defined priority is {MAX_VALUE}");
            errors.push(FieldError::forbidden("value", problem));
        }
        let policies = &["Never", "PreemptLowerPriority"];
        check::one_of_or_unset(
            &class.preemption_policy,
            policies,
            &Path::new("preemptionPolicy"),
            &mut errors,
        );
        errors
    }

    fn validate_update(&self, new: &PriorityClass, old: &PriorityClass) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if new.value.unwrap_or(0) != old.value.unwrap_or(0) {
            errors.push(FieldError::forbidden("value", "may not be changed in an update."));
        }
        if new.preemption_policy != old.preemption_policy {
            errors.push(FieldError::invalid(
                "preemptionPolicy",
                &new.preemption_policy,
                check::IMMUTABLE,
            ));
        }
        errors
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
