//! EndpointSlices.

use std::net::IpAddr;

use super::check::{self, Errors, Unique};
use super::columns;
use super::endpoints::{is_loopback, is_own};
use super::path::Path;
use api::address::canonical;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use serde_json::Value;

use super::{Column, Strategy, fill};

/// Most endpoints of a slice.
const MAX_ENDPOINTS: usize = 1000;
/// Most addresses of an endpoint.
const MAX_ADDRESSES: usize = 100;
/// Most zones in an endpoint's hints.
const MAX_HINTS: usize = 8;

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
        for endpoint in slice.endpoints.iter_mut().flatten() {
            endpoint.conditions.get_or_insert_default();
        }
        for port in slice.ports.iter_mut().flatten() {
            fill::missing(&mut port.name, "");
            fill::text(&mut port.protocol, "TCP");
        }
    }

    /// Everything but the rest of the metadata is spec.
    fn generation_changes(&self, new: &EndpointSlice, old: &EndpointSlice) -> Option<bool> {
        let same = new.endpoints == old.endpoints
            && new.ports == old.ports
            && new.address_type == old.address_type
            && new.metadata.labels == old.metadata.labels
            && new.metadata.annotations == old.metadata.annotations;
        Some(!same)
    }

    fn validate(&self, slice: &EndpointSlice) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let address_type = slice.address_type.as_str();
        check::one_of(
            address_type,
            &["FQDN", "IPv4", "IPv6"],
            &Path::new("addressType"),
            &mut errors,
        );
        let endpoints = slice.endpoints.as_deref().unwrap_or_default();
        if endpoints.len() > MAX_ENDPOINTS {
            errors.push(FieldError::too_many("endpoints", endpoints.len(), MAX_ENDPOINTS));
        }
        let own = is_own(&slice.metadata);
        for (index, endpoint) in endpoints.iter().enumerate() {
            let path = Path::new("endpoints").index(index);
            validate_addresses(endpoint, address_type, own, &path, &mut errors);
            validate_endpoint(endpoint, &path, &mut errors);
        }
        let mut names = Unique::default();
        for (index, port) in slice.ports.iter().flatten().enumerate() {
            let path = Path::new("ports").index(index);
            let name = check::text(&port.name);
            if !name.is_empty() {
                check::dns_label(name, &path.child("name"), &mut errors);
            }
            names.insert(name, &path.child("name"), &mut errors);
            check::one_of(
                check::text(&port.protocol),
                check::PROTOCOLS,
                &path.child("protocol"),
                &mut errors,
            );
        }
        errors
    }

    fn validate_update(&self, new: &EndpointSlice, old: &EndpointSlice) -> Vec<FieldError> {
        if new.address_type == old.address_type {
            return Vec::new();
        }
        vec![FieldError::invalid("addressType", &new.address_type, check::IMMUTABLE)]
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
        let addresses =
            slice.endpoints.iter().flatten().flat_map(|endpoint| endpoint.addresses.clone());
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

/// The addresses of an endpoint, each of the slice's type once it is canonical.
fn validate_addresses(
    endpoint: &Endpoint,
    address_type: &str,
    own: bool,
    path: &Path,
    errors: &mut Errors,
) {
    let path = path.child("addresses");
    if endpoint.addresses.is_empty() {
        errors.push(FieldError::required(&path, "must contain at least 1 address"));
    } else if endpoint.addresses.len() > MAX_ADDRESSES {
        errors.push(FieldError::too_many(&path, endpoint.addresses.len(), MAX_ADDRESSES));
    }
    for (index, address) in endpoint.addresses.iter().enumerate() {
        let path = path.index(index);
        match (address_type, address.parse::<IpAddr>().map(canonical)) {
            ("IPv4" | "IPv6", Ok(_)) if own && is_loopback(address) => {}
            ("IPv4", Ok(IpAddr::V4(_))) | ("IPv6", Ok(IpAddr::V6(_))) => {
                super::service::non_special_ip(address, &path, errors)
            }
            ("IPv4", _) => {
                errors.push(FieldError::invalid(&path, address, "must be a valid IPv4 address"))
            }
            ("IPv6", _) => {
                errors.push(FieldError::invalid(&path, address, "must be a valid IPv6 address"))
            }
            ("FQDN", _) => check::dns_subdomain(address, &path, errors),
            _ => {}
        }
    }
}

fn validate_endpoint(endpoint: &Endpoint, path: &Path, errors: &mut Errors) {
    if let Some(name) = &endpoint.node_name {
        check::dns_subdomain(name, &path.child("nodeName"), errors);
    }
    if let Some(name) = &endpoint.hostname {
        check::dns_label(name, &path.child("hostname"), errors);
    }
    let topology = path.child("deprecatedTopology");
    check::labels(endpoint.deprecated_topology.as_ref(), &topology, errors);
    let hints = endpoint.hints.as_ref();
    let zones = hints.and_then(|hints| hints.for_zones.as_deref());
    let own = path.child("hints").child("forZones");
    let zones = zones.unwrap_or_default();
    if zones.len() > MAX_HINTS {
        errors.push(FieldError::too_many(&own, zones.len(), MAX_HINTS));
    }
    let mut seen = Unique::default();
    for (index, zone) in zones.iter().enumerate() {
        let path = own.index(index).child("name");
        seen.insert(&zone.name, &path, errors);
        check::invalid(api::names::label_value(&zone.name), &zone.name, &path, errors);
    }
}
