//! Directories on demand, by the class that every cluster has.

use std::fs;

use anyhow::{Context, ensure};
use client::{Api, PatchKind};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::json;
use testkit::suite::Fixture;
use testkit::wait;
use tests::pods;

use super::{
    claim, claim_when, clean_up, create, delete_pod, event, exec, folder, name, pod,
    volume_is_gone, volume_of,
};

pub async fn a_claim_is_served_without_any_set_up(fixture: &Fixture) -> anyhow::Result<()> {
    let client = fixture.cluster.client();
    let class = Api::<StorageClass>::all(client).get("standard").await?;
    ensure!(class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"), "{class:?}");
    create(fixture, &claim("data", "64Mi", "")).await?;
    event(fixture, "data", "WaitForFirstConsumer", "waiting for first consumer").await?;
    create(fixture, &pod("first", "data")).await?;
    let first = pods::ready(fixture, "first").await?;
    for (reason, text) in [
        ("ExternalProvisioning", "external provisioner 'skiff.dev/local-path'"),
        ("Provisioning", "/data\""),
        ("ProvisioningSucceeded", "Successfully provisioned volume pvc-"),
        ("SizeNotEnforced", "The size of the volume is not enforced: "),
    ] {
        event(fixture, "data", reason, text).await?;
    }
    exec(fixture, "first", "id -u; echo one > /data/row")?;
    let volume = volume_of(fixture, "data").await?;
    let path = folder(fixture, &volume)?;
    ensure!(fs::read_to_string(path.join("data/row"))? == "one\n");

    // Its next pod is where its data are.
    delete_pod(fixture, "first").await?;
    create(fixture, &pod("second", "data")).await?;
    let second = pods::ready(fixture, "second").await?;
    ensure!(pods::node(&first) == pods::node(&second));
    ensure!(exec(fixture, "second", "cat /data/row")? == "one");

    // A claim in use is protected; then it goes, and all of it.
    let namespace = ["-n", fixture.namespace.as_str()];
    let skiff = |arguments: &[&str]| fixture.cluster.skiff(&[&namespace, arguments].concat());
    skiff(&["delete", "pvc", "data", "--wait=false"])?;
    claim_when(fixture, "data", "it is being deleted", |claim| {
        claim.metadata.deletion_timestamp.is_some()
    })
    .await?;
    ensure!(exec(fixture, "second", "cat /data/row")? == "one");
    delete_pod(fixture, "second").await?;
    volume_is_gone(fixture, name(&volume)).await?;
    ensure!(!path.exists(), "{} is left", path.display());

    retained(fixture).await
}

/// What is retained stays when its claim goes, and when the volume does.
async fn retained(fixture: &Fixture) -> anyhow::Result<()> {
    let client = fixture.cluster.client();
    create(fixture, &(claim("kept", "1Mi", "") + &pod("keeper", "kept"))).await?;
    pods::ready(fixture, "keeper").await?;
    exec(fixture, "keeper", "echo kept > /data/row")?;
    let volume = volume_of(fixture, "kept").await?;
    let volumes: Api<PersistentVolume> = Api::all(client);
    let retain = json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}});
    volumes.patch(name(&volume), PatchKind::Merge, &retain).await?;
    clean_up(fixture, &[]).await?;
    let selection = wait::Selection::default().name(name(&volume));
    wait::until::<PersistentVolume>(client, selection, "it is Released", |found| {
        let phase = |volume: &PersistentVolume| volume.status.clone().and_then(|one| one.phase);
        found.values().all(|volume| phase(volume).as_deref() == Some("Released"))
    })
    .await?;
    fixture.cluster.skiff(&["delete", "pv", name(&volume)])?;
    volume_is_gone(fixture, name(&volume)).await?;
    let path = folder(fixture, &volume)?;
    ensure!(fs::read_to_string(path.join("data/row"))? == "kept\n");
    fs::remove_dir_all(path)?;
    Ok(())
}

pub async fn a_directory_takes_its_new_size(fixture: &Fixture) -> anyhow::Result<()> {
    create(fixture, &(claim("data", "1Mi", "") + &pod("user", "data"))).await?;
    pods::ready(fixture, "user").await?;
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    let larger = json!({"spec": {"resources": {"requests": {"storage": "2Mi"}}}});
    claims.patch("data", PatchKind::Merge, &larger).await?;
    claim_when(fixture, "data", "it has its new size", |claim| {
        let status = claim.status.clone().unwrap_or_default();
        let size = status.capacity.and_then(|all| all.get("storage").cloned());
        size.is_some_and(|size| size.0 == "2Mi")
            && status.conditions.is_none_or(|all| all.is_empty())
    })
    .await?;
    event(fixture, "data", "ExternalExpanding", "waiting for an external controller").await?;
    event(fixture, "data", "VolumeResizeSuccessful", "Resize volume succeeded").await?;
    let volume = volume_of(fixture, "data").await?;
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    let size = capacity.and_then(|capacity| capacity.get("storage"));
    ensure!(size.is_some_and(|size| size.0 == "2Mi"), "{capacity:?}");
    clean_up(fixture, &[name(&volume)]).await
}

pub async fn an_ephemeral_volume_goes_with_its_pod(fixture: &Fixture) -> anyhow::Result<()> {
    let yaml = r#"
apiVersion: v1
kind: Pod
metadata: {name: short}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: skiff.test/busybox:1
    command: [sh, -c, "echo x > /scratch/x; exec sleep 1000"]
    volumeMounts: [{name: scratch, mountPath: /scratch}]
  volumes:
  - name: scratch
    ephemeral:
      volumeClaimTemplate:
        spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
"#;
    create(fixture, yaml).await?;
    pods::ready(fixture, "short").await?;
    let volume = volume_of(fixture, "short-scratch").await?;
    let path = folder(fixture, &volume)?;
    ensure!(path.join("data/x").exists());
    delete_pod(fixture, "short").await?;
    volume_is_gone(fixture, name(&volume)).await?;
    ensure!(!path.exists(), "{} is left", path.display());
    Ok(())
}

/// The whole cluster goes down and comes back.
pub async fn data_survive_the_cluster(fixture: &Fixture) -> anyhow::Result<()> {
    let cluster = &fixture.cluster;
    create(fixture, &(claim("data", "1Mi", "") + &pod("user", "data"))).await?;
    pods::ready(fixture, "user").await?;
    exec(fixture, "user", "echo one > /data/row; sync")?;
    let volume = volume_of(fixture, "data").await?;
    cluster.skiff(&["down", "--keep-data", "--no-kubeconfig"])?;
    let up = cluster.up_again(&[])?;
    ensure!(up.success, "{}", up.stderr);
    let row = wait::eventually("the pod has its data again", async || {
        exec(fixture, "user", "cat /data/row")
    })
    .await?;
    ensure!(row == "one", "{row:?}");
    let after = volume_of(fixture, "data").await?;
    ensure!(after.metadata.uid == volume.metadata.uid, "it is another volume");
    let path = folder(fixture, &volume).context("it has a folder")?;
    clean_up(fixture, &[name(&volume)]).await?;
    ensure!(!path.exists(), "{} is left", path.display());
    Ok(())
}
