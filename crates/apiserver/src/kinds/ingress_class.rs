//! IngressClasses.

use k8s_openapi::api::networking::v1::IngressClass;

use super::rules::generation_of_spec;
use super::{Strategy, fill};

/// The strategy of IngressClasses.
pub struct Rules;

impl Strategy for Rules {
    type Object = IngressClass;

    generation_of_spec!();

    fn default(&self, class: &mut IngressClass) {
        if let Some(parameters) = &mut class.spec.get_or_insert_default().parameters {
            fill::text(&mut parameters.scope, "Cluster");
        }
    }
}
