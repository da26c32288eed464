//! Ingresses.

use k8s_openapi::api::networking::v1::Ingress;

use super::Strategy;
use super::rules::{generation_of_spec, status_apart};

/// The strategy of Ingresses.
pub struct Rules;

impl Strategy for Rules {
    type Object = Ingress;

    status_apart!();
    generation_of_spec!();

    fn default(&self, ingress: &mut Ingress) {
        ingress.spec.get_or_insert_default();
    }
}
