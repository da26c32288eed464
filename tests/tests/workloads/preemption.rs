//! A pod of high priority displaces one of low priority, and the scheduler says why.

use anyhow::{Context, ensure};
use client::{Api, PatchKind};
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use serde_json::{Value, json};
use testkit::manifest;
use testkit::suite::Fixture;
use testkit::wait::{self, Selection};
use tests::pods;

/// The node that all pods of the scenario want.
const NODE: &str = "node-1";
/// Keeps the victim visible after its end.
const FINALIZER: &str = "example.com/hold";

/// A pod that runs on [`NODE`] only, with a share of its CPU.
fn pod(name: &str, class: &str, millicores: i64, held: bool) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "finalizers": if held { vec![FINALIZER] } else { vec![] }},
        "spec": {
            "priorityClassName": class,
            "terminationGracePeriodSeconds": 1,
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [NODE]}]},
            ]}}},
            "containers": [{
                "name": "main", "image": "skiff.test/testserver:v1",
                "resources": {"requests": {"cpu": format!("{millicores}m")}},
            }],
        },
    })
}

fn class(name: &str, value: i32, policy: &str) -> Value {
    json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
        "metadata": {"name": name}, "value": value, "preemptionPolicy": policy,
    })
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

async fn create(fixture: &Fixture, object: &Value) -> anyhow::Result<()> {
    manifest::create(fixture.cluster.client(), &fixture.namespace, &object.to_string()).await
}

/// What the tool prints, on either output.
fn why(fixture: &Fixture, arguments: &[&str]) -> anyhow::Result<String> {
    let all = [&["-n", fixture.namespace.as_str(), "why"], arguments].concat();
    let output = fixture.cluster.try_skiff(&all)?;
    Ok(format!("{}{}", output.stdout, output.stderr))
}

pub async fn a_high_priority_displaces_a_low_one(fixture: &Fixture) -> anyhow::Result<()> {
    let client = fixture.cluster.client();
    let node = Api::<Node>::all(client).get(NODE).await?;
    let allocatable = node.status.and_then(|status| status.allocatable).context("no status")?;
    let cpu = allocatable.get("cpu").context("the node has no CPU")?;
    let share = api::quantity::Quantity::of(cpu).millis() * 3 / 5;
    let named = |class: &str| format!("{}-{class}", fixture.namespace);
    let (low, high, polite) = (named("low"), named("high"), named("polite"));
    create(fixture, &class(&low, 10, "PreemptLowerPriority")).await?;
    create(fixture, &class(&high, 1000, "PreemptLowerPriority")).await?;
    create(fixture, &class(&polite, 1000, "Never")).await?;

    create(fixture, &pod("low", &low, share, true)).await?;
    pods::ready(fixture, "low").await?;
    create(fixture, &pod("high", &high, share, false)).await?;
    let placed = pods::ready(fixture, "high").await?;
    ensure!(pods::node(&placed) == NODE, "it is on {}", pods::node(&placed));
    let nominated = placed.status.as_ref().and_then(|status| status.nominated_node_name.clone());
    ensure!(nominated.is_none_or(|name| name.is_empty()), "it is still nominated");

    victim_is_marked(fixture, &placed).await?;
    explained(fixture, &polite, share).await?;
    for name in [&low, &high, &polite] {
        fixture.cluster.skiff(&["delete", "priorityclass", name])?;
    }
    Ok(())
}

/// The victim has ended as such; then its finalizer is removed.
async fn victim_is_marked(fixture: &Fixture, preemptor: &Pod) -> anyhow::Result<()> {
    let api: Api<Pod> = Api::namespaced(fixture.cluster.client(), &fixture.namespace);
    let victim = api.get("low").await?;
    let disrupted = condition(&victim, "DisruptionTarget").context("it is not marked")?;
    ensure!(disrupted.status == "True", "{disrupted:?}");
    ensure!(disrupted.reason.as_deref() == Some("PreemptionByScheduler"), "{disrupted:?}");
    let message = "default-scheduler: preempting to accommodate a higher priority pod";
    ensure!(disrupted.message.as_deref() == Some(message), "{disrupted:?}");
    let patch = json!({"metadata": {"finalizers": null}});
    api.patch("low", PatchKind::Merge, &patch).await?;
    let uid = preemptor.metadata.uid.clone().unwrap_or_default();
    let expected = format!("Preempted by pod {uid} on node {NODE}");
    wait::until::<k8s_openapi::api::core::v1::Event>(
        fixture.cluster.client(),
        Selection::namespace(&fixture.namespace),
        "the event Preempted",
        |events| events.values().any(|event| event.message.as_deref() == Some(&expected)),
    )
    .await?;
    Ok(())
}

/// The scheduler explains both the pod that it has placed and one that it has not.
async fn explained(fixture: &Fixture, polite: &str, share: i64) -> anyhow::Result<()> {
    let text = why(fixture, &["pod/high"])?;
    for part in [&format!("Pod high was assigned to {NODE}"), "priority 1000"] {
        ensure!(text.contains(part), "no {part:?} in {text}");
    }
    create(fixture, &pod("polite", polite, share, false)).await?;
    let waiting = pods::one(fixture, "polite", "it is unschedulable", |pod| {
        condition(pod, "PodScheduled").is_some_and(|scheduled| scheduled.status == "False")
    })
    .await?;
    let message = condition(&waiting, "PodScheduled").and_then(|one| one.message.clone());
    let message = message.unwrap_or_default();
    let expected = "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]. \
                    preemption: not eligible due to preemptionPolicy=Never.";
    ensure!(message == expected, "{message:?}");
    let text = why(fixture, &["pod", "polite"])?;
    for part in [
        "Pod polite fits no node: 0/3 nodes are available",
        "Pod polite would still fit no node",
        "NodeResourcesFit",
        "Insufficient cpu",
        "node-2, node-3",
        "not eligible due to preemptionPolicy=Never.",
    ] {
        ensure!(text.contains(part), "no {part:?} in {text}");
    }
    // The reasons are only for those who may get the pod.
    let refused = why(fixture, &["pod/high", "--as=stranger"])?;
    ensure!(refused.contains("pods \"high\" is forbidden"), "{refused}");
    let missing = why(fixture, &["pod/nothing"])?;
    ensure!(missing.contains("pods \"nothing\" not found"), "{missing}");
    Ok(())
}
