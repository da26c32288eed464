//! PodDisruptionBudgets, as far as preemption considers them: it prefers victims that violate none.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use api::labels::Selector;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::pod::PodInfo;

#[derive(Debug)]
struct Budget {
    selector: Selector,
    allowed: i64,
    /// Names of pods whose disruption is counted already.
    disrupted: BTreeSet<String>,
}

/// The budgets of all namespaces.
#[derive(Debug, Default)]
pub struct Budgets {
    /// By namespace and name.
    by_namespace: HashMap<String, HashMap<String, Budget>>,
}

impl Budgets {
    pub fn set(&mut self, budget: &PodDisruptionBudget) {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let mut selector =
            Selector::from_label_selector(selector).unwrap_or_else(|_| Selector::nothing());
        if selector.is_everything() {
            // To the scheduler, an empty selector selects nothing.
            selector = Selector::nothing();
        }
        let status = budget.status.as_ref();
        let disrupted = status.and_then(|status| status.disrupted_pods.as_ref());
        let read = Budget {
            selector,
            allowed: status.and_then(|status| status.disruptions_allowed).unwrap_or(0).into(),
            disrupted: disrupted.map(|pods| pods.keys().cloned().collect()).unwrap_or_default(),
        };
        self.by_namespace
            .entry(part(&budget.metadata.namespace))
            .or_default()
            .insert(part(&budget.metadata.name), read);
    }

    /// Removes the budget with the key `namespace/name`.
    pub fn remove(&mut self, key: &str) {
        let Some((namespace, name)) = key.split_once('/') else {
            return;
        };
        if let Some(budgets) = self.by_namespace.get_mut(namespace) {
            budgets.remove(name);
            if budgets.is_empty() {
                self.by_namespace.remove(namespace);
            }
        }
    }

    /// Separates the pods whose disruption, each after those before it, violates a budget.
    pub fn violations(&self, pods: Vec<Arc<PodInfo>>) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
        let mut used: HashMap<(&str, &str), i64> = HashMap::new();
        pods.into_iter().partition(|pod| {
            let mut violates = false;
            let budgets = self.by_namespace.get_key_value(&pod.namespace).into_iter();
            for (namespace, (name, budget)) in
                budgets.flat_map(|(namespace, all)| all.iter().map(move |one| (namespace, one)))
            {
                if budget.selector.matches(Some(&pod.labels))
                    && !pod.labels.is_empty()
                    && !budget.disrupted.contains(&pod.name)
                {
                    let used = used.entry((namespace, name)).or_default();
                    *used += 1;
                    violates |= *used > budget.allowed;
                }
            }
            violates
        })
    }
}
