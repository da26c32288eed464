//! How much of each ResourceQuota is used, counted whole (`k8s.io/kubernetes/pkg/controller/resourcequota`).

mod usage;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::quantity::Quantity;
use client::{Api, Client};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus, Service,
};
use parking_lot::Mutex;

use crate::Error;
use crate::cache::{Cache, Change, Key};
use crate::error::During;
use crate::garbage_collector::graph::Graph;
use crate::owner::is_deleting;
use crate::queue::{Controller, Next, Requests, Trigger};
use crate::wire::Wiring;
use usage::{Usage, add};

/// Objects that are counted under their plain name too.
const COUNTED: &[&str] = &[
    "configmaps",
    "secrets",
    "replicationcontrollers",
    "resourcequotas",
];

struct Quotas {
    client: Client,
    quotas: Arc<Cache<ResourceQuota>>,
    pods: Arc<Cache<Pod>>,
    services: Arc<Cache<Service>>,
    claims: Arc<Cache<PersistentVolumeClaim>>,
    graph: Arc<Mutex<Graph>>,
}

/// Adds the controller; its keys are namespaces. The metadata graph triggers it when the number of a
/// namespace's objects changes.
pub fn start(
    wiring: &mut Wiring,
    graph: Arc<Mutex<Graph>>,
    (trigger, requests): (Trigger, Requests),
) {
    let informers = &wiring.informers;
    informers
        .resource_quotas
        .subscribe(&trigger, |change| vec![namespace_of(change)]);
    informers
        .services
        .subscribe(&trigger, |change| vec![namespace_of(change)]);
    informers
        .persistent_volume_claims
        .subscribe(&trigger, |change| vec![namespace_of(change)]);
    informers.pods.subscribe(&trigger, |change| {
        let same = match (&change.old, &change.new) {
            (Some(old), Some(new)) => usage::of_pod(old) == usage::of_pod(new),
            _ => false,
        };
        if same {
            Vec::new()
        } else {
            vec![namespace_of(change)]
        }
    });
    let controller = Quotas {
        client: wiring.client.clone(),
        quotas: informers.resource_quotas.cache(),
        pods: informers.pods.cache(),
        services: informers.services.cache(),
        claims: informers.persistent_volume_claims.cache(),
        graph,
    };
    wiring.run(controller, requests);
}

fn namespace_of<K: api::Kind>(change: &Change<K>) -> Key {
    Key::cluster(Key::of(&**change.last()).namespace)
}

/// The status that a quota should have; `pods`, `others`: what its namespace uses.
fn plan(quota: &ResourceQuota, pods: &[Arc<Pod>], others: &Usage) -> ResourceQuotaStatus {
    let empty = ResourceQuotaSpec::default();
    let spec = quota.spec.as_ref().unwrap_or(&empty);
    let scoped = spec
        .scopes
        .as_ref()
        .is_some_and(|scopes| !scopes.is_empty())
        || spec.scope_selector.is_some();
    // A scope is a property of pods: nothing else counts under it.
    let mut total = if scoped { Usage::new() } else { others.clone() };
    for pod in pods.iter().filter(|pod| usage::pod_in_scope(spec, pod)) {
        for (name, amount) in usage::of_pod(pod) {
            add(&mut total, name, amount);
        }
    }
    let hard = spec.hard.clone().unwrap_or_default();
    let used: BTreeMap<_, _> = hard
        .keys()
        .map(|name| {
            let amount = total.get(name).copied().unwrap_or_default();
            (name.clone(), amount.to_text())
        })
        .collect();
    ResourceQuotaStatus {
        hard: Some(hard),
        used: Some(used),
    }
}

impl Controller for Quotas {
    const NAME: &'static str = "resourcequota";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let quotas = self.quotas.namespace(&key.name);
        if quotas.is_empty() {
            return Ok(Next::Change);
        }
        let pods = self.pods.namespace(&key.name);
        let others = self.count_others(&key.name);
        for quota in quotas.iter().filter(|quota| !is_deleting(&quota.metadata)) {
            let status = plan(quota, &pods, &others);
            if quota.status.as_ref() == Some(&status) {
                continue;
            }
            let mut changed = (**quota).clone();
            changed.status = Some(status);
            Api::<ResourceQuota>::namespaced(&self.client, &key.name)
                .replace_status(&changed)
                .await
                .during(|| format!("write the status of resourcequota {}", Key::of(&**quota)))?;
        }
        Ok(Next::Change)
    }
}

impl Quotas {
    /// What everything but pods uses.
    fn count_others(&self, namespace: &str) -> Usage {
        let mut total = Usage::new();
        let services = self.services.namespace(namespace);
        let claims = self.claims.namespace(namespace);
        let all = services.iter().map(|service| usage::of_service(service));
        let all = all.chain(claims.iter().map(|claim| usage::of_claim(claim)));
        for (name, amount) in all.flatten() {
            add(&mut total, name, amount);
        }
        let graph = self.graph.lock();
        for row in api::kind::KINDS.iter().filter(|row| row.namespaced()) {
            let count = graph.count(namespace, row);
            if count == 0 || row.plural == "pods" {
                continue;
            }
            let count = Quantity::from_units(i64::try_from(count).unwrap_or(i64::MAX));
            add(
                &mut total,
                format!("count/{}", row.qualified_resource()),
                count,
            );
            if row.group.is_empty() && COUNTED.contains(&row.plural) {
                add(&mut total, row.plural, count);
            }
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

    #[test]
    fn used_names_what_is_limited() {
        let mut quota = ResourceQuota::default();
        let hard = [("pods", "5"), ("secrets", "9"), ("requests.cpu", "4")];
        let hard: BTreeMap<_, _> = hard
            .map(|(name, amount)| (name.to_owned(), Text(amount.into())))
            .into();
        quota.spec.get_or_insert_default().hard = Some(hard);
        let pods = [
            Arc::new(pod("a").on("n").running().build()),
            Arc::new(pod("b").on("n").phase("Succeeded").build()),
        ];
        let mut others = Usage::new();
        add(&mut others, "secrets", Quantity::from_units(3));
        let used = plan(&quota, &pods, &others).used.unwrap();
        let text: Vec<_> = used
            .iter()
            .map(|(name, amount)| format!("{name}={}", amount.0))
            .collect();
        assert_eq!(text, ["pods=1", "requests.cpu=0", "secrets=3"]);
        quota.spec.as_mut().unwrap().scopes = Some(vec!["Terminating".into()]);
        let used = plan(&quota, &pods, &others).used.unwrap();
        assert!(used.values().all(|amount| amount.0 == "0"));
    }
}
