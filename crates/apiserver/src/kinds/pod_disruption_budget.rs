//! PodDisruptionBudgets.

use super::check;
use super::columns;
use super::path::Path;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::rules::{generation_of_spec, status_apart};
use super::{Column, Strategy, status};

/// The strategy of PodDisruptionBudgets.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Min Available", "Pods that must stay available."),
    columns::text("Max Unavailable", "Pods that may be unavailable."),
    columns::integer("Allowed Disruptions", "Pods that may be evicted now."),
    columns::AGE,
];

impl Strategy for Rules {
    type Object = PodDisruptionBudget;

    status_apart!();
    generation_of_spec!();

    fn default(&self, budget: &mut PodDisruptionBudget) {
        budget.spec.get_or_insert_default();
    }

    fn validate_status_update(
        &self,
        new: &PodDisruptionBudget,
        _: &PodDisruptionBudget,
    ) -> Vec<FieldError> {
        let now = new.status.clone().unwrap_or_default();
        let counts = [
            ("disruptionsAllowed", now.disruptions_allowed),
            ("currentHealthy", now.current_healthy),
            ("desiredHealthy", now.desired_healthy),
            ("expectedPods", now.expected_pods),
        ];
        status::not_negative(&counts, now.observed_generation)
    }

    fn validate(&self, budget: &PodDisruptionBudget) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = Path::new("spec");
        let Some(spec) = &budget.spec else {
            return errors;
        };
        if spec.min_available.is_some() && spec.max_unavailable.is_some() {
            let problem = "minAvailable and maxUnavailable cannot be both set";
            errors.push(FieldError::invalid(&path, "", problem));
        }
        for (field, amount) in
            [("minAvailable", &spec.min_available), ("maxUnavailable", &spec.max_unavailable)]
        {
            if let Some(amount) = amount {
                check::number_or_percent(amount, &path.child(field), &mut errors);
                check::not_more_than_all(amount, &path.child(field), &mut errors);
            }
        }
        check::label_selector(spec.selector.as_ref(), &path.child("selector"), &mut errors);
        let policies = &["AlwaysAllow", "IfHealthyBudget"];
        let own = path.child("unhealthyPodEvictionPolicy");
        check::one_of_or_unset(&spec.unhealthy_pod_eviction_policy, policies, &own, &mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, budget: &PodDisruptionBudget, now: Timestamp) -> Vec<Value> {
        let spec = budget.spec.clone().unwrap_or_default();
        let amount = |amount: Option<IntOrString>| match amount {
            None => Value::from("N/A"),
            Some(IntOrString::Int(number)) => number.to_string().into(),
            Some(IntOrString::String(text)) => text.into(),
        };
        vec![
            columns::name(&budget.metadata),
            amount(spec.min_available),
            amount(spec.max_unavailable),
            budget
                .status
                .as_ref()
                .and_then(|status| status.disruptions_allowed)
                .unwrap_or(0)
                .into(),
            columns::age(&budget.metadata, now),
        ]
    }
}
