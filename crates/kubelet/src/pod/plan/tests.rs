use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus, Probe};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::containers::{ContainerExit, ContainerState, ContainerStatus, ExitReason, PodSandbox};
use crate::pod::backoff::{RESTART, RETRY};
use crate::pod::declared::declared;
use crate::pod::worker::state::{Failure, ImageState, ReadySandbox, Work, WorkerState};
use crate::probe::ProbeView;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn container(name: &str) -> Container {
    Container { name: name.into(), image: Some("image:1".into()), ..Default::default() }
}

fn sidecar(name: &str) -> Container {
    Container { restart_policy: Some("Always".into()), ..container(name) }
}

fn pod(init: Vec<Container>, apps: Vec<Container>) -> Pod {
    let mut pod = Pod {
        spec: Some(PodSpec { init_containers: Some(init), containers: apps, ..Default::default() }),
        ..Default::default()
    };
    pod.metadata.name = Some("web".into());
    pod.metadata.namespace = Some("shop".into());
    pod.metadata.uid = Some("u1".into());
    pod
}

fn sandbox() -> ReadySandbox {
    ReadySandbox { sandbox: PodSandbox::default(), ips: vec![] }
}

/// A pod whose sandbox, volumes and images are there.
fn observed(pod: Pod) -> Observed {
    let declared = declared(&pod);
    let images = declared
        .iter()
        .map(|one| (one.name().to_owned(), ImageState::Present { attempt: 0 }))
        .collect();
    Observed {
        declared,
        pod: Arc::new(pod),
        vanished: false,
        containers: Vec::new(),
        state: WorkerState {
            sandbox: Some(sandbox()),
            volumes_mounted: true,
            images,
            ..Default::default()
        },
        network_available: true,
        host_ips: vec![],
    }
}

fn status(name: &str, attempt: u32, state: ContainerState) -> ContainerStatus {
    ContainerStatus {
        id: ContainerId(format!("{name}-{attempt}")),
        pod: Default::default(),
        name: name.into(),
        attempt,
        spec_hash: crate::pod::declared::Declared {
            role: crate::pod::declared::Role::App,
            container: container(name),
            target: None,
        }
        .spec_hash(),
        image: String::new(),
        image_id: String::new(),
        image_ref: String::new(),
        annotations: Default::default(),
        created_at: at(0),
        state,
        log_path: "/log".into(),
        cgroup: Default::default(),
        user: Default::default(),
        tty: false,
        stdin: false,
        stdin_once: false,
        stop_signal: 15,
    }
}

fn running(name: &str, attempt: u32) -> ContainerStatus {
    let started_at = at(0);
    status(name, attempt, ContainerState::Running { pid: 1, started_at })
}

fn exited(name: &str, attempt: u32, exit_code: i32, finished: i64) -> ContainerStatus {
    let exit = ContainerExit {
        exit_code,
        started_at: Some(at(0)),
        finished_at: at(finished),
        reason: ExitReason::Error,
        message: String::new(),
    };
    status(name, attempt, ContainerState::Exited(exit))
}

/// `start:NAME:ATTEMPT`, `stop:ID`, ... in order.
fn words(plan: &Plan) -> Vec<String> {
    plan.actions
        .iter()
        .map(|action| match action {
            Action::AllocateDevices => "devices".to_owned(),
            Action::SetUpSandbox => "sandbox".to_owned(),
            Action::SyncVolumes => "volumes".to_owned(),
            Action::EnsureImage { container, attempt } => format!("image:{container}:{attempt}"),
            Action::StartContainer { container, attempt, .. } => {
                format!("start:{container}:{attempt}")
            }
            Action::StopContainer { id, .. } => format!("stop:{id}"),
            Action::Resize { id, .. } => format!("resize:{id}"),
            Action::RemoveContainer { id } => format!("remove:{id}"),
            Action::TearDown => "down".to_owned(),
            Action::RemovePod => "remove-pod".to_owned(),
            Action::DeleteObject => "delete".to_owned(),
        })
        .collect()
}

