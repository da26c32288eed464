//! Removal of fields that a schema does not have (`k8s.io/apiextensions-apiserver`, `schema/pruning`
//! and `schema/objectmeta`).

use std::fmt::Write;

use serde_json::Value;

use super::node::{Additional, Node};
use crate::schema::{self, Ty, TypeRow};

/// Bytes of paths after which further ones are not recorded.
const RECORDED_MAX: usize = 1 << 20;

/// Fields that every object has, whatever its schema says.
pub const META_FIELDS: &[&str] = &["apiVersion", "kind", "metadata"];

/// What pruning has done.
pub struct Pruned {
    /// The paths of what was removed.
    pub unknown: Vec<String>,
    pub changed: bool,
}

/// Prunes an object; `resource`: it is a whole object, whose [`META_FIELDS`] are known; `embedded`:
/// there may be objects in it with metadata of their own.
pub fn prune(value: &mut Value, node: &Node, resource: bool, embedded: bool) -> Pruned {
    let mut walk = Walk::default();
    walk.prune(Some(node), resource || node.embedded, value);
    walk.unknown.sort_unstable();
    if embedded {
        let mut metadata = Walk::default();
        metadata.embedded(Some(node), node.embedded, value);
        metadata.unknown.sort_unstable();
        walk.unknown.append(&mut metadata.unknown);
        walk.changed |= metadata.changed;
    }
    Pruned { unknown: walk.unknown, changed: walk.changed }
}

/// Where the walk is, and what was removed.
#[derive(Default)]
struct Walk {
    path: String,
    unknown: Vec<String>,
    recorded: usize,
    changed: bool,
}

impl Walk {
    fn record(&mut self, name: &str) {
        self.changed = true;
        if self.recorded > 0 && self.recorded + self.path.len() + name.len() > RECORDED_MAX {
            return;
        }
        let path =
            if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        self.recorded += path.len();
        self.unknown.push(path);
    }

    /// Runs `below` one field further down.
    fn at_field(&mut self, name: &str, below: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        below(self);
        self.path.truncate(length);
    }

    /// Runs `below` within brackets.
    fn at_index(&mut self, index: impl std::fmt::Display, below: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        write!(self.path, "[{index}]").expect("strings take any text");
        below(self);
        self.path.truncate(length);
    }

    fn prune(&mut self, node: Option<&Node>, embedded: bool, value: &mut Value) {
        if let Some(node) = node.filter(|node| node.preserve_unknown) {
            return self.prune_known(node, embedded, value);
        }
        match value {
            Value::Object(map) => {
                let mut unknown = Vec::new();
                for (name, member) in map.iter_mut() {
                    if embedded && META_FIELDS.contains(&name.as_str()) {
                        continue;
                    }
                    let Some(below) = node.and_then(|node| member_schema(node, name)) else {
                        unknown.push(name.clone());
                        continue;
                    };
                    self.at_field(name, |walk| {
                        walk.prune(below, below.is_some_and(|below| below.embedded), member);
                    });
                }
                for name in unknown {
                    map.remove(&name);
                    self.record(&name);
                }
            }
            Value::Array(list) => {
                let items = node.and_then(|node| node.items.as_deref());
                for (index, element) in list.iter_mut().enumerate() {
                    self.at_index(index, |walk| {
                        walk.prune(items, items.is_some_and(|items| items.embedded), element);
                    });
                }
            }
            _ => {}
        }
    }

    /// Below `x-kubernetes-preserve-unknown-fields`: only what has a schema is pruned.
    fn prune_known(&mut self, node: &Node, embedded: bool, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (name, member) in map.iter_mut() {
                    if embedded && META_FIELDS.contains(&name.as_str()) {
                        continue;
                    }
                    if let Some(below) = member_schema(node, name) {
                        self.at_field(name, |walk| {
                            walk.prune(below, below.is_some_and(|below| below.embedded), member);
                        });
                    }
                }
            }
            Value::Array(list) => {
                let Some(items) = node.items.as_deref() else {
                    return;
                };
                for (index, element) in list.iter_mut().enumerate() {
                    self.at_index(index, |walk| walk.prune_known(items, items.embedded, element));
                }
            }
            _ => {}
        }
    }

    /// Prunes the metadata of embedded objects.
    fn embedded(&mut self, node: Option<&Node>, embedded: bool, value: &mut Value) {
        let Some(node) = node else {
            return;
        };
        match value {
            Value::Object(map) => {
                if embedded && let Some(metadata) = map.get_mut("metadata") {
                    self.at_field("metadata", |walk| walk.metadata(metadata));
                }
                for (name, member) in map.iter_mut() {
                    if let Some(property) = node.property(name) {
                        self.at_field(name, |walk| {
                            walk.embedded(Some(property), property.embedded, member);
                        });
                    } else if let Some(schema) = node.additional_schema() {
                        self.at_index(name, |walk| {
                            walk.embedded(Some(schema), schema.embedded, member);
                        });
                    }
                }
            }
            Value::Array(list) => {
                let items = node.items.as_deref();
                for (index, element) in list.iter_mut().enumerate() {
                    self.at_index(index, |walk| {
                        walk.embedded(items, items.is_some_and(|items| items.embedded), element);
                    });
                }
            }
            _ => {}
        }
    }

    fn metadata(&mut self, metadata: &mut Value) {
        if let Some(row) = super::metadata::definition() {
            self.typed(metadata, row);
        }
        if let Some(map) = metadata.as_object_mut()
            && map.get("creationTimestamp").is_some_and(Value::is_null)
        {
            map.remove("creationTimestamp");
            self.changed = true;
        }
    }

    fn typed(&mut self, value: &mut Value, row: &'static TypeRow) {
        let Some(map) = value.as_object_mut() else {
            return;
        };
        let unknown: Vec<String> =
            map.keys().filter(|name| row.field(name).is_none()).cloned().collect();
        for name in unknown {
            map.remove(&name);
            self.record(&name);
        }
        for (name, member) in map.iter_mut() {
            let ty = row.field(name).map_or(schema::Ty::Any, |field| field.ty);
            match (ty, member) {
                (Ty::Ref(_), member) => {
                    if let Some(below) = ty.definition() {
                        self.at_field(name, |walk| walk.typed(member, below));
                    }
                }
                (Ty::Array(element), Value::Array(list)) => {
                    let Some(below) = element.definition() else {
                        continue;
                    };
                    for (index, element) in list.iter_mut().enumerate() {
                        self.at_field(name, |walk| {
                            walk.at_index(index, |walk| walk.typed(element, below));
                        });
                    }
                }
                _ => {}
            }
        }
    }
}

/// The schema of a member that is known: `Some(None)` below `additionalProperties: true`, where
/// upstream keeps the member but not what is in it.
pub fn member_schema<'a>(node: &'a Node, name: &str) -> Option<Option<&'a Node>> {
    if let Some(property) = node.property(name) {
        return Some(Some(property));
    }
    match &node.additional {
        Some(Additional::Schema(schema)) => Some(Some(schema)),
        Some(Additional::Allowed(_)) => Some(None),
        None => None,
    }
}
