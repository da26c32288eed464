//! Owner references, adoption and release
//! (`k8s.io/kubernetes/pkg/controller/controller_ref_manager.go`).

use std::sync::Arc;

use api::Kind;
use api::labels::{Selector, SelectorError};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};

use client::{Api, Client, PatchKind};

use crate::Error;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::error::{During, Unless};
use crate::machinery::index::By;

/// The owner reference that says `controller: true`.
pub fn controller_of(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The key of the controller, if it is of kind `K`.
pub fn controller_key<K: Kind>(metadata: &ObjectMeta) -> Option<Key> {
    let controller = controller_of(metadata)?;
    let of_kind = controller.kind == K::KIND && group(&controller.api_version) == K::GROUP;
    of_kind
        .then(|| Key::new(metadata.namespace.clone().unwrap_or_default(), controller.name.clone()))
}

fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// A reference from a child to `owner`, its controller.
pub fn reference<K: Kind>(owner: &K) -> OwnerReference {
    let metadata = owner.metadata();
    OwnerReference {
        api_version: K::API_VERSION.into(),
        kind: K::KIND.into(),
        name: metadata.name.clone().unwrap_or_default(),
        uid: uid(metadata).into(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The objects that `uid` controls.
pub fn controlled_by(uid: &str) -> By {
    By::Controller(uid.to_owned())
}

/// What [`claim_all`] looks children up by.
pub fn index(metadata: &ObjectMeta) -> By {
    match controller_of(metadata) {
        Some(controller) => controlled_by(&controller.uid),
        None => By::Orphan(metadata.namespace.clone().unwrap_or_default()),
    }
}

pub fn uid(metadata: &ObjectMeta) -> &str {
    metadata.uid.as_deref().unwrap_or_default()
}

pub fn is_deleting(metadata: &ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_some()
}

/// What to do about a possible child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is a child and stays one.
    Keep,
    Adopt,
    Release,
    /// It belongs to another owner, or is not selected.
    Ignore,
}

/// Decides by the owner's uid and whether it is being deleted, the child's metadata, and whether
/// the owner's selector matches it.
pub fn claim(owner_uid: &str, owner_deleting: bool, child: &ObjectMeta, matches: bool) -> Claim {
    match controller_of(child) {
        Some(controller) if controller.uid != owner_uid => Claim::Ignore,
        Some(_) if matches || owner_deleting => Claim::Keep,
        Some(_) if is_deleting(child) => Claim::Ignore,
        Some(_) => Claim::Release,
        None if owner_deleting || !matches || is_deleting(child) => Claim::Ignore,
        None => Claim::Adopt,
    }
}

/// The children of `owner` in `cache`, after adopting the orphans that `selector` matches (and
/// `adoptable` allows) and releasing the children that it no longer matches.
///
/// # Errors
/// When the selector is malformed, or an adoption or a release fails: the children cannot be
/// counted then.
pub async fn claim_all<O: Kind, C: Kind>(
    client: &Client,
    owner: &O,
    selector: Result<Selector, SelectorError>,
    cache: &Cache<C>,
    adoptable: impl Fn(&C) -> bool,
) -> Result<Vec<Arc<C>>, Error> {
    let selector = selector.map_err(|error| Error::Invalid(error.to_string()))?;
    let metadata = owner.metadata();
    let (own_uid, deleting) = (uid(metadata), is_deleting(metadata));
    let mut candidates = cache.indexed(&controlled_by(own_uid));
    candidates.extend(cache.indexed(&By::Orphan(Key::of(owner).namespace)));
    let mut ours = Vec::new();
    for child in candidates {
        let matches = selector.matches(child.metadata().labels.as_ref());
        match claim(own_uid, deleting, child.metadata(), matches) {
            Claim::Keep => ours.push(child),
            Claim::Adopt if adoptable(&child) => {
                adopt(client, owner, &*child).await?;
                ours.push(child);
            }
            Claim::Release => release(client, own_uid, &*child).await?,
            Claim::Adopt | Claim::Ignore => {}
        }
    }
    Ok(ours)
}

/// The owners of kind `O` that a change of a child affects: its controllers, and for an orphan
/// those of `owners` in its namespace whose selector matches it.
pub fn affected<O: Kind, C: Kind>(
    change: &Change<C>,
    owners: &Cache<O>,
    selector: impl Fn(&O) -> Result<Selector, SelectorError>,
) -> Vec<Key> {
    let sides = change.sides();
    let mut keys: Vec<Key> =
        sides.filter_map(|child| controller_key::<O>(child.metadata())).collect();
    keys.dedup();
    if let Some(child) = &change.new
        && controller_of(child.metadata()).is_none()
    {
        let metadata = child.metadata();
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        keys.extend(owners.keys_in(namespace, |owner| {
            selector(owner).is_ok_and(|selector| selector.matches(metadata.labels.as_ref()))
        }));
    }
    keys
}

/// Makes `owner` the controller of a child, if both are still the same objects. The owner is read
/// from the server first: one that was deleted in the meantime must not adopt.
pub async fn adopt<O: Kind, C: Kind>(client: &Client, owner: &O, child: &C) -> Result<(), Error> {
    let key = Key::of(owner);
    let live = Api::<O>::namespaced(client, &key.namespace)
        .get(&key.name)
        .await
        .during(|| format!("get {} {key}", O::KIND))?;
    if live.metadata().uid != owner.metadata().uid || is_deleting(live.metadata()) {
        return Err(Error::Invalid(format!("{} {key} is gone", O::KIND)));
    }
    let metadata = child.metadata();
    let mut references = metadata.owner_references.clone().unwrap_or_default();
    references.push(reference(owner));
    patch_owners::<C>(client, metadata, &references)
        .await
        .during(|| format!("adopt {} {}", C::KIND, Key::of(child)))
}

/// Removes the owner's reference from a child. A child that is gone counts as released.
pub async fn release<C: Kind>(client: &Client, owner_uid: &str, child: &C) -> Result<(), Error> {
    let metadata = child.metadata();
    let mut references = metadata.owner_references.clone().unwrap_or_default();
    references.retain(|reference| reference.uid != owner_uid);
    let released = patch_owners::<C>(client, metadata, &references).await.unless_gone();
    released.map(drop).during(|| format!("release {} {}", C::KIND, Key::of(child)))
}

/// Writes the whole list of owners.
pub async fn patch_owners<C: Kind>(
    client: &Client,
    child: &ObjectMeta,
    references: &[OwnerReference],
) -> Result<(), client::Error> {
    let references = none_if_empty(references.iter().map(to_json).collect());
    patch_metadata::<C>(client, child, "ownerReferences", json!(references)).await
}

/// Writes the whole list of finalizers.
pub async fn patch_finalizers<K: Kind>(
    client: &Client,
    object: &ObjectMeta,
    finalizers: Vec<String>,
) -> Result<(), client::Error> {
    patch_metadata::<K>(client, object, "finalizers", json!(none_if_empty(finalizers))).await
}

/// Writes a field of the metadata, with the object's uid and revision as the precondition.
async fn patch_metadata<K: Kind>(
    client: &Client,
    object: &ObjectMeta,
    field: &str,
    value: Value,
) -> Result<(), client::Error> {
    let patch = json!({"metadata": {
        "uid": object.uid,
        "resourceVersion": object.resource_version,
        field: value,
    }});
    let key = Key::of_metadata(object);
    let objects = Api::<K>::namespaced(client, &key.namespace);
    objects.patch(&key.name, PatchKind::Merge, &patch).await.map(drop)
}

/// The finalizers of an object without one.
pub fn finalizers_without(object: &ObjectMeta, finalizer: &str) -> Vec<String> {
    let all = object.finalizers.iter().flatten();
    all.filter(|one| *one != finalizer).cloned().collect()
}

/// A list for a merge patch: an empty one removes the field instead of leaving `[]`.
pub fn none_if_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn to_json(reference: &OwnerReference) -> Value {
    json!({
        "apiVersion": reference.api_version,
        "kind": reference.kind,
        "name": reference.name,
        "uid": reference.uid,
        "controller": reference.controller,
        "blockOwnerDeletion": reference.block_owner_deletion,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims() {
        let mut free = ObjectMeta::default();
        let mut own = ObjectMeta {
            owner_references: Some(vec![OwnerReference {
                uid: "me".into(),
                controller: Some(true),
                ..Default::default()
            }]),
            ..Default::default()
        };
        assert_eq!(claim("me", false, &free, true), Claim::Adopt);
        assert_eq!(claim("me", true, &free, true), Claim::Ignore);
        assert_eq!(claim("me", false, &free, false), Claim::Ignore);
        assert_eq!(claim("me", false, &own, true), Claim::Keep);
        assert_eq!(claim("me", false, &own, false), Claim::Release);
        assert_eq!(claim("me", true, &own, false), Claim::Keep);
        assert_eq!(claim("other", false, &own, true), Claim::Ignore);
        let now =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        free.deletion_timestamp.clone_from(&now);
        own.deletion_timestamp = now;
        assert_eq!(claim("me", false, &free, true), Claim::Ignore);
        assert_eq!(claim("me", false, &own, true), Claim::Keep);
        assert_eq!(claim("me", false, &own, false), Claim::Ignore);
    }
}
