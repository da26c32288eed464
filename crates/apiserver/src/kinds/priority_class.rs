//! PriorityClasses.

use k8s_openapi::api::scheduling::v1::PriorityClass;

use super::columns::{boolean, integer, text};
use super::fill;
use super::table::{Check, Fixed, Rows, age, name, text_at};

/// Highest priority of a user-defined class.
const MAX_VALUE: i32 = 1_000_000_000;
/// The system's own classes.
const SYSTEM: &[(&str, i32)] =
    &[("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

pub static RULES: Rows<PriorityClass> = Rows {
    default: |class| fill::text(&mut class.preemption_policy, "PreemptLowerPriority"),
    checks: &[
        (
            "",
            Check::Relation(|class, at| {
                let name = text_at(class, "metadata.name");
                let value = class["value"].as_i64().unwrap_or_default();
                let system = SYSTEM.iter().any(|own| (own.0, i64::from(own.1)) == (name, value));
                if name.starts_with("system-") && !system {
                    at.child("metadata.name").forbidden(
                        "priority class names with 'system-' prefix are reserved for system use only",
                    );
                }
                if value > MAX_VALUE.into() && !system {
                    let why =
                        format!("maximum allowed value of a user defined priority is {MAX_VALUE}");
                    at.child("value").forbidden(why);
                }
            }),
        ),
        ("preemptionPolicy", Check::SetOneOf(&["Never", "PreemptLowerPriority"])),
    ],
    fixed: &[
        ("value", Fixed::Forbidden("may not be changed in an update.")),
        ("preemptionPolicy", Fixed::Immutable),
    ],
    // It never rises, since only the description of a class can change.
    generation: |_, _| Some(false),
    columns: &[
        name(),
        integer("Value", "The priority.").of(|class| class.value.into()),
        boolean("Global-Default", "Whether pods without a class get this one.")
            .flag("globalDefault", false),
        age(),
        text("PreemptionPolicy", "Whether pods of this class push out others.")
            .at("preemptionPolicy"),
    ],
    ..Rows::NEW
};
