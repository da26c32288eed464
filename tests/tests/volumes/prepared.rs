//! Volumes that an administrator has prepared.

use std::fs;

use anyhow::ensure;
use client::{Api, PatchKind};
use k8s_openapi::api::core::v1::PersistentVolume;
use serde_json::json;
use testkit::suite::Fixture;
use testkit::wait::{self, Selection};
use tests::pods;

use super::{claim, clean_up, create, event, exec, name, pod, volume_of};

/// A volume of the scenario's own class; `more` are further fields of its spec.
fn volume(fixture: &Fixture, name: &str, label: &str, size: &str, more: &str) -> String {
    let class = &fixture.namespace;
    format!(
        "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: {class}-{name}, labels: {{tier: {label}}}}}\nspec: \
         {{capacity: {{storage: {size}}}, accessModes: [ReadWriteOnce, ReadWriteMany], storageClassName: {class}, \
         persistentVolumeReclaimPolicy: Retain, {more}}}\n---\n"
    )
}

pub async fn a_prepared_volume_is_chosen_and_used_again(fixture: &Fixture) -> anyhow::Result<()> {
    let (client, class) = (fixture.cluster.client(), fixture.namespace.clone());
    let folder = tempfile::tempdir()?;
    let host = |name: &str| {
        let path = folder.path().join(name);
        format!("hostPath: {{path: {}, type: DirectoryOrCreate}}", path.display())
    };
    let local = folder.path().join("local");
    fs::create_dir(&local)?;
    let on_node_2 = format!(
        "local: {{path: {}}}, nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: \
         [{{key: kubernetes.io/hostname, operator: In, values: [node-2]}}]}}]}}}}",
        local.display()
    );
    let reserved =
        format!("claimRef: {{namespace: {class}, name: reserved}}, {}", host("reserved"));
    let all = volume(fixture, "small", "slow", "1Gi", &host("small"))
        + &volume(fixture, "large", "slow", "9Gi", &host("large"))
        + &volume(fixture, "fast", "fast", "5Gi", &host("fast"))
        + &volume(fixture, "local", "local", "5Gi", &on_node_2)
        + &volume(fixture, "reserved", "slow", "20Gi", &reserved);
    create(fixture, &all).await?;
    let of = |more: &str| format!(", storageClassName: {class}{more}");
    for (claim_name, size, more, wanted) in [
        ("by-size", "2Gi", ", selector: {matchLabels: {tier: slow}}", "large"),
        ("by-label", "1Gi", ", selector: {matchLabels: {tier: fast}}", "fast"),
        ("reserved", "1Gi", "", "reserved"),
        ("on-node", "1Gi", ", selector: {matchLabels: {tier: local}}", "local"),
        ("by-name", "1Gi", &format!(", volumeName: {class}-small"), "small"),
    ] {
        create(fixture, &claim(claim_name, size, &of(more))).await?;
        let found = volume_of(fixture, claim_name).await?;
        ensure!(name(&found) == format!("{class}-{wanted}"), "{claim_name}: {}", name(&found));
    }
    create(fixture, &claim("too-large", "100Gi", &of(""))).await?;
    create(fixture, &(pod("local", "on-node") + "\n---\n" + &pod("host", "by-label"))).await?;
    ensure!(pods::node(&pods::ready(fixture, "local").await?) == "node-2");
    pods::ready(fixture, "host").await?;
    exec(fixture, "local", "echo local > /data/row")?;
    exec(fixture, "host", "echo host > /data/row")?;
    ensure!(fs::read_to_string(local.join("row"))? == "local\n");
    // An unplugged disk is not replaced by an empty folder.
    super::delete_pod(fixture, "local").await?;
    let unplugged = folder.path().join("unplugged");
    fs::rename(&local, &unplugged)?;
    create(fixture, &pod("local", "on-node")).await?;
    let why = format!("path {local:?} does not exist");
    event(fixture, "local", "FailedMount", &why).await?;
    fs::rename(&unplugged, &local)?;
    pods::ready(fixture, "local").await?;
    ensure!(exec(fixture, "local", "cat /data/row")? == "local");

    // Retained: the data stay, and the volume is free again when the administrator says so.
    clean_up(fixture, &[]).await?;
    let volumes: Api<PersistentVolume> = Api::all(client);
    let fast = format!("{class}-fast");
    let released = |phase: &'static str| {
        wait::until::<PersistentVolume>(
            client,
            Selection::default().name(&fast),
            phase,
            move |found| {
                let phases = found.values().map(|one| one.status.clone().and_then(|one| one.phase));
                phases.into_iter().all(|one| one.as_deref() == Some(phase))
            },
        )
    };
    released("Released").await?;
    let again = claim("again", "1Gi", &of(", selector: {matchLabels: {tier: fast}}"));
    create(fixture, &again).await?;
    volumes.patch(&fast, PatchKind::Merge, &json!({"spec": {"claimRef": null}})).await?;
    let found = volume_of(fixture, "again").await?;
    ensure!(name(&found) == fast, "{}", name(&found));
    create(fixture, &pod("again", "again")).await?;
    pods::ready(fixture, "again").await?;
    ensure!(exec(fixture, "again", "cat /data/row")? == "host");
    clean_up(fixture, &[]).await?;
    for one in ["small", "large", "fast", "local", "reserved"] {
        fixture.cluster.skiff(&["delete", "pv", &format!("{class}-{one}")])?;
    }
    Ok(())
}

