//! Node labels in columns: for every key, the value of each node and the nodes of each value.

use std::collections::{BTreeMap, HashMap};

use roaring::RoaringBitmap;

use super::NodeIndex;

/// A value of a key: an index into [`LabelColumn::domains`].
pub type DomainIndex = u32;

const NONE: DomainIndex = DomainIndex::MAX;

/// The nodes that share a value of a key: a topology domain.
#[derive(Debug, Default)]
pub struct Domain {
    pub value: String,
    /// Empty for an index that is not in use.
    pub nodes: RoaringBitmap,
}

/// One label key over all nodes.
#[derive(Debug, Default)]
pub struct LabelColumn {
    by_node: Vec<DomainIndex>,
    by_value: HashMap<String, DomainIndex>,
    domains: Vec<Domain>,
    free: Vec<DomainIndex>,
    labelled: RoaringBitmap,
}

impl LabelColumn {
    /// The node's domain, if it has the label.
    pub fn domain_of(&self, node: NodeIndex) -> Option<DomainIndex> {
        self.by_node.get(node as usize).copied().filter(|domain| *domain != NONE)
    }

    /// By [`DomainIndex`]; some are empty.
    pub fn domains(&self) -> &[Domain] {
        &self.domains
    }

    pub fn nodes(&self, domain: DomainIndex) -> &RoaringBitmap {
        &self.domains[domain as usize].nodes
    }

    /// Nodes that have the label.
    pub fn labelled(&self) -> &RoaringBitmap {
        &self.labelled
    }

    pub fn with_value(&self, value: &str) -> Option<&RoaringBitmap> {
        self.by_value.get(value).map(|domain| self.nodes(*domain))
    }

    fn insert(&mut self, node: NodeIndex, value: &str) {
        let domain = match self.by_value.get(value) {
            Some(domain) => *domain,
            None => {
                let domain = self.free.pop().unwrap_or_else(|| {
                    self.domains.push(Domain::default());
                    DomainIndex::try_from(self.domains.len() - 1).expect("fewer than 2^32 nodes")
                });
                self.domains[domain as usize].value = value.to_owned();
                self.by_value.insert(value.to_owned(), domain);
                domain
            }
        };
        let slot = node as usize;
        if self.by_node.len() <= slot {
            self.by_node.resize(slot + 1, NONE);
        }
        self.by_node[slot] = domain;
        self.domains[domain as usize].nodes.insert(node);
        self.labelled.insert(node);
    }

    fn remove(&mut self, node: NodeIndex) {
        let Some(domain) = self.domain_of(node) else {
            return;
        };
        self.by_node[node as usize] = NONE;
        self.labelled.remove(node);
        let held = &mut self.domains[domain as usize];
        held.nodes.remove(node);
        if held.nodes.is_empty() {
            self.by_value.remove(&std::mem::take(&mut held.value));
            self.free.push(domain);
        }
    }
}

/// Every key that a node has.
#[derive(Debug, Default)]
pub struct Labels(HashMap<String, LabelColumn>);

impl Labels {
    pub fn column(&self, key: &str) -> Option<&LabelColumn> {
        self.0.get(key)
    }

    pub fn insert(&mut self, node: NodeIndex, labels: &BTreeMap<String, String>) {
        for (key, value) in labels {
            self.0.entry(key.clone()).or_default().insert(node, value);
        }
    }

    pub fn remove(&mut self, node: NodeIndex, labels: &BTreeMap<String, String>) {
        for key in labels.keys() {
            if let Some(column) = self.0.get_mut(key) {
                column.remove(node);
                if column.labelled.is_empty() {
                    self.0.remove(key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(value: &str) -> BTreeMap<String, String> {
        [("zone".to_owned(), value.to_owned())].into()
    }

    #[test]
    fn domains_are_reused_and_columns_removed() {
        let mut all = Labels::default();
        all.insert(0, &labels("a"));
        all.insert(7, &labels("b"));
        all.insert(3, &labels("a"));
        let column = all.column("zone").unwrap();
        assert_eq!(column.with_value("a").unwrap().iter().collect::<Vec<_>>(), [0, 3]);
        assert_eq!(column.domain_of(7), Some(1));
        assert_eq!(column.domain_of(1), None);
        all.remove(7, &labels("b"));
        all.insert(1, &labels("c"));
        let column = all.column("zone").unwrap();
        assert_eq!(column.domain_of(1), Some(1), "the index of b is free");
        assert!(column.with_value("b").is_none());
        for (node, value) in [(0, "a"), (3, "a"), (1, "c")] {
            all.remove(node, &labels(value));
        }
        assert!(all.column("zone").is_none());
    }
}
