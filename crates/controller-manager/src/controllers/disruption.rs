//! The status of PodDisruptionBudgets, which decides whether an eviction is allowed
//! (`k8s.io/kubernetes/pkg/controller/disruption`).

mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Kind;
use api::labels::Selector;
use client::Client;
use client::events::EventRecorder;
use clock::SharedClock;
use k8s_openapi::Resource;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::Error;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::owner::{controller_key, controller_of};
use crate::machinery::queue::{Controller, Next};
use crate::machinery::status;
use crate::wire::Wiring;
use plan::{Observed, Scale, plan};

struct Disruption {
    client: Client,
    recorder: EventRecorder,
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
    let controller = Disruption {
        client: wiring.client.clone(),
        recorder: wiring.recorder.named("controllermanager"),
        clock: wiring.clock.clone(),
        budgets: wiring.cache(),
        pods: wiring.cache(),
        deployments: wiring.cache(),
        replica_sets: wiring.cache(),
        replication_controllers: wiring.cache(),
        stateful_sets: wiring.cache(),
    };
    let budgets = wiring.cache::<PodDisruptionBudget>();
    let of_pod = move |change: &Change<Pod>| {
        budgets.keys_in(&change.key().namespace, |budget| {
            let selector = selector(budget);
            change.sides().any(|pod| selector.matches(pod.metadata.labels.as_ref()))
        })
    };
    // Percentages in a budget refer to the size of the workloads.
    let of_deployment = resized(wiring.cache(), |one: &Deployment| one.spec.replicas);
    let of_stateful_set = resized(wiring.cache(), |one: &StatefulSet| one.spec.replicas);
    wiring
        .controller(controller)
        .of::<PodDisruptionBudget>()
        .maps(of_pod)
        .maps(of_deployment)
        .maps(of_stateful_set)
        .start();
}

/// The budgets in the namespace of a workload, when its size has changed.
fn resized<K: Kind>(
    budgets: Arc<Cache<PodDisruptionBudget>>,
    size: fn(&K) -> Option<i32>,
) -> impl Fn(&Change<K>) -> Vec<Key> {
    move |change| {
        if change.old.as_deref().map(size) == change.new.as_deref().map(size) {
            return Vec::new();
        }
        budgets.keys_in(&change.key().namespace, |_| true)
    }
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
        self.recorder.all(&*budget, plan.events);
        for pod in plan.not_deleted {
            let message = format!("Pod was expected by PDB {key} to be deleted but it wasn't");
            self.recorder.warning(&*pod, "NotDeleted", message);
        }
        status::update(&self.client, &*budget, |it| it.status = Some(plan.status)).await?;
        Ok(plan.requeue_after.into())
    }
}

/// The workload that decides how many pods there should be, and its size.
type Workload = (&'static str, Key, i32);

impl Disruption {
    /// The total size of the workloads that the pods belong to, each counted once.
    fn scale(&self, pods: &[Arc<Pod>]) -> Scale {
        let mut sizes: BTreeMap<(&str, Key), i32> = BTreeMap::new();
        let mut scale = Scale::default();
        for pod in pods {
            match self.workload(pod) {
                Ok(Some((kind, key, size))) => {
                    sizes.insert((kind, key), size);
                }
                Ok(None) => scale.has_unmanaged = true,
                Err(why) => scale.unknown = Some(why),
            }
        }
        scale.pods = sizes.into_values().sum();
        scale
    }

    /// `None`: nothing manages the pod. The error: why the size is unknown.
    fn workload(&self, pod: &Pod) -> Result<Option<Workload>, String> {
        let metadata = &pod.metadata;
        let Some(controller) = controller_of(metadata) else { return Ok(None) };
        let found = match controller.kind.as_str() {
            ReplicaSet::KIND => controller_key::<ReplicaSet>(metadata)
                .and_then(|key| self.replica_sets.get(&key))
                .map(|set| self.size_of_replica_set(&set)),
            StatefulSet::KIND => controller_key::<StatefulSet>(metadata)
                .and_then(|key| self.stateful_sets.get(&key))
                .map(|set| (StatefulSet::KIND, Key::of(&*set), set.spec.replicas.unwrap_or(1))),
            ReplicationController::KIND => controller_key::<ReplicationController>(metadata)
                .and_then(|key| self.replication_controllers.get(&key))
                .map(|one| {
                    let size = one.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
                    (ReplicationController::KIND, Key::of(&*one), size)
                }),
            Job::KIND => return Err(has_no_scale("jobs.batch")),
            DaemonSet::KIND => return Err(has_no_scale("daemonsets.apps")),
            // The scale of a custom kind is not asked for: each of its pods counts as one.
            _ => Some(("Pod", Key::of(pod), 1)),
        };
        let name = metadata.name.as_deref().unwrap_or_default();
        found.map(Some).ok_or_else(|| format!("found no controllers for pod {name:?}"))
    }

    fn size_of_replica_set(&self, set: &ReplicaSet) -> Workload {
        let deployment = controller_key::<Deployment>(&set.metadata);
        match deployment.and_then(|key| self.deployments.get(&key)) {
            Some(one) => (Deployment::KIND, Key::of(&*one), one.spec.replicas.unwrap_or(1)),
            None => (ReplicaSet::KIND, Key::of(set), set.spec.replicas.unwrap_or(1)),
        }
    }
}

fn has_no_scale(resource: &str) -> String {
    format!("{resource} does not implement the scale subresource")
}
