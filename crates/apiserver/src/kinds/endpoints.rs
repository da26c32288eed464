//! Endpoints, the legacy API beside EndpointSlices.

use super::check;
use super::columns;
use super::path::Path;
use api::address::Special;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Endpoints;
use serde_json::Value;

use super::{Column, Strategy, fill};

/// The strategy of Endpoints.
pub struct Rules;

static COLUMNS: &[Column] =
    &[columns::NAME, columns::text("Endpoints", "Addresses and ports."), columns::AGE];

impl Strategy for Rules {
    type Object = Endpoints;

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn default(&self, endpoints: &mut Endpoints) {
        for subset in endpoints.subsets.iter_mut().flatten() {
            for port in subset.ports.iter_mut().flatten() {
                fill::text(&mut port.protocol, "TCP");
            }
        }
    }

    fn validate(&self, endpoints: &Endpoints) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let own = is_own(&endpoints.metadata);
        for (index, subset) in endpoints.subsets.iter().flatten().enumerate() {
            let path = Path::new("subsets").index(index);
            let (ready, other) =
                (subset.addresses.as_deref(), subset.not_ready_addresses.as_deref());
            if ready.unwrap_or_default().is_empty() && other.unwrap_or_default().is_empty() {
                let problem = "must specify `addresses` or `notReadyAddresses`";
                errors.push(FieldError::required(&path, problem));
            }
            for (field, list) in [("addresses", ready), ("notReadyAddresses", other)] {
                for (index, address) in list.into_iter().flatten().enumerate() {
                    let path = path.child(field).index(index).child("ip");
                    check::ip(&address.ip, &path, &mut errors);
                    if !(own && is_loopback(&address.ip)) {
                        super::service::non_special_ip(&address.ip, &path, &mut errors);
                    }
                }
            }
            let ports = subset.ports.as_deref().unwrap_or_default();
            for (index, port) in ports.iter().enumerate() {
                let path = path.child("ports").index(index);
                let name = check::text(&port.name);
                if !name.is_empty() {
                    check::dns_label(name, &path.child("name"), &mut errors);
                } else if ports.len() > 1 {
                    errors.push(FieldError::required(path.child("name"), ""));
                }
                check::port_number(port.port, &path.child("port"), &mut errors);
                check::one_of(
                    check::text(&port.protocol),
                    check::PROTOCOLS,
                    &path.child("protocol"),
                    &mut errors,
                );
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, endpoints: &Endpoints, now: Timestamp) -> Vec<Value> {
        vec![
            columns::name(&endpoints.metadata),
            list(endpoints).into(),
            columns::age(&endpoints.metadata, now),
        ]
    }
}

/// The first three endpoints, and the number of the others.
fn list(endpoints: &Endpoints) -> String {
    let mut all = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<Option<i32>> = match &subset.ports {
            Some(ports) if !ports.is_empty() => ports.iter().map(|port| Some(port.port)).collect(),
            _ => vec![None],
        };
        for port in ports {
            for address in subset.addresses.iter().flatten() {
                all.push(match port {
                    Some(port) if address.ip.contains(':') => format!("[{}]:{port}", address.ip),
                    Some(port) => format!("{}:{port}", address.ip),
                    None => address.ip.clone(),
                });
            }
        }
    }
    match all.len() {
        0 => columns::NONE.to_owned(),
        1..=3 => all.join(","),
        more => format!("{} + {} more...", all[..3].join(","), more - 3),
    }
}

/// Whether it is an address of the loopback interface.
pub fn is_loopback(ip: &str) -> bool {
    ip.parse().ok().and_then(Special::of) == Some(Special::Loopback)
}

/// The API server's own endpoints: one that listens on the loopback interface alone advertises
/// that.
pub fn is_own(metadata: &api::ObjectMeta) -> bool {
    metadata.name.as_deref() == Some("kubernetes")
        && metadata.namespace.as_deref() == Some("default")
}
