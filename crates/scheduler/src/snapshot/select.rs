//! Node selectors as operations on sets of nodes.

use api::labels::Requirement;
use roaring::RoaringBitmap;

use super::Snapshot;
use crate::pod::NodeTerm;

impl Snapshot {
    /// Nodes that have the label key.
    pub fn with_label(&self, key: &str) -> RoaringBitmap {
        self.label(key).map(|column| column.labelled().clone()).unwrap_or_default()
    }

    /// Nodes whose labels satisfy one requirement.
    pub fn matching(&self, requirement: &Requirement) -> RoaringBitmap {
        let any_of = |key: &str, values: &[String]| {
            let column = self.label(key);
            values
                .iter()
                .filter_map(|value| column?.with_value(value))
                .fold(RoaringBitmap::new(), |all, nodes| all | nodes)
        };
        let numbers = |key: &str, wanted: &dyn Fn(i64) -> bool| {
            let domains = self.label(key).map(|column| column.domains()).unwrap_or_default();
            domains
                .iter()
                .filter(|domain| domain.value.parse().is_ok_and(wanted))
                .fold(RoaringBitmap::new(), |all, domain| all | &domain.nodes)
        };
        match requirement {
            Requirement::In(key, values) => any_of(key, values),
            Requirement::NotIn(key, values) => self.nodes() - any_of(key, values),
            Requirement::Exists(key) => self.with_label(key),
            Requirement::NotExists(key) => self.nodes() - self.with_label(key),
            Requirement::Greater(key, bound) => numbers(key, &|value| value > *bound),
            Requirement::Less(key, bound) => numbers(key, &|value| value < *bound),
        }
    }

    /// Nodes that match a term; an empty term matches none.
    pub fn matching_term(&self, term: &NodeTerm) -> RoaringBitmap {
        if term.labels.is_empty() && term.names.is_empty() {
            return RoaringBitmap::new();
        }
        let mut nodes = match term.names.first() {
            Some(requirement) => self.named(requirement),
            None => self.nodes().clone(),
        };
        for requirement in term.names.iter().skip(1) {
            nodes &= self.named(requirement);
        }
        for requirement in &term.labels {
            nodes &= self.matching(requirement);
        }
        nodes
    }

    /// Nodes that match one of the terms.
    pub fn matching_any(&self, terms: &[NodeTerm]) -> RoaringBitmap {
        terms.iter().fold(RoaringBitmap::new(), |all, term| all | self.matching_term(term))
    }

    fn named(&self, requirement: &Requirement) -> RoaringBitmap {
        let by_names = |names: &[String]| names.iter().filter_map(|name| self.node(name)).collect();
        match requirement {
            Requirement::In(_, names) => by_names(names),
            Requirement::NotIn(_, names) => self.nodes() - &by_names(names),
            _ => RoaringBitmap::new(),
        }
    }
}
