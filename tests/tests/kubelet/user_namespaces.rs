//! Pods with a user namespace of their own.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use client::{Api, DeleteOptions};
use k8s_openapi::api::core::v1::{Node, Pod};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::suite::Fixture;
use tests::pods;

use super::{create, exec, id};

const PODS: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue}
---
apiVersion: v1
kind: Pod
metadata: {name: mapped}
spec:
  hostUsers: false
  terminationGracePeriodSeconds: 1
  securityContext: {sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: "80"}, {name: kernel.shm_rmid_forced, value: "1"}]}
  containers:
  - name: main
    image: skiff.test/busybox:1
    command: [sh, -c, "touch /made /work/mine /dev/shm/x && exec sleep 1000"]
    readinessProbe: {exec: {command: [ls, /dev/shm/x]}, periodSeconds: 1}
    volumeMounts:
    - {name: settings, mountPath: /settings}
    - {name: work, mountPath: /work}
    - {name: node, mountPath: /node}
  - name: beside
    image: skiff.test/busybox:1
    command: [sh, -c, "until test -e /work/stop; do sleep 0.2; done; rm /work/stop"]
    securityContext: {runAsUser: 1000}
    volumeMounts: [{name: work, mountPath: /work}]
  volumes:
  - {name: settings, configMap: {name: settings, defaultMode: 256}}
  - {name: work, emptyDir: {}}
  - {name: node, hostPath: {path: NODE}}
---
apiVersion: v1
kind: Pod
metadata: {name: other}
spec:
  hostUsers: false
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "skiff.test/testserver:v1", args: [serve], readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}}]
"#;

const SHARED: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: shared}
spec:
  hostUsers: false
  shareProcessNamespace: true
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: "skiff.test/busybox:1", command: [sleep, "1000"]}
  - {name: beside, image: "skiff.test/busybox:1", command: [sleep, "2000"]}
"#;

/// Processes see each other, and have users that are not the node's.
pub async fn containers_of_a_pod_with_users_of_its_own_share_processes(
    fixture: &Fixture,
) -> anyhow::Result<()> {
    create(fixture, SHARED).await?;
    let pod = pods::ready(fixture, "shared").await?;
    let look = "cat /proc/1/comm; grep -l '^sleep.2000' /proc/[0-9]*/cmdline";
    let seen = exec(fixture, "shared", "main", look)?;
    let lines: Vec<&str> = seen.lines().collect();
    let ["pause", beside] = lines.as_slice() else { anyhow::bail!("it sees {seen}") };
    let pid = beside.trim_start_matches("/proc/").trim_end_matches("/cmdline");
    exec(fixture, "shared", "main", &format!("kill -KILL {pid}"))?;
    pods::one(fixture, "shared", "the killed container has restarted", |pod| {
        pods::restarts(pod, "beside") == 1 && pods::is_ready(pod)
    })
    .await?;
    let first = first_id(fixture, "shared")?;
    let pid = host_pid(&pod)?;
    ensure!(std::fs::metadata(format!("/proc/{pid}"))?.uid() == first);
    gone(fixture, &[pod]).await
}

/// The ids on the node of a container's root: the first of its mapping.
fn first_id(fixture: &Fixture, pod: &str) -> anyhow::Result<u32> {
    let map = exec(fixture, pod, "main", "cat /proc/self/uid_map")?;
    let fields: Vec<u32> = map.split_whitespace().filter_map(|one| one.parse().ok()).collect();
    let [0, first, 65_536] = fields.as_slice() else { anyhow::bail!("not a mapping: {map}") };
    Ok(*first)
}

