//! Deletes objects whose owners are gone, and completes deletions that wait for dependents
//! (`k8s.io/kubernetes/pkg/controller/garbagecollector`).
//!
//! The graph only says which objects to examine; every decision is made on the object and its
//! owners as the server has them, and written with uid and revision as preconditions. An owner that
//! is not in the graph is read from the server before anything is deleted because of its absence.

pub mod feed;
pub mod graph;
mod live;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::events::EventRecorder;
use k8s_openapi::api::core::v1::ObjectReference;
use parking_lot::Mutex;

use crate::Error;
use crate::machinery::cache::Key;
use crate::machinery::kinds::Kinds;
use crate::machinery::queue::{Controller, Next, Requests, Trigger};
use crate::wire::Wiring;
use graph::{Graph, Node, Owner};
use live::{Live, owner_row};
use plan::{Dependent, Observed, OwnerState, Plan, Policy, plan};

struct GarbageCollector {
    live: Live,
    kinds: Arc<Kinds>,
    recorder: EventRecorder,
    graph: Arc<Mutex<Graph>>,
    trigger: Trigger,
}

/// Adds the controller; its keys are uids.
pub fn start(
    wiring: &mut Wiring,
    graph: Arc<Mutex<Graph>>,
    (trigger, requests): (Trigger, Requests),
) {
    let controller = GarbageCollector {
        live: Live::new(wiring.client.clone()),
        kinds: wiring.kinds(),
        recorder: wiring.recorder.named("garbage-collector-controller"),
        graph,
        trigger,
    };
    wiring.run(controller, requests);
}

impl Controller for GarbageCollector {
    const NAME: &'static str = "garbage-collector";
    const CONCURRENCY: usize = 20;

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(node) = self.needs_attention(&key.name) else {
            return Ok(Next::Change);
        };
        let Some((node, revision)) = self.live.get(&node.row, &node.key, &node.uid).await? else {
            return Ok(Next::Change);
        };
        let observed = self.observe(node).await?;
        self.apply(&observed, plan(&observed), revision).await?;
        Ok(Next::Change)
    }
}

impl GarbageCollector {
    /// The object, unless all its owners exist and neither it nor they are being deleted.
    fn needs_attention(&self, uid: &str) -> Option<Node> {
        let graph = self.graph.lock();
        let node = graph.get(uid)?;
        let settled = |owner: &Owner| {
            graph.get(&owner.uid).is_some_and(|known| {
                known.matches_reference(owner, &node.key.namespace) && !known.waits_for_dependents()
            })
        };
        let unaffected = !node.deleting && node.owners.iter().all(settled);
        (!unaffected).then(|| node.clone())
    }

    async fn observe(&self, node: Node) -> Result<Observed, Error> {
        let mut owners = Vec::new();
        for owner in &node.owners {
            owners.push((owner.clone(), self.owner_state(&node, owner).await?));
        }
        let graph = self.graph.lock();
        let blocks = |dependent: &Node| {
            let mut owners = dependent.owners.iter();
            owners.any(|owner| owner.uid == node.uid && owner.block_owner_deletion == Some(true))
        };
        let dependents = graph
            .dependents(&node.uid)
            .map(|dependent| Dependent { blocks: blocks(dependent), node: dependent.clone() });
        Ok(Observed { dependents: dependents.collect(), node: node.clone(), owners })
    }

    async fn owner_state(&self, node: &Node, owner: &Owner) -> Result<OwnerState, Error> {
        let Some(row) = owner_row(&self.kinds, owner) else {
            return Ok(OwnerState::Unknown);
        };
        if row.namespaced() && !node.row.namespaced() {
            self.report_invalid_namespace(node, owner);
            return Ok(OwnerState::Unknown);
        }
        let elsewhere = |known: &Node| {
            known.row == row && row.namespaced() && known.key.namespace != node.key.namespace
        };
        if self.graph.lock().get(&owner.uid).is_some_and(elsewhere) {
            // An owner in another namespace counts as absent, as everywhere in Kubernetes.
            self.report_invalid_namespace(node, owner);
        }
        let namespace = if row.namespaced() { node.key.namespace.as_str() } else { "" };
        let key = Key::new(namespace, &owner.name);
        Ok(match self.live.get(&row, &key, &owner.uid).await? {
            None => OwnerState::Absent,
            Some((owner, _)) if owner.waits_for_dependents() => OwnerState::WaitsForDependents,
            Some(_) => OwnerState::Present,
        })
    }

    fn report_invalid_namespace(&self, node: &Node, owner: &Owner) {
        let Owner { api_version, kind, name, uid, .. } = owner;
        let namespace = &node.key.namespace;
        let message = format!(
            "ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}] \
             does not exist in namespace {namespace:?}"
        );
        self.recorder.record(reference(node), "Warning", "OwnerRefInvalidNamespace", message);
    }

    async fn apply(&self, observed: &Observed, plan: Plan, revision: u64) -> Result<(), Error> {
        let node = &observed.node;
        if plan != Plan::Nothing {
            tracing::info!(resource = %node.row, object = %node.key, plan = summary(&plan), "collecting");
        }
        match plan {
            Plan::Nothing => Ok(()),
            Plan::CollectDependents(uids) => {
                for uid in uids {
                    self.trigger.send(Key::cluster(uid)).await;
                }
                Ok(())
            }
            Plan::FinishForeground => {
                self.live.remove_finalizer(node, graph::FOREGROUND, revision).await
            }
            Plan::Orphan(dependents) => {
                for dependent in &dependents {
                    self.live.orphan(dependent, &node.uid).await?;
                }
                self.live.remove_finalizer(node, graph::ORPHAN, revision).await
            }
            Plan::KeepOwners(owners) => self.live.set_owners(node, &owners, revision).await,
            Plan::Delete(policy) => self.live.delete(node, policy, Some(revision)).await,
            Plan::UnblockAndDelete(owners) => {
                self.live.set_owners(node, &owners, revision).await?;
                self.live.delete(node, Policy::Foreground, None).await
            }
        }
    }
}

fn summary(plan: &Plan) -> &'static str {
    match plan {
        Plan::Nothing => "nothing",
        Plan::Orphan(_) => "orphan dependents",
        Plan::FinishForeground => "finish the foreground deletion",
        Plan::CollectDependents(_) => "collect dependents",
        Plan::KeepOwners(_) => "drop owner references",
        Plan::Delete(_) => "delete",
        Plan::UnblockAndDelete(_) => "unblock and delete",
    }
}

fn reference(node: &Node) -> ObjectReference {
    ObjectReference {
        api_version: Some(node.row.api_version()),
        kind: Some(node.row.kind.to_string()),
        namespace: Some(node.key.namespace.clone()).filter(|namespace| !namespace.is_empty()),
        name: Some(node.key.name.clone()),
        uid: Some(node.uid.clone()),
        ..Default::default()
    }
}