/// Two pods want a volume each that only one node has, and another one that the other has, at once.
pub async fn pods_find_the_nodes_of_prepared_volumes(fixture: &Fixture) -> anyhow::Result<()> {
    let class = fixture.namespace.clone();
    let folder = tempfile::tempdir()?;
    let late = format!(
        "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {{name: {class}}}\n\
         provisioner: kubernetes.io/no-provisioner\nvolumeBindingMode: WaitForFirstConsumer\n---\n"
    );
    let none = claim("none", "1Gi", &format!(", storageClassName: {class}"));
    create(fixture, &(late + &none + &pod("none", "none"))).await?;
    let why = "3 node(s) didn't find available persistent volumes to bind";
    event(fixture, "none", "FailedScheduling", why).await?;
    super::delete_pod(fixture, "none").await?;
    fixture.cluster.skiff(&["delete", "-n", &fixture.namespace, "pvc", "none"])?;
    for node in ["node-1", "node-2"] {
        let path = folder.path().join(node);
        fs::create_dir(&path)?;
        let local = format!(
            "local: {{path: {}}}, nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: \
             [{{key: kubernetes.io/hostname, operator: In, values: [{node}]}}]}}]}}}}",
            path.display()
        );
        create(fixture, &volume(fixture, node, "local", "1Gi", &local)).await?;
    }
    for number in [1, 2] {
        let data = format!("data-{number}");
        create(fixture, &claim(&data, "1Gi", &format!(", storageClassName: {class}"))).await?;
    }
    create(fixture, &(pod("user-1", "data-1") + "\n---\n" + &pod("user-2", "data-2"))).await?;
    let first = pods::ready(fixture, "user-1").await?;
    let second = pods::ready(fixture, "user-2").await?;
    ensure!(pods::node(&first) != pods::node(&second), "both are on {}", pods::node(&first));
    clean_up(fixture, &[]).await?;
    for node in ["node-1", "node-2"] {
        fixture.cluster.skiff(&["delete", "pv", &format!("{class}-{node}")])?;
    }
    fixture.cluster.skiff(&["delete", "sc", &class])?;
    Ok(())
}

pub async fn one_pod_at_a_time_has_an_exclusive_claim(fixture: &Fixture) -> anyhow::Result<()> {
    let exclusive = claim("data", "1Mi", "").replace("ReadWriteOnce", "ReadWriteOncePod");
    create(fixture, &(exclusive + &pod("first", "data"))).await?;
    pods::ready(fixture, "first").await?;
    create(fixture, &pod("second", "data")).await?;
    let why = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
    event(fixture, "second", "FailedScheduling", why).await?;
    super::delete_pod(fixture, "first").await?;
    pods::ready(fixture, "second").await?;
    let volume = volume_of(fixture, "data").await?;
    clean_up(fixture, &[name(&volume)]).await
}
