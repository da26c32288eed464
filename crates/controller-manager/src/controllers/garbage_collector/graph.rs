//! The metadata of all objects and their owner references, from metadata-only watches of all stored
//! kinds; read by the garbage collector and the quota controller.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use api::kind::Text;
use api::{KindRef, KindRow};
use serde::Deserialize;

use crate::machinery::cache::Key;

pub const ORPHAN: &str = "orphan";
pub const FOREGROUND: &str = "foregroundDeletion";
/// The kind of every object in its metadata-only form.
const METADATA: &str = "PartialObjectMetadata";

/// What the graph keeps of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub row: KindRef,
    pub key: Arc<Key>,
    pub uid: String,
    pub owners: Vec<Owner>,
    pub finalizers: Vec<String>,
    pub deleting: bool,
}

/// An owner reference.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_owner_deletion: Option<bool>,
}

/// The part of an object's JSON that a [`Node`] is decoded from.
#[derive(Debug, Deserialize)]
struct Partial<'a> {
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    metadata: PartialMetadata,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PartialMetadata {
    name: String,
    namespace: String,
    uid: String,
    owner_references: Vec<Owner>,
    finalizers: Vec<String>,
    deletion_timestamp: Option<String>,
}

impl Node {
    /// From an object's JSON, whole or partial.
    ///
    /// # Errors
    /// When the bytes are not an object of the kind: what watches of other servers deliver is up to
    /// them.
    pub fn decode(row: &KindRef, json: &[u8]) -> Result<Self, serde_json::Error> {
        let Partial { kind, metadata } = serde_json::from_slice(json)?;
        if !["", METADATA, &row.kind].contains(&&*kind) {
            return Err(serde::de::Error::custom(format!("it is a {kind}")));
        }
        Ok(Self {
            row: row.clone(),
            key: Arc::new(Key::new(metadata.namespace, metadata.name)),
            uid: metadata.uid,
            owners: metadata.owner_references,
            finalizers: metadata.finalizers,
            deleting: metadata.deletion_timestamp.is_some(),
        })
    }

    pub fn has_finalizer(&self, name: &str) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == name)
    }

    /// Whether it is being deleted in the foreground, and so waits for its dependents.
    pub fn waits_for_dependents(&self) -> bool {
        self.deleting && self.has_finalizer(FOREGROUND)
    }

    /// Whether an owner reference has this object's kind, name and namespace.
    pub fn matches_reference(&self, owner: &Owner, dependent_namespace: &str) -> bool {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        self.row.kind == owner.kind
            && self.row.group == group
            && self.key.name == owner.name
            && (!self.row.namespaced() || self.key.namespace == dependent_namespace)
    }
}

/// Objects by uid, dependents by owner, counts by namespace.
///
/// Servers may have one object under several kinds. The one that was seen first stands for it as
/// long as it is there.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: HashMap<String, Arc<Node>>,
    /// The same objects under further kinds, by uid.
    others: HashMap<String, Vec<Arc<Node>>>,
    dependents: HashMap<String, HashSet<String>>,
    counts: HashMap<(String, Text, Text), usize>,
}

/// What a change of the graph affects.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Affected {
    /// Uids of the objects to examine.
    pub examine: Vec<String>,
    /// A namespace that lost its last object of some kind.
    pub emptied: Option<String>,
    /// A namespace that lost an object.
    pub shrunk: Option<String>,
}

