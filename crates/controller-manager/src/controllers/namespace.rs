//! Deletes the content of namespaces that are being deleted, then removes their finalizer
//! (`k8s.io/kubernetes/pkg/controller/namespace`).
//!
//! Pods are deleted first: what they use (secrets, network policies) stays until they have
//! terminated. The metadata graph triggers this controller when the last object of a kind is gone;
//! before the finalizer `kubernetes` is removed, every kind is listed from the server.

mod plan;

use std::sync::Arc;

use api::{Kind, KindRow};
use client::dynamic::target;
use client::{Api, Client, DeleteOptions};
use clock::SharedClock;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Namespace;
use rpc::api_v1 as pb;

use crate::Error;
use crate::controllers::garbage_collector::graph::Node;
use crate::machinery::cache::{Cache, Key};
use crate::machinery::error::During;
use crate::machinery::owner::{is_deleting, uid};
use crate::machinery::queue::{Controller, Next, Requests, Trigger};
use crate::machinery::status;
use crate::wire::Wiring;
use plan::{FINALIZER, Remaining, conditions};

struct Namespaces {
    client: Client,
    clock: SharedClock,
    namespaces: Arc<Cache<Namespace>>,
}

/// Adds the controller; its keys are namespaces. The metadata graph triggers it too, when a
/// namespace has lost its last object of a kind.
pub fn start(wiring: &mut Wiring, (trigger, requests): (Trigger, Requests)) {
    wiring.informers.namespaces.subscribe(&trigger, |change| {
        let ending = change.new.as_ref().filter(|namespace| is_deleting(&namespace.metadata));
        ending.map(|namespace| Key::of(&**namespace)).into_iter().collect()
    });
    let controller = Namespaces {
        client: wiring.client.clone(),
        clock: wiring.clock.clone(),
        namespaces: wiring.informers.namespaces.cache(),
    };
    wiring.run(controller, requests);
}

fn namespaced_rows() -> impl Iterator<Item = &'static KindRow> {
    let rows = api::kind::KINDS.iter().copied();
    rows.filter(|row| row.stored && row.namespaced())
}

impl Controller for Namespaces {
    const NAME: &'static str = "namespace";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(namespace) = self.namespaces.get(key) else {
            return Ok(Next::Change);
        };
        let finalizers = namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten());
        let ours = finalizers.into_iter().any(|finalizer| finalizer == FINALIZER);
        if !is_deleting(&namespace.metadata) || !ours {
            return Ok(Next::Change);
        }
        let remaining = self.empty(&key.name).await?;
        self.write_status(&namespace, &remaining).await?;
        if remaining.is_empty() {
            self.finalize(key).await?;
        }
        // The graph triggers the key again when the last object of a kind is gone.
        Ok(Next::Change)
    }
}

impl Namespaces {
    /// Deletes all objects, pods first, and returns those that remain.
    async fn empty(&self, namespace: &str) -> Result<Remaining, Error> {
        use k8s_openapi::api::core::v1::Pod;
        let pods = self.empty_kind(namespace, Pod::ROW).await?;
        if !pods.is_empty() {
            return Ok(Remaining(vec![(Pod::ROW, pods)]));
        }
        let others = namespaced_rows().filter(|row| *row != Pod::ROW);
        let emptied = others.map(async |row| {
            let left = self.empty_kind(namespace, row).await?;
            Ok::<_, Error>((row, left))
        });
        let mut all = try_join_all(emptied).await?;
        all.retain(|(_, left)| !left.is_empty());
        Ok(Remaining(all))
    }

    /// Deletes the objects of one kind, and returns those that remain.
    async fn empty_kind(&self, namespace: &str, row: &'static KindRow) -> Result<Vec<Node>, Error> {
        let alive = self.list(namespace, row).await?;
        if alive.iter().all(|node| node.deleting) {
            return Ok(alive);
        }
        let options =
            DeleteOptions { propagation_policy: Some("Background"), ..Default::default() };
        let request = pb::DeleteCollectionRequest {
            target: Some(target(row, namespace, "", "")),
            options_json: options.to_json().into(),
            ..Default::default()
        };
        let deleted = self.client.resources().delete_collection(request).await;
        deleted
            .map_err(client::Error::from)
            .during(|| format!("delete the {row} of namespace {namespace}"))?;
        self.list(namespace, row).await
    }

    async fn list(&self, namespace: &str, row: &'static KindRow) -> Result<Vec<Node>, Error> {
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
    ) -> Result<(), Error> {
        if remaining.is_empty() {
            return Ok(());
        }
        let wanted = conditions(namespace.status.as_ref(), remaining, self.clock.now());
        let mut changed = namespace.clone();
        changed.status = Some(wanted);
        status::write(&self.client, namespace, &changed).await
    }

    /// Removes the finalizer from the namespace in its current state.
    async fn finalize(&self, key: &Key) -> Result<(), Error> {
        let api = Api::<Namespace>::all(&self.client);
        let live = api.get_opt(&key.name).await;
        let Some(mut live) = live.during(|| format!("get namespace {key}"))? else {
            return Ok(());
        };
        let seen = self.namespaces.get(key);
        if seen.is_some_and(|seen| uid(&seen.metadata) != uid(&live.metadata)) {
            return Ok(());
        }
        if let Some(finalizers) = live.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        let target = target(Namespace::ROW, "", &key.name, "finalize");
        let written =
            self.client.update_object(target, live.encode(), pb::WriteOptions::default()).await;
        match written {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => {
                outcome.during(|| format!("finalize namespace {key}"))?;
                tracing::info!(namespace = %key, "finalized");
                Ok(())
            }
        }
    }
}
