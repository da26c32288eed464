//! Nodes that fail, few and many.

use std::collections::BTreeMap;

use anyhow::ensure;
use client::{Api, DeleteOptions};
use k8s_openapi::api::core::v1::{Event, Node};
use testkit::wait::{self, Selection};

use super::plane::Plane;

fn taints(node: &Node, effect: &str) -> usize {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let unreachable = taints.filter(|taint| taint.key == "node.kubernetes.io/unreachable");
    unreachable.filter(|taint| taint.effect == effect).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_nine_of_ten_nodes_fail_they_are_not_all_evicted() -> anyhow::Result<()> {
    let plane = Plane::start().await?;
    plane.control(&["--node-monitor-grace-period=3s"])?;
    let names: Vec<String> = (0..10).map(|number| format!("n{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut nodes = plane.nodes(&names).await?;
    let ready = |nodes: &BTreeMap<String, Node>| {
        let registered = nodes.len() == 10;
        registered && nodes.values().all(|node| taints(node, "NoSchedule") == 0)
    };
    wait::until::<Node>(&plane.client, Selection::default(), "ten nodes", ready).await?;
    nodes.drain(1..).for_each(testkit::hollow::HollowNode::stop);
    // No pod is scheduled to any of them...
    let cordoned = |nodes: &BTreeMap<String, Node>| {
        nodes.values().map(|node| taints(node, "NoSchedule")).sum::<usize>() == 9
    };
    let all =
        wait::until::<Node>(&plane.client, Selection::default(), "nine fail", cordoned).await?;
    // ... but only those that failed while most others were ready are evicted.
    let evicted: usize = all.values().map(|node| taints(node, "NoExecute")).sum();
    ensure!((1..=3).contains(&evicted), "{evicted} nodes are evicted");

    let all = Api::<Node>::all(&plane.client);
    all.delete("n9", &DeleteOptions::default()).await?;
    let expected = [
        ("RegisteredNode", "Node n9 event: Registered Node n9 in Controller"),
        ("NodeNotReady", "Node n9 status is now: NodeNotReady"),
        ("RemovingNode", "Node n9 event: Removing Node n9 from Controller"),
    ];
    wait::until::<Event>(&plane.client, Selection::default(), "events of the node", |events| {
        expected.iter().all(|(reason, message)| {
            events.values().any(|event| {
                event.reason.as_deref() == Some(reason) && event.message.as_deref() == Some(message)
            })
        })
    })
    .await?;
    plane.finish(nodes).await
}