impl Graph {
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid).map(|node| &**node)
    }

    /// The objects that name `uid` as an owner.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = &Node> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| self.get(uid))
    }

    /// How many objects of the kind the namespace holds.
    pub fn count(&self, namespace: &str, row: &KindRow) -> usize {
        let key = (namespace.to_owned(), row.group.clone(), row.plural.clone());
        self.counts.get(&key).copied().unwrap_or(0)
    }

    /// What became of the object at a key. With another uid it was deleted and created again while
    /// the watch was interrupted.
    pub fn change(&mut self, before: Option<&Node>, after: Option<&Arc<Node>>) -> Affected {
        let uid = after.map(|node| &node.uid);
        let former = before.filter(|node| Some(&node.uid) != uid);
        let mut affected = former.map(|node| self.remove(&node.row, &node.uid)).unwrap_or_default();
        if let Some(node) = after {
            affected.examine.extend(self.apply(node.clone()));
        }
        affected
    }

    /// Adds or updates an object; returns the uids of the objects to examine.
    fn apply(&mut self, node: Arc<Node>) -> Vec<String> {
        let mut examine = Vec::new();
        if self.nodes.get(&node.uid).is_some_and(|known| known.row != node.row) {
            self.apply_other(node);
            return examine;
        }
        let old = self.nodes.remove(&node.uid);
        if old.is_none() {
            *self.counts.entry(count_key(&node)).or_insert(0) += 1;
        }
        self.relink(old.as_deref(), &node);
        let changed_owners = old.as_ref().is_none_or(|old| old.owners != node.owners);
        let unknown_owner = node.owners.iter().any(|owner| {
            self.nodes
                .get(&owner.uid)
                .is_none_or(|known| !known.matches_reference(owner, &node.key.namespace))
        });
        let ending =
            node.deleting && (node.has_finalizer(ORPHAN) || node.has_finalizer(FOREGROUND));
        if ending || (changed_owners && unknown_owner) {
            examine.push(node.uid.clone());
        }
        if node.waits_for_dependents() {
            examine.extend(self.dependents.get(&node.uid).into_iter().flatten().cloned());
        }
        if changed_owners {
            let former = old.iter().flat_map(|old| &old.owners);
            let waiting = former.chain(&node.owners).filter(|owner| self.waits(&owner.uid));
            examine.extend(waiting.map(|owner| owner.uid.clone()));
            if node.owners.iter().any(|owner| self.waits(&owner.uid)) {
                examine.push(node.uid.clone());
            }
        }
        self.nodes.insert(node.uid.clone(), node);
        examine
    }

    /// Adds or updates an object that is there under another kind.
    fn apply_other(&mut self, node: Arc<Node>) {
        let others = self.others.entry(node.uid.clone()).or_default();
        match others.iter_mut().find(|known| known.row == node.row) {
            Some(known) => *known = node,
            None => {
                *self.counts.entry(count_key(&node)).or_insert(0) += 1;
                others.push(node);
            }
        }
    }

    /// The object under another kind than that which stands for it: `row`, or any.
    fn take_other(&mut self, uid: &str, row: Option<&KindRow>) -> Option<Arc<Node>> {
        let others = self.others.get_mut(uid)?;
        let position = others.iter().position(|node| row.is_none_or(|row| node.row == *row))?;
        let node = others.remove(position);
        if others.is_empty() {
            self.others.remove(uid);
        }
        Some(node)
    }

    /// Removes an object of a kind; affects its dependents, and owners that wait for it.
    pub fn remove(&mut self, row: &KindRow, uid: &str) -> Affected {
        if let Some(other) = self.take_other(uid, Some(row)) {
            return self.discount(&other);
        }
        if self.nodes.get(uid).is_none_or(|known| known.row != *row) {
            return Affected::default();
        }
        let next = self.take_other(uid, None);
        let Some(node) = self.nodes.remove(uid) else {
            return Affected::default();
        };
        let mut affected = self.discount(&node);
        if let Some(next) = next {
            self.relink(Some(&node), &next);
            self.nodes.insert(uid.to_owned(), next);
            return affected;
        }
        self.unlink(&node);
        affected.examine = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        let waiting = node.owners.iter().filter(|owner| self.waits(&owner.uid));
        affected.examine.extend(waiting.map(|owner| owner.uid.clone()));
        affected
    }

    /// Its namespace has one object less of the kind.
    fn discount(&mut self, node: &Node) -> Affected {
        let mut affected = Affected::default();
        let count_key = count_key(node);
        if let Some(count) = self.counts.get_mut(&count_key) {
            *count -= 1;
            affected.shrunk = namespace_of(node);
            if *count == 0 {
                self.counts.remove(&count_key);
                affected.emptied = namespace_of(node);
            }
        }
        affected
    }

    /// Uids of a kind's objects.
    pub fn uids_of(&self, row: &KindRow) -> Vec<String> {
        let all = self.nodes.values().chain(self.others.values().flatten());
        let of_kind = all.filter(|node| node.row == row);
        of_kind.map(|node| node.uid.clone()).collect()
    }

    /// Uids of the objects with an owner of a kind that is not known.
    pub fn without_owner_of(&self, row: &KindRow) -> Vec<String> {
        let of_kind = |owner: &&Owner| {
            let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
            owner.kind == row.kind && group == row.group && !self.nodes.contains_key(&owner.uid)
        };
        let lacking = self.nodes.values().filter(|node| node.owners.iter().any(|o| of_kind(&o)));
        lacking.map(|node| node.uid.clone()).collect()
    }

    fn waits(&self, uid: &str) -> bool {
        self.get(uid).is_some_and(Node::waits_for_dependents)
    }

    fn unlink(&mut self, old: &Node) {
        for owner in &old.owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(&old.uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }

    fn relink(&mut self, old: Option<&Node>, new: &Node) {
        if let Some(old) = old {
            self.unlink(old);
        }
        for owner in &new.owners {
            let dependents = self.dependents.entry(owner.uid.clone()).or_default();
            dependents.insert(new.uid.clone());
        }
    }
}

fn count_key(node: &Node) -> (String, Text, Text) {
    (node.key.namespace.clone(), node.row.group.clone(), node.row.plural.clone())
}

fn namespace_of(node: &Node) -> Option<String> {
    Some(node.key.namespace.clone()).filter(|namespace| !namespace.is_empty())
}
