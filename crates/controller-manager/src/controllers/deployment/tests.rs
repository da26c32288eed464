use k8s_openapi::api::apps::v1::{
    DeploymentCondition, DeploymentStatus, DeploymentStrategy, ReplicaSetStatus,
    RollingUpdateDeployment,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;

use super::plan::Plan;
use super::sets::{REVISION, REVISION_HISTORY, size};
use super::*;
use crate::machinery::testing::{at, labels};

fn deployment(replicas: i32, image: &str) -> Deployment {
    let mut deployment = Deployment::default();
    deployment.metadata.name = Some("web".into());
    deployment.metadata.namespace = Some("ns".into());
    deployment.metadata.uid = Some("d".into());
    deployment.metadata.generation = Some(1);
    deployment.spec.replicas = Some(replicas);
    deployment.spec.progress_deadline_seconds = Some(600);
    deployment.spec.revision_history_limit = Some(2);
    deployment.spec.selector.match_labels = Some(labels(&[("app", "web")]));
    let template = deployment.spec.template.metadata.get_or_insert_default();
    template.labels = Some(labels(&[("app", "web"), ("image", image)]));
    rolling(&mut deployment, "25%", "25%");
    deployment
}

fn rolling(deployment: &mut Deployment, surge: &str, unavailable: &str) {
    let value = |text: &str| {
        Some(text.parse().map_or_else(|_| IntOrString::String(text.into()), IntOrString::Int))
    };
    deployment.spec.strategy = Some(DeploymentStrategy {
        type_: Some("RollingUpdate".into()),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: value(surge),
            max_unavailable: value(unavailable),
        }),
    });
}

fn recreate(deployment: &mut Deployment) {
    deployment.spec.strategy =
        Some(DeploymentStrategy { type_: Some("Recreate".into()), rolling_update: None });
}

fn observed<'a>(deployment: &'a Deployment, sets: &[ReplicaSet]) -> Observed<'a> {
    Observed {
        deployment,
        sets: sets.iter().cloned().map(Arc::new).collect(),
        pods: sets
            .iter()
            .map(|set| (uid(&set.metadata).to_owned(), sets::actual(set) as usize))
            .collect(),
    }
}

/// Applies plans to ReplicaSets in memory.
struct World {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    now: i64,
}

impl World {
    fn new(deployment: Deployment) -> Self {
        Self { deployment, sets: Vec::new(), now: 0 }
    }

    fn step(&mut self) -> Plan {
        self.now += 1;
        let plan = plan(&observed(&self.deployment, &self.sets), at(self.now));
        if let Some(set) = &plan.create {
            let mut set = (**set).clone();
            set.metadata.uid = set.metadata.name.clone();
            set.metadata.creation_timestamp = Some(Time(at(self.now)));
            set.metadata.generation = Some(1);
            self.sets.push(set);
        }
        for update in &plan.updates {
            let of = |set: &&mut ReplicaSet| set.metadata.uid == update.after.metadata.uid;
            let set = self.sets.iter_mut().find(of).unwrap();
            assert_eq!(*set, *update.before, "planned on the current state");
            *set = (*update.after).clone();
        }
        for gone in &plan.delete {
            self.sets.retain(|set| set.metadata.uid != gone.metadata.uid);
        }
        if let Some(revision) = &plan.revision {
            let annotations = self.deployment.metadata.annotations.get_or_insert_default();
            annotations.insert(REVISION.into(), revision.clone());
        } else {
            self.deployment.status = Some(plan.status.clone());
        }
        plan
    }

    /// Gives set `index` its pods, of which `ready` are ready.
    fn pods(&mut self, index: usize, ready: i32) {
        let set = &mut self.sets[index];
        let ready = ready.min(size(set));
        set.status = Some(ReplicaSetStatus {
            replicas: size(set),
            ready_replicas: Some(ready),
            available_replicas: Some(ready),
            observed_generation: set.metadata.generation,
            ..Default::default()
        });
    }

    fn all_ready(&mut self) {
        for index in 0..self.sets.len() {
            self.pods(index, i32::MAX);
        }
    }

    fn sizes(&self) -> Vec<i32> {
        self.sets.iter().map(size).collect()
    }

    fn reason(&self) -> String {
        let status = self.deployment.status.as_ref().unwrap();
        let progressing = status::find(status, "Progressing");
        progressing.and_then(|condition| condition.reason.clone()).unwrap_or_default()
    }

    /// Steps until nothing changes.
    fn settle(&mut self) {
        for _ in 0..200 {
            let before = (self.sets.clone(), self.deployment.clone());
            self.step();
            self.all_ready();
            if before == (self.sets.clone(), self.deployment.clone()) {
                return;
            }
        }
        panic!("does not settle: {:?}", self.sizes());
    }
}

