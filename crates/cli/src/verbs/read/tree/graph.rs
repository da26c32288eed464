//! Objects, who owns them, and the tree around one of them. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::Value;

/// A reference to an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
}

impl Owner {
    /// `ReplicaSet/web-5d4`
    pub fn path(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }
}

/// An object, as far as its metadata describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub created: Option<jiff::Timestamp>,
    pub owners: Vec<Owner>,
    /// Why there is no such object, if an owner reference names one that does not exist.
    pub missing: Option<String>,
}

impl Entry {
    /// Reads the metadata of an object whose kind is known.
    pub fn read(api_version: &str, kind: &str, object: &Value) -> Self {
        let metadata = &object["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let owner = |owner: &Value| Owner {
            api_version: text(&owner["apiVersion"]),
            kind: text(&owner["kind"]),
            name: text(&owner["name"]),
            uid: text(&owner["uid"]),
        };
        let owners = metadata["ownerReferences"].as_array().into_iter().flatten().map(owner);
        Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: text(&metadata["namespace"]),
            name: text(&metadata["name"]),
            uid: text(&metadata["uid"]),
            created: metadata["creationTimestamp"].as_str().and_then(|time| time.parse().ok()),
            owners: owners.collect(),
            missing: None,
        }
    }

    /// An owner that does not exist.
    pub fn missing(owner: &Owner, namespace: &str, why: String) -> Self {
        Self {
            api_version: owner.api_version.clone(),
            kind: owner.kind.clone(),
            namespace: namespace.to_owned(),
            name: owner.name.clone(),
            uid: owner.uid.clone(),
            missing: Some(why),
            ..Self::default()
        }
    }

    /// `Pod/web-1`
    pub fn path(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }
}

/// Why an object is below another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Relation {
    /// By an owner reference.
    Owner,
    /// A pod of an EndpointSlice.
    Endpoint,
    /// A claim of a StatefulSet or a pod.
    Claim,
    /// A pod or Lease of a Node.
    Node,
}

impl Relation {
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Endpoint => "endpoint",
            Self::Claim => "claim",
            Self::Node => "node",
        }
    }
}

/// All known objects, and who is below whom.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    entries: BTreeMap<String, Entry>,
    below: BTreeMap<String, BTreeMap<String, Relation>>,
}

impl Graph {
    /// Adds an object, below its owners.
    pub fn add(&mut self, entry: Entry) {
        if entry.uid.is_empty() || self.entries.contains_key(&entry.uid) {
            return;
        }
        for owner in &entry.owners {
            self.relate(&owner.uid, Relation::Owner, &entry.uid);
        }
        self.entries.insert(entry.uid.clone(), entry);
    }

    /// Puts one object below another; an owner reference takes precedence over other relations.
    pub fn relate(&mut self, above: &str, relation: Relation, below: &str) {
        let known = self.below.entry(above.to_owned()).or_default();
        let entry = known.entry(below.to_owned()).or_insert(relation);
        *entry = relation.min(*entry);
    }

    pub fn get(&self, uid: &str) -> Option<&Entry> {
        self.entries.get(uid)
    }

