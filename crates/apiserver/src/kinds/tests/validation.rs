mod core;
mod devices;
mod pods;
mod storage;
mod workloads;

use serde_json::Value;

use super::{errors, stored, update_errors};

/// Sets the value at a JSON pointer, whose parents must exist. Null removes the field.
pub(crate) fn with(base: &Value, pointer: &str, value: Value) -> Value {
    let mut changed = base.clone();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = changed.pointer_mut(parent).unwrap_or_else(|| panic!("no parent of {pointer}"));
    match parent {
        Value::Object(map) if value.is_null() => {
            map.remove(name);
        }
        Value::Object(map) => {
            map.insert(name.to_owned(), value);
        }
        Value::Array(list) => list[name.parse::<usize>().unwrap()] = value,
        _ => panic!("{pointer} is not inside an object"),
    }
    changed
}

/// The object is valid, and each change causes exactly the errors beside it.
pub(crate) fn check(base: &Value, cases: &[(&str, Value, &[&str])]) {
    assert_eq!(errors(base, None), Vec::<String>::new(), "the base is valid");
    for (pointer, value, expected) in cases {
        assert_eq!(
            errors(&with(base, pointer, value.clone()), None),
            *expected,
            "{pointer}: {value}"
        );
    }
}

/// As [`check`], for updates of the base.
pub(crate) fn check_updates(base: &Value, cases: &[(&str, Value, &[&str])]) {
    let base = &stored(base);
    assert_eq!(errors(base, Some(base)), Vec::<String>::new(), "no change is valid");
    for (pointer, value, expected) in cases {
        let new = with(base, pointer, value.clone());
        assert_eq!(errors(base, Some(&new)), *expected, "{pointer}: {value}");
    }
}