#[test]
fn a_deployment_of_zero_pods_is_complete_with_its_first_set() {
    let plan = plan(&observed(&deployment(0, "1"), &[]), at(0));
    let set = plan.create.unwrap().metadata.name.unwrap();
    let progressing = status::find(&plan.status, status::PROGRESSING).unwrap();
    let message = format!("ReplicaSet {set:?} has successfully progressed.");
    assert_eq!(progressing.message.as_ref(), Some(&message));
}

#[test]
fn a_first_rollout_ends_available() {
    let mut world = World::new(deployment(3, "v1"));
    let plan = world.step();
    let set = plan.create.unwrap();
    assert!(set.metadata.name.as_deref().unwrap().starts_with("web-"));
    assert_eq!(size(&set), 3);
    assert_eq!(sets::revision(&set), 1);
    let hash = &set.metadata.labels.as_ref().unwrap()["pod-template-hash"];
    let selector = set.spec.selector.match_labels.as_ref().unwrap();
    assert_eq!(&selector["pod-template-hash"], hash);
    assert_eq!(world.reason(), "NewReplicaSetCreated");
    world.settle();
    assert_eq!(world.reason(), "NewReplicaSetAvailable");
    let status = world.deployment.status.as_ref().unwrap();
    assert_eq!(
        (status.updated_replicas, status.available_replicas, status.unavailable_replicas),
        (Some(3), Some(3), Some(0))
    );
    let annotations = world.deployment.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations[REVISION], "1");
    assert_eq!(world.step().requeue_after, None);
}

#[test]
fn a_rolling_update_keeps_its_bounds() {
    let mut world = World::new(deployment(4, "v1"));
    world.settle();
    let template = deployment(4, "v2").spec.template;
    world.deployment.spec.template = template;
    rolling(&mut world.deployment, "1", "0");
    world.step();
    assert_eq!(world.sizes(), [4, 1]);
    // No old pod is deleted before the new one is available.
    world.pods(1, 0);
    world.step();
    assert_eq!(world.sizes(), [4, 1]);
    world.pods(1, 1);
    world.step();
    assert_eq!(world.sizes(), [3, 1]);
    world.step();
    assert_eq!(world.sizes(), [3, 2]);
    world.settle();
    assert_eq!(world.sizes(), [0, 4]);
    assert_eq!(sets::revision(&world.sets[1]), 2);
}

#[test]
fn unhealthy_old_pods_are_deleted_first() {
    let mut world = World::new(deployment(4, "v1"));
    world.settle();
    rolling(&mut world.deployment, "0", "1");
    world.pods(0, 2);
    world.deployment.spec.template = deployment(4, "v2").spec.template;
    world.step();
    assert_eq!(world.sizes(), [4, 0]);
    world.step();
    // One below four is allowed; two are unhealthy, so one of those is deleted.
    assert_eq!(world.sizes(), [3, 0]);
}

#[test]
fn recreate_waits_until_the_old_pods_are_gone() {
    let mut world = World::new(deployment(2, "v1"));
    recreate(&mut world.deployment);
    world.settle();
    world.deployment.spec.template = deployment(2, "v2").spec.template;
    world.step();
    assert_eq!(world.sizes(), [0]);
    let plan = world.step();
    assert!(plan.create.is_none(), "old pods still run");
    world.pods(0, 0);
    world.step();
    assert_eq!(world.sizes(), [0, 2]);
}

#[test]
fn undo_reuses_the_old_set_as_the_newest_revision() {
    let mut world = World::new(deployment(2, "v1"));
    world.settle();
    world.deployment.spec.template = deployment(2, "v2").spec.template;
    world.settle();
    world.deployment.spec.template = deployment(2, "v1").spec.template;
    world.settle();
    assert_eq!(world.sizes(), [2, 0]);
    assert_eq!(sets::revision(&world.sets[0]), 3);
    assert_eq!(sets::annotation(&world.sets[0], REVISION_HISTORY), Some("1"));
    let annotations = world.deployment.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations[REVISION], "3");
}

#[test]
fn history_is_cleaned_up_oldest_first() {
    let mut world = World::new(deployment(1, "v0"));
    for version in 1..6 {
        world.settle();
        world.deployment.spec.template = deployment(1, &format!("v{version}")).spec.template;
    }
    world.settle();
    let revisions: Vec<_> = world.sets.iter().map(sets::revision).collect();
    assert_eq!(revisions, [4, 5, 6]);
}

