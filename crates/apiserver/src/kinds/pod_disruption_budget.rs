//! PodDisruptionBudgets.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::Value;

use super::columns::{integer, text};
use super::table::{Check, Rows, age, name, status_apart};

pub static RULES: Rows<PodDisruptionBudget> = Rows {
    default: |budget| {
        budget.spec.get_or_insert_default();
    },
    parts: status_apart!(),
    checks: &[
        (
            "spec",
            Check::Relation(|spec, at| {
                if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
                    at.invalid("", "minAvailable and maxUnavailable cannot be both set");
                }
            }),
        ),
        ("spec.minAvailable", Check::AtMostAll),
        ("spec.maxUnavailable", Check::AtMostAll),
        ("spec.selector", Check::LabelSelector),
        ("spec.unhealthyPodEvictionPolicy", Check::SetOneOf(&["AlwaysAllow", "IfHealthyBudget"])),
    ],
    status: &[
        ("status.observedGeneration", Check::NotNegative),
        ("status.disruptionsAllowed", Check::NotNegative),
        ("status.currentHealthy", Check::NotNegative),
        ("status.desiredHealthy", Check::NotNegative),
        ("status.expectedPods", Check::NotNegative),
    ],
    generation: |new, old| Some(new.spec != old.spec),
    columns: &[
        name(),
        text("Min Available", "Pods that must stay available.")
            .json(|budget| amount(&budget["spec"]["minAvailable"])),
        text("Max Unavailable", "Pods that may be unavailable.")
            .json(|budget| amount(&budget["spec"]["maxUnavailable"])),
        integer("Allowed Disruptions", "Pods that may be evicted now.")
            .number("status.disruptionsAllowed"),
        age(),
    ],
    ..Rows::NEW
};

fn amount(amount: &Value) -> Value {
    match amount {
        Value::Null => "N/A".into(),
        Value::Number(number) => number.to_string().into(),
        percent => percent.clone(),
    }
}
