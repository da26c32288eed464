//! Images as volumes.

use anyhow::ensure;
use client::{Api, DeleteOptions};
use k8s_openapi::api::core::v1::Pod;
use testkit::suite::Fixture;
use tests::pods;

use super::start_failures::{event, waits};
use super::{create, exec};

pub async fn an_image_is_mounted_as_a_volume(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: imaged}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: skiff.test/busybox:1
    command: [sleep, "1000"]
    volumeMounts:
    - {name: server, mountPath: /server}
    - {name: server, mountPath: /programs, subPath: bin}
  volumes: [{name: server, image: {reference: "skiff.test/testserver:v1", pullPolicy: IfNotPresent}}]
---
apiVersion: v1
kind: Pod
metadata: {name: unimaged}
spec:
  containers:
  - {name: main, image: "skiff.test/busybox:1", volumeMounts: [{name: none, mountPath: /none}]}
  volumes: [{name: none, image: {reference: "skiff.test/absent:1", pullPolicy: Never}}]
---
apiVersion: v1
kind: Pod
metadata: {name: unreachable}
spec:
  containers:
  - {name: main, image: "skiff.test/busybox:1", volumeMounts: [{name: none, mountPath: /none}]}
  - {name: beside, image: "skiff.test/busybox:1", command: [sleep, "1000"]}
  volumes: [{name: none, image: {reference: "127.0.0.1:1/absent:1"}}]
"#;
    create(fixture, yaml).await?;
    pods::ready(fixture, "imaged").await?;
    let sh = |command: &str| exec(fixture, "imaged", "main", command);
    ensure!(
        sh("ls /server/bin /programs")? == "/programs:\ntestserver\n\n/server/bin:\ntestserver"
    );
    let refused = sh("touch /server/x 2>&1; /programs/testserver 2>&1; true")?;
    ensure!(refused.contains("Read-only file system"), "{refused}");
    ensure!(refused.contains("Permission denied"), "{refused}");
    let text = "Container image \"skiff.test/absent:1\" is not present with pull policy of Never";
    waits(fixture, "unimaged", "ErrImageNeverPull", text).await?;
    event(fixture, "unimaged", "ErrImageNeverPull", text).await?;
    let back_off = "Back-off pulling image \"127.0.0.1:1/absent:1\"";
    let text = format!("{back_off}: ErrImagePull: ");
    let pod = waits(fixture, "unreachable", "ImagePullBackOff", &text).await?;
    ensure!(pods::waiting_reason(&pod, "beside").is_empty(), "it does not use the volume");
    event(fixture, "unreachable", "Failed", "Error: ErrImagePull").await?;
    event(fixture, "unreachable", "BackOff", back_off).await?;

    let api = Api::<Pod>::namespaced(fixture.cluster.client(), &fixture.namespace);
    let uid = api.get("imaged").await?.metadata.uid.unwrap_or_default();
    api.delete("imaged", &DeleteOptions::default()).await?;
    let gone = |pods: &std::collections::BTreeMap<String, Pod>| !pods.contains_key("imaged");
    let selection = testkit::wait::Selection::namespace(&fixture.namespace).name("imaged");
    testkit::wait::until(fixture.cluster.client(), selection, "it is gone", gone).await?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains(&uid), "part of it is still mounted");
    Ok(())
}
