//! Defaults and nulls (`k8s.io/apiextensions-apiserver`, `schema/defaulting`).

use serde_json::Value;

use super::node::Node;
use super::prune::META_FIELDS;

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
