use k8s_openapi::api::core::v1::{ConfigMap, NamespaceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::machinery::testing::at;
use crate::machinery::testing::server::FakeServer;

fn namespace(uid: &str, deleting: bool) -> Namespace {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some("x".into());
    namespace.metadata.uid = Some(uid.into());
    namespace.metadata.resource_version = Some("7".into());
    namespace.metadata.deletion_timestamp = deleting.then(|| Time(at(1)));
    namespace.spec = Some(NamespaceSpec { finalizers: Some(vec![FINALIZER.into()]) });
    namespace
}

fn map(uid: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.namespace = Some("x".into());
    map.metadata.name = Some("kept".into());
    map.metadata.uid = Some(uid.into());
    map
}

/// A controller whose cache holds the namespace `seen`, and a server that holds `live`, a map and
/// nothing else.
async fn controller(seen: &Namespace, live: Option<&Namespace>) -> (Namespaces, FakeServer) {
    let (server, client) = FakeServer::start().await;
    live.iter().for_each(|live| server.put(*live));
    server.put(&map("of-x"));
    let namespaces = Arc::new(Cache::default());
    namespaces.apply(seen.clone());
    let (clock, kinds) = (clock::system(), Arc::default());
    (Namespaces { client, clock, kinds, namespaces }, server)
}

#[tokio::test]
async fn a_namespace_that_was_created_again_keeps_its_content() {
    let ending = namespace("a", true);
    for live in [
        Some(namespace("b", false)),
        // It is deleted again: that is for the reconciliation that its own deletion triggers.
        Some(namespace("b", true)),
        Some(namespace("a", false)),
        None,
    ] {
        let (controller, server) = controller(&ending, live.as_ref()).await;
        let next = controller.reconcile(&Key::cluster("x")).await.unwrap();
        assert_eq!((next, server.writes()), (Next::Change, vec![]), "{live:?}");
    }
}

#[tokio::test]
async fn a_namespace_that_is_replaced_between_two_steps_keeps_its_content() {
    let (ending, again) = (namespace("a", true), namespace("b", false));
    let (controller, server) = controller(&ending, Some(&ending)).await;
    let live = controller.ending(&Key::cluster("x"), "a").await.unwrap().unwrap();
    // Replaced after the first look: the content that is listed belongs to the new one.
    server.put(&again);
    assert!(controller.empty(&live).await.unwrap().is_none());
    // Replaced after the second look: the uids that were listed are not those of the new content.
    let before = Node::decode(&ConfigMap::ROW.into(), &map("of-x").encode()).unwrap();
    server.put(&map("of-b"));
    controller.delete(before).await.unwrap();
    server.put(&live);
    assert_eq!(controller.list("x", &ConfigMap::ROW.into()).await.unwrap()[0].uid, "of-b");
}

#[tokio::test]
async fn the_content_is_deleted_then_the_finalizer_removed() {
    let ending = namespace("a", true);
    let (controller, server) = controller(&ending, Some(&ending)).await;
    controller.reconcile(&Key::cluster("x")).await.unwrap();
    assert_eq!(server.writes(), ["delete configmaps x/kept", "update namespaces/finalize x"]);
}

#[tokio::test]
async fn what_waits_for_a_finalizer_is_reported() {
    let ending = namespace("a", true);
    let (controller, server) = controller(&ending, Some(&ending)).await;
    let mut held = map("of-x");
    held.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    held.metadata.deletion_timestamp = Some(Time(at(1)));
    server.put(&held);
    controller.reconcile(&Key::cluster("x")).await.unwrap();
    assert_eq!(server.writes(), ["update namespaces/status x"]);
}
