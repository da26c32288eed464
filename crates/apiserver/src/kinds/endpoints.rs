//! Endpoints, the list of old beside EndpointSlices.

use k8s_openapi::api::core::v1::Endpoints;

use super::{Strategy, fill};

/// The strategy of Endpoints.
pub struct Rules;

impl Strategy for Rules {
    type Object = Endpoints;

    fn default(&self, endpoints: &mut Endpoints) {
        for subset in endpoints.subsets.iter_mut().flatten() {
            for port in subset.ports.iter_mut().flatten() {
                fill::text(&mut port.protocol, "TCP");
            }
        }
    }
}
