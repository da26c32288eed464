//! Merging, comparing and pruning of values by their schema.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use super::FieldSchema;
use super::fields::Set;
use crate::schema::List;

/// The edge that identifies a list element; `None` for lists that are owned as a whole.
fn edge(element: &Value, schema: FieldSchema) -> Option<String> {
    match schema.list {
        List::Atomic => None,
        List::Set => Some(format!("v:{element}")),
        List::Map(keys) => {
            let mut values = BTreeMap::new();
            for key in keys {
                let default =
                    || schema.element().fields?.iter().find(|field| field.name == *key)?.default;
                let value = match element.get(key) {
                    Some(value) if !value.is_null() => value.clone(),
                    _ => default()
                        .and_then(|json| serde_json::from_str(json).ok())
                        .unwrap_or_default(),
                };
                values.insert(*key, value);
            }
            let text: Vec<String> =
                values.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            Some(format!("k:{{{}}}", text.join(",")))
        }
    }
}

/// The edges of a list whose elements all have one, without duplicates.
fn edges(list: &[Value], schema: FieldSchema) -> Option<Vec<String>> {
    let edges: Option<Vec<String>> = list.iter().map(|element| edge(element, schema)).collect();
    edges.filter(|edges| {
        edges.iter().collect::<std::collections::BTreeSet<_>>().len() == edges.len()
    })
}

fn granular(value: &Value, schema: FieldSchema) -> bool {
    match value {
        Value::Object(map) => !schema.atomic && !map.is_empty(),
        Value::Array(list) => !list.is_empty() && edges(list, schema).is_some(),
        _ => false,
    }
}

/// The fields that a configuration sets.
pub(super) fn set_of(value: &Value, schema: FieldSchema) -> Set {
    let mut set = Set::default();
    match value {
        Value::Object(map) => {
            for (name, value) in map.iter().filter(|(_, value)| !value.is_null()) {
                add(&mut set, format!("f:{name}"), value, schema.child(name), schema.is_map());
            }
        }
        Value::Array(list) => {
            for (element, edge) in list.iter().zip(edges(list, schema).unwrap_or_default()) {
                add(&mut set, edge, element, schema.element(), true);
            }
        }
        _ => {}
    }
    set
}

/// `whole`: the path itself is owned even if there is something below it.
fn add(set: &mut Set, edge: String, value: &Value, schema: FieldSchema, whole: bool) {
    let below = if granular(value, schema) { set_of(value, schema) } else { Set::default() };
    if whole || below.is_empty() {
        set.insert(edge.clone());
    }
    set.insert_below(edge, below);
}

/// Merges `config` into `live`.
pub(super) fn merge(live: &Value, config: &Value, schema: FieldSchema) -> Value {
    match (live, config) {
        (Value::Object(live), Value::Object(config)) if !schema.atomic => {
            let mut merged = live.clone();
            for (name, value) in config.iter().filter(|(_, value)| !value.is_null()) {
                let value = match live.get(name) {
                    Some(old) => merge(old, value, schema.child(name)),
                    None => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Value::Array(live), Value::Array(config)) => {
            match (edges(live, schema), edges(config, schema)) {
                (Some(old), Some(new)) => {
                    Value::Array(merge_lists((live, &old), (config, &new), schema))
                }
                _ => Value::Array(config.clone()),
            }
        }
        _ => config.clone(),
    }
}

/// Elements of the configuration in its order; elements that only the live list has stay before
/// what followed them.
fn merge_lists(
    live: (&[Value], &[String]),
    config: (&[Value], &[String]),
    schema: FieldSchema,
) -> Vec<Value> {
    let positions = |edges: &'_ [String]| -> HashMap<String, usize> {
        let all = edges.iter().cloned().enumerate();
        all.map(|(at, edge)| (edge, at)).collect()
    };
    let (in_live, in_config) = (positions(live.1), positions(config.1));
    let mut merged = Vec::new();
    let (mut left, mut right) = (0, 0);
    while left < live.0.len() || right < config.0.len() {
        if left < live.0.len() {
            match in_config.get(&live.1[left]).copied() {
                None => {
                    merged.push(live.0[left].clone());
                    left += 1;
                    continue;
                }
                // Merged already, in the configuration's order.
                Some(at) if at < right => {
                    left += 1;
                    continue;
                }
                Some(_) => {}
            }
        }
        if right >= config.0.len() {
            break;
        }
        let old = in_live.get(&config.1[right]).copied();
        merged.push(match old {
            Some(old) => merge(&live.0[old], &config.0[right], schema.element()),
            None => config.0[right].clone(),
        });
        right += 1;
    }
    merged
}

/// What was changed or added in `new`, and what was removed from `old`.
pub(super) fn compare(old: &Value, new: &Value, schema: FieldSchema) -> (Set, Set) {
    let (mut changed, mut removed) = (Set::default(), Set::default());
    let entries = |value: &Value| -> Vec<(String, Value, FieldSchema)> {
        match value {
            Value::Object(map) => map
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (format!("f:{name}"), value.clone(), schema.child(name)))
                .collect(),
            Value::Array(list) => {
                let edges = edges(list, schema).unwrap_or_default();
                edges
                    .into_iter()
                    .zip(list)
                    .map(|(edge, value)| (edge, value.clone(), schema.element()))
                    .collect()
            }
            _ => Vec::new(),
        }
    };
    let whole = matches!(new, Value::Array(_)) || schema.is_map();
    let (before, after) = (entries(old), entries(new));
    let index: BTreeMap<&str, &Value> =
        before.iter().map(|(edge, value, _)| (edge.as_str(), value)).collect();
    for (edge, value, child) in &after {
        match index.get(edge.as_str()) {
            None => add(&mut changed, edge.clone(), value, *child, whole),
            Some(old) if *old == value => {}
            Some(old) if granular(old, *child) && granular(value, *child) => {
                let (below_changed, below_removed) = compare(old, value, *child);
                changed.insert_below(edge.clone(), below_changed);
                removed.insert_below(edge.clone(), below_removed);
            }
            Some(old) => {
                let mut was = Set::default();
                add(&mut was, edge.clone(), old, *child, whole);
                let mut is = Set::default();
                add(&mut is, edge.clone(), value, *child, whole);
                removed = removed.union(&was.difference(&is));
                changed = changed.union(&is);
            }
        }
    }
    for (edge, value, child) in &before {
        if !after.iter().any(|(other, _, _)| other == edge) {
            add(&mut removed, edge.clone(), value, *child, whole);
        }
    }
    (changed, removed)
}

/// Removes the paths of a set from a value.
pub(super) fn remove(value: &mut Value, set: &Set, schema: FieldSchema) {
    for (step, member, below) in set.edges() {
        match value {
            Value::Object(map) => {
                let Some(name) = step.strip_prefix("f:") else {
                    continue;
                };
                if member {
                    map.remove(name);
                } else if let Some(child) = map.get_mut(name) {
                    remove(child, below, schema.child(name));
                    if is_empty(child) {
                        map.remove(name);
                    }
                }
            }
            Value::Array(list) => {
                let at =
                    list.iter().position(|element| edge(element, schema).as_deref() == Some(step));
                let Some(at) = at else { continue };
                if member {
                    list.remove(at);
                } else {
                    remove(&mut list[at], below, schema.element());
                }
            }
            _ => {}
        }
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}
