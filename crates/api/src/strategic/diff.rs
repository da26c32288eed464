//! Computes a patch.

use serde_json::{Map, Value};

use super::{
    DELETE_PRIMITIVES, DIRECTIVE, ELEMENT_ORDER, FieldSchema, RETAIN_KEYS, identity, objects,
    position, single,
};
use crate::schema::{Patch, TypeRow};

type Object = Map<String, Value>;

static NOTHING: Value = Value::Null;

/// The patch that turns `original` into `modified`; `{}` when they are equal.
pub fn two_way(original: &Value, modified: &Value, schema: Option<&'static TypeRow>) -> Value {
    three_way(original, modified, original, schema)
}

/// The patch that changes `current` to `modified` and removes what `last_applied` has and
/// `modified` no longer has; what others set in `current` stays. `{}` if there is nothing to
/// change.
pub fn three_way(
    last_applied: &Value,
    modified: &Value,
    current: &Value,
    schema: Option<&'static TypeRow>,
) -> Value {
    let empty = Object::new();
    let object = |value: &'_ Value| value.as_object().cloned().unwrap_or_else(|| empty.clone());
    Value::Object(objects_diff(
        &object(last_applied),
        &object(modified),
        &object(current),
        FieldSchema::root(schema),
    ))
}

fn objects_diff(last: &Object, modified: &Object, current: &Object, schema: FieldSchema) -> Object {
    let mut patch = Object::new();
    for (name, wanted) in modified {
        let now = current.get(name).unwrap_or(&NOTHING);
        field(
            &mut patch,
            name,
            last.get(name).unwrap_or(&NOTHING),
            wanted,
            now,
            schema.child(name),
        );
    }
    for name in last.keys() {
        if !modified.contains_key(name) && current.contains_key(name) {
            patch.insert(name.clone(), Value::Null);
        }
    }
    if schema.patch.retains_keys() {
        let foreign = current.keys().any(|name| !modified.contains_key(name));
        let keys: Vec<Value> = modified
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, _)| name.as_str().into())
            .collect();
        if !keys.is_empty() && (!patch.is_empty() || foreign) {
            patch.insert(RETAIN_KEYS.to_owned(), keys.into());
        }
    }
    patch
}

fn field(
    patch: &mut Object,
    name: &str,
    last: &Value,
    wanted: &Value,
    now: &Value,
    schema: FieldSchema,
) {
    match (wanted, now) {
        (Value::Object(wanted), Value::Object(now)) if schema.patch != Patch::Replace => {
            let empty = Object::new();
            let changes = objects_diff(last.as_object().unwrap_or(&empty), wanted, now, schema);
            if !changes.is_empty() {
                patch.insert(name.to_owned(), changes.into());
            }
        }
        (Value::Array(wanted), Value::Array(now)) if schema.patch.merges() => {
            let empty = Vec::new();
            let last = last.as_array().unwrap_or(&empty);
            if !objects(wanted) && !objects(now) {
                primitives(patch, name, last, wanted, now);
            } else if let Some(key) =
                schema.merge_key.filter(|key| keyed(wanted, key) && keyed(now, key))
            {
                elements(patch, name, [last, wanted, now], key, schema);
            } else if wanted != now {
                patch.insert(name.to_owned(), wanted.clone().into());
            }
        }
        _ if wanted != now => {
            patch.insert(name.to_owned(), wanted.clone());
        }
        _ => {}
    }
}

/// Whether every element has the key, without duplicates.
fn keyed(list: &[Value], key: &str) -> bool {
    list.iter().enumerate().all(|(index, element)| {
        element.get(key).is_some_and(|id| position(list, id, Some(key)) == Some(index))
    })
}

fn primitives(patch: &mut Object, name: &str, last: &[Value], wanted: &[Value], now: &[Value]) {
    let added: Vec<Value> = wanted.iter().filter(|value| !now.contains(value)).cloned().collect();
    let removed: Vec<Value> = last
        .iter()
        .filter(|value| !wanted.contains(value) && now.contains(value))
        .cloned()
        .collect();
    if added.is_empty() && removed.is_empty() && !reordered(wanted, now, None) {
        return;
    }
    if !removed.is_empty() {
        patch.insert(format!("{DELETE_PRIMITIVES}{name}"), removed.into());
    }
    patch.insert(format!("{ELEMENT_ORDER}{name}"), wanted.to_vec().into());
    if !added.is_empty() {
        patch.insert(name.to_owned(), added.into());
    }
}

/// `lists` are the last applied, the modified and the current one.
fn elements(
    patch: &mut Object,
    name: &str,
    lists: [&[Value]; 3],
    key: &'static str,
    schema: FieldSchema,
) {
    let [last, wanted, now] = lists;
    let empty = Object::new();
    let find = |list: &'_ [Value], id: &Value| position(list, id, Some(key));
    let object = |list: &'_ [Value], at: Option<usize>| {
        at.and_then(|at| list[at].as_object().cloned()).unwrap_or_else(|| empty.clone())
    };
    let mut changes: Vec<Value> = Vec::new();
    for element in wanted {
        let Some(id) = element.get(key) else { continue };
        let Some(at) = find(now, id) else {
            changes.push(element.clone());
            continue;
        };
        let element = object(std::slice::from_ref(element), Some(0));
        let mut change = objects_diff(
            &object(last, find(last, id)),
            &element,
            &object(now, Some(at)),
            schema.element(),
        );
        if !change.is_empty() {
            change.insert(key.to_owned(), id.clone());
            changes.push(change.into());
        }
    }
    for id in last.iter().filter_map(|element| element.get(key)) {
        if find(wanted, id).is_none() && find(now, id).is_some() {
            let mut change = single(key, id);
            change.insert(DIRECTIVE.to_owned(), "delete".into());
            changes.push(change.into());
        }
    }
    if changes.is_empty() && !reordered(wanted, now, Some(key)) {
        return;
    }
    let order: Vec<Value> =
        wanted.iter().filter_map(|element| Some(single(key, element.get(key)?).into())).collect();
    patch.insert(format!("{ELEMENT_ORDER}{name}"), order.into());
    if !changes.is_empty() {
        patch.insert(name.to_owned(), changes.into());
    }
}

/// Whether the elements that both lists have are in a different order.
fn reordered(wanted: &[Value], now: &[Value], key: Option<&str>) -> bool {
    let positions: Vec<usize> = wanted
        .iter()
        .filter_map(|element| identity(element, key).and_then(|id| position(now, id, key)))
        .collect();
    !positions.is_sorted()
}
