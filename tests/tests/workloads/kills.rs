//! Invariant 5: killing any process at any moment loses nothing and stops no running container.

use super::{image, patch, service};
use anyhow::{Context, ensure};
use client::{Api, ListOptions, PatchKind};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use testkit::suite::Fixture;
use testkit::wait::{self, Selection};
use testkit::{Cluster, manifest};
use tests::pods;
use tests::web::{self, Load};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The processes to kill, one after the other. The requests enter at node-1, hence its processes.
const VICTIMS: [&str; 7] = [
    "apiserver",
    "controller-manager",
    "scheduler",
    "kubelet-node-1",
    "proxy-node-1",
    "dns-node-1",
    "containerd-node-1",
];
/// Requests per second.
const RATE: u32 = 50;
/// Longer than the scenario may take.
const LOAD_MAX_SECONDS: u32 = 230;
/// Pause between the writer's writes: frequent, but not a load of their own.
const WRITE_PAUSE: Duration = Duration::from_millis(20);

/// Kills each process in the middle of a rolling update, while requests and writes continue.
pub async fn killing_any_process_disturbs_nothing(fixture: &Fixture) -> anyhow::Result<()> {
    let cluster = &fixture.cluster;
    start(fixture).await?;
    let before = untouched(fixture).await?;
    let (_, node_port) = service(fixture).await?;
    let url = format!("http://{}:{node_port}/version", cluster.node_address("node-1"));
    wait::eventually("the node port answers", async || web::get(cluster, &url)).await?;

    let load = Load::until_finished(cluster, &url, RATE, LOAD_MAX_SECONDS)?;
    let writer = Writer::start(fixture);
    for (turn, victim) in VICTIMS.iter().enumerate() {
        let version = if turn % 2 == 0 { "v2" } else { "v1" };
        patch(fixture, image(version)).await?;
        deployment(fixture, "the update is under way", |status| {
            (1..3).contains(&status.updated_replicas.unwrap_or(0))
        })
        .await?;
        kill_and_wait_for_restart(cluster, victim).await?;
        deployment(fixture, &format!("the update is done, {victim} was killed"), |status| {
            status.updated_replicas == Some(3)
                && status.replicas == Some(3)
                && status.available_replicas == Some(3)
        })
        .await?;
    }
    let acknowledged = writer.finish().await?;
    let report = load.finish().await?;
    ensure!(report["failed"] == 0, "{report}");
    ensure!(report["sent"].as_u64() > Some(100), "{report}");
    acknowledged.verify(fixture).await?;
    let after = untouched(fixture).await?;
    ensure!(after == before, "before {before:?}, after {after:?}");

    kill_supervisor(cluster)?;
    wait::eventually("the loss of the supervisor is reported", async || {
        let status = cluster.try_skiff(&["status"])?;
        let reported = status.stdout.contains("runs without its supervisor: 15 processes");
        ensure!(reported && !status.success, "{}", status.stdout);
        Ok(())
    })
    .await?;
    let up = cluster.up_again(&[])?;
    ensure!(up.success, "{}", up.stderr);
    let after = untouched(fixture).await?;
    ensure!(after == before, "before {before:?}, after {after:?}");
    acknowledged.verify(fixture).await
}

async fn start(fixture: &Fixture) -> anyhow::Result<()> {
    let client = fixture.cluster.client();
    // A terminating pod has to serve until every proxy has stopped using it, which takes longer
    // while the apiserver or the controller manager is starting.
    let drain = |yaml: String| yaml.replace("\"1500\"", "\"5000\"");
    manifest::create(client, &fixture.namespace, &drain(web::manifest(3, "v1"))).await?;
    for node in fixture.cluster.nodes() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("still-{node}"), "labels": {"app": "still"}},
            "spec": {
                "nodeName": node,
                "containers": [{
                    "name": "main", "image": "skiff.test/busybox:1",
                    "command": ["sh", "-c", "echo started; exec sleep 1000"],
                }],
            },
        });
        manifest::create(client, &fixture.namespace, &pod.to_string()).await?;
    }
    deployment(fixture, "the application is available", |status| {
        status.available_replicas == Some(3)
    })
    .await
}

async fn deployment(
    fixture: &Fixture,
    what: &str,
    holds: impl Fn(&k8s_openapi::api::apps::v1::DeploymentStatus) -> bool,
) -> anyhow::Result<()> {
    let selection = Selection::namespace(&fixture.namespace).name("web");
    wait::until::<Deployment>(fixture.cluster.client(), selection, what, |found| {
        found.get("web").is_some_and(|web| {
            let status = web.status.clone().unwrap_or_default();
            status.observed_generation == web.metadata.generation && holds(&status)
        })
    })
    .await?;
    Ok(())
}

