//! NetworkPolicies.

use k8s_openapi::api::networking::v1::NetworkPolicy;

use super::rules::generation_of_spec;
use super::{Strategy, fill};

/// The strategy of NetworkPolicies.
pub struct Rules;

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
}
