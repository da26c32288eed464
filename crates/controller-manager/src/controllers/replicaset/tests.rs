use k8s_openapi::api::apps::v1::ReplicaSet;
use proptest::prelude::*;

use super::plan::BURST;
use super::*;
use crate::machinery::testing::{at, labels, pod};

fn observed<'a>(replicas: i32, pods: Vec<Pod>) -> Observed<'a> {
    Observed {
        replicas,
        min_ready_seconds: 0,
        generation: Some(3),
        deleting: false,
        template: None,
        status: Status::default(),
        reports_terminating: true,
        pods: pods.into_iter().map(Arc::new).collect(),
        per_node: Default::default(),
        expectations_met: true,
    }
}

fn deleted(plan: &Plan) -> Vec<String> {
    let names = plan.delete.iter();
    names.map(|pod| pod.metadata.name.clone().unwrap()).collect()
}

#[test]
fn the_number_of_pods_is_restored() {
    let finished = pod("done").phase("Succeeded").build();
    let terminating = pod("terminating").running().deleting().build();
    let alive = pod("alive").running().ready_at(5).build();
    let plan_for = |replicas| {
        plan(
            &observed(replicas, vec![finished.clone(), terminating.clone(), alive.clone()]),
            at(10),
        )
    };
    assert_eq!(plan_for(3).create, 2);
    assert_eq!(plan_for(1), Plan { create: 0, ..plan_for(1) });
    assert_eq!(deleted(&plan_for(0)), ["alive"]);
    let status = plan_for(3).status;
    assert_eq!(
        (status.replicas, status.ready, status.available, status.terminating),
        (1, 1, 1, Some(1))
    );
    assert_eq!(status.observed_generation, Some(3));
    assert_eq!(plan_for(2000).create, BURST);
}

#[test]
fn nothing_is_planned_on_stale_state_or_for_a_set_being_deleted() {
    let mut stale = observed(5, vec![]);
    stale.expectations_met = false;
    assert_eq!(plan(&stale, at(0)).create, 0);
    let mut dying = observed(0, vec![pod("a").build()]);
    dying.deleting = true;
    assert!(plan(&dying, at(0)).delete.is_empty());
}

#[test]
fn a_failure_is_kept_until_an_attempt_shows_otherwise() {
    let failure = Some(ReplicaFailure {
        reason: "FailedCreate".into(),
        message: "exceeded quota".into(),
        since: None,
    });
    for (replicas, expectations_met, kept) in [(1, true, false), (2, true, false), (2, false, true)]
    {
        let mut observed = observed(replicas, vec![pod("a").build()]);
        observed.status.failure.clone_from(&failure);
        observed.expectations_met = expectations_met;
        let status = plan(&observed, at(0)).status;
        assert_eq!(status.failure.is_some(), kept, "{replicas} {expectations_met}");
    }
}

#[test]
fn pods_become_available_after_min_ready_seconds() {
    let mut waiting = observed(
        2,
        vec![pod("a").running().ready_at(100).build(), pod("b").running().ready_at(90).build()],
    );
    waiting.min_ready_seconds = 15;
    let early = plan(&waiting, at(104));
    assert_eq!((early.status.ready, early.status.available), (2, 0));
    assert_eq!(early.requeue_after, Some(std::time::Duration::from_secs(1)));
    let later = plan(&waiting, at(105));
    assert_eq!(later.status.available, 1);
    assert_eq!(later.requeue_after, Some(std::time::Duration::from_secs(10)));
    assert_eq!(plan(&waiting, at(115)).requeue_after, None);
}

#[test]
fn fully_labeled_pods_are_counted() {
    let mut set = ReplicaSet::default();
    let template = set.spec.template.get_or_insert_default();
    template.metadata.get_or_insert_default().labels = Some(labels(&[("app", "web"), ("v", "1")]));
    let mut two = observed(
        2,
        vec![
            pod("a").label("app", "web").label("v", "1").build(),
            pod("b").label("app", "web").build(),
        ],
    );
    two.template = set.template();
    assert_eq!(plan(&two, at(0)).status.fully_labeled, 1);
}

#[test]
fn a_status_round_trips() {
    let mut set = ReplicaSet::default();
    let status = Status {
        replicas: 3,
        ready: 2,
        terminating: Some(1),
        observed_generation: Some(9),
        failure: Some(ReplicaFailure {
            reason: "FailedCreate".into(),
            message: "no".into(),
            since: Some(Time(at(4))),
        }),
        ..Default::default()
    };
    set.set_status(status.clone());
    assert_eq!(set.status(), status);
    set.set_status(Status::default());
    assert_eq!(set.status.unwrap().conditions, None);
}

fn any_pod() -> impl Strategy<Value = Pod> {
    (0..1000u32, 0..4u8, any::<bool>(), any::<bool>(), prop::option::of(0..3u8)).prop_map(
        |(id, phase, ready, deleting, node)| {
            let phase = ["Pending", "Running", "Succeeded", "Failed"][usize::from(phase)];
            let mut built = pod(&format!("p{id}")).phase(phase);
            if ready && phase == "Running" {
                built = built.ready_at(id.into());
            }
            if deleting {
                built = built.deleting();
            }
            if let Some(node) = node {
                built = built.on(&format!("n{node}"));
            }
            built.build()
        },
    )
}

proptest! {
    /// After a plan is applied, the next plan is empty.
    #[test]
    fn plans_converge(pods in prop::collection::vec(any_pod(), 0..40), replicas in 0..30i32) {
        let world = observed(replicas, pods);
        let first = plan(&world, at(2000));
        prop_assert!(first.create == 0 || first.delete.is_empty());
        let mut after: Vec<Pod> = world.pods.iter().map(|pod| (**pod).clone()).collect();
        for gone in &first.delete {
            let at = after.iter().position(|pod| pod == &**gone).unwrap();
            after.remove(at);
        }
        after.extend((0..first.create).map(|index| pod(&format!("new{index}")).build()));
        let second = plan(&observed(replicas, after), at(2000));
        prop_assert_eq!((second.create, second.delete.len()), (0, 0));
        prop_assert_eq!(second.status.replicas, replicas);
    }
}
