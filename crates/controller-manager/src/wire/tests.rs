use std::time::Duration;

use client::Api;
use k8s_openapi::api::core::v1::ConfigMap;

use super::*;
use crate::machinery::testing::server::FakeServer;

async fn seconds_pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_controllers_token_is_requested_when_needed_and_renewed_in_time() {
    let (server, own) = FakeServer::start().await;
    let mut map = ConfigMap::default();
    map.metadata.namespace = Some("ns".into());
    map.metadata.name = Some("map".into());
    server.put(&map);
    let accounts = ServiceAccountClients::new(&own, ACCOUNTS).unwrap();
    let client = accounts.client("job-controller");
    let maps = Api::<ConfigMap>::namespaced(&client, "ns");
    assert_eq!((server.tokens(), server.writes()), (0, vec![]), "nothing is done in advance");
    // Many calls that need a token at once request one.
    let (one, other) = tokio::join!(maps.get("map"), maps.get("map"));
    assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
    assert_eq!(server.tokens(), 1);
    assert_eq!(server.writes(), ["create serviceaccounts kube-system/job-controller"]);
    seconds_pass(2800).await;
    maps.get("map").await.unwrap();
    assert_eq!(server.tokens(), 1, "it is valid for an hour");
    seconds_pass(100).await;
    maps.get("map").await.unwrap();
    assert_eq!(server.tokens(), 2, "most of its lifetime is over");
    // A token that the server refuses is replaced; what was refused is tried again by its caller.
    server.revoke_tokens();
    let refused = maps.get("map").await.unwrap_err();
    assert_eq!(refused.api().map(|error| error.code()), Some(401));
    maps.get("map").await.unwrap();
    assert_eq!(server.tokens(), 3);
}
