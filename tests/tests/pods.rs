//! Single pods, from manifest to Ready to deletion.

use anyhow::ensure;
use client::{Api, DeleteOptions};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use std::process::{Child, Command, ExitCode, Stdio};
use testkit::suite::Fixture;
use testkit::{Options, manifest, scenarios, suite};
use tests::{pods, web};

fn main() -> ExitCode {
    suite::run(
        Options::default(),
        &["busybox", "testserver-v1"],
        scenarios![
            a_pod_becomes_ready,
            a_pod_fails_and_is_deleted,
            a_failing_container_is_restarted,
            containers_share_network_and_volume,
            a_missing_image_is_reported,
            an_unschedulable_pod_is_reported,
            a_scheduler_takes_over_from_a_dead_one,
        ],
    )
}

async fn a_pod_becomes_ready(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: server}
spec:
  containers:
  - name: server
    image: skiff.test/testserver:v1
    readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}
"#;
    manifest::create(fixture.cluster.client(), &fixture.namespace, yaml).await?;
    let pod = pods::ready(fixture, "server").await?;
    ensure!(pods::node(&pod) == "node-1", "it is on {}", pods::node(&pod));
    let body =
        web::get(&fixture.cluster, &format!("http://{}:8080/hostname", pods::address(&pod)))?;
    ensure!(body == "server", "its host name is {body:?}");
    Ok(())
}

async fn a_pod_fails_and_is_deleted(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: once}
spec:
  restartPolicy: Never
  containers:
  - {name: main, image: "skiff.test/busybox:1", command: [sh, -c, "exit 3"]}
"#;
    let client = fixture.cluster.client();
    manifest::create(client, &fixture.namespace, yaml).await?;
    let pod =
        pods::one(fixture, "once", "it has failed", |pod| pods::phase(pod) == "Failed").await?;
    let state = pods::container(&pod, "main").and_then(|status| status.state.clone());
    let code = state.and_then(|state| state.terminated).map(|ended| ended.exit_code);
    ensure!(code == Some(3), "its exit code is {code:?}");
    let api: Api<Pod> = Api::namespaced(client, &fixture.namespace);
    api.delete("once", &DeleteOptions::default()).await?;
    pods::until(fixture, "", "the pod is gone", |pods| pods.is_empty()).await?;
    Ok(())
}

async fn a_failing_container_is_restarted(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: failing}
spec:
  containers:
  - {name: main, image: "skiff.test/busybox:1", command: [sh, -c, "exit 1"]}
"#;
    manifest::create(fixture.cluster.client(), &fixture.namespace, yaml).await?;
    pods::one(fixture, "failing", "it backs off", |pod| {
        pods::restarts(pod, "main") >= 1 && pods::waiting_reason(pod, "main") == "CrashLoopBackOff"
    })
    .await?;
    Ok(())
}

async fn containers_share_network_and_volume(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: pair}
spec:
  volumes: [{name: shared, emptyDir: {}}]
  containers:
  - name: server
    image: skiff.test/testserver:v1
    volumeMounts: [{name: shared, mountPath: /shared}]
  - name: client
    image: skiff.test/busybox:1
    command: [sh, -c, "until wget -q -O /shared/answer http://127.0.0.1:8080/version; do sleep 0.1; done; touch /tmp/done; exec sleep 1000"]
    volumeMounts: [{name: shared, mountPath: /shared}]
    readinessProbe: {exec: {command: [test, -f, /tmp/done]}, periodSeconds: 1}
"#;
    manifest::create(fixture.cluster.client(), &fixture.namespace, yaml).await?;
    let pod = pods::ready(fixture, "pair").await?;
    let url = format!("http://{}:8080/file/shared/answer", pods::address(&pod));
    let body = web::get(&fixture.cluster, &url)?;
    ensure!(body == "v1", "the other container read {body:?}");
    Ok(())
}

async fn a_missing_image_is_reported(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: missing}
spec:
  containers:
  - {name: main, image: "127.0.0.1:1/no/such:image"}
"#;
    manifest::create(fixture.cluster.client(), &fixture.namespace, yaml).await?;
    pods::one(fixture, "missing", "the pull fails", |pod| {
        matches!(pods::waiting_reason(pod, "main"), "ErrImagePull" | "ImagePullBackOff")
    })
    .await?;
    Ok(())
}

async fn an_unschedulable_pod_is_reported(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: huge}
spec:
  containers:
  - name: main
    image: skiff.test/busybox:1
    resources: {requests: {memory: 10Ti}}
"#;
    manifest::create(fixture.cluster.client(), &fixture.namespace, yaml).await?;
    let pod = pods::one(fixture, "huge", "it is unschedulable", |pod| {
        let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        conditions
            .into_iter()
            .any(|c| c.type_ == "PodScheduled" && c.reason.as_deref() == Some("Unschedulable"))
    })
    .await?;
    ensure!(pods::node(&pod).is_empty());
    Ok(())
}

/// A scheduler of the test's own, killed when dropped.
struct Scheduler(Child);

impl Scheduler {
    fn start(fixture: &Fixture) -> anyhow::Result<Self> {
        let kubeconfig = fixture.cluster.folder().join("kubeconfig/scheduler.yaml");
        let mut command = Command::new(fixture.cluster.program("skiff-scheduler"));
        command
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["--scheduler-name=another", "--leader-elect"])
            .stderr(Stdio::null());
        Ok(Self(command.spawn()?))
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

async fn a_scheduler_takes_over_from_a_dead_one(fixture: &Fixture) -> anyhow::Result<()> {
    let pod = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{schedulerName: another, \
             containers: [{{name: main, image: 'skiff.test/testserver:v1'}}]}}\n"
        )
    };
    let holder = async || -> anyhow::Result<String> {
        let leases: Api<Lease> = Api::namespaced(fixture.cluster.client(), "kube-system");
        let spec = leases.get("kube-scheduler").await?.spec;
        Ok(spec.and_then(|spec| spec.holder_identity).unwrap_or_default())
    };
    let first = Scheduler::start(fixture)?;
    manifest::create(fixture.cluster.client(), &fixture.namespace, &pod("one")).await?;
    pods::ready(fixture, "one").await?;
    let leader = holder().await?;
    let _second = Scheduler::start(fixture)?;
    drop(first);
    manifest::create(fixture.cluster.client(), &fixture.namespace, &pod("two")).await?;
    pods::ready(fixture, "two").await?;
    ensure!(!leader.is_empty() && holder().await? != leader);
    Ok(())
}
