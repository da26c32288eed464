//! Objects in the versions in which their managers have written them.

use std::collections::BTreeMap;
use std::convert::Infallible;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::Value;

use super::fields::Set;
use super::{Schema, Writer, fields_of, merge, stripped, version_of};

/// The versions of a kind. Versions are named with their group, as in `apiVersion`.
pub trait Versions: Sync {
    type Error: Send;

    /// What objects of a version are merged by; `None`: there is no such version (any more).
    fn schema(&self, api_version: &str) -> Option<Schema<'_>>;

    /// A whole object in another version that there is.
    fn convert(
        &self,
        object: &Value,
        to: &str,
    ) -> impl Future<Output = Result<Value, Self::Error>> + Send;
}

/// A kind whose versions, whatever their names, are the same.
pub struct OneVersion<'a>(pub Schema<'a>);

impl Versions for OneVersion<'_> {
    type Error = Infallible;

    fn schema(&self, _: &str) -> Option<Schema<'_>> {
        Some(self.0)
    }

    async fn convert(&self, object: &Value, _: &str) -> Result<Value, Infallible> {
        Ok(object.clone())
    }
}

/// The entries of versions that there still are.
pub(super) fn known(
    owners: &[ManagedFieldsEntry],
    versions: &impl Versions,
) -> Vec<ManagedFieldsEntry> {
    let known = owners.iter().filter(|owner| versions.schema(version_of(owner)).is_some());
    known.cloned().collect()
}

/// What a change does to an object, as each version sees it.
pub(super) struct Changes<'a, V> {
    versions: &'a V,
    old: &'a Value,
    new: &'a Value,
    /// The version that both objects are in.
    base: &'a str,
    /// What was changed or added, and what was removed.
    seen: BTreeMap<String, (Set, Set)>,
}

impl<'a, V: Versions> Changes<'a, V> {
    pub(super) fn new(versions: &'a V, old: &'a Value, new: &'a Value, base: &'a str) -> Self {
        Self { versions, old, new, base, seen: BTreeMap::new() }
    }

    pub(super) fn insert(&mut self, api_version: &str, changed: Set, removed: Set) {
        self.seen.insert(api_version.to_owned(), (changed, removed));
    }

    /// What was changed or added in a version, and what was removed.
    pub(super) async fn seen_in(&mut self, api_version: &str) -> Result<&(Set, Set), V::Error> {
        if !self.seen.contains_key(api_version) {
            let schema = self.versions.schema(api_version).unwrap_or(Schema::Untyped);
            let (changed, removed) = if api_version == self.base {
                merge::compare(self.old, self.new, schema.root())
            } else {
                let old = self.versions.convert(self.old, api_version).await?;
                let new = self.versions.convert(self.new, api_version).await?;
                merge::compare(&old, &new, schema.root())
            };
            self.insert(api_version, stripped(changed), stripped(removed));
        }
        Ok(&self.seen[api_version])
    }
}

/// The object without the fields that a manager applied before (`before`), does not want any more,
/// and nobody else owns.
///
/// The fields go in the version of `before`. Every version that has an entry then puts back what is
/// owned in it, as `addBackOwnedItems` does.
pub(super) async fn prune<V: Versions>(
    mut merged: Value,
    before: &ManagedFieldsEntry,
    wanted: &Set,
    others: &[ManagedFieldsEntry],
    versions: &V,
    writer: &Writer<'_>,
) -> Result<Value, V::Error> {
    let mut owned = BTreeMap::from([(writer.api_version, wanted.clone())]);
    for other in others {
        owned.entry(version_of(other)).or_default().extend(fields_of(other));
    }
    let (last, of) = (fields_of(before), version_of(before));
    let removed = last.abandoned_by(&owned.remove(of).unwrap_or_default());
    if removed.is_empty() {
        return Ok(merged);
    }
    let schema = |version| versions.schema(version).unwrap_or(Schema::Untyped).root();
    if owned.is_empty() {
        merge::remove(&mut merged, &removed, schema(of));
        return Ok(merged);
    }
    let mut whole =
        if of == writer.api_version { merged } else { versions.convert(&merged, of).await? };
    let mut pruned = whole.clone();
    merge::remove(&mut pruned, &removed, schema(of));
    for (version, owned) in owned {
        let mut all = versions.convert(&whole, version).await?;
        let left = versions.convert(&pruned, version).await?;
        let gone = merge::compare(&all, &left, schema(version)).1.abandoned_by(&owned);
        merge::remove(&mut all, &gone, schema(version));
        pruned = versions.convert(&all, of).await?;
    }
    // Only what the manager itself has applied.
    let gone = merge::compare(&whole, &pruned, schema(of)).1.intersection(&last);
    merge::remove(&mut whole, &gone, schema(of));
    if of == writer.api_version {
        Ok(whole)
    } else {
        versions.convert(&whole, writer.api_version).await
    }
}
