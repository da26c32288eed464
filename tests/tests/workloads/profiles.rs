//! Two profiles of the scheduler, from the file of `skiff up --scheduler-config`, and the labels of
//! nodes from `--node-labels`; a kubelet's flag from `--extra-config`.

use anyhow::{Context, ensure};
use client::{Api, PatchKind};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};
use testkit::manifest;
use testkit::suite::Fixture;
use tests::pods;

/// The node that has the label of [`flags`].
const LABELLED: &str = "node-2";

/// The flags of `skiff up` for this scenario; the others do not depend on them.
pub fn flags() -> Vec<String> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/workloads/scheduler.yaml");
    vec![
        format!("--scheduler-config={file}"),
        format!("--node-labels={LABELLED}:example.com/disk=ssd,example.com/rack=2"),
        "--extra-config=kubelet.max-pods=111".to_owned(),
    ]
}

fn pod(name: &str, scheduler: &str, millicores: i64, more: Value) -> Value {
    let requests = json!({"cpu": format!("{millicores}m")});
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "schedulerName": scheduler,
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": "skiff.test/testserver:v1",
                "resources": {"requests": requests}}],
        },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    pod
}

pub async fn each_profile_places_its_pods(fixture: &Fixture) -> anyhow::Result<()> {
    let client = fixture.cluster.client();
    let node = Api::<Node>::all(client).get(LABELLED).await?;
    let labels = node.metadata.labels.unwrap_or_default();
    ensure!(labels.get("example.com/rack").is_some_and(|rack| rack == "2"), "{labels:?}");
    let allocatable = node.status.and_then(|status| status.allocatable).context("no status")?;
    let cpu = allocatable.get("cpu").context("the node has no CPU")?;
    ensure!(allocatable.get("pods").is_some_and(|pods| pods.0 == "111"), "{allocatable:?}");
    // More than what earlier scenarios leave on any node; pods without requests count, too.
    let share = api::quantity::Quantity::of(cpu).millis() * 4 / 5;

    let create =
        async |pod: Value| manifest::create(client, &fixture.namespace, &pod.to_string()).await;
    let on_disk = json!({"nodeSelector": {"example.com/disk": "ssd"}});
    create(pod("filler", "default-scheduler", share, on_disk)).await?;
    let filler = pods::ready(fixture, "filler").await?;
    ensure!(pods::node(&filler) == LABELLED, "it is on {}", pods::node(&filler));
    create(pod("spread", "default-scheduler", 1, json!({}))).await?;
    create(pod("packed", "packer", 1, json!({}))).await?;
    let gate = json!({"schedulingGates": [{"name": "example.com/wait"}]});
    create(pod("gated", "packer", 1, gate)).await?;
    let spread = pods::ready(fixture, "spread").await?;
    ensure!(pods::node(&spread) != LABELLED, "the least allocated node is another one");
    let packed = pods::ready(fixture, "packed").await?;
    let namespace = format!("--namespace={}", fixture.namespace);
    let why = fixture.cluster.skiff(&["why", "pod/packed", &namespace])?;
    ensure!(pods::node(&packed) == LABELLED, "it is on {}: {why}", pods::node(&packed));
    for part in ["scheduler packer,", "NodeResourcesFit", "x7"] {
        ensure!(why.contains(part), "no {part:?} in {why}");
    }
    ensure!(!why.contains("ImageLocality"), "it is off in this profile: {why}");
    let why = fixture.cluster.skiff(&["why", "pod/spread", &namespace])?;
    ensure!(why.contains("scheduler default-scheduler,"), "{why}");

    let all: Api<Pod> = Api::namespaced(client, &fixture.namespace);
    ensure!(pods::node(&all.get("gated").await?).is_empty(), "its gate is closed");
    let open = json!({"spec": {"schedulingGates": null}});
    all.patch("gated", PatchKind::Merge, &open).await?;
    let gated = pods::ready(fixture, "gated").await?;
    ensure!(pods::node(&gated) == LABELLED, "it is on {}", pods::node(&gated));
    Ok(())
}