#[test]
fn a_new_pod_prepares_everything_at_once() {
    let mut new = observed(pod(vec![], vec![container("a"), container("b")]));
    new.state = WorkerState::default();
    let plan = plan(&new, at(0));
    assert_eq!(words(&plan), ["sandbox", "volumes", "image:a:0", "image:b:0"]);
    new.network_available = false;
    assert_eq!(
        words(&super::plan(&new, at(0))),
        ["volumes", "image:a:0", "image:b:0"],
        "no network to join yet"
    );
    for work in [Work::Sandbox, Work::Volumes, Work::Image("a".into()), Work::Image("b".into())] {
        new.state.in_flight.insert(work);
    }
    assert_eq!(super::plan(&new, at(0)), Plan::default(), "everything is in flight");
}

#[test]
fn devices_come_before_everything_else() {
    let mut new = observed(pod(vec![], vec![container("a")]));
    new.state.sandbox = None;
    new.state.devices_wanted = true;
    assert_eq!(words(&plan(&new, at(0))), ["devices"]);
    new.state.in_flight.insert(Work::Devices);
    assert_eq!(words(&plan(&new, at(0))), Vec::<String>::new());
    // What is being allocated could not be freed.
    let mut leaving = (*new.pod).clone();
    leaving.metadata.deletion_timestamp = Some(Time(at(0)));
    let mut gone = Observed { pod: Arc::new(leaving), ..new.clone() };
    assert_eq!(words(&plan(&gone, at(0))), Vec::<String>::new());
    gone.state.in_flight.clear();
    assert_eq!(words(&plan(&gone, at(0))), ["down"]);
    // A plugin registered after the pod's start: the container gets its devices when it starts.
    new.state.in_flight.clear();
    new.containers = vec![running("a", 0)];
    assert_eq!(words(&plan(&new, at(0))), ["sandbox"]);
}

#[test]
fn containers_start_in_order_one_at_a_time() {
    let mut here = observed(pod(vec![], vec![container("a"), container("b")]));
    assert_eq!(words(&plan(&here, at(0))), ["start:a:0"]);
    here.state.in_flight.insert(Work::Start("a".into()));
    assert!(words(&plan(&here, at(0))).is_empty());
    here.state.in_flight.clear();
    here.containers = vec![running("a", 0)];
    assert_eq!(words(&plan(&here, at(0))), ["start:b:0"]);
    here.containers.push(running("b", 0));
    assert_eq!(plan(&here, at(0)), Plan::default(), "converged");
}

#[test]
fn init_containers_and_sidecars_come_first() {
    let mut probed = sidecar("side");
    probed.startup_probe = Some(Probe::default());
    let mut here =
        observed(pod(vec![container("one"), probed, container("two")], vec![container("app")]));
    assert_eq!(words(&plan(&here, at(0))), ["start:one:0"]);
    here.containers = vec![running("one", 0)];
    assert!(words(&plan(&here, at(0))).is_empty());
    here.containers = vec![exited("one", 0, 0, 1)];
    assert_eq!(words(&plan(&here, at(1))), ["start:side:0"]);
    here.containers.push(running("side", 0));
    assert!(words(&plan(&here, at(1))).is_empty(), "it has not started");
    let passed = ProbeView { startup: Some(true), ..Default::default() };
    here.state.probes.insert(ContainerId("side-0".into()), passed);
    assert_eq!(words(&plan(&here, at(1))), ["start:two:0"]);
    here.containers.push(exited("two", 0, 0, 2));
    assert_eq!(words(&plan(&here, at(2))), ["start:app:0"]);
    here.containers.push(running("app", 0));
    assert_eq!(plan(&here, at(2)), Plan::default());
    // A sidecar that exits later is started again; the containers after it are left alone.
    here.containers[1] = exited("side", 0, 1, 3);
    here.state.images.remove("side");
    assert_eq!(words(&plan(&here, at(3))), ["image:side:1"]);
}

#[test]
fn init_containers_run_again_after_a_reboot() {
    let mut here = observed(pod(vec![container("one")], vec![container("app")]));
    let of = |mut container: ContainerStatus, sandbox: &str| {
        let annotation = crate::pod::container_config::SANDBOX_ANNOTATION.to_owned();
        container.annotations.insert(annotation, sandbox.to_owned());
        container
    };
    if let Some(sandbox) = &mut here.state.sandbox {
        sandbox.sandbox.id = "new".into();
    }
    here.containers = vec![of(exited("one", 0, 0, 1), "old"), of(exited("app", 0, 255, 2), "old")];
    assert_eq!(words(&plan(&here, at(3))), ["image:one:1"]);
    here.containers.push(of(exited("one", 1, 0, 4), "new"));
    assert_eq!(words(&plan(&here, at(4))), ["image:app:1"]);
    here.containers.push(of(running("app", 1), "new"));
    assert_eq!(plan(&here, at(5)), Plan::default());
}

