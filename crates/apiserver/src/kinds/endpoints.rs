//! Endpoints, the list of old beside EndpointSlices.

use super::columns;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Endpoints;
use serde_json::Value;

use super::{Column, Strategy, fill};

/// The strategy of Endpoints.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Endpoints", "Addresses and ports."),
    columns::AGE,
];

impl Strategy for Rules {
    type Object = Endpoints;

    fn default(&self, endpoints: &mut Endpoints) {
        for subset in endpoints.subsets.iter_mut().flatten() {
            for port in subset.ports.iter_mut().flatten() {
                fill::text(&mut port.protocol, "TCP");
            }
        }
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

/// The first three endpoints, and how many more there are.
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
