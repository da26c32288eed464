//! Deletes the content of namespaces that are being deleted, then removes their finalizer
//! (`k8s.io/kubernetes/pkg/controller/namespace`).
//!
//! The cache only says which namespaces to look at: whether one is being deleted is read from the
//! server, and its content is deleted object by object, by uid. The uids count only if the
//! namespace is still the same after they were listed. So nothing of a namespace that was created
//! again under its name is touched, however old the cache is.
//!
//! Pods are deleted first: what they use (secrets, network policies) stays until they have
//! terminated. The metadata graph triggers this controller when the last object of a kind is gone;
//! before the finalizer `kubernetes` is removed, every kind is listed from the server.

mod others;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use api::{Kind, KindRef};
use client::dynamic::target;
use client::{Api, Client, DeleteOptions};
use clock::SharedClock;
use futures::StreamExt;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use rpc::api_v1 as pb;

use crate::Error;
use crate::controllers::garbage_collector::graph::Node;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::error::During;
use crate::machinery::kinds::Kinds;
use crate::machinery::owner::{is_deleting, uid};
use crate::machinery::queue::{Controller, Next, Requests, Trigger};
use crate::machinery::status;
use crate::wire::Wiring;
use plan::{FINALIZER, Others, Remaining, conditions};

/// Deletions in progress at once.
const DELETIONS: usize = 32;
/// Time between two looks at what other servers have.
const OTHERS: Duration = Duration::from_secs(5);

struct Namespaces {
    client: Client,
    kinds: Arc<Kinds>,
    clock: SharedClock,
    namespaces: Arc<Cache<Namespace>>,
}

/// Adds the controller; its keys are namespaces. The metadata graph triggers it too, when a
/// namespace has lost its last object of a kind.
pub fn start(wiring: &mut Wiring, queue: (Trigger, Requests)) {
    let controller = Namespaces {
        client: wiring.client.clone(),
        kinds: wiring.kinds(),
        clock: wiring.clock.clone(),
        namespaces: wiring.cache(),
    };
    let ends = |change: &Change<Namespace>| {
        change.new.as_ref().is_some_and(|namespace| is_deleting(&namespace.metadata))
    };
    wiring.controller_with(queue, controller).of_some(ends).start();
}

impl Controller for Namespaces {
    const NAME: &'static str = "namespace";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(seen) = self.namespaces.get(key).filter(|seen| is_deleting(&seen.metadata)) else {
            return Ok(Next::Change);
        };
        let Some(namespace) = self.ending(key, uid(&seen.metadata)).await? else {
            return Ok(Next::Change);
        };
        let Some(remaining) = self.empty(&namespace).await? else {
            return Ok(Next::Change);
        };
        let others = others::empty(&self.client, &key.name).await?;
        if remaining.is_empty() && others.is_empty() {
            self.finalize(namespace).await?;
            return Ok(Next::Change);
        }
        self.write_status(&namespace, &remaining, &others).await?;
        // The graph triggers the key again when the last object of a kind is gone. Objects of other
        // servers are in no graph.
        Ok(if others.is_empty() { Next::Change } else { Next::After(OTHERS) })
    }
}

