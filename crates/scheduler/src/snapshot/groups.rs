//! How many pods of a group each node has, kept while pods come and go.
//!
//! A group is the pods that a spread constraint or an affinity term selects. It is counted over all
//! pods once, when a pod with such a constraint is first scheduled, and then adjusted with each
//! placement. The least recently used groups are forgotten.

use std::collections::{BTreeMap, HashMap};

use api::labels::Selector;

use super::NodeIndex;
use crate::pod::{Peers, PodInfo, PodTerm, SpreadConstraint};

/// The maximum number of groups.
const GROUPS_MAX: usize = 1024;

/// Labels of all namespaces.
pub type Namespaces = HashMap<String, BTreeMap<String, String>>;

/// Amounts by node; nodes without any are absent.
pub type ByNode = HashMap<NodeIndex, i64>;

/// Which pods are counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GroupKey {
    /// Pods of the set with this uid, unless they are being deleted.
    Set(String),
    /// Pods of one namespace by their labels, unless they are being deleted.
    Spread { namespace: String, selector: Selector },
    /// Pods that every one of these affinity terms selects, whatever its topology.
    Terms(Vec<Scope>),
}

/// An affinity term without its topology.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    selector: Selector,
    namespaces: Vec<String>,
    namespace_selector: Option<Selector>,
}

impl Scope {
    fn contains(&self, pod: &PodInfo, namespaces: &Namespaces) -> bool {
        let by_label = || {
            let labels = namespaces.get(&pod.namespace);
            self.namespace_selector.as_ref().is_some_and(|selector| selector.matches(labels))
        };
        (self.namespaces.contains(&pod.namespace) || by_label())
            && self.selector.matches(Some(&pod.labels))
    }
}

impl GroupKey {
    pub fn of_constraint(constraint: &SpreadConstraint, namespace: &str) -> Self {
        match &constraint.peers {
            Peers::OfSet(set) => Self::Set(set.clone()),
            Peers::Selected(selector) => {
                Self::Spread { namespace: namespace.to_owned(), selector: selector.clone() }
            }
        }
    }

    pub fn of_terms(terms: &[PodTerm]) -> Self {
        let scope = |term: &PodTerm| Scope {
            selector: term.selector.clone(),
            namespaces: term.namespaces.clone(),
            namespace_selector: term.namespace_selector.clone(),
        };
        Self::Terms(terms.iter().map(scope).collect())
    }

    /// The namespaces whose pods can be in the group; `None`: any.
    fn namespaces(&self) -> Option<&[String]> {
        match self {
            Self::Spread { namespace, .. } => Some(std::slice::from_ref(namespace)),
            Self::Terms(scopes) => scopes
                .iter()
                .find(|scope| scope.namespace_selector.is_none())
                .map(|scope| scope.namespaces.as_slice()),
            Self::Set(_) => None,
        }
    }

    fn contains(&self, pod: &PodInfo, namespaces: &Namespaces) -> bool {
        match self {
            Self::Set(set) => !pod.deleting && pod.set.as_ref() == Some(set),
            Self::Spread { namespace, selector } => {
                !pod.deleting && pod.namespace == *namespace && selector.matches(Some(&pod.labels))
            }
            Self::Terms(scopes) => scopes.iter().all(|scope| scope.contains(pod, namespaces)),
        }
    }

    /// Whether a change of a namespace's labels can change which pods these are.
    fn selects_namespaces(&self) -> bool {
        let selects = |scope: &Scope| scope.namespace_selector.is_some();
        matches!(self, Self::Terms(scopes) if scopes.iter().any(selects))
    }
}

/// A group's index, valid during the cycle in which it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupId(usize);

#[derive(Debug)]
struct Group {
    key: GroupKey,
    counts: ByNode,
    used: u64,
}

/// All groups.
#[derive(Debug, Default)]
pub struct Groups {
    slots: Vec<Option<Group>>,
    by_key: HashMap<GroupKey, usize>,
    by_namespace: HashMap<String, Vec<usize>>,
    by_set: HashMap<String, usize>,
    /// Groups whose namespaces are selected by label.
    anywhere: Vec<usize>,
    turn: u64,
}

impl Groups {
    /// Begins a cycle: the groups that are asked for from now on are not forgotten in it.
    pub fn begin(&mut self) {
        self.turn += 1;
        while self.by_key.len() >= GROUPS_MAX {
            let used = |index: &&usize| self.slots[**index].as_ref().map(|group| group.used);
            let Some(oldest) = self.by_key.values().min_by_key(used).copied() else {
                return;
            };
            self.forget(oldest);
        }
    }

