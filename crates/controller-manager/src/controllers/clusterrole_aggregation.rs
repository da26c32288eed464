//! Aggregated ClusterRoles: their rules are the union of other roles' rules
//! (`k8s.io/kubernetes/pkg/controller/clusterroleaggregation`).

use std::sync::Arc;

use api::labels::Selector;
use client::{Api, Client};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};

use crate::Error;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::error::During;
use crate::machinery::queue::{Controller, Next};
use crate::wire::Wiring;

struct Aggregation {
    client: Client,
    roles: Arc<Cache<ClusterRole>>,
}

/// Adds the controller; its keys are ClusterRoles with an aggregation rule.
pub fn start(wiring: &mut Wiring) {
    let controller = Aggregation { client: wiring.client.clone(), roles: wiring.cache() };
    let roles = wiring.cache::<ClusterRole>();
    let aggregated =
        move |_: &Change<ClusterRole>| roles.keys(|role| role.aggregation_rule.is_some());
    wiring.controller(controller).maps(aggregated).start();
}

/// The rules that a role should have. `None`: it has them already, or it is not aggregated.
fn plan(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let rule = role.aggregation_rule.as_ref()?;
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in rule.cluster_role_selectors.iter().flatten() {
        let selector = Selector::from_label_selector(Some(selector)).ok()?;
        let parts = all.iter().filter(|part| {
            part.metadata.name != role.metadata.name
                && selector.matches(part.metadata.labels.as_ref())
        });
        for rule in parts.flat_map(|part| part.rules.iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    (role.rules.as_deref().unwrap_or_default() != rules).then_some(rules)
}

impl Controller for Aggregation {
    const NAME: &'static str = "clusterrole-aggregation";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(role) = self.roles.get(key) else {
            return Ok(Next::Change);
        };
        if let Some(rules) = plan(&role, &self.roles.list()) {
            let mut changed = (*role).clone();
            changed.rules = Some(rules);
            Api::<ClusterRole>::all(&self.client)
                .replace(&changed)
                .await
                .during(|| format!("replace clusterrole {key}"))?;
        }
        Ok(Next::Change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::testing::labels;
    use k8s_openapi::api::rbac::v1::AggregationRule;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

    fn part(name: &str, verb: &str, label: &str) -> Arc<ClusterRole> {
        let mut role = ClusterRole::default();
        role.metadata.name = Some(name.into());
        role.metadata.labels = Some(labels(&[("to", label)]));
        role.rules = Some(vec![PolicyRule { verbs: vec![verb.into()], ..Default::default() }]);
        Arc::new(role)
    }

    #[test]
    fn an_aggregated_role_has_the_rules_of_the_selected_roles() {
        let mut sum = ClusterRole::default();
        sum.metadata.name = Some("sum".into());
        let all = [
            part("a", "get", "x"),
            part("b", "list", "x"),
            part("c", "get", "x"),
            part("d", "delete", "y"),
        ];
        assert_eq!(plan(&sum, &all), None);
        sum.aggregation_rule = Some(AggregationRule {
            cluster_role_selectors: Some(vec![LabelSelector {
                match_labels: Some(labels(&[("to", "x")])),
                ..Default::default()
            }]),
        });
        let rules = plan(&sum, &all).unwrap();
        let verbs: Vec<_> = rules.iter().map(|rule| rule.verbs[0].as_str()).collect();
        assert_eq!(verbs, ["get", "list"]);
        sum.rules = Some(rules);
        assert_eq!(plan(&sum, &all), None);
    }
}
