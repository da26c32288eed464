use super::*;
use crate::machinery::testing::server::FakeServer;

fn node(name: &str) -> Node {
    let mut node = Node::default();
    node.metadata.name = Some(name.into());
    node.metadata.uid = Some(format!("uid-{name}"));
    node
}

#[tokio::test]
async fn a_node_without_a_range_is_told_why() {
    let (server, client) = FakeServer::start().await;
    let nodes = Arc::new(Cache::default());
    for name in ["first", "second"] {
        server.put(&node(name));
        nodes.apply(node(name));
    }
    let controller = NodeIpam {
        recorder: EventRecorder::new(client.clone(), "cidrAllocator", ""),
        client,
        nodes,
        pool: Mutex::new(None),
        // Room for one node.
        ranges: vec![NodeRange { cluster: "10.0.0.0/24".parse().unwrap(), node_prefix: 24 }],
    };
    controller.reconcile(&Key::cluster("first")).await.unwrap();
    assert_eq!(server.writes(), ["patch nodes first"]);
    controller.reconcile(&Key::cluster("second")).await.unwrap_err();
    let event = server.event("CIDRNotAvailable").await;
    assert_eq!(event["message"], "Node second status is now: CIDRNotAvailable");
    assert_eq!(
        (&event["type"], &event["involvedObject"]["name"]),
        (&"Warning".into(), &"second".into())
    );
    // The server refuses the range of a node: another writer was faster than the cache.
    server.refuse("nodes");
    controller.reconcile(&Key::cluster("first")).await.unwrap_err();
    let event = server.event("CIDRAssignmentFailed").await;
    assert_eq!(event["message"], "Node first status is now: CIDRAssignmentFailed");
}
