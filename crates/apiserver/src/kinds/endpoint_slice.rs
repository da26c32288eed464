//! EndpointSlices.

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::{Strategy, fill};

/// The strategy of EndpointSlices.
pub struct Rules;

impl Strategy for Rules {
    type Object = EndpointSlice;

    fn default(&self, slice: &mut EndpointSlice) {
        for port in slice.ports.iter_mut().flatten() {
            fill::missing(&mut port.name, "");
            fill::text(&mut port.protocol, "TCP");
        }
    }

    /// Everything but other metadata is spec.
    fn generation_changes(&self, new: &EndpointSlice, old: &EndpointSlice) -> Option<bool> {
        let same = new.endpoints == old.endpoints
            && new.ports == old.ports
            && new.address_type == old.address_type
            && new.metadata.labels == old.metadata.labels
            && new.metadata.annotations == old.metadata.annotations;
        Some(!same)
    }
}