impl Namespaces {
    /// The namespace with this uid as the server has it, while it is being deleted and waits for
    /// this controller.
    async fn ending(&self, key: &Key, uid: &str) -> Result<Option<Namespace>, Error> {
        let live = Api::<Namespace>::all(&self.client).get_opt(&key.name).await;
        let live = live.during(|| format!("get namespace {key}"))?;
        Ok(live.filter(|live| {
            let finalizers = live.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten());
            let ours = finalizers.into_iter().any(|finalizer| finalizer == FINALIZER);
            ours && is_deleting(&live.metadata) && self::uid(&live.metadata) == uid
        }))
    }

    /// Deletes all objects, pods first, and returns those that remain. `None`: the namespace is
    /// gone.
    async fn empty(&self, namespace: &Namespace) -> Result<Option<Remaining>, Error> {
        let pods = self.empty_kinds(namespace, vec![Pod::ROW.into()]).await?;
        match pods {
            Some(pods) if pods.is_empty() => {
                let mut others = self.kinds.stored();
                others.retain(|row| row.namespaced() && *row != Pod::ROW);
                self.empty_kinds(namespace, others).await
            }
            pods => Ok(pods),
        }
    }

    /// Deletes the objects of some kinds, and returns those that remain. `None`: the namespace is
    /// gone.
    async fn empty_kinds(
        &self,
        namespace: &Namespace,
        rows: Vec<KindRef>,
    ) -> Result<Option<Remaining>, Error> {
        let key = Key::of(namespace);
        let listed = self.list_all(&key.name, rows).await?;
        let nodes = listed.0.iter().flat_map(|(_, nodes)| nodes);
        let alive: Vec<Node> = nodes.filter(|node| !node.deleting).cloned().collect();
        if alive.is_empty() {
            return Ok(Some(listed));
        }
        // They were listed by the namespace's name: they are its content only if it still exists.
        if self.ending(&key, uid(&namespace.metadata)).await?.is_none() {
            return Ok(None);
        }
        tracing::info!(namespace = %key, count = alive.len(), "deleting the content");
        let deletions = futures::stream::iter(alive.into_iter().map(|node| self.delete(node)));
        let outcomes: Vec<_> = deletions.buffer_unordered(DELETIONS).collect().await;
        // What can be deleted is, whatever cannot.
        outcomes.into_iter().collect::<Result<(), _>>()?;
        let rows = listed.0.iter().map(|(row, _)| row.clone()).collect();
        self.list_all(&key.name, rows).await.map(Some)
    }

    async fn delete(&self, node: Node) -> Result<(), Error> {
        let options = DeleteOptions {
            propagation_policy: Some("Background"),
            precondition_uid: Some(node.uid.clone()),
            ..Default::default()
        };
        let target = target(&node.row, &node.key.namespace, &node.key.name, "");
        match self.client.delete_object(target, &options).await {
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            outcome => outcome.map(|_| ()).during(|| format!("delete {} {}", node.row, node.key)),
        }
    }

    /// The objects of some kinds; kinds without any are left out.
    async fn list_all(&self, namespace: &str, rows: Vec<KindRef>) -> Result<Remaining, Error> {
        let lists = rows.into_iter().map(async |row| {
            let nodes = self.list(namespace, &row).await?;
            Ok::<_, Error>((row, nodes))
        });
        let mut all = try_join_all(lists).await?;
        all.retain(|(_, nodes)| !nodes.is_empty());
        Ok(Remaining(all))
    }

    async fn list(&self, namespace: &str, row: &KindRef) -> Result<Vec<Node>, Error> {
        let request = pb::ListRequest {
            target: Some(target(row, namespace, "", "")),
            representation: pb::Representation::PartialMetadata.into(),
            ..Default::default()
        };
        let (objects, _) = self
            .client
            .list_objects(request)
            .await
            .during(|| format!("list the {row} of namespace {namespace}"))?;
        let decode = |object: &pb::Object| Node::decode(row, &object.json);
        let nodes: Result<Vec<_>, _> = objects.iter().map(decode).collect();
        nodes.map_err(|error| Error::Invalid(format!("{row} in {namespace}: {error}")))
    }

    /// Reports in the conditions what blocks the deletion.
    async fn write_status(
        &self,
        namespace: &Namespace,
        remaining: &Remaining,
        others: &Others,
    ) -> Result<(), Error> {
        let wanted = conditions(namespace.status.as_ref(), remaining, others, self.clock.now());
        status::update(&self.client, namespace, |it| it.status = Some(wanted)).await.map(drop)
    }

    /// Removes the finalizer. The revision that was read before the kinds were listed is the
    /// precondition.
    async fn finalize(&self, mut namespace: Namespace) -> Result<(), Error> {
        let key = Key::of(&namespace);
        if let Some(finalizers) = namespace.spec.as_mut().and_then(|spec| spec.finalizers.as_mut())
        {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        let target = target(Namespace::ROW, "", &key.name, "finalize");
        let options = pb::WriteOptions::default();
        match self.client.update_object(target, namespace.encode(), options).await {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => {
                outcome.during(|| format!("finalize namespace {key}"))?;
                tracing::info!(namespace = %key, "finalized");
                Ok(())
            }
        }
    }
}