#[test]
fn a_pause_stops_the_rollout_but_not_scaling() {
    let mut world = World::new(deployment(2, "v1"));
    world.settle();
    world.deployment.spec.paused = Some(true);
    world.deployment.spec.template = deployment(2, "v2").spec.template;
    world.settle();
    assert_eq!(world.sizes(), [2]);
    assert_eq!(world.reason(), "DeploymentPaused");
    world.deployment.spec.replicas = Some(5);
    world.settle();
    assert_eq!(world.sizes(), [5]);
    world.deployment.spec.paused = None;
    world.step();
    assert_eq!(world.reason(), "NewReplicaSetCreated");
    world.settle();
    assert_eq!(world.sizes(), [0, 5]);
}

#[test]
fn scaling_during_a_rollout_is_proportional() {
    let mut world = World::new(deployment(10, "v1"));
    world.settle();
    rolling(&mut world.deployment, "3", "2");
    world.deployment.spec.template = deployment(10, "v2").spec.template;
    world.step();
    world.step();
    assert_eq!(world.sizes(), [8, 3]);
    world.step();
    assert_eq!(world.sizes(), [8, 5]);
    world.deployment.spec.replicas = Some(15);
    world.step();
    // 18 are allowed and 13 exist: five more in the proportion 8 to 5.
    assert_eq!(world.sizes(), [11, 7]);
}

#[test]
fn a_rollout_without_progress_times_out() {
    let mut world = World::new(deployment(1, "v1"));
    world.deployment.spec.progress_deadline_seconds = Some(10);
    world.step();
    world.pods(0, 0);
    for _ in 0..4 {
        world.step();
    }
    let plan = world.step();
    assert!(plan.requeue_after.is_some());
    world.now += 20;
    let plan = world.step();
    assert_eq!(world.reason(), "ProgressDeadlineExceeded");
    assert_eq!(plan.requeue_after, None);
    world.pods(0, 1);
    world.step();
    assert_eq!(world.reason(), "NewReplicaSetAvailable");
}

#[test]
fn annotations_are_copied_to_the_new_set_except_kubectls_own() {
    let mut world = World::new(deployment(1, "v1"));
    let own = world.deployment.metadata.annotations.get_or_insert_default();
    own.insert("kubernetes.io/change-cause".into(), "why".into());
    own.insert("kubectl.kubernetes.io/last-applied-configuration".into(), "{}".into());
    world.settle();
    let set = &world.sets[0];
    assert_eq!(sets::annotation(set, "kubernetes.io/change-cause"), Some("why"));
    assert_eq!(sets::annotation(set, "kubectl.kubernetes.io/last-applied-configuration"), None);
    assert_eq!(sets::desired_when_scaled(set), Some(1));
    assert_eq!(sets::max_when_scaled(set), Some(2));
}

#[test]
fn an_unchanged_condition_keeps_its_times() {
    let mut status = DeploymentStatus::default();
    status::set_condition(&mut status, "Available", "True", "R", "m".into(), at(1));
    status::set_condition(&mut status, "Available", "True", "R", "n".into(), at(2));
    let one: Vec<DeploymentCondition> = status.conditions.clone().unwrap();
    assert_eq!(one[0].last_update_time, Some(Time(at(1))));
    status::set_condition(&mut status, "Available", "True", "S", "n".into(), at(3));
    let two = status.conditions.unwrap();
    assert_eq!(two[0].last_update_time, Some(Time(at(3))));
    assert_eq!(two[0].last_transition_time, Some(Time(at(1))));
}

proptest! {
    /// Whatever the pods do and however late the old set reports it, a rollout keeps enough of
    /// them available and converges.
    #[test]
    fn rollouts_keep_enough_pods_available(
        replicas in 1..12i32,
        surge in 0..4i32,
        unavailable in 0..4i32,
        steps in prop::collection::vec((0..3u8, any::<bool>()), 60),
    ) {
        let mut world = World::new(deployment(replicas, "v1"));
        rolling(&mut world.deployment, &surge.to_string(), &unavailable.to_string());
        world.settle();
        world.deployment.spec.template = deployment(replicas, "v2").spec.template;
        let (surge, unavailable) = sets::surge_and_unavailable(&world.deployment);
        for (more, reported) in steps {
            world.step();
            let sizes = world.sizes();
            prop_assert!(sizes.iter().sum::<i32>() <= replicas + surge);
            let new = world.sets.len() - 1;
            let ready_before = if new == 0 { 0 } else { sets::ready(&world.sets[new]) };
            // The old set's pods are gone as soon as it is scaled down.
            let mut available = size(&world.sets[0]);
            if reported {
                world.pods(0, i32::MAX);
            }
            if new > 0 {
                world.pods(new, ready_before + i32::from(more));
                available += sets::available(&world.sets[new]);
            }
            prop_assert!(available >= replicas - unavailable, "{available} of {replicas}");
        }
        world.settle();
        prop_assert_eq!(world.sizes(), vec![0, replicas]);
        let plan = world.step();
        prop_assert!(plan.updates.is_empty() && plan.create.is_none() && plan.delete.is_empty());
    }
}
