//! Images: volumes whose size is enforced, and block devices.

use std::fs;

use anyhow::{Context, ensure};
use client::{Api, PatchKind};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::json;
use testkit::suite::Fixture;
use testkit::wait;
use tests::pods;

use super::{
    claim, claim_when, clean_up, create, delete_pod, event, exec, folder, name, pod, volume_of,
};

fn class(fixture: &Fixture) -> String {
    format!(
        "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {{name: {}}}\nprovisioner: skiff.dev/local-path\n\
         parameters: {{backing: image}}\nmountOptions: [noatime]\nvolumeBindingMode: WaitForFirstConsumer\nallowVolumeExpansion: true\n---\n",
        fixture.namespace
    )
}

/// The loop devices of the machine whose files are below this cluster's folder.
fn devices(fixture: &Fixture) -> Vec<String> {
    let all = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let files = all.filter_map(|one| fs::read_to_string(one.path().join("loop/backing_file")).ok());
    let folder = fixture.cluster.folder();
    files.filter(|file| std::path::Path::new(file.trim_end()).starts_with(&folder)).collect()
}

pub async fn an_image_enforces_its_size_and_grows_while_mounted(
    fixture: &Fixture,
) -> anyhow::Result<()> {
    let of_class = format!(", storageClassName: {}", fixture.namespace);
    create(fixture, &(class(fixture) + &claim("data", "16Mi", &of_class) + &pod("user", "data")))
        .await?;
    let before = pods::ready(fixture, "user").await?;
    let volume = volume_of(fixture, "data").await?;
    let mounted = exec(fixture, "user", "grep ' /data ' /proc/mounts")?;
    ensure!(mounted.contains(" ext4 ") && mounted.contains("noatime"), "{mounted}");
    let fill = |megabytes: u32| {
        format!("dd if=/dev/zero of=/data/fill bs=1M count={megabytes} 2>&1 || echo failed")
    };
    let full = exec(fixture, "user", &fill(20))?;
    ensure!(full.contains("No space left on device") && full.ends_with("failed"), "{full}");

    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    let larger = json!({"spec": {"resources": {"requests": {"storage": "40Mi"}}}});
    claims.patch("data", PatchKind::Merge, &larger).await?;
    if may_change_mounted()? {
        has_size(fixture, "40Mi").await?;
        let object = "user";
        let text = "MountVolume.NodeExpandVolume succeeded for volume";
        event(fixture, object, "FileSystemResizeSuccessful", text).await?;
        let fits = exec(fixture, "user", &fill(20))?;
        ensure!(!fits.contains("failed"), "{fits}");
        let after = pods::ready(fixture, "user").await?;
        ensure!(before.metadata.uid == after.metadata.uid && pods::restarts(&after, "main") == 0);
    } else {
        waits_for_a_pod(fixture).await?;
    }
    event(fixture, "data", "Resizing", "External resizer is resizing volume pvc-").await?;
    let text = "Require file system resize of volume on node";
    event(fixture, "data", "FileSystemResizeRequired", text).await?;

    // Unmounted, it grows with its next pod.
    exec(fixture, "user", "rm -f /data/fill; echo one > /data/row; sync")?;
    delete_pod(fixture, "user").await?;
    devices_are_free(fixture).await?;
    if !may_change_mounted()? {
        // The next expansion begins when this one is done.
        create(fixture, &pod("between", "data")).await?;
        pods::ready(fixture, "between").await?;
        has_size(fixture, "40Mi").await?;
        delete_pod(fixture, "between").await?;
        devices_are_free(fixture).await?;
    }
    let larger = json!({"spec": {"resources": {"requests": {"storage": "64Mi"}}}});
    claims.patch("data", PatchKind::Merge, &larger).await?;
    waits_for_a_pod(fixture).await?;
    create(fixture, &pod("next", "data")).await?;
    pods::ready(fixture, "next").await?;
    has_size(fixture, "64Mi").await?;
    let text = "MountVolume.NodeExpandVolume succeeded for volume";
    for object in ["data", "next"] {
        event(fixture, object, "FileSystemResizeSuccessful", text).await?;
    }
    let fits = exec(fixture, "next", &fill(50))?;
    ensure!(!fits.contains("failed") && exec(fixture, "next", "cat /data/row")? == "one", "{fits}");
    let path = folder(fixture, &volume)?;
    clean_up(fixture, &[name(&volume)]).await?;
    ensure!(!path.exists() && devices(fixture).is_empty());
    fixture.cluster.skiff(&["delete", "sc", &fixture.namespace])?;
    Ok(())
}

