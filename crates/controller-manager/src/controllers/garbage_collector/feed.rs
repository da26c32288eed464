//! Fills the graph from one metadata-only watch for each kind with objects.

use std::sync::Arc;

use api::{KindRef, KindRow};
use client::informer::informer_with;
use client::mirror::Mirror;
use client::{Client, InformerOptions};
use futures::StreamExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rpc::api_v1::Representation;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::graph::{Affected, Graph, Node};
use crate::machinery::cache::Key;
use crate::machinery::informer::Synced;
use crate::machinery::kinds::Kinds;
use crate::machinery::queue::Trigger;

/// The graph, and the controllers that its changes trigger.
#[derive(Clone)]
pub struct Feed {
    pub graph: Arc<Mutex<Graph>>,
    collector: Trigger,
    namespaces: Trigger,
    quotas: Trigger,
}

/// Whether objects of a kind can own, be owned, or block the deletion of a namespace. Events are
/// many, short-lived, and do none of that.
pub fn is_tracked(row: &KindRow) -> bool {
    row.stored && row.plural != "events"
}

impl Feed {
    /// `collector` gets uids, `namespaces` the names of namespaces that lost their last object of a
    /// kind, `quotas` those of namespaces that lost an object.
    pub fn new(collector: Trigger, namespaces: Trigger, quotas: Trigger) -> Self {
        Self { graph: Arc::default(), collector, namespaces, quotas }
    }

    /// The futures that keep the graph up to date: one for each built-in kind, one for all custom
    /// kinds, and one for all kinds of other servers.
    pub fn start(&self, client: &Client, kinds: &Kinds) -> Vec<Synced> {
        let tracked = api::kind::KINDS.iter().copied().filter(|row| is_tracked(row));
        let follow = |kinds| {
            let following = self.clone().follow_changing(client.clone(), kinds);
            (Box::pin(following) as BoxFuture<_>, watch::channel(true).1)
        };
        tracked
            .map(|row| {
                let (synced, is_synced) = watch::channel(false);
                let future = self.clone().follow(client.clone(), row.into(), synced);
                (Box::pin(future) as BoxFuture<_>, is_synced)
            })
            .chain([follow(kinds.custom()), follow(kinds.remote())])
            .collect()
    }

    /// Follows the objects of kinds that come and go, while they are there.
    async fn follow_changing(self, client: Client, mut kinds: watch::Receiver<Vec<KindRef>>) {
        let mut followed: Vec<(KindRef, AbortOnDropHandle<()>)> = Vec::new();
        loop {
            let wanted = kinds.borrow_and_update().clone();
            let (kept, gone): (Vec<_>, Vec<_>) = followed
                .into_iter()
                .partition(|(known, _)| wanted.iter().any(|kind| kind.is_same(known)));
            followed = kept;
            for (kind, task) in gone {
                task.abort();
                // It may be applying a change.
                task.await.ok();
                let uids = self.graph.lock().uids_of(&kind);
                for uid in uids {
                    let affected = self.graph.lock().remove(&kind, &uid);
                    self.trigger(affected).await;
                }
            }
            for kind in wanted {
                if !followed.iter().any(|(known, _)| known.is_same(&kind)) {
                    let task = self.clone().follow_new(client.clone(), kind.clone());
                    followed.push((kind, AbortOnDropHandle::new(tokio::spawn(task))));
                }
            }
            if kinds.changed().await.is_err() {
                return;
            }
        }
    }

    /// Follows a kind that appeared later than objects that it may own: once its objects are
    /// known, those whose owners are not among them are examined.
    async fn follow_new(self, client: Client, kind: KindRef) {
        let (synced, mut is_synced) = watch::channel(false);
        let follow = self.clone().follow(client, kind.clone(), synced);
        let examine = async {
            if is_synced.wait_for(|synced| *synced).await.is_ok() {
                let examine = self.graph.lock().without_owner_of(&kind);
                self.trigger(Affected { examine, ..Affected::default() }).await;
            }
        };
        futures::future::join(follow, examine).await;
    }

    async fn follow(self, client: Client, row: KindRef, synced: watch::Sender<bool>) {
        let kind = row.clone();
        let decode = move |object: &rpc::api_v1::Object| {
            Node::decode(&kind, &object.json)
                .map_err(|source| api::kind::DecodeError { kind: kind.kind.to_string(), source })
        };
        let options = InformerOptions::default();
        let representation = Representation::PartialMetadata;
        let mut events =
            Box::pin(informer_with(client, row.clone(), options, representation, decode));
        let mut nodes = Mirror::<Arc<Node>, Arc<Key>>::default();
        while let Some(event) = events.next().await {
            // What has no uid neither owns nor depends.
            let identified =
                |node: Node| (node.key.clone(), (!node.uid.is_empty()).then(|| Arc::new(node)));
            for change in nodes.take(event.map(identified)) {
                let (before, after) = (change.before(), nodes.get(change.key()));
                let affected = self.graph.lock().change(before.map(|before| &**before), after);
                self.trigger(affected).await;
            }
            if nodes.is_synced() {
                synced.send_if_modified(|synced| !std::mem::replace(synced, true));
            }
        }
    }

    async fn trigger(&self, affected: Affected) {
        for uid in affected.examine {
            self.collector.send(Key::cluster(uid)).await;
        }
        if let Some(namespace) = affected.shrunk {
            self.quotas.send(Key::cluster(namespace)).await;
        }
        if let Some(namespace) = affected.emptied {
            self.namespaces.send(Key::cluster(namespace)).await;
        }
    }
}
