//! PodDisruptionBudgets.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::Strategy;
use super::rules::{generation_of_spec, status_apart};

/// The strategy of PodDisruptionBudgets.
pub struct Rules;

impl Strategy for Rules {
    type Object = PodDisruptionBudget;

    status_apart!();
    generation_of_spec!();

    fn default(&self, budget: &mut PodDisruptionBudget) {
        budget.spec.get_or_insert_default();
    }
}