/// The container ids of the pods that nobody touches, each of which must have started only once.
async fn untouched(fixture: &Fixture) -> anyhow::Result<BTreeMap<String, String>> {
    let all = fixture.cluster.nodes().len();
    let found = pods::until(fixture, "app=still", "the untouched pods are Ready", |pods| {
        pods.len() == all && pods.values().all(pods::is_ready)
    })
    .await?;
    let id = |pod: &Pod| pods::container(pod, "main")?.container_id.clone();
    for (name, pod) in &found {
        ensure!(pods::restarts(pod, "main") == 0, "{name} was restarted");
        let log = wait::eventually("the log can be read", async || {
            fixture.cluster.skiff(&["logs", "-n", &fixture.namespace, name])
        })
        .await?;
        ensure!(log == "started\n", "the log of {name} is {log:?}");
    }
    found
        .into_iter()
        .map(|(name, pod)| Ok((name, id(&pod).context("a container has no id")?)))
        .collect()
}

async fn kill_and_wait_for_restart(cluster: &Cluster, process: &str) -> anyhow::Result<()> {
    let before = cluster.pid(process)?;
    kill(Pid::from_raw(before), Signal::SIGKILL)?;
    wait::eventually(&format!("{process} runs again"), async || {
        let states = cluster.processes()?;
        let state = states.iter().find(|state| state["name"] == process);
        let state = state.with_context(|| format!("there is no {process}"))?;
        ensure!(state["phase"] == "ready" && state["pid"] != before, "{state}");
        Ok(())
    })
    .await
}

fn kill_supervisor(cluster: &Cluster) -> anyhow::Result<()> {
    let record = std::fs::read_to_string(cluster.folder().join("run/records/supervisor.json"))?;
    let record: serde_json::Value = serde_json::from_str(&record)?;
    let pid = record["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    kill(Pid::from_raw(pid.context("the record has no pid")?), Signal::SIGKILL)?;
    Ok(())
}

/// Acknowledged writes: the numbers of config maps, and the last value of a counter.
struct AcknowledgedWrites {
    acknowledged: Vec<u32>,
    counter: u32,
}

/// Creates config maps and increments a counter until it is stopped, and records what was
/// acknowledged. After an error, the write may or may not have happened.
struct Writer {
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<AcknowledgedWrites>>,
}

impl Writer {
    fn start(fixture: &Fixture) -> Self {
        let stop = CancellationToken::new();
        let api: Api<ConfigMap> = Api::namespaced(fixture.cluster.client(), &fixture.namespace);
        let task = tokio::spawn(write(api, stop.clone()));
        Self { stop, task }
    }

    async fn finish(self) -> anyhow::Result<AcknowledgedWrites> {
        self.stop.cancel();
        self.task.await?
    }
}

async fn write(api: Api<ConfigMap>, stop: CancellationToken) -> anyhow::Result<AcknowledgedWrites> {
    let map = |name: String, value: u32| {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name);
        map.data = Some(BTreeMap::from([("value".to_owned(), value.to_string())]));
        map
    };
    api.create(&map("counter".to_owned(), 0)).await?;
    let (mut next, mut counter) = (0, 0);
    let mut acknowledged = Vec::new();
    while !stop.is_cancelled() {
        if api.create(&map(format!("written-{next}"), next)).await.is_ok() {
            acknowledged.push(next);
        }
        next += 1;
        let change = json!({"data": {"value": next.to_string()}});
        if api.patch("counter", PatchKind::Merge, &change).await.is_ok() {
            counter = next;
        }
        tokio::time::sleep(WRITE_PAUSE).await;
    }
    ensure!(acknowledged.len() > 50, "only {} writes were acknowledged", acknowledged.len());
    Ok(AcknowledgedWrites { acknowledged, counter })
}

impl AcknowledgedWrites {
    async fn verify(&self, fixture: &Fixture) -> anyhow::Result<()> {
        let api: Api<ConfigMap> = Api::namespaced(fixture.cluster.client(), &fixture.namespace);
        let found: BTreeMap<String, u32> = api
            .list(&ListOptions::default())
            .await?
            .items
            .into_iter()
            .filter_map(|map| Some((map.metadata.name?, map.data?.get("value")?.parse().ok()?)))
            .collect();
        for number in &self.acknowledged {
            let value = found.get(&format!("written-{number}"));
            ensure!(value == Some(number), "write {number} was acknowledged, found {value:?}");
        }
        let counter = found.get("counter").copied();
        ensure!(
            counter >= Some(self.counter),
            "{} was acknowledged, found {counter:?}",
            self.counter
        );
        Ok(())
    }
}
