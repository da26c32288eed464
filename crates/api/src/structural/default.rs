//! Defaults and nulls (`k8s.io/apiextensions-apiserver`, `schema/defaulting`).

use serde_json::Value;

use super::node::Node;
use super::prune::META_FIELDS;

/// Removes nulls that a schema does not allow and has no default for, then sets defaults.
/// `resource`: the value is a whole object, whose metadata is left alone.
pub fn default(value: &mut Value, node: &Node, resource: bool) {
    let Value::Object(map) = value else {
        remove_nulls(value, Some(node));
        return set(value, node);
    };
    let kept: Vec<(String, Value)> = META_FIELDS
        .iter()
        .filter(|_| resource)
        .filter_map(|name| map.remove_entry(*name))
        .collect();
    remove_nulls(value, Some(node));
    set(value, node);
    let Value::Object(map) = value else {
        return;
    };
    if resource {
        META_FIELDS.iter().for_each(|name| {
            map.remove(*name);
        });
    }
    map.extend(kept);
}

fn remove_nulls(value: &mut Value, node: Option<&Node>) {
    match value {
        Value::Object(map) => map.retain(|name, member| {
            let schema = node.and_then(|node| node.member(name));
            let removed = member.is_null()
                && schema.is_some_and(|schema| !schema.nullable && schema.default.is_none());
            if !removed {
                remove_nulls(member, schema);
            }
            !removed
        }),
        Value::Array(list) => {
            let items = node.and_then(|node| node.items.as_deref());
            list.iter_mut().for_each(|element| remove_nulls(element, items));
        }
        _ => {}
    }
}

fn set(value: &mut Value, node: &Node) {
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
                }
            }
            for (name, member) in map.iter_mut() {
                if let Some(property) = node.property(name) {
                    set(member, property);
                } else if let Some(schema) = node.additional_schema() {
                    set_null(member, schema);
                    set(member, schema);
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = node.items.as_deref() else {
                return;
            };
            for element in list {
                set_null(element, items);
                set(element, items);
            }
        }
        _ => {}
    }
}

/// Replaces a null that is not allowed by the default, if there is one.
fn set_null(value: &mut Value, schema: &Node) {
    if value.is_null()
        && !schema.nullable
        && let Some(default) = &schema.default
    {
        *value = (**default).clone();
    }
}
