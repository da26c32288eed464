//! The status of PodDisruptionBudgets, which decides whether an eviction is allowed
//! (`k8s.io/kubernetes/pkg/controller/disruption`).

mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::labels::Selector;
use client::Client;
use clock::SharedClock;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::Error;
use crate::machinery::cache::{Cache, Key};
use crate::machinery::owner::controller_key;
use crate::machinery::queue::{Controller, Next, queue};
use crate::machinery::status;
use crate::wire::Wiring;
use plan::{Observed, plan};

struct Disruption {
    client: Client,
    clock: SharedClock,
    budgets: Arc<Cache<PodDisruptionBudget>>,
    pods: Arc<Cache<Pod>>,
    deployments: Arc<Cache<Deployment>>,
    replica_sets: Arc<Cache<ReplicaSet>>,
    replication_controllers: Arc<Cache<ReplicationController>>,
    stateful_sets: Arc<Cache<StatefulSet>>,
}

/// Adds the controller; its keys are budgets.
pub fn start(wiring: &mut Wiring) {
    let (trigger, requests) = queue();
    let informers = &wiring.informers;
    informers.pod_disruption_budgets.subscribe(&trigger, |change| vec![Key::of(&**change.last())]);
    let budgets = informers.pod_disruption_budgets.cache();
    informers.pods.subscribe(&trigger, move |change| {
        let namespace = change.last().metadata.namespace.clone().unwrap_or_default();
        let mut all = budgets.namespace(&namespace);
        all.retain(|budget| {
            let selector = selector(budget);
            change.sides().any(|pod| selector.matches(pod.metadata.labels.as_ref()))
        });
        all.iter().map(|budget| Key::of(&**budget)).collect()
    });
    // Percentages in a budget refer to the size of the workloads.
    let in_namespace = |budgets: Arc<Cache<PodDisruptionBudget>>, namespace: Option<&String>| {
        let all = budgets.namespace(namespace.map(String::as_str).unwrap_or_default());
        all.iter().map(|budget| Key::of(&**budget)).collect::<Vec<_>>()
    };
    let budgets = informers.pod_disruption_budgets.cache();
    informers.deployments.subscribe(&trigger, move |change| {
        let size = |side: &Option<Arc<Deployment>>| side.as_ref().map(|one| one.spec.replicas);
        if size(&change.old) == size(&change.new) {
            return Vec::new();
        }
        in_namespace(budgets.clone(), change.last().metadata.namespace.as_ref())
    });
    let budgets = informers.pod_disruption_budgets.cache();
    informers.stateful_sets.subscribe(&trigger, move |change| {
        let size = |side: &Option<Arc<StatefulSet>>| side.as_ref().map(|one| one.spec.replicas);
        if size(&change.old) == size(&change.new) {
            return Vec::new();
        }
        in_namespace(budgets.clone(), change.last().metadata.namespace.as_ref())
    });
    let controller = Disruption {
        client: wiring.client.clone(),
        clock: wiring.clock.clone(),
        budgets: informers.pod_disruption_budgets.cache(),
        pods: informers.pods.cache(),
        deployments: informers.deployments.cache(),
        replica_sets: informers.replica_sets.cache(),
        replication_controllers: informers.replication_controllers.cache(),
        stateful_sets: informers.stateful_sets.cache(),
    };
    wiring.run(controller, requests);
}

/// In policy/v1 an empty selector selects every pod of the namespace, a missing one none.
fn selector(budget: &PodDisruptionBudget) -> Selector {
    let spec = budget.spec.as_ref();
    Selector::from_label_selector(spec.and_then(|spec| spec.selector.as_ref()))
        .unwrap_or_else(|_| Selector::nothing())
}

impl Controller for Disruption {
    const NAME: &'static str = "disruption";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(budget) = self.budgets.get(key) else {
            return Ok(Next::Change);
        };
        let selector = selector(&budget);
        let mut pods = self.pods.namespace(&key.namespace);
        pods.retain(|pod| selector.matches(pod.metadata.labels.as_ref()));
        let observed = Observed { budget: &budget, scale: self.scale(&pods), pods };
        let plan = plan(&observed, self.clock.now());
        let mut changed = (*budget).clone();
        changed.status = Some(plan.status);
        status::write(&self.client, &*budget, &changed).await?;
        Ok(plan.requeue_after.map_or(Next::Change, Next::After))
    }
}

impl Disruption {
    /// The total size of the workloads that the pods belong to, each counted once. A pod without a
    /// workload counts as one.
    fn scale(&self, pods: &[Arc<Pod>]) -> i32 {
        let mut sizes: BTreeMap<(&str, Key), i32> = BTreeMap::new();
        for pod in pods {
            let (kind, key, size) = self.workload(pod);
            sizes.insert((kind, key), size);
        }
        sizes.into_values().sum()
    }

    fn workload(&self, pod: &Pod) -> (&'static str, Key, i32) {
        let metadata = &pod.metadata;
        if let Some(key) = controller_key::<ReplicaSet>(metadata)
            && let Some(set) = self.replica_sets.get(&key)
        {
            let deployment = controller_key::<Deployment>(&set.metadata);
            let deployment = deployment.and_then(|key| self.deployments.get(&key));
            return match deployment {
                Some(one) => ("Deployment", Key::of(&*one), one.spec.replicas.unwrap_or(1)),
                None => ("ReplicaSet", key, set.spec.replicas.unwrap_or(1)),
            };
        }
        if let Some(key) = controller_key::<StatefulSet>(metadata)
            && let Some(set) = self.stateful_sets.get(&key)
        {
            return ("StatefulSet", key, set.spec.replicas.unwrap_or(1));
        }
        if let Some(key) = controller_key::<ReplicationController>(metadata)
            && let Some(one) = self.replication_controllers.get(&key)
        {
            let size = one.spec.as_ref().and_then(|spec| spec.replicas);
            return ("ReplicationController", key, size.unwrap_or(1));
        }
        ("Pod", Key::of(pod), 1)
    }
}