    /// All objects of a namespace.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Entry> {
        self.entries.values().filter(move |entry| entry.namespace == namespace)
    }

    /// The object, its owners and theirs.
    pub fn ancestors(&self, uid: &str) -> BTreeSet<&str> {
        self.reach(uid, |entry| entry.owners.iter().map(|owner| owner.uid.as_str()).collect())
    }

    /// The object, and all that is below it.
    pub fn descendants(&self, uid: &str) -> BTreeSet<&str> {
        self.reach(uid, |entry| self.children(&entry.uid).map(|(uid, _)| uid).collect())
    }

    fn children(&self, uid: &str) -> impl Iterator<Item = (&str, Relation)> {
        let below = self.below.get(uid).into_iter().flatten();
        below.map(|(uid, relation)| (uid.as_str(), *relation))
    }

    fn reach<'a>(
        &'a self,
        uid: &str,
        next: impl Fn(&'a Entry) -> Vec<&'a str>,
    ) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        let mut queue: VecDeque<&Entry> = self.entries.get(uid).into_iter().collect();
        while let Some(entry) = queue.pop_front() {
            if found.insert(entry.uid.as_str()) {
                queue.extend(next(entry).into_iter().filter_map(|uid| self.entries.get(uid)));
            }
        }
        found
    }

    /// Owners that the object or those around it refer to, and that are not known.
    pub fn unknown_owners(&self, uid: &str) -> Vec<(Owner, String)> {
        let around = self.ancestors(uid).into_iter().chain(self.descendants(uid));
        let mut unknown: Vec<(Owner, String)> = Vec::new();
        for entry in around.filter_map(|uid| self.entries.get(uid)) {
            for owner in &entry.owners {
                let listed = unknown.iter().any(|(other, _)| other.uid == owner.uid);
                if !self.entries.contains_key(&owner.uid) && !listed {
                    unknown.push((owner.clone(), entry.namespace.clone()));
                }
            }
        }
        unknown
    }

    /// The trees around an object: its owners above it, with nothing else below them, and all that
    /// is below it. There are several if it has owners that have none in common.
    pub fn trees(&self, uid: &str) -> Vec<Branch> {
        let ancestors = self.ancestors(uid);
        let is_top = |uid: &&&str| {
            let entry = &self.entries[**uid];
            entry.owners.iter().all(|owner| !self.entries.contains_key(&owner.uid))
        };
        let mut tops: Vec<&str> = ancestors.iter().filter(is_top).copied().collect();
        if tops.is_empty() {
            // Its owners own each other.
            tops.push(uid);
        }
        tops.sort_by_key(|uid| {
            (self.entries[*uid].kind.as_str(), self.entries[*uid].name.as_str())
        });
        let mut walk =
            Walk { graph: self, ancestors, named: uid, path: Vec::new(), shown: BTreeSet::new() };
        tops.into_iter().filter_map(|top| walk.branch(top, None)).collect()
    }
}

/// How an object is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// With all that is below it.
    Whole,
    /// It is further up in the tree, with all that is below it.
    Again,
    /// It is above itself.
    Cycle,
}

/// An object in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    pub uid: String,
    /// To the object above; `None` at the top.
    pub relation: Option<Relation>,
    pub shown: Shown,
    /// Owners that are not above it in this tree, if it is not the named object's.
    pub other_owners: Vec<Owner>,
    pub below: Vec<Branch>,
}

struct Walk<'a> {
    graph: &'a Graph,
    ancestors: BTreeSet<&'a str>,
    named: &'a str,
    path: Vec<&'a str>,
    shown: BTreeSet<&'a str>,
}

impl<'a> Walk<'a> {
    fn branch(&mut self, uid: &str, relation: Option<Relation>) -> Option<Branch> {
        let entry = self.graph.entries.get(uid)?;
        let uid = entry.uid.as_str();
        let shown = match (self.path.contains(&uid), self.shown.contains(uid)) {
            (true, _) => Shown::Cycle,
            (false, true) => Shown::Again,
            (false, false) => Shown::Whole,
        };
        let above = self.path.last().copied();
        let others = entry.owners.iter().filter(|owner| {
            Some(owner.uid.as_str()) != above && !self.ancestors.contains(owner.uid.as_str())
        });
        let other_owners =
            if self.ancestors.contains(uid) { Vec::new() } else { others.cloned().collect() };
        let mut branch =
            Branch { uid: uid.to_owned(), relation, shown, other_owners, below: Vec::new() };
        if shown == Shown::Whole {
            self.shown.insert(uid);
            self.path.push(uid);
            branch.below = self.below(uid);
            self.path.pop();
        }
        Some(branch)
    }

    fn below(&mut self, uid: &str) -> Vec<Branch> {
        let is_above = self.ancestors.contains(uid) && uid != self.named;
        let mut below: Vec<(&Entry, Relation)> = self
            .graph
            .children(uid)
            .filter(|(child, _)| !is_above || self.ancestors.contains(child))
            .filter_map(|(child, relation)| Some((self.graph.entries.get(child)?, relation)))
            .collect();
        below.sort_by_key(|(entry, relation)| {
            (*relation, entry.kind.as_str(), entry.namespace.as_str(), entry.name.as_str())
        });
        below
            .into_iter()
            .filter_map(|(entry, relation)| self.branch(&entry.uid, Some(relation)))
            .collect()
    }
}
