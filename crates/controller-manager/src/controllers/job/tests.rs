use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule, SuccessPolicy, SuccessPolicyRule,
};
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, PodCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;

use super::status::condition_is_true;
use super::*;
use crate::machinery::testing::at;

fn job(change: impl FnOnce(&mut JobSpec)) -> Job {
    let mut job = Job::default();
    job.metadata.name = Some("j".into());
    job.metadata.namespace = Some("ns".into());
    job.metadata.uid = Some("uid-j".into());
    let spec = job.spec.get_or_insert_default();
    (spec.completions, spec.parallelism, spec.backoff_limit) = (Some(1), Some(1), Some(6));
    change(spec);
    job
}

/// Applies plans to pods in memory.
struct World {
    job: Job,
    pods: Vec<Pod>,
    now: i64,
    made: usize,
}

impl World {
    fn new(change: impl FnOnce(&mut JobSpec)) -> Self {
        Self { job: job(change), pods: Vec::new(), now: 1000, made: 0 }
    }

    fn step(&mut self) -> Plan {
        let observed = Observed {
            job: &self.job,
            pods: self.pods.iter().cloned().map(Arc::new).collect(),
            expectations_met: true,
        };
        let plan = plan(&observed, at(self.now));
        self.job.status = Some(plan.status.clone());
        for pod in &plan.untrack {
            let found = self.pods.iter_mut().find(|one| one.metadata.uid == pod.metadata.uid);
            found.unwrap().metadata.finalizers = None;
        }
        for gone in &plan.delete {
            let found = self.pods.iter_mut().find(|pod| pod.metadata.uid == gone.metadata.uid);
            found.unwrap().metadata.deletion_timestamp = Some(Time(at(self.now)));
        }
        // Deleted pods are gone once they have no finalizer.
        self.pods
            .retain(|pod| pod.metadata.deletion_timestamp.is_none() || job_pod::is_tracked(pod));
        for (index, failures) in &plan.create {
            let mut pod = job_pod::new(&self.job, *index, *failures).unwrap();
            self.made += 1;
            pod.metadata.uid = Some(format!("u{}", self.made));
            pod.metadata.name = Some(format!("p{}", self.made));
            pod.metadata.creation_timestamp = Some(Time(at(self.now)));
            pod.status.get_or_insert_default().phase = Some("Running".into());
            self.pods.push(pod);
        }
        plan
    }

    /// Finishes the newest running pod.
    fn end(&mut self, phase: &str) {
        self.end_with(phase, 1);
    }

