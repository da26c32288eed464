//! Full disks: a node's, which leads to Kubernetes' states, events and conditions, and the store's,
//! which refuses writes and loses nothing. Both recover when there is space again.

use anyhow::{Context, ensure};
use client::{Api, ListOptions};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::process::ExitCode;
use std::sync::OnceLock;
use testkit::registry::Registry;
use testkit::suite::Fixture;
use testkit::wait::{self, Selection};
use testkit::{Options, manifest, scenarios, suite};
use tests::pods;

const NODE: &str = "node-1";
const NODE_DISK: &str = "nodes/node-1";
const NODE_DISK_BYTES: u64 = 96 << 20;
const STORE_DISK: &str = "store";
const STORE_DISK_BYTES: u64 = 24 << 20;
/// Space that is left on the node's disk for a pull: more than the one percent below which pods are
/// evicted, less than the image needs.
const LEFT_FOR_PULL_BYTES: u64 = 1_480_000;

static REGISTRY: OnceLock<Registry> = OnceLock::new();

fn main() -> ExitCode {
    // reqwest needs a TLS provider even for plain HTTP.
    runtime::init("warn");
    let port = match Registry::start(false) {
        Ok(registry) => REGISTRY.get_or_init(|| registry).port(),
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let code = suite::run(
        Options {
            registry_ports: vec![port],
            disks: vec![(NODE_DISK.into(), NODE_DISK_BYTES), (STORE_DISK.into(), STORE_DISK_BYTES)],
            ..Options::default()
        },
        &["busybox"],
        scenarios![
            an_image_that_does_not_fit_is_pulled_later,
            a_pod_that_fills_the_disk_is_evicted,
            a_full_store_refuses_writes_and_loses_nothing,
        ],
    );
    REGISTRY.get().into_iter().for_each(Registry::stop);
    code
}

/// Creates a busybox pod with an emptyDir at `/data`.
async fn run_pod(
    fixture: &Fixture,
    name: &str,
    node: Option<&str>,
    script: &str,
) -> anyhow::Result<()> {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "volumes": [{"name": "data", "emptyDir": {}}],
            "containers": [{
                "name": "main", "image": "skiff.test/busybox:1", "command": ["sh", "-c", script],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
        },
    });
    if let Some(node) = node {
        pod["spec"]["nodeName"] = json!(node);
    }
    manifest::create(fixture.cluster.client(), &fixture.namespace, &pod.to_string()).await
}

async fn an_image_that_does_not_fit_is_pulled_later(fixture: &Fixture) -> anyhow::Result<()> {
    let cluster = &fixture.cluster;
    let registry = REGISTRY.get().context("the registry has not been started")?;
    let archive = cluster.images().join("testserver-v1.tar");
    registry.push(&archive, "test/server", "v1").await?;
    let fill = cluster.folder().join(NODE_DISK).join("fill");
    let free = nix::sys::statvfs::statvfs(&cluster.folder().join(NODE_DISK))?;
    let free = free.blocks_available() * free.fragment_size();
    let size = free.checked_sub(LEFT_FOR_PULL_BYTES);
    let zeros = vec![0; usize::try_from(size.context("the disk is too small")?)?];
    std::fs::write(&fill, zeros)?;

    let image = format!("{}:{}/test/server:v1", cluster.gateway(), registry.port());
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "large"},
        "spec": {"containers": [{"name": "main", "image": image, "args": ["serve"]}]},
    });
    manifest::create(cluster.client(), &fixture.namespace, &pod.to_string()).await?;
    let failed = |pod: &Pod| {
        let reason = pods::waiting_reason(pod, "main");
        reason == "ErrImagePull" || reason == "ImagePullBackOff"
    };
    pods::one(fixture, "large", "the pull fails", failed).await?;
    event(fixture, "large", "Failed", "no space left on device").await?;

    std::fs::remove_file(&fill)?;
    pods::ready(fixture, "large").await?;
    Ok(())
}

/// Waits for an event about a pod.
async fn event(fixture: &Fixture, pod: &str, reason: &str, text: &str) -> anyhow::Result<()> {
    let what = format!("an event {reason} with {text:?} about {pod}");
    let selection = Selection::namespace(&fixture.namespace);
    wait::until::<Event>(fixture.cluster.client(), selection, &what, |events| {
        events.values().any(|event| {
            event.involved_object.name.as_deref() == Some(pod)
                && event.reason.as_deref() == Some(reason)
                && event.message.as_deref().is_some_and(|message| message.contains(text))
        })
    })
    .await?;
    Ok(())
}

