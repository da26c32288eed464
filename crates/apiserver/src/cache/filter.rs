//! What a list or watch is restricted to.

use api::{KindRef, fields, labels};

use super::Version;
use super::resource::{NODE_FIELD, WatchScope};
use crate::request::object_key;

/// Namespace and selectors together.
#[derive(Clone, Debug)]
pub struct Filter {
    pub row: KindRef,
    /// Empty: all.
    pub namespace: String,
    pub labels: labels::Selector,
    pub fields: fields::Selector,
    /// Fields of a custom resource that have their values only once an object has been converted
    /// to the version of the request.
    pub converted: fields::Selector,
}

impl Filter {
    /// Everything of a resource, or of one of its namespaces.
    pub fn everything(row: impl Into<KindRef>, namespace: &str) -> Self {
        Self {
            row: row.into(),
            namespace: namespace.to_owned(),
            labels: labels::Selector::everything(),
            fields: fields::Selector::default(),
            converted: fields::Selector::default(),
        }
    }

    /// One object, by name.
    pub fn one(row: impl Into<KindRef>, namespace: &str, name: &str) -> Self {
        let mut filter = Self::everything(row, namespace);
        filter.fields.0.push(fields::Requirement {
            field: "metadata.name".to_owned(),
            value: name.to_owned(),
            equal: true,
        });
        filter
    }

    /// The same, with the fields that other versions than the stored one may have otherwise put
    /// aside until objects are converted.
    pub fn converting(mut self) -> Self {
        if self.row.custom.is_none() || !self.row.reads_converted() {
            return self;
        }
        let (own, converted) =
            self.fields.0.into_iter().partition(|one| one.field.starts_with("metadata."));
        self.fields = fields::Selector(own);
        self.converted = fields::Selector(converted);
        self
    }

    /// Whether objects have to be converted before it is known what matches.
    pub fn converts(&self) -> bool {
        !self.converted.is_everything()
    }

    /// Whether an object matches that is in the version of the request.
    pub fn matches_converted(&self, version: &Version) -> bool {
        self.matches(version)
            && (!self.converts() || self.converted.matches(|field| version.field(&self.row, field)))
    }

    /// Whether an object matches, as far as that can be said of what is stored.
    pub fn matches(&self, version: &Version) -> bool {
        (self.namespace.is_empty() || *self.namespace == *version.namespace)
            && (self.labels.is_everything() || self.labels.matches(version.labels.as_ref()))
            && (self.fields.is_everything()
                || self.fields.matches(|field| version.field(&self.row, field)))
    }

    /// Whether anything but the namespace is selected by.
    pub fn selects(&self) -> bool {
        !self.labels.is_everything() || !self.fields.is_everything() || self.converts()
    }

    /// The narrowest bucket of events that contains everything the filter matches.
    pub fn scope(&self) -> WatchScope {
        let name = self.fields.exact("metadata.name");
        if let Some(name) = name
            && (!self.row.namespaced() || !self.namespace.is_empty())
        {
            return WatchScope::Object(object_key(&self.row, &self.namespace, name));
        }
        match self.fields.exact(NODE_FIELD).filter(|node| !node.is_empty()) {
            Some(node) => WatchScope::Node(node.to_owned()),
            None if self.namespace.is_empty() => WatchScope::All,
            None => WatchScope::Namespace(self.namespace.clone()),
        }
    }
}
