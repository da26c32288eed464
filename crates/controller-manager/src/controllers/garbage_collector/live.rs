//! Reads and writes the metadata of single objects of any kind.

use api::KindRef;
use client::dynamic::target;
use client::{Client, DeleteOptions, PatchKind};
use rpc::api_v1 as pb;
use serde_json::{Value, json};

use super::graph::{Node, Owner};
use super::plan::Policy;
use crate::Error;
use crate::machinery::cache::Key;
use crate::machinery::error::During;
use crate::machinery::kinds::Kinds;
use crate::machinery::owner::none_if_empty;

/// The server, for objects of any kind.
pub struct Live {
    client: Client,
}

/// The kind that an owner reference names, in any version; `None` when it is not served.
pub fn owner_row(kinds: &Kinds, owner: &Owner) -> Option<KindRef> {
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    kinds.all().into_iter().find(|row| row.kind == owner.kind && row.group == group)
}

impl Live {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The object's metadata and revision, if it exists under this uid.
    pub async fn get(
        &self,
        row: &KindRef,
        key: &Key,
        uid: &str,
    ) -> Result<Option<(Node, u64)>, Error> {
        let request = pb::GetRequest {
            target: Some(target(row, &key.namespace, &key.name, "")),
            representation: pb::Representation::PartialMetadata.into(),
            ..Default::default()
        };
        let answer = self.client.resources().get(request).await;
        let object = match answer.map_err(client::Error::from) {
            Err(error) if is_absent(row, key, &error) => return Ok(None),
            outcome => outcome.during(|| format!("get {row} {key}"))?.into_inner(),
        };
        let node = Node::decode(row, &object.json)
            .map_err(|error| Error::Invalid(format!("{row} {key}: {error}")))?;
        Ok((node.uid == uid).then_some((node, object.revision)))
    }

    pub async fn delete(
        &self,
        node: &Node,
        policy: Policy,
        revision: Option<u64>,
    ) -> Result<(), Error> {
        let options = DeleteOptions {
            propagation_policy: Some(policy.name()),
            precondition_uid: Some(node.uid.clone()),
            precondition_resource_version: revision.map(|revision| revision.to_string()),
            ..Default::default()
        };
        let target = target(&node.row, &node.key.namespace, &node.key.name, "");
        match self.client.delete_object(target, &options).await {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome.map(|_| ()).during(|| format!("delete {} {}", node.row, node.key)),
        }
    }

    pub async fn remove_finalizer(
        &self,
        node: &Node,
        finalizer: &str,
        revision: u64,
    ) -> Result<(), Error> {
        let rest: Vec<&String> = node.finalizers.iter().filter(|name| *name != finalizer).collect();
        self.patch(node, json!({"finalizers": none_if_empty(rest)}), revision).await
    }

    pub async fn set_owners(
        &self,
        node: &Node,
        owners: &[Owner],
        revision: u64,
    ) -> Result<(), Error> {
        let owners: Vec<Value> = owners.iter().map(to_json).collect();
        self.patch(node, json!({"ownerReferences": none_if_empty(owners)}), revision).await
    }

    /// Removes the reference to `owner_uid` from a dependent in its current state.
    pub async fn orphan(&self, dependent: &Node, owner_uid: &str) -> Result<(), Error> {
        let found = self.get(&dependent.row, &dependent.key, &dependent.uid).await?;
        let Some((node, revision)) = found else {
            return Ok(());
        };
        let kept: Vec<Owner> =
            node.owners.iter().filter(|owner| owner.uid != owner_uid).cloned().collect();
        if kept.len() == node.owners.len() {
            return Ok(());
        }
        self.set_owners(&node, &kept, revision).await
    }

    async fn patch(&self, node: &Node, mut metadata: Value, revision: u64) -> Result<(), Error> {
        metadata["uid"] = node.uid.as_str().into();
        metadata["resourceVersion"] = revision.to_string().into();
        let body = json!({"metadata": metadata}).to_string().into_bytes();
        let target = target(&node.row, &node.key.namespace, &node.key.name, "");
        let options = pb::WriteOptions::default();
        let patched = self.client.patch_object(target, PatchKind::Merge, body, options).await;
        match patched {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome.map(|_| ()).during(|| format!("patch {} {}", node.row, node.key)),
        }
    }
}

/// Whether an object is not there. Of another server, only that server knows: that nobody answers for
/// its kind says nothing about its objects.
fn is_absent(row: &KindRef, key: &Key, error: &client::Error) -> bool {
    let names_it = || match error {
        client::Error::Api(error) => {
            let details = error.status().details.as_ref();
            details.and_then(|details| details.name.as_deref()) == Some(key.name.as_str())
        }
        _ => false,
    };
    error.is_not_found() && (row.stored || names_it())
}

fn to_json(owner: &Owner) -> Value {
    let mut json = json!({
        "apiVersion": owner.api_version,
        "kind": owner.kind,
        "name": owner.name,
        "uid": owner.uid,
    });
    if let Some(controller) = owner.controller {
        json["controller"] = controller.into();
    }
    if let Some(blocks) = owner.block_owner_deletion {
        json["blockOwnerDeletion"] = blocks.into();
    }
    json
}
