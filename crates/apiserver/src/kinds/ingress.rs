//! Ingresses.

use super::columns;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::Value;

use super::rules::{generation_of_spec, status_apart};
use super::{Column, Strategy};

/// The strategy of Ingresses.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Class", "The ingress class."),
    columns::text("Hosts", "Hosts that requests are matched against."),
    columns::text("Address", "Addresses of the load balancer."),
    columns::text("Ports", "Ports that are open."),
    columns::AGE,
];

impl Strategy for Rules {
    type Object = Ingress;

    status_apart!();
    generation_of_spec!();

    fn default(&self, ingress: &mut Ingress) {
        ingress.spec.get_or_insert_default();
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, ingress: &Ingress, now: Timestamp) -> Vec<Value> {
        let spec = ingress.spec.clone().unwrap_or_default();
        let hosts: Vec<String> = spec
            .rules
            .iter()
            .flatten()
            .filter_map(|rule| rule.host.clone())
            .collect();
        let balancer = ingress
            .status
            .as_ref()
            .and_then(|status| status.load_balancer.as_ref());
        let addresses: Vec<String> = balancer
            .into_iter()
            .flat_map(|balancer| balancer.ingress.iter().flatten())
            .filter_map(|ingress| ingress.ip.clone().or_else(|| ingress.hostname.clone()))
            .collect();
        let tls = spec.tls.iter().flatten().next().is_some();
        vec![
            columns::name(&ingress.metadata),
            columns::or_none(spec.ingress_class_name.as_deref()),
            if hosts.is_empty() {
                "*".into()
            } else {
                hosts.join(",").into()
            },
            addresses.join(",").into(),
            if tls { "80, 443" } else { "80" }.into(),
            columns::age(&ingress.metadata, now),
        ]
    }
}
