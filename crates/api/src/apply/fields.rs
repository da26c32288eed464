//! Sets of fields, in the format of `managedFields` (`FieldsV1`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A set of paths, as a tree. Edges are in the format of `FieldsV1`: `f:<field>`, `k:<keys as
/// JSON>` and `v:<value as JSON>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    children: BTreeMap<String, Node>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    /// The path that ends here is in the set.
    member: bool,
    below: Set,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl Set {
    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// Adds the path of one edge.
    pub(super) fn insert(&mut self, edge: String) {
        self.children.entry(edge).or_default().member = true;
    }

    /// Adds a set below an edge.
    pub(super) fn insert_below(&mut self, edge: String, below: Set) {
        if !below.is_empty() {
            self.children.entry(edge).or_default().below.extend(below);
        }
    }

    /// Removes an edge and everything below it.
    pub(super) fn remove(&mut self, edge: &str) {
        self.children.remove(edge);
    }

    /// Removes one path, but not what is below it.
    pub(super) fn remove_member(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else {
            return;
        };
        let Some(node) = self.children.get_mut(*first) else {
            return;
        };
        if rest.is_empty() {
            node.member = false;
        } else {
            node.below.remove_member(rest);
        }
        if node.is_empty() {
            self.children.remove(*first);
        }
    }

    /// The edges, with whether each one's path is in the set, and the set below it.
    pub(super) fn edges(&self) -> impl Iterator<Item = (&str, bool, &Set)> {
        self.children.iter().map(|(edge, node)| (edge.as_str(), node.member, &node.below))
    }

    /// Adds everything in another set.
    pub(super) fn extend(&mut self, other: Self) {
        for (edge, node) in other.children {
            let own = self.children.entry(edge).or_default();
            own.member |= node.member;
            own.below.extend(node.below);
        }
    }

    pub fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        all.extend(other.clone());
        all
    }

    pub fn intersection(&self, other: &Self) -> Self {
        self.combined(other, |own, other| own.member && other.member, |_| Node::default())
    }

    pub fn difference(&self, other: &Self) -> Self {
        self.combined(other, |own, other| own.member && !other.member, Node::clone)
    }

    /// The paths that `other` has nothing at or below: they can be removed without affecting
    /// `other`.
    pub(super) fn abandoned_by(&self, other: &Self) -> Self {
        self.combined(other, |own, other| own.member && other.is_empty(), Node::clone)
    }

    /// The set without the list elements that are in `removed`, and everything below them.
    pub(super) fn without_elements(&self, removed: &Self) -> Self {
        let children = self.children.iter().filter_map(|(edge, node)| {
            let node = match removed.children.get(edge) {
                None => node.clone(),
                Some(theirs) if theirs.member && edge.starts_with("k:") => return None,
                Some(theirs) => {
                    Node { member: node.member, below: node.below.without_elements(&theirs.below) }
                }
            };
            Some((edge.clone(), node))
        });
        Self { children: children.filter(|(_, node)| !node.is_empty()).collect() }
    }

    fn combined(
        &self,
        other: &Self,
        member: fn(&Node, &Node) -> bool,
        alone: fn(&Node) -> Node,
    ) -> Self {
        let children = self.children.iter().map(|(edge, node)| {
            let node = match other.children.get(edge) {
                None => alone(node),
                Some(theirs) => Node {
                    member: member(node, theirs),
                    below: node.below.combined(&theirs.below, member, alone),
                },
            };
            (edge.clone(), node)
        });
        Self { children: children.filter(|(_, node)| !node.is_empty()).collect() }
    }

    /// `FieldsV1`: an empty object ends a path; `.` next to other members marks the path itself.
    pub fn to_json(&self) -> Value {
        let mut json = Map::new();
        for (edge, node) in &self.children {
            let mut below = node.below.to_json();
            if node.member && !node.below.is_empty() {
                below["."] = Value::Object(Map::new());
            }
            json.insert(edge.clone(), below);
        }
        Value::Object(json)
    }

    /// Anything that is not `FieldsV1` counts as empty.
    pub fn from_json(json: &Value) -> Self {
        let mut set = Self::default();
        for (edge, below) in json.as_object().into_iter().flatten().filter(|(edge, _)| *edge != ".")
        {
            let whole =
                below.as_object().is_none_or(|below| below.is_empty() || below.contains_key("."));
            let node = Node { member: whole, below: Self::from_json(below) };
            set.children.insert(edge.clone(), node);
        }
        set
    }

    /// Whether JSON is `FieldsV1` in every part.
    pub(super) fn is_valid(json: &Value) -> bool {
        let edge = |edge: &str| match edge.split_once(':') {
            Some(("f", _)) => true,
            Some(("k", keys)) => serde_json::from_str::<Map<String, Value>>(keys).is_ok(),
            Some(("v", value)) => serde_json::from_str::<Value>(value).is_ok(),
            Some(("i", index)) => index.parse::<i32>().is_ok(),
            _ => edge == ".",
        };
        json.as_object()
            .is_some_and(|map| map.iter().all(|(name, below)| edge(name) && Self::is_valid(below)))
    }

    /// The paths as errors write them: `.spec.ports[port=80,protocol="TCP"].name`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        for (edge, node) in &self.children {
            let step = step(edge);
            if node.member {
                paths.push(step.clone());
            }
            paths.extend(node.below.paths().into_iter().map(|path| format!("{step}{path}")));
        }
        paths
    }
}

/// An edge as errors write it.
pub(super) fn step(edge: &str) -> String {
    match edge.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("k", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let pairs: Vec<String> =
                keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", pairs.join(","))
        }
        Some(("v", value)) => format!("[={value}]"),
        _ => format!("[{edge}]"),
    }
}
