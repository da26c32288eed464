//! The selectors of Services: by default, their pods are spread.

use std::collections::{BTreeMap, HashMap};

use api::labels::{Requirement, Selector};
use k8s_openapi::api::core::v1::Service;

use crate::pod::PodInfo;

/// Labels that pods must have.
type Labels = BTreeMap<String, String>;

/// Services that select pods, by namespace and name.
#[derive(Debug, Default)]
pub struct Services(HashMap<String, HashMap<String, Labels>>);

impl Services {
    pub fn set(&mut self, service: &Service) {
        let namespace = service.metadata.namespace.clone().unwrap_or_default();
        let name = service.metadata.name.clone().unwrap_or_default();
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone());
        match selector.filter(|selector| !selector.is_empty()) {
            Some(selector) => {
                self.0.entry(namespace).or_default().insert(name, selector);
            }
            None => self.remove(&namespace, &name),
        }
    }

    pub fn remove(&mut self, namespace: &str, name: &str) {
        if let Some(known) = self.0.get_mut(namespace) {
            known.remove(name);
            if known.is_empty() {
                self.0.remove(namespace);
            }
        }
    }

    /// What all Services of the pod select together (upstream's `helper.DefaultSelector`); `None`:
    /// no Service has it.
    pub fn selector(&self, pod: &PodInfo) -> Option<Selector> {
        let known = self.0.get(&pod.namespace)?.values();
        let selects =
            |labels: &&Labels| labels.iter().all(|(key, value)| pod.labels.get(key) == Some(value));
        let merged: Labels =
            known.filter(selects).flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        let requirements = merged.into_iter().map(|(key, value)| Requirement::In(key, vec![value]));
        let requirements: Vec<Requirement> = requirements.collect();
        (!requirements.is_empty()).then(|| Selector::new(requirements))
    }
}
