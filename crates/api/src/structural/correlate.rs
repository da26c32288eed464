//! Which value of the old object is the one that a value of the new object was
//! (`k8s.io/apiserver`, `cel/common`): what an update leaves as it was is not judged anew.

use std::collections::HashMap;

use serde_json::Value;

use super::node::{ListType, Node};

/// The old value of a member; `None` if it has no schema or was not there.
pub fn member<'a>(node: &Node, old: Option<&'a Value>, name: &str) -> Option<&'a Value> {
    node.member(name)?;
    old?.as_object()?.get(name)
}

/// The elements of an old list by their keys. Only lists of type map have corresponding elements.
pub struct Elements<'a> {
    keys: &'a [String],
    by_key: HashMap<String, &'a Value>,
}

impl<'a> Elements<'a> {
    /// `None` if elements do not correspond.
    pub fn new(node: &'a Node, old: Option<&'a Value>) -> Option<Self> {
        let old = old?.as_array()?;
        let ListType::Map(keys) = &node.list else {
            return None;
        };
        if keys.is_empty() || node.items.is_none() {
            return None;
        }
        let mut by_key = HashMap::with_capacity(old.len());
        for element in old {
            if let Some(key) = key(element, keys) {
                by_key.entry(key).or_insert(element);
            }
        }
        Some(Self { keys, by_key })
    }

    pub fn get(&self, element: &Value) -> Option<&'a Value> {
        self.by_key.get(&key(element, self.keys)?).copied()
    }
}

/// The values of an element's keys as one text; `None` if one is missing or no scalar.
fn key(element: &Value, keys: &[String]) -> Option<String> {
    let element = element.as_object()?;
    let mut text = String::new();
    for name in keys {
        let value = element.get(name)?;
        if value.is_null() || value.is_array() || value.is_object() {
            return None;
        }
        text.push('\0');
        text.push_str(&value.to_string());
    }
    Some(text)
}

/// Whether two values are the same. Lists of type map are whatever their order is; an object with
/// members that the schema does not know never is.
pub fn equal(node: &Node, new: &Value, old: &Value) -> bool {
    match (new, old) {
        (Value::Object(new), Value::Object(before)) => {
            new.len() == before.len()
                && new.iter().all(|(name, value)| {
                    node.member(name)
                        .zip(before.get(name))
                        .is_some_and(|(schema, old)| equal(schema, value, old))
                })
        }
        (Value::Array(new), Value::Array(before)) => {
            if new.len() != before.len() {
                return false;
            }
            match (Elements::new(node, Some(old)), node.items.as_deref()) {
                (Some(elements), Some(items)) => new.iter().all(|element| {
                    elements.get(element).is_some_and(|old| equal(items, element, old))
                }),
                _ => new == before,
            }
        }
        _ => new == old,
    }
}
