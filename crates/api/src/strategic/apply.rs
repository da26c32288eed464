//! Applies a patch to an object.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{
    DELETE_PRIMITIVES, DIRECTIVE, ELEMENT_ORDER, ElementIndex, FieldSchema, PatchError,
    RETAIN_KEYS, identity, objects,
};
use crate::schema::Patch;
use crate::schema::mismatch::{go_kind, printed};

type Object = Map<String, Value>;

/// Merges `patch` into `original`.
pub(super) fn object(
    mut original: Object,
    mut patch: Object,
    schema: FieldSchema,
) -> Result<Object, PatchError> {
    match patch.remove(DIRECTIVE) {
        None => {}
        Some(Value::String(directive)) if directive == "replace" => return strip(patch),
        Some(Value::String(directive)) if directive == "delete" => return Ok(Object::new()),
        Some(Value::String(directive)) if directive == "merge" => {}
        Some(directive) => return Err(unknown_directive(directive, patch)),
    }
    if let Some(keys) = patch.remove(RETAIN_KEYS) {
        retain_keys(&mut original, &patch, keys)?;
    }
    let orders = take_directives(&mut patch, ELEMENT_ORDER, PatchError::ElementOrder)?;
    let deletes = take_directives(&mut patch, DELETE_PRIMITIVES, PatchError::PrimitiveList)?;
    for (name, values) in deletes {
        if let Some(Value::Array(list)) = original.get_mut(&name) {
            let deleted_values = ElementIndex::of(&values, None);
            list.retain(|value| deleted_values.get(value).is_none());
        }
    }
    for (name, order) in orders {
        let merged =
            ordered(original.remove(&name), patch.remove(&name), &order, schema.child(&name))?;
        if let Some(merged) = merged {
            original.insert(name, merged);
        }
    }
    for (name, value) in patch {
        field(&mut original, name, value, schema)?;
    }
    Ok(original)
}

fn retain_keys(original: &mut Object, patch: &Object, keys: Value) -> Result<(), PatchError> {
    let Value::Array(keys) = keys else {
        return Err(PatchError::RetainKeysFormat);
    };
    let named = |name: &str| keys.iter().any(|key| key.as_str() == Some(name));
    // The directives of lists name no field of their own.
    let own = |name: &str| !name.starts_with(DELETE_PRIMITIVES) && !name.starts_with(ELEMENT_ORDER);
    if patch.iter().any(|(name, value)| !value.is_null() && own(name) && !named(name)) {
        return Err(PatchError::RetainKeysFormat);
    }
    original.retain(|name, _| named(name));
    Ok(())
}

/// Removes the directives `<prefix><list>` from a patch: list names and values.
fn take_directives(
    patch: &mut Object,
    prefix: &str,
    malformed: PatchError,
) -> Result<Vec<(String, Vec<Value>)>, PatchError> {
    let names: Vec<String> = patch.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
    let mut found = Vec::new();
    for name in names {
        match patch.remove(&name) {
            Some(Value::Array(values)) => found.push((name[prefix.len()..].to_owned(), values)),
            Some(Value::Null) | None => {}
            Some(_) => return Err(malformed),
        }
    }
    Ok(found)
}

fn field(
    original: &mut Object,
    name: String,
    value: Value,
    schema: FieldSchema,
) -> Result<(), PatchError> {
    if value.is_null() {
        original.remove(&name);
        return Ok(());
    }
    let child = schema.child(&name);
    let merged = match (original.remove(&name), value) {
        (Some(Value::Object(old)), Value::Object(new)) if child.patch != Patch::Replace => {
            Value::Object(object(old, new, child)?)
        }
        (Some(Value::Array(old)), Value::Array(new)) if child.patch.merges() => {
            Value::Array(list(old, new, child)?)
        }
        (_, Value::Object(new))
            if new.get(DIRECTIVE).is_some_and(|directive| directive == "delete") =>
        {
            return Ok(());
        }
        (_, new) => strip_value(new)?,
    };
    original.insert(name, merged);
    Ok(())
}

/// Merges lists and puts the elements that `order` names into that order; elements that only the
/// server has are interleaved as well as possible.
fn ordered(
    old: Option<Value>,
    new: Option<Value>,
    order: &[Value],
    schema: FieldSchema,
) -> Result<Option<Value>, PatchError> {
    let old = match old {
        Some(Value::Array(old)) => Some(old),
        _ => None,
    };
    let new = match new {
        Some(Value::Array(new)) => Some(new),
        None => None,
        Some(Value::Null) => return Ok(None),
        Some(other) => return Ok(Some(other)),
    };
    let key = schema.merge_key.filter(|_| objects(order));
    if let Some(new) = &new {
        check_order(new, order, key)?;
    }
    let server = old.clone().unwrap_or_default();
    let merged = match (old, new) {
        (None, None) => return Ok(None),
        (Some(old), None) => old,
        (None, Some(new)) => strip_list(new)?,
        (Some(old), Some(new)) => merge(old, new, schema)?,
    };
    Ok(Some(Value::Array(arrange(merged, order, &server, key))))
}

/// The elements of a patch must be in the order that the patch itself specifies.
fn check_order(patch: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    let mut last = 0;
    let index = ElementIndex::of(order, key);
    for element in patch.iter().filter(|element| element.get(DIRECTIVE).is_none()) {
        let Some(id) = identity(element, key) else {
            continue;
        };
        match index.get(id) {
            Some(at) if at >= last => last = at,
            _ => {
                return Err(PatchError::Order {
                    patch: printed(&patch.to_vec().into()),
                    order: printed(&order.to_vec().into()),
                });
            }
        }
    }
    Ok(())
}

