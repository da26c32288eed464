//! A database on a fresh cluster: a StatefulSet of three whose claims nobody has prepared volumes
//! for. Each row is written through to the disk before it is acknowledged, and none may be lost,
//! whatever is killed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, ensure};
use client::{Api, ListOptions, PatchKind};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use testkit::suite::Fixture;
use testkit::wait::{self, Selection};
use testkit::{Cluster, manifest};
use tests::pods;

const REPLICAS: [&str; 3] = ["db-0", "db-1", "db-2"];

const SET: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 3
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db, version: "1"}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: DoNotSchedule
        labelSelector: {matchLabels: {app: db}}
      containers:
      - name: main
        image: skiff.test/busybox:1
        command: [sh, -c, "echo started >> /data/starts; trap 'exit 0' TERM; while true; do sleep 0.2; done"]
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 16Mi}}}
"#;

pub async fn a_database_loses_no_acknowledged_row(fixture: &Fixture) -> anyhow::Result<()> {
    let cluster = &fixture.cluster;
    manifest::create(cluster.client(), &fixture.namespace, SET).await?;
    all_ready(fixture, "three replicas are Ready on a fresh cluster", |_| true).await?;
    let before = volumes(fixture).await?;
    ensure!(
        before.values().map(|one| &one.1).collect::<std::collections::BTreeSet<_>>().len() == 3
    );
    let writers: Vec<Writer> = REPLICAS.iter().map(|pod| Writer::start(fixture, pod)).collect();

    let node = before["data-db-1"].1.clone();
    cluster.skiff(&["delete", "pod", "-n", &fixture.namespace, "db-0"])?;
    for victim in [format!("kubelet-{node}"), format!("containerd-{node}"), "apiserver".to_owned()]
    {
        kill_and_wait(cluster, &victim).await?;
    }
    all_ready(fixture, "they are Ready after the kills", |_| true).await?;
    let id = |pod: &Pod| pods::container(pod, "main").and_then(|one| one.container_id.clone());
    let found = pods::until(fixture, "app=db", "any", |_| true).await?;
    let killed = id(&found["db-1"]).context("db-1 has no container")?;
    cluster.skiff(&["node-process", "kill", &node])?;
    cluster.skiff(&["node-process", "start", &node])?;
    all_ready(fixture, "they are Ready after a node's death", |pod| {
        id(pod).is_some_and(|id| id != killed)
    })
    .await?;

    let sets: Api<StatefulSet> = Api::namespaced(cluster.client(), &fixture.namespace);
    let change = json!({"spec": {"template": {"metadata": {"labels": {"version": "2"}}}}});
    sets.patch("db", PatchKind::Merge, &change).await?;
    all_ready(fixture, "the update is done", |pod| {
        pod.metadata.labels.as_ref().is_some_and(|labels| labels["version"] == "2")
    })
    .await?;
    let scale = |replicas: u8| {
        let replicas = format!("--replicas={replicas}");
        cluster.skiff(&["scale", "-n", &fixture.namespace, "statefulset", "db", &replicas])
    };
    scale(1)?;
    pods::until(fixture, "app=db", "one is left", |pods| pods.keys().eq(["db-0"])).await?;
    scale(3)?;
    all_ready(fixture, "all are back", |_| true).await?;

    for writer in writers {
        writer.verify(fixture).await?;
    }
    let after = volumes(fixture).await?;
    ensure!(after == before, "before {before:?}, after {after:?}");
    retention(fixture, &sets, before.keys()).await
}

/// Claims that are deleted with the pods that are scaled down, and with the set.
async fn retention(
    fixture: &Fixture,
    sets: &Api<StatefulSet>,
    claims: impl Iterator<Item = &String>,
) -> anyhow::Result<()> {
    let policy = json!({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete", "whenDeleted": "Delete"}, "replicas": 2}});
    sets.patch("db", PatchKind::Merge, &policy).await?;
    let client = fixture.cluster.client();
    let all = || Selection::namespace(&fixture.namespace);
    let names: Vec<&String> = claims.collect();
    wait::until::<PersistentVolumeClaim>(client, all(), "the last claim is gone", |found| {
        found.keys().eq(names[..2].iter().copied())
    })
    .await?;
    fixture.cluster.skiff(&["delete", "-n", &fixture.namespace, "statefulset", "db"])?;
    wait::until::<PersistentVolumeClaim>(client, all(), "all claims are gone", |found| {
        found.is_empty()
    })
    .await?;
    let namespace = fixture.namespace.clone();
    wait::until::<PersistentVolume>(
        client,
        Selection::default(),
        "all volumes are gone",
        |found| {
            found.values().all(|volume| {
                let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
                claim.and_then(|claim| claim.namespace.as_ref()) != Some(&namespace)
            })
        },
    )
    .await?;
    Ok(())
}

async fn all_ready(
    fixture: &Fixture,
    what: &str,
    holds: impl Fn(&Pod) -> bool,
) -> anyhow::Result<()> {
    pods::until(fixture, "app=db", what, |pods| {
        pods.keys().eq(REPLICAS) && pods.values().all(|pod| pods::is_ready(pod) && holds(pod))
    })
    .await?;
    Ok(())
}

/// The volume and its node, by claim.
async fn volumes(fixture: &Fixture) -> anyhow::Result<BTreeMap<String, (String, String)>> {
    let client = fixture.cluster.client();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client, &fixture.namespace);
    let mut found = BTreeMap::new();
    for claim in claims.list(&ListOptions::default()).await?.items {
        let volume = claim.spec.and_then(|spec| spec.volume_name).context("it is not bound")?;
        let object = Api::<PersistentVolume>::all(client).get(&volume).await?;
        let node = object.metadata.labels.and_then(|labels| labels.get("skiff.dev/node").cloned());
        let node = node.context("the volume has no node")?;
        found.insert(claim.metadata.name.unwrap_or_default(), (volume, node));
    }
    Ok(found)
}

async fn kill_and_wait(cluster: &Cluster, process: &str) -> anyhow::Result<()> {
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

/// Writes numbered rows to one replica until it is stopped, and remembers the acknowledged ones.
struct Writer {
    pod: &'static str,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<u32>>,
}

impl Writer {
    fn start(fixture: &Fixture, pod: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (cluster, namespace) = (fixture.cluster.clone(), fixture.namespace.clone());
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut acknowledged = Vec::new();
            let mut next = 0;
            while !stopped.load(Ordering::Relaxed) {
                let write = format!(
                    "echo {next} | dd of=/data/rows oflag=append conv=notrunc,fsync 2>/dev/null && echo acknowledged"
                );
                let arguments = ["exec", "-n", &namespace, pod, "--", "sh", "-c", &write];
                let said = cluster.try_skiff(&arguments);
                if said.is_ok_and(|said| said.success && said.stdout == "acknowledged\n") {
                    acknowledged.push(next);
                }
                next += 1;
            }
            acknowledged
        });
        Self { pod, stop, thread }
    }

    async fn verify(self, fixture: &Fixture) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await?;
        let acknowledged = joined.ok().context("the writer panicked")?;
        ensure!(acknowledged.len() > 10, "only {} rows of {}", acknowledged.len(), self.pod);
        let arguments = ["exec", "-n", &fixture.namespace, self.pod, "--", "cat", "/data/rows"];
        let rows = fixture.cluster.skiff(&arguments)?;
        let rows: std::collections::BTreeSet<u32> =
            rows.lines().map(str::parse).collect::<Result<_, _>>()?;
        for row in acknowledged {
            ensure!(rows.contains(&row), "{}: row {row} was acknowledged and is lost", self.pod);
        }
        Ok(())
    }
}
