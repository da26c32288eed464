use k8s_openapi::api::apps::v1::{
    RollingUpdateStatefulSetStrategy, StatefulSetOrdinals, StatefulSetUpdateStrategy,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;

use super::*;
use crate::machinery::testing::at;

fn set(replicas: i32) -> StatefulSet {
    let mut set = StatefulSet::default();
    set.metadata.name = Some("db".into());
    set.metadata.namespace = Some("ns".into());
    set.metadata.uid = Some("uid-db".into());
    set.spec.replicas = Some(replicas);
    set.spec.service_name = Some("db".into());
    let mut template = PersistentVolumeClaim::default();
    template.metadata.name = Some("data".into());
    set.spec.volume_claim_templates = Some(vec![template]);
    set
}

fn partitioned(set: &mut StatefulSet, partition: i32) {
    set.spec.update_strategy = Some(StatefulSetUpdateStrategy {
        type_: Some("RollingUpdate".into()),
        rolling_update: Some(RollingUpdateStatefulSetStrategy {
            partition: Some(partition),
            max_unavailable: None,
        }),
    });
}

/// Applies plans to pods in memory.
struct World {
    set: StatefulSet,
    pods: Vec<Pod>,
    update: &'static str,
}

impl World {
    fn new(set: StatefulSet) -> Self {
        Self { set, pods: Vec::new(), update: "r1" }
    }

    fn step(&mut self) -> Plan {
        let status = self.set.status.clone().unwrap_or_default();
        let observed = Observed {
            set: &self.set,
            pods: self.pods.iter().cloned().map(Arc::new).collect(),
            current: status.current_revision.unwrap_or_else(|| self.update.into()),
            update: self.update.into(),
            collision_count: None,
            expectations_met: true,
        };
        let plan = plan(&observed, at(100));
        for gone in &plan.delete {
            self.pods.retain(|pod| pod != &**gone);
        }
        for (ordinal, revision) in &plan.create {
            let mut pod = identity::pod(&self.set, &Default::default(), revision, *ordinal);
            pod.metadata.creation_timestamp = Some(Time(at(1)));
            self.pods.push(pod);
        }
        self.set.status = Some(plan.status.clone());
        plan
    }

    fn ready(&mut self, name: &str) {
        let of = |pod: &&mut Pod| pod.metadata.name.as_deref() == Some(name);
        let pod = self.pods.iter_mut().find(of).unwrap();
        pod.status = crate::machinery::testing::pod("x").running().ready_at(1).build().status;
    }

    fn all_ready(&mut self) {
        for pod in &mut self.pods {
            pod.status = crate::machinery::testing::pod("x").running().ready_at(1).build().status;
        }
    }

    fn settle(&mut self) {
        for _ in 0..60 {
            let before = (self.set.clone(), self.pods.clone());
            self.step();
            self.all_ready();
            if before == (self.set.clone(), self.pods.clone()) {
                return;
            }
        }
        panic!("does not settle");
    }

    fn shape(&self) -> Vec<String> {
        let mut all: Vec<_> = self
            .pods
            .iter()
            .map(|pod| {
                format!("{}:{}", pod.metadata.name.as_deref().unwrap(), identity::revision(pod))
            })
            .collect();
        all.sort();
        all
    }
}

#[test]
fn pods_are_created_and_deleted_in_order() {
    let mut world = World::new(set(3));
    world.step();
    assert_eq!(world.shape(), ["db-0:r1"]);
    world.step();
    assert_eq!(world.shape(), ["db-0:r1"], "the first is not ready yet");
    world.ready("db-0");
    world.step();
    assert_eq!(world.shape(), ["db-0:r1", "db-1:r1"]);
    world.settle();
    assert_eq!(world.shape(), ["db-0:r1", "db-1:r1", "db-2:r1"]);
    world.set.spec.replicas = Some(1);
    let plan = world.step();
    assert_eq!(plan.delete[0].metadata.name.as_deref(), Some("db-2"));
    let status = &plan.status;
    assert_eq!(
        (status.replicas, status.ready_replicas),
        (3, Some(3)),
        "pods that are scaled down count until they are gone"
    );
    world.settle();
    assert_eq!(world.shape(), ["db-0:r1"]);
    let status = world.set.status.unwrap();
    assert_eq!((status.replicas, status.ready_replicas), (1, Some(1)));
}

#[test]
fn parallel_management_does_not_wait() {
    let mut set = set(3);
    set.spec.pod_management_policy = Some("Parallel".into());
    set.spec.ordinals = Some(StatefulSetOrdinals { start: Some(5) });
    let mut world = World::new(set);
    world.step();
    assert_eq!(world.shape(), ["db-5:r1", "db-6:r1", "db-7:r1"]);
}

#[test]
fn updates_go_from_the_highest_ordinal_to_the_partition() {
    let mut world = World::new(set(3));
    world.settle();
    partitioned(&mut world.set, 1);
    world.update = "r2";
    let plan = world.step();
    assert_eq!(plan.delete[0].metadata.name.as_deref(), Some("db-2"));
    world.step();
    assert_eq!(world.shape(), ["db-0:r1", "db-1:r1", "db-2:r2"]);
    let plan = world.step();
    assert!(plan.delete.is_empty(), "the new one is not ready yet");
    world.settle();
    assert_eq!(world.shape(), ["db-0:r1", "db-1:r2", "db-2:r2"]);
    let status = world.set.status.clone().unwrap();
    assert_eq!(status.current_revision.as_deref(), Some("r1"));
    // Below the partition a lost pod is recreated from the old revision.
    world.pods.retain(|pod| pod.metadata.name.as_deref() != Some("db-0"));
    world.settle();
    assert_eq!(world.shape()[0], "db-0:r1");
    partitioned(&mut world.set, 0);
    world.settle();
    assert_eq!(world.shape(), ["db-0:r2", "db-1:r2", "db-2:r2"]);
    let status = world.set.status.unwrap();
    assert_eq!(status.current_revision.as_deref(), Some("r2"));
    assert_eq!(status.current_replicas, Some(3));
}

#[test]
fn on_delete_updates_only_pods_that_are_recreated() {
    let mut world = World::new(set(2));
    world.settle();
    world.set.spec.update_strategy =
        Some(StatefulSetUpdateStrategy { type_: Some("OnDelete".into()), rolling_update: None });
    world.update = "r2";
    world.settle();
    assert_eq!(world.shape(), ["db-0:r1", "db-1:r1"]);
    world.pods[1].status.as_mut().unwrap().phase = Some("Failed".into());
    world.step();
    world.settle();
    assert_eq!(world.shape(), ["db-0:r1", "db-1:r2"]);
}

#[test]
fn pods_have_stable_names_hostnames_and_claims() {
    let set = set(1);
    let pod = identity::pod(&set, &Default::default(), "r1", 4);
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!(spec.hostname.as_deref(), Some("db-4"));
    assert_eq!(spec.subdomain.as_deref(), Some("db"));
    let volume = &spec.volumes.as_ref().unwrap()[0];
    let claim = volume.persistent_volume_claim.as_ref().unwrap();
    assert_eq!(claim.claim_name, "data-db-4");
    assert_eq!(identity::claims(&set, 4)[0].metadata.name.as_deref(), Some("data-db-4"));
    let labels = pod.metadata.labels.as_ref().unwrap();
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "4");
    assert_eq!(identity::ordinal(&set, &pod), Some(4));
    let mut odd = pod;
    odd.metadata.name = Some("db-04".into());
    assert_eq!(identity::ordinal(&set, &odd), None);
}

proptest! {
    /// At most one pod is unavailable at a time, and the update completes.
    #[test]
    fn updates_replace_one_pod_at_a_time(replicas in 1..6i32, readiness in prop::collection::vec(any::<bool>(), 60)) {
        let mut world = World::new(set(replicas));
        world.settle();
        world.update = "r2";
        for ready in readiness {
            world.step();
            let up = world.pods.iter().filter(|pod| crate::machinery::pod_state::is_ready(pod)).count();
            prop_assert!(up as i32 >= replicas - 1);
            if ready {
                world.all_ready();
            }
        }
        world.settle();
        prop_assert!(world.shape().iter().all(|pod| pod.ends_with(":r2")));
        let plan = world.step();
        prop_assert!(plan.create.is_empty() && plan.delete.is_empty());
    }
}
