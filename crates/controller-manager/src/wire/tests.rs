use std::time::Duration;

use api::labels::Selector;
use client::Api;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Service};

use super::*;
use crate::machinery::cache::{Change, Key};
use crate::machinery::owner;
use crate::machinery::queue::Next;
use crate::machinery::testing::server::FakeServer;
use crate::machinery::testing::{labels, pod};

struct Probe;

impl Controller for Probe {
    const NAME: &'static str = "probe";

    async fn reconcile(&self, _: &Key) -> Result<Next, Error> {
        Ok(Next::Change)
    }
}

#[tokio::test]
async fn a_controller_is_triggered_by_what_it_declares() {
    let (_, client) = FakeServer::start().await;
    let mut wiring = Wiring::new(client, clock::system(), CancellationToken::new());
    wiring
        .controller(Probe)
        .of::<ReplicaSet>()
        .selects::<ReplicaSet, Pod>(|set| Selector::from_label_selector(Some(&set.spec.selector)))
        .owns::<ReplicaSet, ControllerRevision>()
        .of_present::<ConfigMap>()
        .maps(|change: &Change<Node>| change.new.is_none().then(|| Key::cluster("nodes")))
        .start();
    let mut set = ReplicaSet::default();
    set.metadata.namespace = Some("ns".into());
    set.metadata.name = Some("web".into());
    set.spec.selector.match_labels = Some(labels(&[("app", "web")]));
    let web = [Key::new("ns", "web")];
    let informers = &wiring.informers;
    assert_eq!(informers.replica_sets.keys(&wiring.cache().apply(set.clone())), web);

    let pods = wiring.cache::<Pod>();
    let free = pods.apply(pod("free").label("app", "web").build());
    assert_eq!(informers.pods.keys(&free), web, "it may be adopted");
    assert!(informers.pods.keys(&pods.apply(pod("other").build())).is_empty());
    let mut child = pod("child").build();
    child.metadata.owner_references = Some(vec![owner::reference(&set)]);
    assert_eq!(informers.pods.keys(&pods.apply(child.clone())), web);
    child.metadata.owner_references = None;
    assert_eq!(informers.pods.keys(&pods.apply(child)), web, "it was released");

    let mut revision =
        ControllerRevision { metadata: set.metadata.clone(), ..ControllerRevision::default() };
    let revisions = wiring.cache::<ControllerRevision>();
    assert!(informers.controller_revisions.keys(&revisions.apply(revision.clone())).is_empty());
    revision.metadata.owner_references = Some(vec![owner::reference(&set)]);
    assert_eq!(informers.controller_revisions.keys(&revisions.apply(revision)), web);

    let (maps, nodes) = (wiring.cache::<ConfigMap>(), wiring.cache::<Node>());
    let (map, node) = (maps.apply(ConfigMap::default()), nodes.apply(Node::default()));
    assert_eq!(informers.config_maps.keys(&map), [Key::cluster("")]);
    assert!(informers.nodes.keys(&node).is_empty());
    let gone = (maps.delete(&ConfigMap::default()), nodes.delete(&Node::default()));
    assert!(informers.config_maps.keys(&gone.0.unwrap()).is_empty());
    assert_eq!(informers.nodes.keys(&gone.1.unwrap()), [Key::cluster("nodes")]);

    assert!(informers.pods.is_wanted() && informers.controller_revisions.is_wanted());
    assert!(!informers.services.is_wanted(), "no controller uses it");
    let services = wiring.cache::<Service>();
    assert!(wiring.informers.services.is_wanted() && services.list().is_empty());
}

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
