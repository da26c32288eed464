//! Static pods: from a file to a running pod, and back.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use client::{Api, DeleteOptions};
use k8s_openapi::api::core::v1::Pod;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::suite::Fixture;
use testkit::wait;
use tests::pods;

use super::{exec, id, start_failures::event};

const NODE: &str = "node-1";
const POD: &str = "web-node-1";

/// A manifest in the node's folder, which goes when it is dropped.
pub struct Manifest(PathBuf);

impl Manifest {
    /// Of a pod with one container, `main`, with these resources.
    pub fn write(fixture: &Fixture, name: &str, resources: &str) -> anyhow::Result<Self> {
        let namespace = &fixture.namespace;
        let text = format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: static}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: skiff.test/busybox:1
    command: [sh, -c, "echo from $SOURCE; exec sleep 1000"]
    env: [{{name: SOURCE, valueFrom: {{fieldRef: {{fieldPath: "metadata.annotations['kubernetes.io/config.source']"}}}}}}]
    resources: {{{resources}}}
"#
        );
        Self::with_text(fixture, &format!("{namespace}-{name}.yaml"), &text)
    }

    fn with_text(fixture: &Fixture, file: &str, text: &str) -> anyhow::Result<Self> {
        let path = fixture.cluster.folder().join("nodes").join(NODE).join("manifests").join(file);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Manifest {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// A process that is stopped until it is dropped.
struct Stopped(Pid);

impl Stopped {
    fn stop(pid: i32) -> anyhow::Result<Self> {
        let pid = Pid::from_raw(pid);
        kill(pid, Signal::SIGSTOP)?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if let Err(error) = kill(self.0, Signal::SIGCONT) {
            eprintln!("{}: {error}", self.0);
        }
    }
}

pub async fn a_static_pod_starts_without_the_apiserver(fixture: &Fixture) -> anyhow::Result<()> {
    let folder = fixture.cluster.folder().join("of-a-static-pod");
    fs::create_dir_all(&folder)?;
    let kubelet = Pid::from_raw(fixture.cluster.pid(&format!("kubelet-{NODE}"))?);
    let apiserver = Stopped::stop(fixture.cluster.pid("apiserver")?)?;
    kill(kubelet, Signal::SIGKILL)?;
    let text = format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: early, namespace: {}}}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: skiff.test/busybox:1
    command: [sh, -c, "touch /folder/made; exec sleep 1000"]
    volumeMounts: [{{name: folder, mountPath: /folder}}]
  volumes: [{{name: folder, hostPath: {{path: {}}}}}]
"#,
        fixture.namespace,
        folder.display()
    );
    let manifest = Manifest::with_text(fixture, "early.yaml", &text)?;
    wait::eventually("the static pod has started", async || {
        ensure!(folder.join("made").exists(), "its file is missing");
        Ok(())
    })
    .await?;
    drop(apiserver);
    let pod = pods::ready(fixture, "early-node-1").await?;
    ensure!(pods::restarts(&pod, "main") == 0);
    drop(manifest);
    let gone = |pods: &BTreeMap<String, Pod>| pods.is_empty();
    pods::until(fixture, "", "it is gone with its file", gone).await?;
    Ok(())
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Kills the kubelet, and waits for the next.
async fn restart_kubelet(fixture: &Fixture) -> anyhow::Result<()> {
    let process = format!("kubelet-{NODE}");
    let before = fixture.cluster.pid(&process)?;
    kill(Pid::from_raw(before), Signal::SIGKILL)?;
    wait::eventually(&format!("{process} is restarted"), async || {
        ensure!(fixture.cluster.pid(&process)? != before, "it has not been started");
        Ok(())
    })
    .await
}

pub async fn static_pods_follow_their_files(fixture: &Fixture) -> anyhow::Result<()> {
    let broken = Manifest::with_text(fixture, "broken.yaml", "kind: [")?;
    let manifest = Manifest::write(fixture, "web", "")?;
    let pod = pods::ready(fixture, POD).await?;
    let hash = annotation(&pod, "kubernetes.io/config.hash").context("it has a hash")?;
    ensure!(annotation(&pod, "kubernetes.io/config.mirror") == Some(hash));
    ensure!(annotation(&pod, "kubernetes.io/config.source") == Some("file"));
    let owner = pod.metadata.owner_references.iter().flatten().next().context("it has an owner")?;
    ensure!((owner.kind.as_str(), owner.name.as_str()) == ("Node", NODE), "{owner:?}");
    ensure!(exec(fixture, POD, "main", "echo $SOURCE")? == "file");
    let logs = fixture.cluster.skiff(&["logs", "-n", &fixture.namespace, POD])?;
    ensure!(logs == "from file\n", "{logs}");
    event(fixture, POD, "Started", "main").await?;
    let described = fixture.cluster.skiff(&["describe", "pod", "-n", &fixture.namespace, POD])?;
    ensure!(described.contains("Started"), "{described}");
    let container = id(&pod, "main");

    restart_kubelet(fixture).await?;
    let api: Api<Pod> = Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    let before = pod.metadata.uid.clone();
    api.delete(POD, &DeleteOptions::default()).await?;
    let pod = pods::one(fixture, POD, "it has a new mirror, which is Ready", |pod| {
        pod.metadata.uid != before && pods::is_ready(pod)
    })
    .await?;
    ensure!(id(&pod, "main") == container, "neither restart nor deletion touch the containers");
    ensure!(pods::restarts(&pod, "main") == 0);

    let replaced = Manifest::write(fixture, "web", "requests: {memory: 1Mi}")?;
    let pod = pods::one(fixture, POD, "it runs as its new file says", |pod| {
        pods::is_ready(pod) && id(pod, "main") != container
    })
    .await?;
    let hash = annotation(&pod, "kubernetes.io/config.hash").context("it has a hash")?;
    ensure!(annotation(&pod, "kubernetes.io/config.mirror") == Some(hash));

    std::mem::forget(manifest);
    drop((replaced, broken));
    let gone = |pods: &BTreeMap<String, Pod>| !pods.contains_key(POD);
    pods::until(fixture, "", "it is gone with its file", gone).await?;
    Ok(())
}