#[test]
fn a_failed_init_container_is_retried_or_fails_the_pod() {
    let mut here = observed(pod(vec![container("one")], vec![container("app")]));
    here.containers = vec![exited("one", 0, 1, 0)];
    assert_eq!(words(&plan(&here, at(0))), ["image:one:1"]);
    let mut never = pod(vec![container("one")], vec![container("app")]);
    never.spec.get_or_insert_default().restart_policy = Some("Never".into());
    let mut here = observed(never);
    here.containers = vec![exited("one", 0, 1, 0)];
    assert_eq!(words(&plan(&here, at(0))), ["down"]);
}

#[test]
fn restarts_back_off() {
    let mut here = observed(pod(vec![], vec![container("a")]));
    here.containers = vec![exited("a", 0, 1, 0)];
    here.state.images.insert("a".into(), ImageState::Present { attempt: 1 });
    let first = plan(&here, at(0));
    let restart = Backoff { delay: RESTART.first, since: at(0) };
    let start =
        |attempt, restart| Action::StartContainer { container: "a".into(), attempt, restart };
    assert_eq!(first.actions, [start(1, Some(restart))], "the first one at once");
    here.state.restarts.insert("a".into(), restart);
    here.containers = vec![exited("a", 1, 1, 5)];
    let waits = plan(&here, at(6));
    assert!(waits.actions.is_empty());
    assert_eq!(waits.wake_at, Some(at(15)));
    assert_eq!(waits.waiting["a"].reason, "CrashLoopBackOff");
    assert_eq!(
        waits.waiting["a"].message,
        "back-off 10s restarting failed container=a pod=web_shop(u1)"
    );
    here.state.images.insert("a".into(), ImageState::Present { attempt: 2 });
    let doubled = Backoff { delay: RESTART.first * 2, since: at(15) };
    assert_eq!(plan(&here, at(15)).actions, [start(2, Some(doubled))]);
    // After ten minutes without a failure it starts over.
    here.containers = vec![exited("a", 1, 1, 700)];
    let Action::StartContainer { restart, .. } = &plan(&here, at(700)).actions[0] else {
        panic!("it starts");
    };
    assert_eq!(restart.unwrap().delay, RESTART.first);
}

#[test]
fn restart_policies() {
    for (policy, code, expected) in [
        ("Always", 0, "image:a:1"),
        ("Always", 1, "image:a:1"),
        ("OnFailure", 0, "down"),
        ("OnFailure", 1, "image:a:1"),
        ("Never", 1, "down"),
    ] {
        let mut one = pod(vec![], vec![container("a")]);
        one.spec.get_or_insert_default().restart_policy = Some(policy.into());
        let mut here = observed(one);
        here.containers = vec![exited("a", 0, code, 0)];
        assert_eq!(words(&plan(&here, at(0))), [expected], "{policy} {code}");
    }
}

#[test]
fn failed_pulls_are_shown_and_backed_off() {
    let mut here = observed(pod(vec![], vec![container("a"), container("b")]));
    let backoff = Backoff { delay: RESTART.first, since: at(0) };
    let failure =
        Failure { reason: "ErrImagePull".into(), message: "no such image".into(), backoff };
    let failed = ImageState::Failed { image: "image:1".into(), failure };
    here.state.images.insert("a".into(), failed);
    let early = plan(&here, at(1));
    assert_eq!(early.waiting["a"].reason, "ErrImagePull");
    assert_eq!(words(&early), ["start:b:0"], "the other one does not wait");
    let later = plan(&here, at(5));
    assert_eq!(later.waiting["a"].reason, "ImagePullBackOff");
    assert_eq!(later.wake_at, Some(at(10)));
    assert_eq!(words(&plan(&here, at(10))), ["image:a:0", "start:b:0"]);
}