    /// The group, counted over `pods` if it is new.
    pub fn ask<'a>(
        &mut self,
        key: GroupKey,
        namespaces: &Namespaces,
        pods: impl FnOnce(Option<&[String]>) -> Vec<(NodeIndex, &'a PodInfo)>,
    ) -> GroupId {
        if let Some(index) = self.by_key.get(&key).copied() {
            if let Some(group) = &mut self.slots[index] {
                group.used = self.turn;
            }
            return GroupId(index);
        }
        let mut counts = ByNode::new();
        for (node, pod) in pods(key.namespaces()) {
            if key.contains(pod, namespaces) {
                *counts.entry(node).or_default() += 1;
            }
        }
        let index = self.slots.iter().position(Option::is_none).unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        match (&key, key.namespaces()) {
            (GroupKey::Set(set), _) => {
                self.by_set.insert(set.clone(), index);
            }
            (_, Some(named)) => {
                for namespace in named {
                    let indices = self.by_namespace.entry(namespace.clone()).or_default();
                    if !indices.contains(&index) {
                        indices.push(index);
                    }
                }
            }
            (_, None) => self.anywhere.push(index),
        }
        self.by_key.insert(key.clone(), index);
        self.slots[index] = Some(Group { key, counts, used: self.turn });
        GroupId(index)
    }

    pub fn counts(&self, id: GroupId) -> &ByNode {
        let group = self.slots[id.0].as_ref();
        &group.expect("a group is not forgotten in the cycle that asked for it").counts
    }

    /// Adjusts the groups of a pod that was placed (1) or removed (-1).
    pub fn count(&mut self, pod: &PodInfo, node: NodeIndex, sign: i64, namespaces: &Namespaces) {
        let Self { slots, by_namespace, by_set, anywhere, .. } = self;
        let of_set = pod.set.as_ref().and_then(|set| by_set.get(set)).into_iter();
        let of_namespace = by_namespace.get(&pod.namespace).into_iter().flatten();
        for index in of_set.chain(of_namespace).chain(anywhere.iter()) {
            if let Some(group) = &mut slots[*index]
                && group.key.contains(pod, namespaces)
            {
                add(&mut group.counts, node, sign);
            }
        }
    }

    /// Forgets the groups that depend on the labels of namespaces.
    pub fn namespaces_changed(&mut self) {
        for index in 0..self.slots.len() {
            let group = self.slots[index].as_ref();
            if group.is_some_and(|group| group.key.selects_namespaces()) {
                self.forget(index);
            }
        }
    }

    fn forget(&mut self, index: usize) {
        let Some(group) = self.slots[index].take() else {
            return;
        };
        self.by_key.remove(&group.key);
        match (&group.key, group.key.namespaces()) {
            (GroupKey::Set(set), _) => {
                self.by_set.remove(set);
            }
            (_, Some(named)) => {
                for namespace in named {
                    if let Some(indices) = self.by_namespace.get_mut(namespace) {
                        indices.retain(|known| *known != index);
                        if indices.is_empty() {
                            self.by_namespace.remove(namespace);
                        }
                    }
                }
            }
            (_, None) => self.anywhere.retain(|known| *known != index),
        }
    }
}

/// The affinity terms of placed pods: equal terms are one entry, with an amount for each node.
#[derive(Debug, Default)]
pub struct PlacedTerms(HashMap<PodTerm, ByNode>);

impl PlacedTerms {
    pub fn add(&mut self, term: &PodTerm, node: NodeIndex, amount: i64) {
        if let Some(amounts) = self.0.get_mut(term) {
            add(amounts, node, amount);
            if amounts.is_empty() {
                self.0.remove(term);
            }
        } else if amount != 0 {
            self.0.insert(term.clone(), [(node, amount)].into());
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&PodTerm, &ByNode)> {
        self.0.iter()
    }
}

pub(super) fn add(counts: &mut ByNode, node: NodeIndex, amount: i64) {
    let count = counts.entry(node).or_default();
    *count += amount;
    if *count == 0 {
        counts.remove(&node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_groups_are_kept_than_the_bound() {
        let mut groups = Groups::default();
        let namespaces = Namespaces::new();
        let ask = |groups: &mut Groups, set: String| {
            groups.ask(GroupKey::Set(set), &namespaces, |_| Vec::new());
        };
        for number in 0..2 * GROUPS_MAX {
            groups.begin();
            ask(&mut groups, number.to_string());
            // One that is asked for again and again stays.
            ask(&mut groups, "0".to_owned());
        }
        groups.begin();
        assert!(groups.by_key.len() < GROUPS_MAX, "{}", groups.by_key.len());
        assert!(groups.slots.len() <= GROUPS_MAX + 1, "{}", groups.slots.len());
        assert!(groups.by_key.contains_key(&GroupKey::Set("0".to_owned())));
        assert_eq!(groups.by_set.len(), groups.by_key.len());
    }
}