pub async fn a_pod_has_users_of_its_own(fixture: &Fixture) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(fixture.cluster.client());
    let status = nodes.get("node-1").await?.status.context("it has a status")?;
    let handlers = status.runtime_handlers.unwrap_or_default();
    let features = handlers.first().and_then(|handler| handler.features.as_ref());
    ensure!(features.and_then(|features| features.user_namespaces) == Some(true));

    let folder = fixture.cluster.folder().join("of-the-node");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("file"), "x")?;
    create(fixture, &PODS.replace("NODE", &folder.display().to_string())).await?;
    let pod = pods::ready(fixture, "mapped").await?;
    pods::ready(fixture, "other").await?;
    let first = first_id(fixture, "mapped")?;
    ensure!(first >= 65_536 && first.is_multiple_of(65_536), "{first}");
    let sh = |command: &str| exec(fixture, "mapped", "main", command);
    ensure!(
        sh("id -u; cat /settings/color; stat -c %u /made /work/mine /settings/..data/color")?
            == "0\nblue0\n0\n0"
    );
    ensure!(
        sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced")?
            == "80\n1"
    );
    // Its root may what the owner of the file may, but is not the node's.
    sh("echo y > /node/file && touch /node/new")?;
    let new = std::fs::metadata(folder.join("new"))?;
    ensure!((new.uid(), new.gid()) == (0, 0), "of {}", new.uid());
    let refused = sh("(echo 1 > /proc/sys/kernel/panic) 2>&1; mknod /x b 7 0 2>&1; true")?;
    ensure!(refused.contains("ead-only") && refused.contains("not permitted"), "{refused}");
    let pid = host_pid(&pod)?;
    ensure!(std::fs::metadata(format!("/proc/{pid}"))?.uid() == first);
    ensure!(exec(fixture, "mapped", "beside", "id -u")? == "1000");

    // It restarts, and outlives the kubelet.
    sh("touch /work/stop")?;
    pods::one(fixture, "mapped", "it has restarted", |pod| {
        pods::restarts(pod, "beside") == 1 && pods::is_ready(pod)
    })
    .await?;
    kill(Pid::from_raw(fixture.cluster.pid("kubelet-node-1")?), Signal::SIGKILL)?;
    let third = PODS.split("---").last().unwrap_or_default().replace("name: other", "name: third");
    create(fixture, &third).await?;
    let third = pods::ready(fixture, "third").await?;
    let after = pods::ready(fixture, "mapped").await?;
    ensure!(id(&pod, "main") == id(&after, "main"), "it was restarted");
    let owners = [pod, pods::ready(fixture, "other").await?, third];
    let mut ids = Vec::new();
    for pod in &owners {
        ids.push(std::fs::metadata(format!("/proc/{}", host_pid(pod)?))?.uid());
    }
    ids.sort_unstable();
    ids.dedup();
    ensure!(ids.len() == 3, "two pods have the same ids: {ids:?}");
    gone(fixture, &owners).await
}

/// The process of the pod's container `main`, or of another one, on the node.
fn host_pid(pod: &Pod) -> anyhow::Result<i32> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let container = id(pod, "main").context("it has run")?;
    let name = container.trim_start_matches("containerd://").to_owned();
    let output = std::process::Command::new("find")
        .args(["/sys/fs/cgroup", "-path", &format!("*pod{uid}/{name}/cgroup.procs")])
        .output()?;
    let found = String::from_utf8(output.stdout)?;
    let file = PathBuf::from(found.lines().next().context("the container has no cgroup")?);
    let pids = std::fs::read_to_string(file)?;
    pids.lines().next().context("it has no process")?.parse().context("not a pid")
}

async fn gone(fixture: &Fixture, owners: &[Pod]) -> anyhow::Result<()> {
    let api: Api<Pod> = Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    for pod in owners {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        api.delete(name, &DeleteOptions::default()).await?;
    }
    pods::until(fixture, "", "all are gone", |pods| pods.is_empty()).await?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    for pod in owners {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        ensure!(!mounts.contains(uid), "part of {uid} is still mounted");
        let files = fixture.cluster.folder().join("nodes/node-1/kubelet/pods").join(uid);
        ensure!(!files.exists(), "{} is still there", files.display());
    }
    Ok(())
}
