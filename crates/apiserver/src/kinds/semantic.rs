//! Semantic equality: a field with its zero value equals an absent field.

use api::object::Object;
use serde_json::Value;

/// A field of the object as JSON, without zero values.
pub fn field(object: &dyn Object, name: &str) -> Value {
    pruned(object.json()[name].take())
}

/// Whether two values are the same, where zero values are the same as none. An empty text is not:
/// it may be what a pointer points to.
pub fn same(one: &Value, other: &Value) -> bool {
    let none = |value: &Value| is_zero(value) && !value.is_string();
    (none(one) && none(other)) || pruned(one.clone()) == pruned(other.clone())
}

/// Without zero values.
pub fn pruned(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .map(|(name, value)| (name, pruned(value)))
                .filter(|(_, value)| !is_zero(value))
                .collect(),
        ),
        Value::Array(list) => list.into_iter().map(pruned).collect(),
        other => other,
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Names of the fields in which two objects differ.
pub fn changed(new: &Value, old: &Value) -> Vec<String> {
    let none = serde_json::Map::new();
    let (new, old) = (new.as_object().unwrap_or(&none), old.as_object().unwrap_or(&none));
    let mut names: Vec<String> = new
        .iter()
        .filter(|(name, value)| old.get(*name) != Some(value))
        .map(|(name, _)| name.clone())
        .collect();
    names.extend(old.keys().filter(|name| !new.contains_key(*name)).cloned());
    names.sort();
    names
}
