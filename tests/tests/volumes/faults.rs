//! What happens to volumes when something fails.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, ensure};
use client::{Api, ListOptions};
use k8s_openapi::api::core::v1::PersistentVolume;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::suite::Fixture;
use testkit::wait;
use tests::pods;

use super::{claim, clean_up, create, delete_pod, event, exec, folder, name, pod, volume_of};

pub async fn a_claim_larger_than_the_disk_is_refused(fixture: &Fixture) -> anyhow::Result<()> {
    create(fixture, &(claim("huge", "900Ti", "") + &pod("huge", "huge"))).await?;
    let why = "0/3 nodes are available: 3 node(s) did not have enough free storage.";
    event(fixture, "huge", "FailedScheduling", why).await?;
    // A class that does not wait for a pod says it on the claim.
    let class = &fixture.namespace;
    let yaml = format!(
        "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {{name: {class}}}\nprovisioner: skiff.dev/local-path\n---\n"
    );
    let of_class = format!(", storageClassName: {class}");
    create(fixture, &(yaml + &claim("at-once", "900Ti", &of_class))).await?;
    let why = format!("failed to provision volume with StorageClass \"{class}\": no node can have");
    event(fixture, "at-once", "ProvisioningFailed", &why).await?;
    let shared = claim("shared", "1Mi", &of_class).replace("ReadWriteOnce", "ReadWriteMany");
    create(fixture, &shared).await?;
    event(fixture, "shared", "ProvisioningFailed", "cannot be ReadWriteMany").await?;
    // Less than the disk, more than is free on it: nothing is taken from the others.
    let disk = nix::sys::statvfs::statvfs(&fixture.cluster.folder())?;
    let free = disk.blocks_available() * disk.fragment_size();
    let total = disk.blocks() * disk.fragment_size();
    let between = free + (total - free) / 2;
    let more = format!("{of_class}, volumeMode: Block");
    create(fixture, &claim("full", &between.to_string(), &more)).await?;
    let pod = pod("full", "full").replace("volumeMounts", "volumeDevices");
    create(fixture, &pod.replace("mountPath", "devicePath")).await?;
    event(fixture, "full", "FailedMount", "No space left on device").await?;
    create(fixture, &claim("small", "1Mi", &of_class)).await?;
    let volume = volume_of(fixture, "small").await?;
    let full = volume_of(fixture, "full").await?;
    clean_up(fixture, &[name(&volume), name(&full)]).await?;
    fixture.cluster.skiff(&["delete", "sc", class])?;
    Ok(())
}

/// A disk is unplugged, and plugged in again.
pub async fn a_vanished_volume_is_reported(fixture: &Fixture) -> anyhow::Result<()> {
    create(fixture, &(claim("data", "1Mi", "") + &pod("first", "data"))).await?;
    pods::ready(fixture, "first").await?;
    exec(fixture, "first", "echo one > /data/row")?;
    let volume = volume_of(fixture, "data").await?;
    let path = folder(fixture, &volume)?;
    delete_pod(fixture, "first").await?;
    let unplugged = path.with_extension("unplugged");
    fs::rename(&path, &unplugged)?;
    create(fixture, &pod("second", "data")).await?;
    event(fixture, "second", "FailedMount", "the contents of the volume are gone").await?;
    ensure!(!path.exists(), "an empty volume has taken its place");
    fs::rename(&unplugged, &path)?;
    pods::ready(fixture, "second").await?;
    ensure!(exec(fixture, "second", "cat /data/row")? == "one");
    clean_up(fixture, &[name(&volume)]).await
}

/// The processes that make volumes are killed again and again while they do.
pub async fn a_killed_provisioner_makes_each_volume_once(fixture: &Fixture) -> anyhow::Result<()> {
    const CLAIMS: usize = 6;
    let cluster = &fixture.cluster;
    let victims =
        ["controller-manager", "kubelet-node-1", "kubelet-node-2", "kubelet-node-3", "scheduler"];
    for number in 0..CLAIMS {
        let claim = claim(&format!("data-{number}"), "1Mi", "");
        create(fixture, &(claim + &pod(&format!("user-{number}"), &format!("data-{number}"))))
            .await?;
        let victim = victims[number % victims.len()];
        if let Ok(pid) = cluster.pid(victim) {
            kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        }
    }
    let mut wanted = BTreeSet::new();
    for number in 0..CLAIMS {
        pods::ready(fixture, &format!("user-{number}")).await?;
        // Its kubelet may be starting again.
        wait::eventually("it can be written to", async || {
            exec(fixture, &format!("user-{number}"), "echo x > /data/row")
        })
        .await?;
        let volume = volume_of(fixture, &format!("data-{number}")).await?;
        wanted.insert(name(&volume).to_owned());
    }
    let volumes: Api<PersistentVolume> = Api::all(cluster.client());
    let found = volumes.list(&ListOptions::default()).await?.items;
    let found: BTreeSet<_> = found.iter().map(|volume| name(volume).to_owned()).collect();
    ensure!(found == wanted, "{found:?}, not {wanted:?}");
    ensure!(on_disk(fixture)? == wanted, "{:?}, not {wanted:?}", on_disk(fixture)?);

    for victim in victims.iter().filter(|victim| **victim != "scheduler") {
        kill(Pid::from_raw(cluster.pid(victim).context("it runs")?), Signal::SIGKILL)?;
    }
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    clean_up(fixture, &wanted).await?;
    ensure!(on_disk(fixture)?.is_empty(), "{:?} are left", on_disk(fixture)?);
    Ok(())
}

/// What the nodes keep.
fn on_disk(fixture: &Fixture) -> anyhow::Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for node in fixture.cluster.nodes() {
        let root = fixture.cluster.folder().join("nodes").join(node).join("kubelet/local-path");
        for entry in fs::read_dir(root).into_iter().flatten() {
            all.insert(entry?.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(all)
}