#[test]
fn failed_starts_wait() {
    let mut here = observed(pod(vec![], vec![container("a")]));
    let failure = Failure {
        reason: "CreateContainerConfigError".into(),
        message: "configmap \"x\" not found".into(),
        backoff: Backoff { delay: RETRY.first, since: at(0) },
    };
    here.state.start_failures.insert("a".into(), failure);
    let plan = plan(&here, at(0));
    assert!(plan.actions.is_empty());
    assert_eq!(plan.waiting["a"].reason, "CreateContainerConfigError");
    assert_eq!(plan.wake_at, Some(at(0) + SignedDuration::from_millis(500)));
}

#[test]
fn unhealthy_and_changed_containers_are_stopped_once() {
    let mut unhealthy = container("a");
    unhealthy.liveness_probe =
        Some(Probe { termination_grace_period_seconds: Some(7), ..Default::default() });
    let mut here = observed(pod(vec![], vec![unhealthy]));
    here.containers = vec![running("a", 0)];
    let id = ContainerId("a-0".into());
    let failed = ProbeView { liveness: Some(false), ..Default::default() };
    here.state.probes.insert(id.clone(), failed);
    let stop = |deadline, cause| Action::StopContainer {
        container: "a".into(),
        id: id.clone(),
        deadline,
        cause,
    };
    assert_eq!(plan(&here, at(0)).actions, [stop(at(7), StopCause::LivenessFailed)]);
    here.state.stops.insert(id.clone(), at(7));
    assert!(plan(&here, at(1)).actions.is_empty());
    let mut here = observed(pod(vec![], vec![container("a")]));
    here.containers = vec![running("a", 0)];
    here.containers[0].spec_hash = "other".into();
    assert_eq!(plan(&here, at(0)).actions, [stop(at(30), StopCause::Changed)]);
}

#[test]
fn deletion_stops_sidecars_last_and_in_reverse() {
    let mut leaving = pod(vec![sidecar("s1"), sidecar("s2")], vec![container("a"), container("b")]);
    leaving.metadata.deletion_timestamp = Some(Time(at(20)));
    leaving.metadata.deletion_grace_period_seconds = Some(20);
    let mut here = observed(leaving);
    here.state.terminating_since = Some(at(0));
    here.containers = vec![running("s1", 0), running("s2", 0), running("a", 0), running("b", 0)];
    assert_eq!(words(&plan(&here, at(0))), ["stop:a-0", "stop:b-0"]);
    here.containers[2] = exited("a", 0, 0, 1);
    here.containers[3] = exited("b", 0, 0, 1);
    assert_eq!(words(&plan(&here, at(1))), ["stop:s2-0"]);
    assert_eq!(words(&plan(&here, at(20))), ["stop:s2-0", "stop:s1-0"], "the grace period is over");
    here.containers[1] = exited("s2", 0, 0, 2);
    assert_eq!(words(&plan(&here, at(2))), ["stop:s1-0"]);
}

#[test]
fn a_shorter_grace_brings_the_deadline_forward() {
    let mut leaving = pod(vec![], vec![container("a")]);
    leaving.metadata.deletion_timestamp = Some(Time(at(30)));
    leaving.metadata.deletion_grace_period_seconds = Some(30);
    let mut here = observed(leaving);
    here.state.terminating_since = Some(at(0));
    here.containers = vec![running("a", 0)];
    here.state.stops.insert(ContainerId("a-0".into()), at(30));
    assert!(plan(&here, at(1)).actions.is_empty());
    let mut pod = (*here.pod).clone();
    pod.metadata.deletion_grace_period_seconds = Some(5);
    here.pod = Arc::new(pod);
    let Action::StopContainer { deadline, .. } = plan(&here, at(1)).actions[0] else {
        panic!("it is stopped earlier");
    };
    assert_eq!(deadline, at(5));
}

#[test]
fn a_deleted_pod_terminates_step_by_step() {
    let mut leaving = pod(vec![], vec![container("a")]);
    leaving.metadata.deletion_timestamp = Some(Time(at(30)));
    let mut here = observed(leaving);
    here.containers = vec![exited("a", 0, 0, 1)];
    here.state.in_flight.insert(Work::Volumes);
    assert!(words(&plan(&here, at(1))).is_empty(), "something is still in flight");
    here.state.in_flight.clear();
    assert_eq!(words(&plan(&here, at(1))), ["down"]);
    here.state.torn_down = true;
    assert!(words(&plan(&here, at(1))).is_empty(), "its status is not written yet");
    here.state.status_written = true;
    assert_eq!(words(&plan(&here, at(1))), ["remove-pod"]);
    here.state.removed = true;
    assert_eq!(words(&plan(&here, at(1))), ["delete"]);
    here.state.deleted = true;
    assert!(plan(&here, at(1)).done);
    here.state.deleted = false;
    here.vanished = true;
    assert!(plan(&here, at(1)).done, "someone else removed the object");
}

