//! Volumes: those that the cluster makes on demand and those of an administrator, from the claim to
//! the removal, and what happens to them when something fails.

#[path = "volumes/faults.rs"]
mod faults;
#[path = "volumes/images.rs"]
mod images;
#[path = "volumes/on_demand.rs"]
mod on_demand;
#[path = "volumes/prepared.rs"]
mod prepared;

use anyhow::{Context, ensure};
use client::{Api, DeleteOptions, ListOptions};
use faults::{
    a_claim_larger_than_the_disk_is_refused, a_killed_provisioner_makes_each_volume_once,
    a_vanished_volume_is_reported,
};
use images::{
    a_block_device_keeps_its_bytes, an_expansion_that_fails_is_given_up_for_a_smaller_one,
    an_image_enforces_its_size_and_grows_while_mounted,
};
use k8s_openapi::api::core::v1::{Event, PersistentVolume, PersistentVolumeClaim, Pod};
use on_demand::{
    a_claim_is_served_without_any_set_up, a_directory_takes_its_new_size,
    an_ephemeral_volume_goes_with_its_pod, data_survive_the_cluster,
};
use prepared::{
    a_prepared_volume_is_chosen_and_used_again, one_pod_at_a_time_has_an_exclusive_claim,
    pods_find_the_nodes_of_prepared_volumes,
};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use testkit::suite::Fixture;
use testkit::wait::{self, Selection};
use testkit::{Options, manifest, scenarios, suite};
use tests::pods;

fn main() -> ExitCode {
    suite::run(
        Options { nodes: 3, ..Options::default() },
        &["busybox"],
        scenarios![
            a_claim_is_served_without_any_set_up,
            a_directory_takes_its_new_size,
            an_ephemeral_volume_goes_with_its_pod,
            an_image_enforces_its_size_and_grows_while_mounted,
            an_expansion_that_fails_is_given_up_for_a_smaller_one,
            a_block_device_keeps_its_bytes,
            a_prepared_volume_is_chosen_and_used_again,
            pods_find_the_nodes_of_prepared_volumes,
            one_pod_at_a_time_has_an_exclusive_claim,
            a_claim_larger_than_the_disk_is_refused,
            a_vanished_volume_is_reported,
            a_killed_provisioner_makes_each_volume_once,
            data_survive_the_cluster,
        ],
    )
}

async fn create(fixture: &Fixture, yaml: &str) -> anyhow::Result<()> {
    manifest::create(fixture.cluster.client(), &fixture.namespace, yaml).await
}

/// A claim; `more` are further fields of its spec, beginning with a comma.
fn claim(name: &str, size: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}}}\nspec: {{accessModes: [ReadWriteOnce], \
         resources: {{requests: {{storage: {size}}}}}{more}}}\n---\n"
    )
}

/// A busybox pod that has the claim at `/data`.
fn pod(name: &str, claim: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
            "containers": [{
                "name": "main", "image": "skiff.test/busybox:1", "command": ["sleep", "1000"],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
        },
    })
    .to_string()
}

/// The output of a command in the pod's only container.
fn exec(fixture: &Fixture, pod: &str, command: &str) -> anyhow::Result<String> {
    let arguments = ["exec", "-n", &fixture.namespace, pod, "--", "sh", "-c", command];
    Ok(fixture.cluster.skiff(&arguments)?.trim().to_owned())
}

async fn delete_pod(fixture: &Fixture, name: &str) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    pods.delete(name, &DeleteOptions::default()).await?;
    let gone = |pods: &std::collections::BTreeMap<String, Pod>| !pods.contains_key(name);
    pods::until(fixture, "", &format!("{name} is gone"), gone).await?;
    Ok(())
}

/// Waits until `holds` returns true for a claim; returns the claim.
async fn claim_when(
    fixture: &Fixture,
    name: &str,
    what: &str,
    holds: impl Fn(&PersistentVolumeClaim) -> bool,
) -> anyhow::Result<PersistentVolumeClaim> {
    let selection = Selection::namespace(&fixture.namespace).name(name);
    let mut found =
        wait::until::<PersistentVolumeClaim>(fixture.cluster.client(), selection, what, |found| {
            found.get(name).is_some_and(&holds)
        })
        .await?;
    found.remove(name).context("it has just been seen")
}

/// The volume that a claim is bound to.
async fn volume_of(fixture: &Fixture, claim: &str) -> anyhow::Result<PersistentVolume> {
    let bound = |claim: &PersistentVolumeClaim| {
        claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
    };
    let claim = claim_when(fixture, claim, "the claim is bound", bound).await?;
    let name = claim.spec.and_then(|spec| spec.volume_name).context("it has no volume")?;
    Ok(Api::<PersistentVolume>::all(fixture.cluster.client()).get(&name).await?)
}

fn name(volume: &PersistentVolume) -> &str {
    volume.metadata.name.as_deref().unwrap_or_default()
}

/// Where the node keeps a volume that it has made.
fn folder(fixture: &Fixture, volume: &PersistentVolume) -> anyhow::Result<PathBuf> {
    let labels = volume.metadata.labels.as_ref();
    let node = labels.and_then(|labels| labels.get("skiff.dev/node")).context("it has no node")?;
    let node = fixture.cluster.folder().join("nodes").join(node);
    Ok(node.join("kubelet/local-path").join(name(volume)))
}

/// Waits until the volume does not exist any more.
async fn volume_is_gone(fixture: &Fixture, volume: &str) -> anyhow::Result<()> {
    let selection = Selection::default().name(volume);
    wait::until::<PersistentVolume>(
        fixture.cluster.client(),
        selection,
        &format!("{volume} is gone"),
        |found| found.is_empty(),
    )
    .await?;
    Ok(())
}

/// Waits for an event about an object of the scenario's namespace.
async fn event(fixture: &Fixture, object: &str, reason: &str, text: &str) -> anyhow::Result<()> {
    let events: Api<Event> = Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    wait::eventually(&format!("{reason} of {object}: {text}"), async || {
        let all = events.list(&ListOptions::default()).await?.items;
        let of = all.iter().filter(|event| event.involved_object.name.as_deref() == Some(object));
        let found: Vec<_> = of.map(|event| (&event.reason, &event.message)).collect();
        let there = found.iter().any(|(is, message)| {
            is.as_deref() == Some(reason) && message.as_ref().is_some_and(|all| all.contains(text))
        });
        ensure!(there, "{found:?}");
        Ok(())
    })
    .await
}

/// Deletes all pods and claims of the scenario, and waits until their volumes are gone.
async fn clean_up(fixture: &Fixture, volumes: &[&str]) -> anyhow::Result<()> {
    fixture.cluster.skiff(&["delete", "-n", &fixture.namespace, "pods,pvc", "--all"])?;
    for volume in volumes {
        volume_is_gone(fixture, volume).await?;
    }
    Ok(())
}
