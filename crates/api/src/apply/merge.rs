//! Merging, comparing and pruning of values by their schema.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Map, Value};

use super::fields::{Set, step};
use super::{FieldSchema, Merge};
use crate::structural::path::Path;

/// The edge that identifies a list element; `None` for lists that are owned as a whole.
fn edge(element: &Value, schema: FieldSchema<'_>) -> Option<String> {
    match schema.list {
        Merge::Atomic => None,
        Merge::Set => Some(format!("v:{element}")),
        Merge::Map(keys) => {
            let mut values = BTreeMap::new();
            for key in keys.iter() {
                let value = match element.get(key) {
                    Some(value) if !value.is_null() => value.clone(),
                    _ => schema.element().default(key).unwrap_or_default(),
                };
                values.insert(key, value);
            }
            let text: Vec<String> =
                values.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            Some(format!("k:{{{}}}", text.join(",")))
        }
    }
}

/// The step of a path that leads to an element which has one.
pub(super) fn step_of(element: &Value, schema: FieldSchema<'_>) -> String {
    edge(element, schema).map(|edge| step(&edge)).unwrap_or_default()
}

/// The edges of a list whose elements all have one, each with its elements, in the order of the
/// first ones. Objects may have several elements with the same keys, which are owned together.
fn elements<'a>(
    list: &'a [Value],
    schema: FieldSchema<'_>,
) -> Option<Vec<(String, Vec<&'a Value>)>> {
    let mut found: Vec<(String, Vec<&Value>)> = Vec::with_capacity(list.len());
    let mut positions = HashMap::with_capacity(list.len());
    for element in list {
        let edge = edge(element, schema)?;
        match positions.get(&edge) {
            Some(at) => {
                let (_, same): &mut (String, Vec<&Value>) = &mut found[*at];
                same.push(element);
            }
            None => {
                positions.insert(edge.clone(), found.len());
                found.push((edge, vec![element]));
            }
        }
    }
    Some(found)
}

/// Where a list has several elements with the same keys: what an apply may not send.
pub(super) fn duplicate(value: &Value, schema: FieldSchema<'_>, path: &Path<'_>) -> Option<String> {
    match value {
        Value::Object(map) if !schema.atomic => map
            .iter()
            .find_map(|(name, value)| duplicate(value, schema.child(name), &path.field(name))),
        Value::Array(list) => elements(list, schema)?.into_iter().find_map(|(edge, same)| {
            let step = step(&edge);
            match same.as_slice() {
                [only] => duplicate(only, schema.element(), &path.element(&step)),
                _ => Some(format!(".{path}: duplicate entries for key {step}")),
            }
        }),
        _ => None,
    }
}

fn granular(value: &Value, schema: FieldSchema<'_>) -> bool {
    match value {
        Value::Object(map) => !schema.atomic && !map.is_empty(),
        Value::Array(list) => !list.is_empty() && schema.list != Merge::Atomic,
        _ => false,
    }
}

/// The fields that a configuration sets.
pub(super) fn set_of(value: &Value, schema: FieldSchema<'_>) -> Set {
    let mut set = Set::default();
    match value {
        Value::Object(map) => {
            for (name, value) in map.iter().filter(|(_, value)| !value.is_null()) {
                add(&mut set, format!("f:{name}"), value, schema.child(name), schema.is_map());
            }
        }
        Value::Array(list) => {
            for (edge, same) in elements(list, schema).unwrap_or_default() {
                match same.as_slice() {
                    [only] => add(&mut set, edge, only, schema.element(), true),
                    _ => set.insert(edge),
                }
            }
        }
        _ => {}
    }
    set
}

/// `whole`: the path itself is owned even if there is something below it.
fn add(set: &mut Set, edge: String, value: &Value, schema: FieldSchema<'_>, whole: bool) {
    let below = if granular(value, schema) { set_of(value, schema) } else { Set::default() };
    if whole || below.is_empty() {
        set.insert(edge.clone());
    }
    set.insert_below(edge, below);
}

/// A member that an object gained or lost: unlike what is applied, lists and objects themselves
/// are part of it. `within`: the object that it is a member of was there before and after.
fn add_whole(set: &mut Set, member: &Member<'_>, within: bool) {
    let [only] = member.values.as_slice() else {
        return set.insert(member.edge.clone());
    };
    let stays = within && member.schema.always;
    let mut below = Set::default();
    if granular(only, member.schema) {
        for inner in members(only, member.schema) {
            add_whole(&mut below, &inner, stays);
        }
    } else if stays && is_empty(only) {
        return;
    }
    if !stays || below.is_empty() {
        set.insert(member.edge.clone());
    }
    set.insert_below(member.edge.clone(), below);
}

