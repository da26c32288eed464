//! Fills the graph from one metadata-only watch for each stored kind.

use std::collections::HashSet;
use std::sync::Arc;

use api::KindRow;
use client::informer::{Event, informer_with};
use client::{Client, InformerOptions};
use futures::StreamExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rpc::api_v1::Representation;
use tokio::sync::watch;

use super::graph::{Affected, Graph, Node};
use crate::machinery::cache::Key;
use crate::machinery::informer::Synced;
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

    /// The futures that keep the graph up to date, one for each kind.
    pub fn start(&self, client: &Client) -> Vec<Synced> {
        let tracked = api::kind::KINDS.iter().copied().filter(|row| is_tracked(row));
        tracked
            .map(|row| {
                let (synced, is_synced) = watch::channel(false);
                let future = self.clone().follow(client.clone(), row, synced);
                (Box::pin(future) as BoxFuture<_>, is_synced)
            })
            .collect()
    }

    async fn follow(self, client: Client, row: &'static KindRow, synced: watch::Sender<bool>) {
        let decode = move |object: &rpc::api_v1::Object| {
            Node::decode(row, &object.json)
                .map_err(|source| api::kind::DecodeError { kind: row.kind, source })
        };
        let options = InformerOptions::default();
        let mut events =
            Box::pin(informer_with(client, row, options, Representation::PartialMetadata, decode));
        let mut present: HashSet<String> = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Event::Init => present.clear(),
                Event::InitApply(node) => {
                    present.insert(node.uid.clone());
                    self.apply(node).await;
                }
                Event::InitDone => {
                    let known = self.graph.lock().uids_of(row);
                    for gone in known.iter().filter(|uid| !present.contains(*uid)) {
                        self.remove(gone).await;
                    }
                    present = HashSet::new();
                    synced.send_replace(true);
                }
                Event::Apply(node) => self.apply(node).await,
                Event::Delete(node) => self.remove(&node.uid).await,
            }
        }
    }

    async fn apply(&self, node: Node) {
        let affected = self.graph.lock().apply(node);
        self.trigger(affected).await;
    }

    async fn remove(&self, uid: &str) {
        let affected = self.graph.lock().remove(uid);
        self.trigger(affected).await;
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
