//! Volumes: what containers find in them, what is left on the node, and who may read it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use client::{Api, DeleteOptions, PatchKind};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use testkit::suite::Fixture;
use testkit::wait;
use tests::pods;

use super::{create, exec, id};

/// The mount points of a pod's volumes of one plugin, and the kinds of their file systems.
fn mounts(pod: &Pod, plugin: &str) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let uid = pod.metadata.uid.as_deref().context("it has a uid")?;
    let part = format!("/pods/{uid}/volumes/kubernetes.io~{plugin}/");
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let of_line = |line: &str| {
        let path = line.split(' ').nth(4).filter(|path| path.contains(&part))?;
        let kind = line.split(" - ").nth(1)?.split(' ').next()?;
        Some((PathBuf::from(path), kind.to_owned()))
    };
    Ok(table.lines().filter_map(of_line).collect())
}

fn mode(path: &Path) -> anyhow::Result<u32> {
    let metadata = fs::symlink_metadata(path).with_context(|| path.display().to_string())?;
    Ok(metadata.mode() & 0o7777)
}

pub async fn secrets_are_in_memory_and_outlive_the_kubelet(
    fixture: &Fixture,
) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: Secret
metadata: {name: kept}
stringData: {key: one}
---
apiVersion: v1
kind: Pod
metadata: {name: secretive}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: skiff.test/busybox:1
    command: [sleep, "1000"]
    securityContext: {runAsUser: 1000}
    volumeMounts: [{name: kept, mountPath: /kept}, {name: about, mountPath: /about}, {name: token, mountPath: /token}]
  volumes:
  - {name: kept, secret: {secretName: kept}}
  - {name: about, downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}
  - {name: token, projected: {sources: [{serviceAccountToken: {path: token}}]}}
"#;
    create(fixture, yaml).await?;
    let before = pods::ready(fixture, "secretive").await?;
    let read =
        "cat /kept/key /about/name; cut -c 1-3 /token/token; stat -L -c '%u %a' /token/token";
    let found = exec(fixture, "secretive", "main", read)?;
    ensure!(found == "onesecretiveeyJ\n1000 600", "{found}");
    let plugins = ["secret", "downward-api", "projected"];
    for plugin in plugins {
        let found = mounts(&before, plugin)?;
        // The projected ones are this one and the API token that every pod has.
        ensure!(
            !found.is_empty() && found.iter().all(|one| one.1 == "tmpfs"),
            "{plugin}: {found:?}"
        );
        let volumes = found[0].0.ancestors().nth(2).context("it is in its pod's directory")?;
        for directory in volumes.ancestors().take(3) {
            ensure!(mode(directory)? == 0o700, "{}: {:o}", directory.display(), mode(directory)?);
        }
    }

    kill(Pid::from_raw(fixture.cluster.pid("kubelet-node-1")?), Signal::SIGKILL)?;
    let secrets: Api<Secret> = Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    let change = json!({"stringData": {"key": "two"}});
    secrets.patch("kept", PatchKind::Merge, &change).await?;
    wait::eventually("the next kubelet writes to the same volume", async || {
        let found = exec(fixture, "secretive", "main", "cat /kept/key")?;
        ensure!(found == "two", "{found:?}");
        Ok(())
    })
    .await?;
    let api: Api<Pod> = Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    let after = api.get("secretive").await?;
    ensure!(id(&before, "main") == id(&after, "main"), "it was restarted");
    for plugin in plugins {
        let found = mounts(&before, plugin)?;
        let once =
            found.iter().all(|one| found.iter().filter(|other| one.0 == other.0).count() == 1);
        ensure!(once, "mounted twice: {found:?}");
    }
    api.delete("secretive", &DeleteOptions::default()).await?;
    pods::until(fixture, "", "it is gone", |pods| !pods.contains_key("secretive")).await?;
    for plugin in plugins {
        let found = mounts(&before, plugin)?;
        ensure!(found.is_empty(), "still mounted: {found:?}");
    }
    Ok(())
}

pub async fn a_container_restarts_with_the_new_file_of_a_config_map(
    fixture: &Fixture,
) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: file}
data: {key: one}
---
apiVersion: v1
kind: Pod
metadata: {name: restarts}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: skiff.test/busybox:1
    command: [sh, -c, "trap 'exit 0' USR1; while true; do sleep 0.1; done"]
    volumeMounts: [{name: file, mountPath: /whole}, {name: file, mountPath: /etc/one, subPath: key}]
  volumes: [{name: file, configMap: {name: file}}]
"#;
    create(fixture, yaml).await?;
    pods::ready(fixture, "restarts").await?;
    let maps: Api<ConfigMap> = Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    for (restarts, (old, new)) in [(1, ("one", "two")), (2, ("two", "three"))] {
        maps.patch("file", PatchKind::Merge, &json!({"data": {"key": new}})).await?;
        wait::eventually("the whole volume has the new file", async || {
            let found = exec(fixture, "restarts", "main", "cat /whole/key")?;
            ensure!(found == new, "{found:?}");
            Ok(())
        })
        .await?;
        let found = exec(fixture, "restarts", "main", "cat /etc/one")?;
        ensure!(found == old, "a running container keeps its file: {found:?}");
        exec(fixture, "restarts", "main", "kill -USR1 1")?;
        pods::one(fixture, "restarts", "it runs again", |pod| {
            pods::restarts(pod, "main") == restarts && pods::is_ready(pod)
        })
        .await?;
        let found = exec(fixture, "restarts", "main", "cat /etc/one")?;
        ensure!(found == new, "{found:?}");
    }
    Ok(())
}

pub async fn a_group_gets_the_pods_own_volumes_only(fixture: &Fixture) -> anyhow::Result<()> {
    let node = tempfile::tempdir()?;
    let file = node.path().join("file");
    fs::write(&file, "the node's")?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    fs::set_permissions(node.path(), fs::Permissions::from_mode(0o755))?;
    let name = &fixture.namespace;
    let yaml = format!(
        r#"
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}-node}}
spec: {{capacity: {{storage: 1Gi}}, accessModes: [ReadWriteOnce], storageClassName: {name}, hostPath: {{path: {path}}}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: node}}
spec: {{accessModes: [ReadWriteOnce], storageClassName: {name}, resources: {{requests: {{storage: 1Gi}}}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: grouped}}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {{runAsUser: 1000, fsGroup: 2000}}
  containers:
  - name: main
    image: skiff.test/busybox:1
    command: [sleep, "1000"]
    volumeMounts: [{{name: node, mountPath: /node}}, {{name: memory, mountPath: /memory}}, {{name: token, mountPath: /token}}]
  volumes:
  - {{name: node, persistentVolumeClaim: {{claimName: node}}}}
  - {{name: memory, emptyDir: {{medium: Memory}}}}
  - {{name: token, projected: {{sources: [{{serviceAccountToken: {{path: token}}}}]}}}}
"#,
        path = node.path().display()
    );
    create(fixture, &yaml).await?;
    pods::ready(fixture, "grouped").await?;
    let command = "stat -L -c '%u %g %a' /memory /token/token; touch /memory/x && cat /token/token | cut -c 1-3";
    let found = exec(fixture, "grouped", "main", command)?;
    ensure!(found == "0 2000 3777\n1000 2000 640\neyJ", "{found}");
    for path in [node.path(), &file] {
        let found = fs::metadata(path)?;
        ensure!(found.gid() == 0, "{}: group {}", path.display(), found.gid());
    }
    ensure!(mode(&file)? == 0o600 && mode(node.path())? == 0o755);
    Ok(())
}
