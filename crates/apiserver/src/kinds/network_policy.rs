//! NetworkPolicies.

use super::columns;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::Value;

use super::rules::generation_of_spec;
use super::{Column, Strategy, fill};

/// The strategy of NetworkPolicies.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Pod-Selector", "Pods that the policy is about."),
    columns::AGE,
];

impl Strategy for Rules {
    type Object = NetworkPolicy;

    generation_of_spec!();

    fn default(&self, policy: &mut NetworkPolicy) {
        let spec = policy.spec.get_or_insert_default();
        let ingress = spec
            .ingress
            .iter_mut()
            .flatten()
            .flat_map(|rule| rule.ports.iter_mut().flatten());
        let egress = spec
            .egress
            .iter_mut()
            .flatten()
            .flat_map(|rule| rule.ports.iter_mut().flatten());
        for port in ingress.chain(egress) {
            fill::text(&mut port.protocol, "TCP");
        }
        if spec.policy_types.as_ref().is_none_or(Vec::is_empty) {
            let mut types = vec!["Ingress".to_owned()];
            if spec.egress.iter().flatten().next().is_some() {
                types.push("Egress".to_owned());
            }
            spec.policy_types = Some(types);
        }
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, policy: &NetworkPolicy, now: Timestamp) -> Vec<Value> {
        let selector = policy
            .spec
            .as_ref()
            .and_then(|spec| spec.pod_selector.as_ref());
        vec![
            columns::name(&policy.metadata),
            columns::selector(selector),
            columns::age(&policy.metadata, now),
        ]
    }
}
