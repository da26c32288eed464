//! The status of PodDisruptionBudgets, which decides whether an eviction is allowed
//! (`k8s.io/kubernetes/pkg/controller/disruption`).

mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;

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
use crate::machinery::cache::{Cache, Key};
use crate::machinery::owner::{controller_key, controller_of};
use crate::machinery::queue::{Controller, Next, queue};
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
        recorder: wiring.recorder.named("controllermanager"),
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
        for (is_warning, reason, message) in plan.events {
            if is_warning {
                self.recorder.warning(&*budget, reason, message);
            } else {
                self.recorder.normal(&*budget, reason, message);
            }
        }
        for pod in plan.not_deleted {
            let message = format!("Pod was expected by PDB {key} to be deleted but it wasn't");
            self.recorder.warning(&*pod, "NotDeleted", message);
        }
        let mut changed = (*budget).clone();
        changed.status = Some(plan.status);
        status::write(&self.client, &*budget, &changed).await?;
        Ok(plan.requeue_after.map_or(Next::Change, Next::After))
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
