//! Counts how much of each ResourceQuota is used
//! (`k8s.io/kubernetes/pkg/controller/resourcequota`).
//!
//! Admission charges a quota when an object is created. This controller counts when a quota is new
//! or changed, and when an object is gone, but not when one is created: a count between the charge
//! and the object's arrival in the cache would undo the charge. A periodic recount removes charges
//! whose objects were never created.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::object::Object;
use api::quota::{self, Usage, add};
use client::Client;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus, Service,
};
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use parking_lot::Mutex;

use crate::Error;
use crate::controllers::garbage_collector::graph::Graph;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::kinds::Kinds;
use crate::machinery::owner::is_deleting;
use crate::machinery::queue::{Controller, Next, Requests, Trigger};
use crate::machinery::status;
use crate::wire::Wiring;

/// How often a namespace's quotas are counted without a trigger (upstream's resync period).
const RECOUNT: Duration = Duration::from_secs(300);
/// How long after a quota's first count it is counted again: what was created meanwhile was not
/// charged yet.
const SETTLED: Duration = Duration::from_secs(2);

struct Quotas {
    client: Client,
    quotas: Arc<Cache<ResourceQuota>>,
    pods: Arc<Cache<Pod>>,
    services: Arc<Cache<Service>>,
    claims: Arc<Cache<PersistentVolumeClaim>>,
    device_claims: Arc<Cache<ResourceClaim>>,
    graph: Arc<Mutex<Graph>>,
    kinds: Arc<Kinds>,
}

/// Adds the controller; its keys are namespaces. The metadata graph triggers it when a namespace
/// has lost an object.
pub fn start(wiring: &mut Wiring, graph: Arc<Mutex<Graph>>, queue: (Trigger, Requests)) {
    let controller = Quotas {
        client: wiring.client.clone(),
        quotas: wiring.cache(),
        pods: wiring.cache(),
        services: wiring.cache(),
        claims: wiring.cache(),
        device_claims: wiring.cache(),
        graph,
        kinds: wiring.kinds(),
    };
    let limited = |change: &Change<ResourceQuota>| {
        let limits = |quota: &Arc<ResourceQuota>| quota.spec.clone();
        let same = change.old.as_ref().map(limits) == change.new.as_ref().map(limits);
        (!same).then(|| namespace_of(change))
    };
    wiring
        .controller_with(queue, controller)
        .maps(limited)
        .maps(freed::<Service>)
        .maps(freed::<PersistentVolumeClaim>)
        .maps(freed::<ResourceClaim>)
        .maps(freed::<Pod>)
        .start();
}

fn namespace_of<K: api::Kind>(change: &Change<K>) -> Key {
    Key::cluster(change.key().namespace)
}

/// The namespace of an object that is gone or whose usage has changed.
fn freed<K: api::Kind>(change: &Change<K>) -> Option<Key> {
    let same = match (&change.old, &change.new) {
        (Some(old), Some(new)) => quota::usage(&**old) == quota::usage(&**new),
        (old, _) => old.is_none(),
    };
    (!same).then(|| namespace_of(change))
}

/// The status that a quota should have. `others`: the usage of everything in its namespace but pods
/// and claims, which scopes may select.
fn plan(
    quota: &ResourceQuota,
    pods: &[Arc<Pod>],
    claims: &[Arc<PersistentVolumeClaim>],
    others: &Usage,
) -> ResourceQuotaStatus {
    let empty = ResourceQuotaSpec::default();
    let spec = quota.spec.as_ref().unwrap_or(&empty);
    let scoped = spec.scopes.as_ref().is_some_and(|scopes| !scopes.is_empty())
        || spec.scope_selector.is_some();
    let mut total = if scoped { Usage::new() } else { others.clone() };
    let pods = pods.iter().map(|pod| &**pod as &dyn Object);
    let claims = claims.iter().map(|claim| &**claim as &dyn Object);
    for object in pods.chain(claims).filter(|object| quota::in_scope(spec, *object)) {
        for (name, amount) in quota::usage(object) {
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
    ResourceQuotaStatus { hard: Some(hard), used: Some(used) }
}

/// What admission holds writes to.
fn limits(quota: &ResourceQuota) -> Option<&BTreeMap<String, Text>> {
    quota.status.as_ref()?.hard.as_ref()
}

impl Controller for Quotas {
    const NAME: &'static str = "resourcequota";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let quotas = self.quotas.namespace(&key.name);
        if quotas.is_empty() {
            return Ok(Next::Change);
        }
        let pods = self.pods.namespace(&key.name);
        let claims = self.claims.namespace(&key.name);
        let others = self.count_others(&key.name);
        let mut next = RECOUNT;
        for quota in quotas.iter().filter(|quota| !is_deleting(&quota.metadata)) {
            let mut changed = (**quota).clone();
            changed.status = Some(plan(quota, &pods, &claims, &others));
            status::write(&self.client, &**quota, &changed).await?;
            if limits(quota) != limits(&changed) {
                next = SETTLED;
            }
        }
        Ok(Next::After(next))
    }
}

impl Quotas {
    /// The usage of everything but pods and claims.
    fn count_others(&self, namespace: &str) -> Usage {
        let mut total = Usage::new();
        let (services, devices) =
            (self.services.namespace(namespace), self.device_claims.namespace(namespace));
        let services = services.iter().flat_map(|service| quota::of_service(service));
        let devices = devices.iter().flat_map(|claim| quota::of_device_claim(claim));
        for (name, amount) in services.chain(devices) {
            add(&mut total, name, amount);
        }
        let graph = self.graph.lock();
        let excluded = ["pods", "persistentvolumeclaims"];
        for row in self.kinds.all().iter().filter(|row| row.namespaced()) {
            if row.group.is_empty() && excluded.contains(&&*row.plural) {
                continue;
            }
            for (name, amount) in quota::of_count(row, graph.count(namespace, row)) {
                add(&mut total, name, amount);
            }
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::testing::pod;

    #[test]
    fn used_lists_the_limited_resources() {
        let mut quota = ResourceQuota::default();
        let hard = [("pods", "5"), ("secrets", "9"), ("requests.cpu", "4")];
        let hard: BTreeMap<_, _> =
            hard.map(|(name, amount)| (name.to_owned(), Text(amount.into()))).into();
        quota.spec.get_or_insert_default().hard = Some(hard);
        let pods = [
            Arc::new(pod("a").on("n").running().build()),
            Arc::new(pod("b").on("n").phase("Succeeded").build()),
        ];
        let mut others = Usage::new();
        add(&mut others, "secrets", api::quantity::Quantity::from_units(3));
        let used = plan(&quota, &pods, &[], &others).used.unwrap();
        let text: Vec<_> =
            used.iter().map(|(name, amount)| format!("{name}={}", amount.0)).collect();
        assert_eq!(text, ["pods=1", "requests.cpu=0", "secrets=3"]);
        quota.spec.as_mut().unwrap().scopes = Some(vec!["Terminating".into()]);
        let used = plan(&quota, &pods, &[], &others).used.unwrap();
        assert!(used.values().all(|amount| amount.0 == "0"));
    }
}
