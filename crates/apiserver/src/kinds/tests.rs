//! Tables of objects as written, and as the strategies change them.

mod columns;
mod defaults;
mod robust;
mod validation;

use std::sync::LazyLock;

use api::object::Object;
use serde_json::Value;

use super::{Context, Strategy, strategy};
use crate::user::User;

pub(crate) fn context() -> Context<'static> {
    static USER: LazyLock<User> = LazyLock::new(User::anonymous);
    Context { now: "2026-01-02T03:04:05Z".parse().unwrap(), user: &USER, subresource: "" }
}

/// The object that the JSON encodes, with its kind's strategy.
pub(crate) fn object(json: &Value) -> (Box<dyn Object>, &'static dyn Strategy) {
    let text = |key: &str| json[key].as_str().unwrap_or_default();
    let row = api::kind::by_kind(text("apiVersion"), text("kind")).unwrap();
    let object = api::kind::decode(&row.into(), json.to_string().as_bytes()).unwrap();
    (object, strategy(row))
}

/// The object with its defaults, as JSON.
pub(crate) fn defaulted(json: &Value) -> Value {
    let (mut object, strategy) = object(json);
    strategy.default(&mut *object);
    let once = serde_json::from_slice(&object.encode()).unwrap();
    strategy.default(&mut *object);
    let twice: Value = serde_json::from_slice(&object.encode()).unwrap();
    assert_eq!(once, twice, "defaults are idempotent");
    once
}

/// The object as a create stores it.
pub(crate) fn stored(json: &Value) -> Value {
    let (mut object, strategy) = object(json);
    strategy.default(&mut *object);
    strategy.prepare_create(&mut *object, &context());
    serde_json::from_slice(&object.encode()).unwrap()
}

/// The errors of validating the object with its defaults, or an update of it to `new`.
pub(crate) fn errors(json: &Value, new: Option<&Value>) -> Vec<String> {
    let ready = |json: &Value, old: Option<&dyn Object>| {
        let (mut object, strategy) = object(json);
        strategy.default(&mut *object);
        match old {
            None => strategy.prepare_create(&mut *object, &context()),
            Some(old) => strategy.prepare_update(&mut *object, old, &context()),
        }
        object
    };
    let (_, strategy) = object(json);
    let old = ready(json, None);
    let errors = match new {
        None => strategy.validate(&*old),
        Some(new) => {
            let new = ready(new, Some(&*old));
            let mut errors = strategy.validate(&*new);
            errors.extend(strategy.validate_update(&*new, &*old));
            errors
        }
    };
    errors.iter().map(ToString::to_string).collect()
}

/// The errors of an update of an object as it is stored, its status included.
pub(crate) fn update_errors(old: &Value, new: &Value) -> Vec<String> {
    let ((old, strategy), (mut new, _)) = (object(old), object(new));
    strategy.default(&mut *new);
    strategy.prepare_update(&mut *new, &*old, &context());
    let mut errors = strategy.validate(&*new);
    errors.extend(strategy.validate_update(&*new, &*old));
    errors.iter().map(ToString::to_string).collect()
}
