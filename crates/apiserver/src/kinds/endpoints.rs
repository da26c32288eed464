//! Endpoints, the legacy API beside EndpointSlices.

use api::address::Special;
use k8s_openapi::api::core::v1::Endpoints;
use serde_json::Value;

use super::columns::{self, text};
use super::table::{Rows, age, name};
use super::{check, fill};

pub static RULES: Rows<Endpoints> = Rows {
    default: |endpoints| {
        for subset in endpoints.subsets.iter_mut().flatten() {
            for port in subset.ports.iter_mut().flatten() {
                fill::text(&mut port.protocol, "TCP");
            }
        }
    },
    judge: |endpoints, at| {
        let own = is_own(&endpoints.metadata);
        for (index, subset) in endpoints.subsets.iter().flatten().enumerate() {
            let at = at.item("subsets", index);
            let (ready, other) =
                (subset.addresses.as_deref(), subset.not_ready_addresses.as_deref());
            if ready.unwrap_or_default().is_empty() && other.unwrap_or_default().is_empty() {
                at.required("must specify `addresses` or `notReadyAddresses`");
            }
            for (field, list) in [("addresses", ready), ("notReadyAddresses", other)] {
                for (index, address) in list.into_iter().flatten().enumerate() {
                    let at = at.item(field, index);
                    let at = at.child("ip");
                    at.ip(&address.ip);
                    if !(own && is_loopback(&address.ip)) {
                        super::service::non_special_ip(&address.ip, &at);
                    }
                }
            }
            let ports = subset.ports.as_deref().unwrap_or_default();
            for (index, port) in ports.iter().enumerate() {
                let at = at.item("ports", index);
                let name = check::text(&port.name);
                if !name.is_empty() {
                    at.child("name").dns_label(name);
                } else if ports.len() > 1 {
                    at.child("name").required("");
                }
                at.child("port").port_number(port.port);
                at.child("protocol").one_of(check::text(&port.protocol), check::PROTOCOLS);
            }
        }
    },
    create_on_update: true,
    columns: &[name(), text("Endpoints", "Addresses and ports.").of(list), age()],
    ..Rows::NEW
};

/// The first three endpoints, and the number of the others.
fn list(endpoints: &Endpoints) -> Value {
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
    columns::first_three(&all, columns::NONE)
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
