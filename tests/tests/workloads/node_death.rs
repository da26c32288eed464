//! A node loses power and returns: what happens to the pods of a Deployment, a StatefulSet and a
//! DaemonSet.

use super::{all_ready, start};
use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use testkit::manifest;
use testkit::suite::Fixture;
use testkit::wait::{self, Selection};
use tests::pods;

const VICTIM: &str = "node-3";

/// Each has a pod on the victim. The StatefulSet's is evicted soon; the DaemonSet's tolerates an
/// unreachable node by default.
const SETS: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: keeper}
spec:
  serviceName: keeper
  selector: {matchLabels: {app: keeper}}
  template:
    metadata: {labels: {app: keeper}}
    spec:
      nodeSelector: {kubernetes.io/hostname: node-3}
      terminationGracePeriodSeconds: 1
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}
      containers: [{name: main, image: 'skiff.test/busybox:1', command: [sleep, '1000']}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: everywhere}
spec:
  selector: {matchLabels: {app: everywhere}}
  template:
    metadata: {labels: {app: everywhere}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: 'skiff.test/busybox:1', command: [sleep, '1000']}]
";

pub async fn the_pods_of_a_killed_node_are_replaced(fixture: &Fixture) -> anyhow::Result<()> {
    manifest::create(fixture.cluster.client(), &fixture.namespace, SETS).await?;
    start(fixture, 3).await?;
    let keeper = only(fixture, "app=keeper", "it is Ready", pods::is_ready).await?;
    let everywhere = pods::until(fixture, "app=everywhere", "three are Ready", |pods| {
        pods.len() == 3 && pods.values().all(pods::is_ready)
    })
    .await?;
    let daemon = everywhere.values().find(|pod| pods::node(pod) == VICTIM);
    let daemon = daemon.context("the DaemonSet has no pod on the node")?;

    fixture.cluster.skiff(&["node-process", "kill", VICTIM])?;
    let dead = while_dead(fixture, &keeper, daemon).await;
    fixture.cluster.skiff(&["node-process", "start", VICTIM])?;
    dead?;
    returned(fixture, &keeper, daemon).await
}

async fn while_dead(fixture: &Fixture, keeper: &Pod, daemon: &Pod) -> anyhow::Result<()> {
    node(fixture, "it is unreachable", |node| {
        ready(node) == "Unknown"
            && ["NoSchedule", "NoExecute"].iter().all(|effect| has_taint(node, effect))
    })
    .await?;
    pods::until(fixture, "app=web", "three pods are Ready elsewhere", |pods| {
        let elsewhere = pods.values().filter(|pod| pods::node(pod) != VICTIM);
        elsewhere.filter(|pod| pods::is_ready(pod)).count() == 3
    })
    .await?;
    // It may still be running unseen: until it is known to have ended, it is not replaced.
    only(fixture, "app=keeper", "it is being deleted", |pod| {
        uid(pod) == uid(keeper) && pod.metadata.deletion_timestamp.is_some()
    })
    .await?;
    // The pods on other nodes are unchanged; the one on this node is not ready, but stays.
    let found = pods::until(fixture, "app=everywhere", "one is not Ready", |pods| {
        pods.values().filter(|pod| !pods::is_ready(pod)).count() == 1
    })
    .await?;
    ensure!(found.len() == 3, "{:?}", found.keys());
    let pod = found.values().find(|pod| uid(pod) == uid(daemon));
    let pod = pod.context("the DaemonSet's pod was replaced")?;
    ensure!(pod.metadata.deletion_timestamp.is_none(), "it is being deleted");
    Ok(())
}

async fn returned(fixture: &Fixture, keeper: &Pod, daemon: &Pod) -> anyhow::Result<()> {
    node(fixture, "it is Ready, without taints", |node| {
        ready(node) == "True" && taints(node).is_empty()
    })
    .await?;
    // The node removes the pods that were evicted.
    all_ready(fixture, 3).await?;
    let name = keeper.metadata.name.as_deref();
    only(fixture, "app=keeper", "its replacement is Ready", |pod| {
        uid(pod) != uid(keeper) && pod.metadata.name.as_deref() == name && pods::is_ready(pod)
    })
    .await?;
    // The DaemonSet's pod is the same one, restarted.
    pods::until(fixture, "app=everywhere", "all are Ready again", |pods| {
        let same = pods.values().find(|pod| uid(pod) == uid(daemon));
        pods.len() == 3
            && pods.values().all(pods::is_ready)
            && same.is_some_and(|pod| pods::restarts(pod, "main") == 1)
    })
    .await?;
    Ok(())
}

/// Waits until there is exactly one pod with these labels, and `holds` returns true for it.
async fn only(
    fixture: &Fixture,
    labels: &str,
    what: &str,
    holds: impl Fn(&Pod) -> bool,
) -> anyhow::Result<Pod> {
    let found =
        pods::until(fixture, labels, what, |pods| pods.len() == 1 && pods.values().all(&holds))
            .await?;
    found.into_values().next().context("it has just been seen")
}

async fn node(fixture: &Fixture, what: &str, holds: impl Fn(&Node) -> bool) -> anyhow::Result<()> {
    let selection = Selection::default().name(VICTIM);
    wait::until::<Node>(fixture.cluster.client(), selection, what, |nodes| {
        nodes.get(VICTIM).is_some_and(&holds)
    })
    .await?;
    Ok(())
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// The status of the node's condition Ready.
fn ready(node: &Node) -> &str {
    let status = node.status.as_ref();
    let mut conditions = status.iter().flat_map(|s| s.conditions.iter().flatten());
    let found = conditions.find(|condition| condition.type_ == "Ready");
    found.map_or("", |condition| condition.status.as_str())
}

fn taints(node: &Node) -> Vec<(&str, &str)> {
    let spec = node.spec.as_ref();
    let taints = spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.map(|taint| (taint.key.as_str(), taint.effect.as_str())).collect()
}

fn has_taint(node: &Node, effect: &str) -> bool {
    taints(node).contains(&("node.kubernetes.io/unreachable", effect))
}