/// More than any disk, more than the room on this one, and what fits.
pub async fn an_expansion_that_fails_is_given_up_for_a_smaller_one(
    fixture: &Fixture,
) -> anyhow::Result<()> {
    let of_class = format!(", storageClassName: {}", fixture.namespace);
    create(fixture, &(class(fixture) + &claim("data", "16Mi", &of_class) + &pod("user", "data")))
        .await?;
    pods::ready(fixture, "user").await?;
    let volume = volume_of(fixture, "data").await?;
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    let ask = async |size: &str| {
        let request = json!({"spec": {"resources": {"requests": {"storage": size}}}});
        claims.patch("data", PatchKind::Merge, &request).await
    };
    ask("8Pi").await?;
    let failed = expansion(fixture, "ControllerResizeInfeasible", "ControllerResizeError").await?;
    ensure!(failed.contains("not the"), "{failed}");

    let disk = nix::sys::statvfs::statvfs(&fixture.cluster.folder())?;
    let free = disk.blocks_available() * disk.fragment_size();
    let total = disk.blocks() * disk.fragment_size();
    ask(&(free + (total - free) / 2).to_string()).await?;
    let failed = expansion(fixture, "NodeResizeInfeasible", "NodeResizeError").await?;
    ensure!(failed.contains("No space left on device"), "{failed}");
    let text = "MountVolume.NodeExpandVolume failed for volume";
    event(fixture, "user", "VolumeResizeFailed", text).await?;

    let refused = ask("16Mi").await.err().context("a claim does not get smaller")?;
    ensure!(refused.to_string().contains("field can not be less than status.capacity"));
    ask("40Mi").await?;
    if !may_change_mounted()? {
        waits_for_a_pod(fixture).await?;
        delete_pod(fixture, "user").await?;
        devices_are_free(fixture).await?;
        create(fixture, &pod("next", "data")).await?;
        pods::ready(fixture, "next").await?;
    }
    has_size(fixture, "40Mi").await?;
    clean_up(fixture, &[name(&volume)]).await?;
    fixture.cluster.skiff(&["delete", "sc", &fixture.namespace])?;
    Ok(())
}

/// Waits until the claim's expansion is in this state; returns the message of the condition.
async fn expansion(fixture: &Fixture, state: &str, condition: &str) -> anyhow::Result<String> {
    let what = format!("its expansion is {state}");
    let message = |claim: &PersistentVolumeClaim| {
        let status = claim.status.as_ref()?;
        let states = status.allocated_resource_statuses.as_ref()?;
        let mut conditions = status.conditions.iter().flatten();
        let found = conditions.find(|one| one.type_ == condition)?;
        (states.get("storage")? == state).then(|| found.message.clone().unwrap_or_default())
    };
    let claim = claim_when(fixture, "data", &what, |claim| message(claim).is_some()).await?;
    Ok(message(&claim).unwrap_or_default())
}

/// The kernel frees the device of an unmounted image a moment later.
async fn devices_are_free(fixture: &Fixture) -> anyhow::Result<()> {
    wait::eventually("all devices are free", async || {
        ensure!(devices(fixture).is_empty(), "{:?}", devices(fixture));
        Ok(())
    })
    .await
}

/// Whether the kernel lets root change a file system that is mounted: ext4 asks for CAP_SYS_RESOURCE.
fn may_change_mounted() -> anyhow::Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = u64::from_str_radix(mask.context("no capabilities")?.trim(), 16)?;
    Ok(mask & (1 << 24) != 0)
}

async fn has_size(fixture: &Fixture, wanted: &str) -> anyhow::Result<()> {
    claim_when(fixture, "data", "the file system has grown", |claim| {
        let status = claim.status.clone().unwrap_or_default();
        let size = status.capacity.and_then(|all| all.get("storage").cloned());
        let states = status.allocated_resource_statuses.unwrap_or_default();
        size.is_some_and(|size| size.0 == wanted)
            && status.conditions.is_none_or(|all| all.is_empty())
            && states.is_empty()
    })
    .await?;
    Ok(())
}

async fn waits_for_a_pod(fixture: &Fixture) -> anyhow::Result<()> {
    claim_when(fixture, "data", "it waits for a pod", |claim| {
        let conditions = claim.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|one| one.type_ == "FileSystemResizePending")
    })
    .await?;
    Ok(())
}

pub async fn a_block_device_keeps_its_bytes(fixture: &Fixture) -> anyhow::Result<()> {
    let raw = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "volumes": [{"name": "raw", "persistentVolumeClaim": {"claimName": "raw"}}],
                "containers": [{
                    "name": "main", "image": "skiff.test/busybox:1", "command": ["sleep", "1000"],
                    "volumeDevices": [{"name": "raw", "devicePath": "/dev/xvda"}],
                }],
            },
        })
        .to_string()
    };
    create(fixture, &(claim("raw", "8Mi", ", volumeMode: Block") + &raw("first"))).await?;
    pods::ready(fixture, "first").await?;
    let size = exec(fixture, "first", "blockdev --getsize64 /dev/xvda")?;
    ensure!(size == "8388608", "{size}");
    exec(fixture, "first", "echo bytes | dd of=/dev/xvda bs=512 seek=8 conv=fsync,notrunc")?;
    let full = exec(
        fixture,
        "first",
        "dd if=/dev/zero of=/dev/xvda bs=1M seek=8 count=1 2>&1 || echo failed",
    )?;
    ensure!(full.contains("failed"), "{full}");
    delete_pod(fixture, "first").await?;
    wait::eventually("its device is detached", async || {
        ensure!(devices(fixture).is_empty(), "{:?}", devices(fixture));
        Ok(())
    })
    .await?;
    create(fixture, &raw("second")).await?;
    pods::ready(fixture, "second").await?;
    let read = "dd if=/dev/xvda bs=512 skip=8 count=1 2>/dev/null | head -n 1";
    ensure!(exec(fixture, "second", read)? == "bytes");
    // A container that mounts it as a file system gets an error.
    create(fixture, &pod("wrong", "raw")).await?;
    let message = "volume data has volumeMode Block, but is specified in volumeMounts";
    event(fixture, "wrong", "FailedMount", message).await?;
    let volume = volume_of(fixture, "raw").await?;
    clean_up(fixture, &[name(&volume)]).await?;
    ensure!(devices(fixture).is_empty(), "{:?}", devices(fixture));
    Ok(())
}