/// Merges `config` into `live`.
pub(super) fn merge(live: &Value, config: &Value, schema: FieldSchema<'_>) -> Value {
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
            match (elements(live, schema), elements(config, schema)) {
                (Some(old), Some(new)) => Value::Array(merge_lists(&old, &new, schema)),
                _ => Value::Array(config.clone()),
            }
        }
        _ => config.clone(),
    }
}

/// Elements by their edges.
type Elements<'a> = [(String, Vec<&'a Value>)];

/// Elements of the configuration in its order; elements that only the live list has stay before
/// what followed them.
fn merge_lists(live: &Elements<'_>, config: &Elements<'_>, schema: FieldSchema<'_>) -> Vec<Value> {
    fn positions<'a>(elements: &'a Elements<'_>) -> HashMap<&'a str, usize> {
        elements.iter().enumerate().map(|(at, (edge, _))| (edge.as_str(), at)).collect()
    }
    let (in_live, in_config) = (positions(live), positions(config));
    let mut merged = Vec::new();
    let (mut left, mut right) = (0, 0);
    while left < live.len() || right < config.len() {
        if let Some((edge, same)) = live.get(left) {
            match in_config.get(edge.as_str()).copied() {
                None => {
                    merged.extend(same.iter().copied().cloned());
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
        let Some((edge, wanted)) = config.get(right) else {
            break;
        };
        let old = in_live.get(edge.as_str()).map(|at| live[*at].1.as_slice());
        match (old, wanted.as_slice()) {
            (Some([old]), [wanted]) => merged.push(merge(old, wanted, schema.element())),
            (_, wanted) => merged.extend(wanted.iter().copied().cloned()),
        }
        right += 1;
    }
    merged
}

/// A member of a value: of a list, all elements with the same keys.
struct Member<'a> {
    edge: String,
    values: Vec<&'a Value>,
    schema: FieldSchema<'a>,
}

fn members<'a>(value: &'a Value, schema: FieldSchema<'a>) -> Vec<Member<'a>> {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| Member {
                edge: format!("f:{name}"),
                values: vec![value],
                schema: schema.child(name),
            })
            .collect(),
        Value::Array(list) => elements(list, schema)
            .unwrap_or_default()
            .into_iter()
            .map(|(edge, values)| Member { edge, values, schema: schema.element() })
            .collect(),
        _ => Vec::new(),
    }
}

impl Member<'_> {
    /// The paths of the member and of what is below it.
    fn set(&self, whole: bool) -> Set {
        let mut set = Set::default();
        match self.values.as_slice() {
            [only] => add(&mut set, self.edge.clone(), only, self.schema, whole),
            _ => set.insert(self.edge.clone()),
        }
        set
    }

    /// The value that can be compared field by field.
    fn granular(&self) -> Option<&Value> {
        match self.values.as_slice() {
            [only] if granular(only, self.schema) => Some(only),
            _ => None,
        }
    }
}

/// What was changed or added in `new`, and what was removed from `old`.
pub(super) fn compare(old: &Value, new: &Value, schema: FieldSchema<'_>) -> (Set, Set) {
    let (mut changed, mut removed) = (Set::default(), Set::default());
    let whole = matches!(new, Value::Array(_)) || schema.is_map();
    let (before, after) = (members(old, schema), members(new, schema));
    let index: HashMap<&str, &Member<'_>> =
        before.iter().map(|member| (member.edge.as_str(), member)).collect();
    for member in &after {
        let Some(was) = index.get(member.edge.as_str()) else {
            add_whole(&mut changed, member, true);
            continue;
        };
        if was.values == member.values {
            continue;
        }
        if let (Some(old), Some(new)) = (was.granular(), member.granular()) {
            let (below_changed, below_removed) = compare(old, new, member.schema);
            changed.insert_below(member.edge.clone(), below_changed);
            removed.insert_below(member.edge.clone(), below_removed);
        } else {
            let is = member.set(whole);
            removed.extend(was.set(whole).difference(&is));
            changed.extend(is);
        }
    }
    let kept: HashSet<&str> = after.iter().map(|member| member.edge.as_str()).collect();
    for member in before.iter().filter(|member| !kept.contains(member.edge.as_str())) {
        add_whole(&mut removed, member, true);
    }
    (changed, removed)
}

/// Removes the paths of a set from a value.
pub(super) fn remove(value: &mut Value, set: &Set, schema: FieldSchema<'_>) {
    match value {
        Value::Object(map) => {
            for (step, member, below) in set.edges() {
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
        }
        Value::Array(list) => {
            let edges: HashMap<&str, (bool, &Set)> =
                set.edges().map(|(edge, member, below)| (edge, (member, below))).collect();
            list.retain_mut(|element| {
                let edge = edge(element, schema).unwrap_or_default();
                match edges.get(edge.as_str()) {
                    Some((true, _)) => return false,
                    Some((false, below)) => remove(element, below, schema.element()),
                    None => {}
                }
                true
            });
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}