#[test]
fn the_active_deadline_ends_a_pod() {
    let mut limited = pod(vec![], vec![container("a")]);
    limited.spec.get_or_insert_default().active_deadline_seconds = Some(60);
    limited.status = Some(PodStatus { start_time: Some(Time(at(0))), ..Default::default() });
    let mut here = observed(limited);
    here.containers = vec![running("a", 0)];
    assert_eq!(plan(&here, at(59)).wake_at, Some(at(60)));
    assert_eq!(words(&plan(&here, at(60))), ["stop:a-0"]);
    let Lifecycle::Terminate(termination) = lifecycle(&here, at(60)) else {
        panic!("it terminates");
    };
    assert_eq!(termination.outcome.unwrap().0, "DeadlineExceeded");
    assert!(!termination.remove);
}

#[test]
fn a_pod_in_a_terminal_phase_never_runs_again() {
    let mut finished = pod(vec![], vec![container("a")]);
    finished.status = Some(PodStatus { phase: Some("Succeeded".into()), ..Default::default() });
    let mut here = observed(finished);
    assert_eq!(words(&plan(&here, at(0))), ["down"]);
    here.containers = vec![running("a", 0)];
    assert_eq!(words(&plan(&here, at(0))), ["stop:a-0"]);
    // Nor if somebody takes the phase back.
    let mut here = observed(pod(vec![], vec![container("a")]));
    here.state.terminal = Some(Arc::new(PodStatus::default()));
    here.containers = vec![running("a", 0)];
    assert_eq!(words(&plan(&here, at(0))), ["stop:a-0"]);
    here.containers = vec![exited("a", 0, 1, 0)];
    assert_eq!(words(&plan(&here, at(0))), ["down"]);
}

#[test]
fn old_attempts_are_removed() {
    let mut here = observed(pod(vec![], vec![container("a")]));
    here.containers =
        vec![exited("a", 0, 1, 0), exited("a", 1, 1, 0), exited("a", 2, 1, 0), running("a", 3)];
    assert_eq!(words(&plan(&here, at(0))), ["remove:a-0", "remove:a-1"]);
}

#[test]
fn tokens_are_renewed_in_time() {
    let mut here = observed(pod(vec![], vec![container("a")]));
    here.containers = vec![running("a", 0)];
    here.state.volumes_renew_at = Some(at(100));
    assert_eq!(plan(&here, at(0)).wake_at, Some(at(100)));
    assert_eq!(words(&plan(&here, at(100))), ["volumes"]);
}

#[test]
fn changed_limits_are_applied_or_restart_the_container() {
    use k8s_openapi::api::core::v1::{ContainerResizePolicy, ResourceRequirements};
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

    let sized = |cpu: &str, memory: &str| Container {
        resources: Some(ResourceRequirements {
            limits: Some(
                [("cpu".into(), Text(cpu.into())), ("memory".into(), Text(memory.into()))].into(),
            ),
            ..Default::default()
        }),
        resize_policy: Some(vec![ContainerResizePolicy {
            resource_name: "memory".into(),
            restart_policy: "RestartContainer".into(),
        }]),
        ..container("a")
    };
    let in_force = crate::pod::resources::fingerprint(&sized("1", "1Gi"));
    let annotation = crate::pod::resources::ANNOTATION.to_owned();
    for (cpu, memory, expected) in
        [("1", "1Gi", vec![]), ("2", "1Gi", vec!["resize:a-0"]), ("1", "2Gi", vec!["stop:a-0"])]
    {
        let mut here = observed(pod(vec![], vec![sized(cpu, memory)]));
        here.containers = vec![running("a", 0)];
        here.containers[0].annotations.insert(annotation.clone(), in_force.clone());
        assert_eq!(words(&plan(&here, at(0))), expected, "{cpu} {memory}");
    }
}