/// A list merged without an order of its own: the patch's elements keep the patch's order.
fn list(old: Vec<Value>, new: Vec<Value>, schema: FieldSchema) -> Result<Vec<Value>, PatchError> {
    let key = schema.merge_key.filter(|_| objects(&old) || objects(&new));
    let (server, order) = (old.clone(), new.clone());
    let merged = merge(old, new, schema)?;
    Ok(arrange(merged, &order, &server, key))
}

/// Merges elements by key, or primitives as a set; applies the directives among the elements.
fn merge(old: Vec<Value>, new: Vec<Value>, schema: FieldSchema) -> Result<Vec<Value>, PatchError> {
    let mut kinds = old.iter().chain(&new).map(go_kind);
    if let Some(first) = kinds.next() {
        if first == "slice" {
            return Err(PatchError::ListOfLists);
        }
        if kinds.any(|kind| kind != first) {
            return Err(PatchError::MixedElements(printed(&vec![old, new].into())));
        }
    }
    if !objects(&old) && !objects(&new) {
        let mut merged = old;
        let mut seen: HashSet<String> = merged.iter().map(Value::to_string).collect();
        for value in new {
            if seen.insert(value.to_string()) {
                merged.push(value);
            }
        }
        return Ok(merged);
    }
    let Some(key) = schema.merge_key else {
        return strip_list(new);
    };
    let mut merged = old;
    let mut kept = Vec::new();
    let (mut replace, mut deleted) = (false, Vec::new());
    for element in new {
        let Value::Object(element) = element else {
            return Err(PatchError::NotAnObject);
        };
        match element.get(DIRECTIVE) {
            None => kept.push(element),
            Some(Value::String(directive)) if directive == "replace" => replace = true,
            Some(Value::String(directive)) if directive == "delete" => {
                id_of(&element, key)?;
                deleted.push(Value::Object(element));
            }
            Some(other) => return Err(unknown_directive(other.clone(), element)),
        }
    }
    if replace {
        merged.clear();
    }
    let deleted_values = ElementIndex::of(&deleted, Some(key));
    merged.retain(|old| old.get(key).is_none_or(|id| deleted_values.get(id).is_none()));
    let mut index = ElementIndex::of(&merged, Some(key));
    for element in kept {
        let id = id_of(&element, key)?;
        match index.get(&id) {
            Some(at) => {
                let Value::Object(old) = merged[at].take() else {
                    return Err(PatchError::NotAnObject);
                };
                merged[at] = Value::Object(object(old, element, schema.element())?);
            }
            None => {
                index.0.insert(id.to_string(), merged.len());
                merged.push(Value::Object(strip(element)?));
            }
        }
    }
    Ok(merged)
}

/// `map` is the patch of which the directive is part.
fn unknown_directive(directive: Value, mut map: Object) -> PatchError {
    let text = printed(&directive);
    map.insert(DIRECTIVE.to_owned(), directive);
    PatchError::UnknownDirective { directive: text, map: printed(&map.into()) }
}

fn id_of(element: &Object, key: &'static str) -> Result<Value, PatchError> {
    element.get(key).cloned().ok_or_else(|| PatchError::MissingMergeKey {
        element: printed(&element.clone().into()),
        key,
    })
}

/// Elements named in `order` in that order, interleaved with the others in the server's order.
fn arrange(merged: Vec<Value>, order: &[Value], server: &[Value], key: Option<&str>) -> Vec<Value> {
    let (order, server) = (ElementIndex::of(order, key), ElementIndex::of(server, key));
    let rank =
        |index: &ElementIndex, element: &Value| identity(element, key).and_then(|id| index.get(id));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|element| rank(&order, element).is_some());
    named.sort_by_cached_key(|element| rank(&order, element));
    others.sort_by_cached_key(|element| rank(&server, element).unwrap_or(usize::MAX));
    let mut arranged = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(left), Some(right)) = (named.peek(), others.peek()) {
        let first = match (rank(&server, left), rank(&server, right)) {
            (Some(left), Some(right)) => left < right,
            // What the patch adds goes before what only the server has.
            _ => true,
        };
        arranged.extend(if first { named.next() } else { others.next() });
    }
    arranged.extend(named);
    arranged.extend(others);
    arranged
}

/// A part of a patch that has no counterpart: without directives and nulls.
fn strip(mut object: Object) -> Result<Object, PatchError> {
    object.retain(|name, value| {
        !value.is_null()
            && name != DIRECTIVE
            && name != RETAIN_KEYS
            && !name.starts_with(ELEMENT_ORDER)
            && !name.starts_with(DELETE_PRIMITIVES)
    });
    object.into_iter().map(|(name, value)| Ok((name, strip_value(value)?))).collect()
}

fn strip_list(list: Vec<Value>) -> Result<Vec<Value>, PatchError> {
    list.into_iter()
        .filter(|element| !element.get(DIRECTIVE).is_some_and(|directive| directive != "merge"))
        .map(strip_value)
        .collect()
}

fn strip_value(value: Value) -> Result<Value, PatchError> {
    Ok(match value {
        Value::Object(object) => Value::Object(strip(object)?),
        Value::Array(list) => Value::Array(strip_list(list)?),
        other => other,
    })
}