    fn end_with(&mut self, phase: &str, code: i32) {
        let now = self.now;
        let running = |pod: &&mut Pod| api::pod::phase(pod) == "Running";
        let pod = self.pods.iter_mut().rev().find(running).expect("a pod runs");
        let status = pod.status.as_mut().unwrap();
        status.phase = Some(phase.into());
        status.container_statuses = Some(vec![ContainerStatus {
            name: "c".into(),
            state: Some(ContainerState {
                terminated: Some(ContainerStateTerminated {
                    exit_code: if phase == "Failed" { code } else { 0 },
                    finished_at: Some(Time(at(now))),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }]);
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            let before = (self.job.clone(), self.pods.clone());
            self.step();
            if before == (self.job.clone(), self.pods.clone()) {
                return;
            }
        }
        panic!("does not settle: {:?}", self.job.status);
    }

    fn status(&self) -> &JobStatus {
        self.job.status.as_ref().unwrap()
    }

    fn running(&self) -> usize {
        self.pods.iter().filter(|pod| is_active(pod)).count()
    }

    fn reason(&self) -> String {
        final_condition(self.status()).map(|ending| ending.reason).unwrap_or_default()
    }
}

#[test]
fn a_pod_succeeds_and_is_counted_once() {
    let mut world = World::new(|_| ());
    world.settle();
    assert_eq!((world.running(), world.status().active), (1, Some(1)));
    assert!(world.status().start_time.is_some());
    world.end("Succeeded");
    let plan = world.step();
    let uncounted = plan.status.uncounted_terminated_pods.unwrap();
    assert_eq!(uncounted.succeeded.unwrap(), ["u1"]);
    assert_eq!(plan.untrack.len(), 1);
    assert!(!condition_is_true(world.status(), "Complete"));
    world.settle();
    assert!(condition_is_true(world.status(), "Complete"));
    assert_eq!(world.status().succeeded, Some(1));
    assert!(world.status().completion_time.is_some());
    assert_eq!(world.made, 1);
}

#[test]
fn failures_back_off_until_the_limit() {
    let mut world = World::new(|spec| spec.backoff_limit = Some(2));
    world.settle();
    for wait in [10, 20] {
        world.end("Failed");
        world.settle();
        assert_eq!(world.running(), 0);
        assert_eq!(world.step().requeue_after, Some(std::time::Duration::from_secs(wait)));
        world.now += i64::try_from(wait).unwrap();
        world.settle();
        assert_eq!(world.running(), 1);
    }
    world.end("Failed");
    world.settle();
    assert_eq!(world.reason(), "BackoffLimitExceeded");
    assert!(condition_is_true(world.status(), "Failed"));
    assert_eq!((world.status().failed, world.running()), (Some(3), 0));
}

#[test]
fn parallelism_and_completions() {
    let mut world = World::new(|spec| (spec.completions, spec.parallelism) = (Some(5), Some(2)));
    world.settle();
    for left in [2, 2, 2, 1, 0] {
        assert!(world.running() <= 2);
        world.end("Succeeded");
        world.settle();
        assert_eq!(world.running(), left.min(2));
    }
    assert_eq!(world.status().succeeded, Some(5));
    assert!(condition_is_true(world.status(), "Complete"));
}

#[test]
fn pods_that_a_complete_job_should_not_have_are_reported_once() {
    let mut world = World::new(|spec| (spec.completions, spec.parallelism) = (Some(3), Some(3)));
    world.settle();
    world.job.spec.as_mut().unwrap().completions = Some(1);
    world.end("Succeeded");
    world.end("Succeeded");
    let reported: Vec<_> = (0..9).flat_map(|_| world.step().surplus).map(|one| one.0).collect();
    assert_eq!(reported, ["TooManyActivePods", "TooManySucceededPods"]);
    assert!(condition_is_true(world.status(), "Complete"));
}

#[test]
fn a_work_queue_completes_when_all_pods_have_finished() {
    let mut world = World::new(|spec| (spec.completions, spec.parallelism) = (None, Some(3)));
    world.settle();
    world.end("Succeeded");
    world.settle();
    assert_eq!((world.running(), world.made), (2, 3));
    world.end("Succeeded");
    world.end("Succeeded");
    world.settle();
    assert!(condition_is_true(world.status(), "Complete"));
}

#[test]
fn every_index_succeeds_once() {
    let mut world = World::new(|spec| {
        spec.completion_mode = Some("Indexed".into());
        (spec.completions, spec.parallelism) = (Some(3), Some(2));
    });
    world.settle();
    let first = &world.pods[0];
    assert_eq!(job_pod::index(first), Some(0));
    assert_eq!(first.spec.as_ref().unwrap().hostname.as_deref(), Some("j-0"));
    world.end("Succeeded");
    world.settle();
    assert_eq!(world.status().completed_indexes.as_deref(), Some("1"));
    world.end("Succeeded");
    world.end("Succeeded");
    world.settle();
    assert_eq!(world.status().completed_indexes.as_deref(), Some("0-2"));
    assert!(condition_is_true(world.status(), "Complete"));
}

#[test]
fn indexes_fail_independently() {
    let mut world = World::new(|spec| {
        spec.completion_mode = Some("Indexed".into());
        (spec.completions, spec.parallelism) = (Some(2), Some(1));
        (spec.backoff_limit, spec.backoff_limit_per_index) = (Some(i32::MAX), Some(1));
    });
    world.settle();
    world.end("Failed");
    world.settle();
    // The other index continues in the meantime.
    assert_eq!(job_pod::index(world.pods.last().unwrap()), Some(1));
    world.end("Succeeded");
    world.now += 100;
    world.settle();
    let again = world.pods.last().unwrap();
    assert_eq!((job_pod::index(again), job_pod::failures_before(again)), (Some(0), 1));
    world.end("Failed");
    world.settle();
    assert_eq!(world.status().failed_indexes.as_deref(), Some("0"));
    assert_eq!(world.reason(), "FailedIndexes");
    assert!(condition_is_true(world.status(), "Failed"));
    assert_eq!(world.status().failed, Some(2));
}

#[test]
fn failure_and_success_policies() {
    let rule = |action: &str, code: i32| PodFailurePolicyRule {
        action: action.into(),
        on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
            operator: "In".into(),
            values: vec![code],
            container_name: None,
        }),
        on_pod_conditions: None,
    };
    let with_rules = |spec: &mut JobSpec| {
        spec.pod_failure_policy =
            Some(PodFailurePolicy { rules: vec![rule("Ignore", 3), rule("FailJob", 42)] });
    };
    let mut world = World::new(with_rules);
    world.settle();
    world.end_with("Failed", 3);
    world.settle();
    assert_eq!(world.status().failed.unwrap_or(0), 0);
    world.now += 100;
    world.settle();
    world.end_with("Failed", 42);
    world.settle();
    assert_eq!(world.reason(), "PodFailurePolicy");
    let message = final_condition(world.status()).unwrap().message;
    assert_eq!(
        message,
        "Container c for pod ns/p2 failed with exit code 42 matching FailJob rule at index 1"
    );

    let mut world = World::new(|spec| {
        spec.completion_mode = Some("Indexed".into());
        (spec.completions, spec.parallelism) = (Some(4), Some(4));
        spec.success_policy = Some(SuccessPolicy {
            rules: vec![SuccessPolicyRule {
                succeeded_indexes: Some("2-3".into()),
                succeeded_count: Some(1),
            }],
        });
    });
    world.settle();
    world.end("Succeeded");
    world.settle();
    assert_eq!(world.reason(), "SuccessPolicy");
    assert!(condition_is_true(world.status(), "Complete"));
    assert_eq!(world.running(), 0);
}

/// The condition that eviction through the API leaves on a pod, which a policy can tell from a
/// failure of the container's own.
#[test]
fn an_evicted_pod_does_not_count_where_the_policy_says_so() {
    for (ignored, failed) in [(true, 0), (false, 1)] {
        let mut world = World::new(|spec| {
            let pattern = |kind: &str| PodFailurePolicyOnPodConditionsPattern {
                type_: kind.into(),
                status: Some("True".into()),
            };
            let kind = if ignored { "DisruptionTarget" } else { "SomethingElse" };
            let rule = PodFailurePolicyRule {
                action: "Ignore".into(),
                on_exit_codes: None,
                on_pod_conditions: Some(vec![pattern(kind)]),
            };
            spec.pod_failure_policy = Some(PodFailurePolicy { rules: vec![rule] });
        });
        world.settle();
        world.end_with("Failed", 137);
        world.pods.last_mut().unwrap().status.as_mut().unwrap().conditions =
            Some(vec![PodCondition {
                type_: "DisruptionTarget".into(),
                status: "True".into(),
                reason: Some("EvictionByEvictionAPI".into()),
                ..Default::default()
            }]);
        world.settle();
        assert_eq!(world.status().failed.unwrap_or(0), failed);
        world.now += 100;
        world.settle();
        assert_eq!(world.running(), 1, "it is replaced");
    }
}

#[test]
fn suspension_deletes_pods_and_resumption_recreates_them() {
    let mut world = World::new(|spec| spec.active_deadline_seconds = Some(60));
    world.settle();
    world.job.spec.as_mut().unwrap().suspend = Some(true);
    let event = world.step().suspension.unwrap();
    assert_eq!(event, ("Suspended", "Job suspended"));
    world.settle();
    assert_eq!((world.running(), world.pods.len()), (0, 0));
    assert!(condition_is_true(world.status(), "Suspended"));
    assert_eq!((world.status().failed.unwrap_or(0), &world.status().start_time), (0, &None));
    world.now += 1000;
    world.job.spec.as_mut().unwrap().suspend = Some(false);
    assert_eq!(world.step().suspension.unwrap().0, "Resumed");
    world.settle();
    assert_eq!(world.running(), 1);
    world.now += 60;
    world.settle();
    assert_eq!(world.reason(), "DeadlineExceeded");
    assert_eq!(world.running(), 0);
}

proptest! {
    /// Every finished pod is counted exactly once, and a Job that can succeed does.
    #[test]
    fn finished_pods_are_counted_once(completions in 1..6i32, parallelism in 1..4i32, indexed: bool, outcomes in prop::collection::vec(any::<bool>(), 60)) {
        let mut world = World::new(|spec| {
            (spec.completions, spec.parallelism) = (Some(completions), Some(parallelism));
            spec.backoff_limit = Some(1000);
            if indexed {
                spec.completion_mode = Some("Indexed".into());
            }
        });
        let (mut succeeded, mut failed) = (0, 0);
        let mut outcomes = outcomes.into_iter();
        for _ in 0..100 {
            world.settle();
            if condition_is_true(world.status(), "Complete") {
                break;
            }
            if world.running() == 0 {
                world.now += 400;
                continue;
            }
            prop_assert!(world.running() as i32 <= parallelism);
            if outcomes.next().unwrap_or(true) {
                world.end("Succeeded");
                succeeded += 1;
            } else {
                world.end("Failed");
                failed += 1;
            }
        }
        prop_assert!(condition_is_true(world.status(), "Complete"));
        prop_assert_eq!(world.status().succeeded, Some(succeeded));
        prop_assert_eq!(world.status().failed.unwrap_or(0), failed);
        prop_assert_eq!(succeeded, completions);
        prop_assert!(world.pods.iter().all(|pod| !job_pod::is_tracked(pod)));
    }
}
