//! Uniqueness of list elements by `x-kubernetes-list-type`
//! (`k8s.io/apiextensions-apiserver`, `schema/listtype`).

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::node::{ListType, Node};
use super::path::Path;
use crate::status::FieldError;

/// Elements that occur twice in sets, and keys that occur twice in lists of type map.
pub fn validate(node: &Node, value: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(map) => {
            for (name, member) in map {
                if let Some(property) = node.property(name) {
                    validate(property, member, &path.field(name), errors);
                } else if let Some(schema) = node.additional_schema() {
                    validate(schema, member, &path.key(name), errors);
                }
            }
        }
        Value::Array(list) => {
            match &node.list {
                ListType::Set => duplicates(list.iter(), path, errors),
                ListType::Map(keys) => map_keys(list, keys, path, errors),
                ListType::Atomic => {}
            }
            if let Some(items) = node.items.as_deref() {
                for (index, element) in list.iter().enumerate() {
                    validate(items, element, &path.index(index), errors);
                }
            }
        }
        _ => {}
    }
}

/// Reports each value at its second occurrence.
fn duplicates<'a>(
    values: impl Iterator<Item = &'a Value>,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (index, value) in values.enumerate() {
        let times = seen.entry(value.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            errors.push(FieldError::duplicate(path.index(index).to_string(), value));
        }
    }
}

fn map_keys(list: &[Value], keys: &[String], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let is_object = |value: &Value| value.is_object() || value.is_null();
    if let Some((index, other)) = list.iter().enumerate().find(|(_, value)| !is_object(value)) {
        let detail = "must be an object for an array of list-type map";
        errors.push(FieldError::invalid(path.index(index).to_string(), other, detail));
        return;
    }
    let keys: Vec<Value> = list
        .iter()
        .map(|element| {
            let entry = |key: &String| Some((key.clone(), element.get(key)?.clone()));
            Value::Object(keys.iter().filter_map(entry).collect::<Map<_, _>>())
        })
        .collect();
    duplicates(keys.iter(), path, errors);
}
