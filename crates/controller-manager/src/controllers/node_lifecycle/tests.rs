use clock::ManualClock;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::*;
use crate::config::EvictionLimits;
use crate::machinery::testing::at;
use crate::machinery::testing::server::FakeServer;

fn node() -> Node {
    let mut node = Node::default();
    node.metadata.name = Some("n".into());
    node.metadata.uid = Some("a".into());
    node.metadata.resource_version = Some("1".into());
    node.status.get_or_insert_default().conditions = Some(vec![NodeCondition {
        type_: "Ready".into(),
        status: "True".into(),
        ..Default::default()
    }]);
    node
}

fn lease(second: i64) -> Lease {
    let mut lease = Lease::default();
    lease.metadata.namespace = Some(LEASES.into());
    lease.metadata.name = Some("n".into());
    lease.spec = Some(LeaseSpec { renew_time: Some(MicroTime(at(second))), ..Default::default() });
    lease
}

/// A controller that knows a ready node, with a Lease renewed at second 0 that both cache and
/// server hold.
async fn controller(grace_period: Duration) -> (NodeLifecycle, FakeServer, ManualClock) {
    let (server, client) = FakeServer::start().await;
    server.put(&node());
    server.put(&lease(0));
    let clock = ManualClock::at(at(0));
    let limits = EvictionLimits {
        rate: 0.1,
        secondary_rate: 0.01,
        large_cluster_size_threshold: 50,
        unhealthy_zone_threshold: 0.55,
    };
    let controller = NodeLifecycle {
        recorder: EventRecorder::new(client.clone(), "test", ""),
        client,
        clock: Arc::new(clock.clone()),
        nodes: Arc::new(Cache::default()),
        leases: Arc::new(Cache::default()),
        pods: Arc::new(Cache::default()),
        heartbeats: Heartbeats::default(),
        zones: Arc::new(Mutex::new(Zones::new(limits))),
        monitor: NodeMonitor { grace_period, startup_grace_period: grace_period * 2, limits },
    };
    let change = controller.nodes.apply(node());
    controller.zones.lock().apply(&change, clock::instant());
    controller.leases.apply(lease(0));
    (controller, server, clock)
}

fn writes(server: &FakeServer) -> Vec<String> {
    let mut writes = server.writes();
    writes.retain(|write| !write.contains(" events "));
    writes
}

#[tokio::test]
async fn a_step_of_the_wall_clock_is_no_silence() {
    let (controller, server, clock) = controller(Duration::from_secs(40)).await;
    controller.reconcile(&Key::cluster("n")).await.unwrap();
    for _ in 0..3 {
        clock.advance(Duration::from_secs(60));
        let next = controller.reconcile(&Key::cluster("n")).await.unwrap();
        assert!(matches!(next, Next::After(wait) if wait > Duration::from_secs(30)), "{next:?}");
    }
    assert!(writes(&server).is_empty());
}

#[tokio::test]
async fn a_heartbeat_that_the_cache_lacks_is_no_silence() {
    let (controller, server, _) = controller(Duration::ZERO).await;
    server.put(&lease(10));
    controller.reconcile(&Key::cluster("n")).await.unwrap();
    assert!(writes(&server).is_empty());
    // The node was created again, and what is known of it is about its predecessor.
    server.put(&lease(0));
    let mut again = node();
    again.metadata.uid = Some("b".into());
    server.put(&again);
    controller.reconcile(&Key::cluster("n")).await.unwrap();
    assert!(writes(&server).is_empty());
    server.put(&node());
    controller.reconcile(&Key::cluster("n")).await.unwrap();
    assert_eq!(writes(&server), ["update nodes/status n"]);
}

#[tokio::test]
async fn a_node_that_never_reported_has_more_time() {
    let (controller, _, _) = controller(Duration::from_secs(40)).await;
    let mut starting = node();
    starting.status = None;
    controller.nodes.apply(starting);
    let next = controller.reconcile(&Key::cluster("n")).await.unwrap();
    assert!(matches!(next, Next::After(wait) if wait > Duration::from_secs(70)), "{next:?}");
}
