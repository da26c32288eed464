//! EndpointSlices.

use std::net::IpAddr;

use api::address::canonical;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::at::At;
use super::check::{self, Unique};
use super::columns::{self, text};
use super::endpoints::{is_loopback, is_own};
use super::fill;
use super::table::{Rows, age, name};

/// Most endpoints of a slice.
const MAX_ENDPOINTS: usize = 1000;
/// Most addresses of an endpoint.
const MAX_ADDRESSES: usize = 100;
/// Most zones in an endpoint's hints.
const MAX_HINTS: usize = 8;

pub static RULES: Rows<EndpointSlice> = Rows {
    default: |slice| {
        for endpoint in slice.endpoints.iter_mut().flatten() {
            endpoint.conditions.get_or_insert_default();
        }
        for port in slice.ports.iter_mut().flatten() {
            fill::missing(&mut port.name, "");
            fill::text(&mut port.protocol, "TCP");
        }
    },
    judge: |slice, at| {
        let address_type = slice.address_type.as_str();
        at.child("addressType").one_of(address_type, &["FQDN", "IPv4", "IPv6"]);
        let endpoints = slice.endpoints.as_deref().unwrap_or_default();
        at.child("endpoints").max_items(endpoints.len(), MAX_ENDPOINTS);
        let own = is_own(&slice.metadata);
        for (index, endpoint) in endpoints.iter().enumerate() {
            let at = at.item("endpoints", index);
            validate_addresses(endpoint, address_type, own, &at);
            validate_endpoint(endpoint, &at);
        }
        let mut names = Unique::default();
        for (index, port) in slice.ports.iter().flatten().enumerate() {
            let at = at.item("ports", index);
            let name = check::text(&port.name);
            if !name.is_empty() {
                at.child("name").dns_label(name);
            }
            names.add(name, &at.child("name"));
            at.child("protocol").one_of(check::text(&port.protocol), check::PROTOCOLS);
        }
    },
    update: |new, old, at| {
        if new.address_type != old.address_type {
            at.child("addressType").invalid(&new.address_type, check::IMMUTABLE);
        }
    },
    // Everything but the rest of the metadata is spec.
    generation: |new, old| {
        let same = new.endpoints == old.endpoints
            && new.ports == old.ports
            && new.address_type == old.address_type
            && new.metadata.labels == old.metadata.labels
            && new.metadata.annotations == old.metadata.annotations;
        Some(!same)
    },
    columns: &[
        name(),
        text("AddressType", "Kind of the addresses.")
            .of(|slice| slice.address_type.as_str().into()),
        text("Ports", "Ports of every endpoint.").of(|slice| {
            let ports = slice.ports.iter().flatten().map(|port| port.port);
            let ports = ports.map(|port| port.map_or("*".to_owned(), |port| port.to_string()));
            columns::first_three(&ports.collect::<Vec<_>>(), "<unset>")
        }),
        text("Endpoints", "Addresses of the endpoints.").of(|slice| {
            let all = slice.endpoints.iter().flatten().flat_map(|own| own.addresses.clone());
            columns::first_three(&all.collect::<Vec<_>>(), "<unset>")
        }),
        age(),
    ],
    ..Rows::NEW
};

/// The addresses of an endpoint, each of the slice's type once it is canonical.
fn validate_addresses(endpoint: &Endpoint, address_type: &str, own: bool, at: &At<'_>) {
    let at = at.child("addresses");
    if endpoint.addresses.is_empty() {
        at.required("must contain at least 1 address");
    }
    at.max_items(endpoint.addresses.len(), MAX_ADDRESSES);
    for (index, address) in endpoint.addresses.iter().enumerate() {
        let at = at.index(index);
        match (address_type, address.parse::<IpAddr>().map(canonical)) {
            ("IPv4" | "IPv6", Ok(_)) if own && is_loopback(address) => {}
            ("IPv4", Ok(IpAddr::V4(_))) | ("IPv6", Ok(IpAddr::V6(_))) => {
                super::service::non_special_ip(address, &at)
            }
            ("IPv4", _) => at.invalid(address, "must be a valid IPv4 address"),
            ("IPv6", _) => at.invalid(address, "must be a valid IPv6 address"),
            ("FQDN", _) => at.dns_subdomain(address),
            _ => {}
        }
    }
}

fn validate_endpoint(endpoint: &Endpoint, at: &At<'_>) {
    if let Some(name) = &endpoint.node_name {
        at.child("nodeName").dns_subdomain(name);
    }
    if let Some(name) = &endpoint.hostname {
        at.child("hostname").dns_label(name);
    }
    let topology = at.child("deprecatedTopology");
    topology.labels(endpoint.deprecated_topology.as_ref());
    let hints = endpoint.hints.as_ref();
    let zones = hints.and_then(|hints| hints.for_zones.as_deref());
    let own = at.child("hints.forZones");
    let zones = zones.unwrap_or_default();
    own.max_items(zones.len(), MAX_HINTS);
    let mut seen = Unique::default();
    for (index, zone) in zones.iter().enumerate() {
        let at = own.part(index, "name");
        seen.add(&zone.name, &at);
        at.texts(api::names::label_value(&zone.name), &zone.name);
    }
}
