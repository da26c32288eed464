//! EndpointSlices.

use super::columns;
use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::Value;

use super::{Column, Strategy, fill};

/// The strategy of EndpointSlices.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("AddressType", "Kind of the addresses."),
    columns::text("Ports", "Ports of every endpoint."),
    columns::text("Endpoints", "Addresses of the endpoints."),
    columns::AGE,
];

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

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, slice: &EndpointSlice, now: Timestamp) -> Vec<Value> {
        let ports = slice
            .ports
            .iter()
            .flatten()
            .map(|port| port.port.map_or("*".to_owned(), |port| port.to_string()));
        let addresses = slice
            .endpoints
            .iter()
            .flatten()
            .flat_map(|endpoint| endpoint.addresses.clone());
        vec![
            columns::name(&slice.metadata),
            slice.address_type.clone().into(),
            first_three(ports.collect(), "<unset>"),
            first_three(addresses.collect(), "<unset>"),
            columns::age(&slice.metadata, now),
        ]
    }
}

fn first_three(all: Vec<String>, empty: &str) -> Value {
    match all.len() {
        0 => empty.into(),
        1..=3 => all.join(",").into(),
        more => format!("{} + {} more...", all[..3].join(","), more - 3).into(),
    }
}
