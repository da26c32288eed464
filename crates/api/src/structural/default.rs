//! Defaults and nulls (`k8s.io/apiextensions-apiserver`, `schema/defaulting`).

use serde_json::{Map, Value};

use super::node::Node;
use super::prune::META_FIELDS;

/// Bytes of all defaults that one object gets: as many as the largest request has. Each element of a
/// list may get its own, however small it is itself.
pub const BYTES_MAX: usize = 3 << 20;

/// The defaults of an object are too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the defaults of its schema have more than {BYTES_MAX} bytes")]
pub struct TooLarge;

/// Whether the defaults that an object does not have yet are too large. `resource` as in [`default`].
///
/// # Errors
/// When they are.
pub fn check(value: &Value, node: &Node, resource: bool) -> Result<(), TooLarge> {
    let mut left = BYTES_MAX;
    match value {
        Value::Object(map) => {
            let own = |name: &str| !resource || !META_FIELDS.contains(&name);
            count_members(map, node, own, &mut left)
        }
        other => count(other, node, &mut left),
    }
}

/// Counts the defaults that [`set`] would add.
fn count(value: &Value, node: &Node, left: &mut usize) -> Result<(), TooLarge> {
    match value {
        Value::Object(map) => count_members(map, node, |_| true, left),
        Value::Array(list) => {
            let items = node.items.as_deref();
            let mut elements =
                items.into_iter().flat_map(|items| list.iter().map(move |e| (e, items)));
            elements.try_for_each(|(element, items)| count_element(element, items, left))
        }
        _ => Ok(()),
    }
}

fn count_members(
    map: &Map<String, Value>,
    node: &Node,
    own: impl Fn(&str) -> bool,
    left: &mut usize,
) -> Result<(), TooLarge> {
    for (name, property) in node.properties().filter(|(name, _)| own(name)) {
        let member = map.get(name).filter(|member| !member.is_null() || property.nullable);
        match (member, &property.default) {
            (Some(member), _) => count(member, property, left)?,
            (None, Some(default)) => count_default(default, property, left)?,
            (None, None) => {}
        }
    }
    if let Some(schema) = node.additional_schema() {
        for (_, member) in map.iter().filter(|(name, _)| node.property(name).is_none()) {
            count_element(member, schema, left)?;
        }
    }
    Ok(())
}

fn count_element(value: &Value, schema: &Node, left: &mut usize) -> Result<(), TooLarge> {
    match &schema.default {
        Some(default) if value.is_null() && !schema.nullable => {
            count_default(default, schema, left)
        }
        _ => count(value, schema, left),
    }
}

fn count_default(default: &Value, node: &Node, left: &mut usize) -> Result<(), TooLarge> {
    *left = left.checked_sub(bytes(default)).ok_or(TooLarge)?;
    count(default, node, left)
}

/// About how many bytes a value has as JSON.
fn bytes(value: &Value) -> usize {
    2 + match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(bytes).sum(),
        Value::Object(map) => map.iter().map(|(name, value)| name.len() + 3 + bytes(value)).sum(),
        _ => 4,
    }
}

/// Removes nulls that a schema does not allow and has no default for, then sets defaults; whether
/// anything changed. `resource`: the value is a whole object, whose metadata is left alone.
pub fn default(value: &mut Value, node: &Node, resource: bool) -> bool {
    let Value::Object(map) = value else {
        let removed = remove_nulls(value, Some(node));
        return set(value, node) || removed;
    };
    let kept: Vec<(String, Value)> = META_FIELDS
        .iter()
        .filter(|_| resource)
        .filter_map(|name| map.remove_entry(*name))
        .collect();
    let removed = remove_nulls(value, Some(node));
    let changed = set(value, node) || removed;
    let Value::Object(map) = value else {
        return changed;
    };
    if resource {
        META_FIELDS.iter().for_each(|name| {
            map.remove(*name);
        });
    }
    map.extend(kept);
    changed
}

fn remove_nulls(value: &mut Value, node: Option<&Node>) -> bool {
    let mut changed = false;
    match value {
        Value::Object(map) => map.retain(|name, member| {
            let schema = node.and_then(|node| node.member(name));
            let removed = member.is_null()
                && schema.is_some_and(|schema| !schema.nullable && schema.default.is_none());
            changed |= removed || remove_nulls(member, schema);
            !removed
        }),
        Value::Array(list) => {
            let items = node.and_then(|node| node.items.as_deref());
            for element in list {
                changed |= remove_nulls(element, items);
            }
        }
        _ => {}
    }
    changed
}

fn set(value: &mut Value, node: &Node) -> bool {
    let mut changed = false;
    match value {
        Value::Object(map) => {
            for (name, property) in node.properties() {
                let Some(default) = &property.default else {
                    continue;
                };
                let missing =
                    map.get(name).is_none_or(|member| member.is_null() && !property.nullable);
                if missing {
                    map.insert(name.to_owned(), (**default).clone());
                    changed = true;
                }
            }
            for (name, member) in map.iter_mut() {
                if let Some(property) = node.property(name) {
                    changed |= set(member, property);
                } else if let Some(schema) = node.additional_schema() {
                    changed |= set_null(member, schema);
                    changed |= set(member, schema);
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = node.items.as_deref() else {
                return false;
            };
            for element in list {
                changed |= set_null(element, items);
                changed |= set(element, items);
            }
        }
        _ => {}
    }
    changed
}

/// Replaces a null that is not allowed by the default, if there is one.
fn set_null(value: &mut Value, schema: &Node) -> bool {
    match &schema.default {
        Some(default) if value.is_null() && !schema.nullable => {
            *value = (**default).clone();
            true
        }
        _ => false,
    }
}