/// Waits until the node has disk pressure and its taint, or neither.
async fn disk_pressure(fixture: &Fixture, expected: bool) -> anyhow::Result<()> {
    let what = format!("disk pressure is {expected}");
    let selection = Selection::default().name(NODE);
    wait::until::<Node>(fixture.cluster.client(), selection, &what, |nodes| {
        nodes.get(NODE).is_some_and(|node| {
            let status = node.status.clone().unwrap_or_default();
            let conditions = status.conditions.unwrap_or_default();
            let condition = conditions.iter().find(|one| one.type_ == "DiskPressure");
            let holds = condition.is_some_and(|one| one.status == "True");
            let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone());
            let tainted = taints
                .iter()
                .flatten()
                .any(|taint| taint.key == "node.kubernetes.io/disk-pressure");
            holds == expected && tainted == expected
        })
    })
    .await?;
    Ok(())
}

fn reason(pod: &Pod) -> &str {
    let status = pod.status.as_ref();
    status.and_then(|status| status.reason.as_deref()).unwrap_or_default()
}

fn message(pod: &Pod) -> &str {
    let status = pod.status.as_ref();
    status.and_then(|status| status.message.as_deref()).unwrap_or_default()
}

async fn a_pod_that_fills_the_disk_is_evicted(fixture: &Fixture) -> anyhow::Result<()> {
    run_pod(fixture, "modest", None, "exec sleep 1000").await?;
    let modest = pods::ready(fixture, "modest").await?;
    let container = |pod: &Pod| pods::container(pod, "main").and_then(|c| c.container_id.clone());
    run_pod(fixture, "hog", None, "dd if=/dev/zero of=/data/fill bs=64k; exec sleep 1000").await?;
    let failed = |pod: &Pod| pods::phase(pod) == "Failed";
    let hog = pods::one(fixture, "hog", "it has been evicted", failed).await?;
    ensure!(reason(&hog) == "Evicted", "{:?}", hog.status);
    let expected = "The node was low on resource: ephemeral-storage. Threshold quantity: ";
    ensure!(message(&hog).starts_with(expected), "{}", message(&hog));
    event(fixture, "hog", "Evicted", expected).await?;
    disk_pressure(fixture, true).await?;

    // Neither the scheduler nor the kubelet lets another pod onto the node.
    run_pod(fixture, "bound", Some(NODE), "exec sleep 1000").await?;
    let bound = pods::one(fixture, "bound", "it is rejected", failed).await?;
    ensure!(reason(&bound) == "Evicted", "{:?}", bound.status);
    ensure!(
        message(&bound) == "Pod was rejected: The node had condition: [DiskPressure]. ",
        "{}",
        message(&bound)
    );
    run_pod(fixture, "later", None, "exec sleep 1000").await?;
    event(fixture, "later", "FailedScheduling", "node.kubernetes.io/disk-pressure").await?;

    // The evicted pod's data is gone. The condition would last for another five minutes; a
    // restarted kubelet measures anew.
    kill(Pid::from_raw(fixture.cluster.pid("kubelet-node-1")?), Signal::SIGKILL)?;
    disk_pressure(fixture, false).await?;
    pods::ready(fixture, "later").await?;
    let found = pods::ready(fixture, "modest").await?;
    ensure!(container(&found) == container(&modest), "{:?}", found.status);
    Ok(())
}

async fn a_full_store_refuses_writes_and_loses_nothing(fixture: &Fixture) -> anyhow::Result<()> {
    let cluster = &fixture.cluster;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client(), &fixture.namespace);
    let map = |index: usize| {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(format!("map-{index}"));
        map.data = Some([("data".to_owned(), "x".repeat(500_000))].into());
        map
    };
    let mut written = 0;
    let refusal = loop {
        match maps.create(&map(written)).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        ensure!(written < 1000, "the store is never full");
    };
    let text = refusal.to_string();
    ensure!(text.contains("etcdserver: mvcc: database space exceeded"), "{text}");
    let all_there = async || {
        let found = maps.list(&ListOptions::default()).await?.items;
        let found = found.iter().filter(|map| {
            let data = map.data.as_ref().and_then(|data| data.get("data"));
            data.is_some_and(|data| data.len() == 500_000)
        });
        let found = found.count();
        ensure!(found == written, "{written} were written, {found} were found");
        Ok(())
    };
    all_there().await?;

    // It also starts with a full disk, and serves what is there.
    let before = cluster.pid("apiserver")?;
    kill(Pid::from_raw(before), Signal::SIGKILL)?;
    wait::eventually("the apiserver serves again", all_there).await?;
    let states = cluster.processes()?;
    let state = states.iter().find(|state| state["name"] == "apiserver");
    ensure!(state.is_some_and(|state| state["restarts"] == 1), "{state:?}");

    cluster.resize_disk(STORE_DISK, 2 * STORE_DISK_BYTES)?;
    wait::eventually("writes succeed again", async || {
        maps.create(&map(written)).await?;
        Ok(())
    })
    .await?;
    written += 1;
    let found = maps.list(&ListOptions::default()).await?.items.len();
    ensure!(found >= written, "{written} were written, {found} were found");
    Ok(())
}
