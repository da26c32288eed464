//! Kinds whose rules are rows: what is said about one field is a line of a table, and one engine
//! reads them all. Relations between fields are functions that a row names.
//!
//! A kind of this sort is a static [`Rows`]; what it leaves out is as in most kinds.

use std::ops::ControlFlow;

use api::Kind;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::check::{self, Errors};
use super::path::Path;
use super::{Column, Context, Strategy, columns, semantic};

/// Everything that a kind's strategy says, as data.
pub struct Rows<K: Kind> {
    pub default: fn(&mut K),
    /// What is wrong with a name.
    pub name: fn(&str) -> Vec<String>,
    /// Checks of every write, in upstream's order.
    pub checks: &'static [Row],
    /// Fields that an update may not change.
    pub fixed: &'static [(&'static str, Fixed)],
    /// What an update may not do otherwise.
    pub update: fn(&K, &K, &mut Errors),
    /// `Some`: `status` is written through its subresource only, and these are its checks.
    pub status: Option<&'static [Row]>,
    /// What an update of the status may not do otherwise.
    pub status_update: fn(&K, &K, &mut Errors),
    /// Whether a change of the spec counts.
    pub generation: bool,
    /// Whether an update without resourceVersion is accepted.
    pub unconditional: bool,
    pub columns: &'static [Column],
    /// A cell for each of [`columns`](Self::columns).
    pub cells: &'static [Cell],
}

/// A field, as a path of names below its parent (`""`: the parent itself), and what is checked.
pub type Row = (&'static str, Check);

/// What may be wrong with one field.
#[derive(Clone, Copy)]
pub enum Check {
    /// There must be a value; the detail of the error.
    Required(&'static str),
    /// A pointer that must be there, whatever it points to.
    Present,
    /// If there is a value, it is one of these.
    OneOf(&'static [&'static str]),
    /// What a function finds wrong with the text, which may be empty.
    Text(fn(&str) -> Vec<String>),
    /// As [`Text`](Self::Text), but an empty text is not judged.
    TextIfAny(fn(&str) -> Vec<String>),
    /// As [`Text`](Self::Text), but an empty text is `Required`.
    RequiredText(fn(&str) -> Vec<String>),
    MaxBytes(usize),
    MaxItems(usize),
    /// A number that is there is at least this; what is said about a smaller one.
    AtLeast(i64, &'static str),
    Amount,
    LabelSelector,
    /// The elements of a list; rows below each.
    Each(&'static [Row]),
    /// As [`Each`](Self::Each), of so many elements at most; more are not looked at.
    List(usize, &'static [Row]),
    /// As [`List`](Self::List), and no two have the same text in a field.
    Set(usize, &'static str, &'static [Row]),
    /// Rows below an object, if it is there.
    Inside(&'static [Row]),
    /// A relation between fields.
    Relation(fn(&Value, &Path, &mut Errors)),
}

/// How a change of a fixed field is refused.
#[derive(Clone, Copy)]
pub enum Fixed {
    /// As invalid, with the new value.
    Immutable,
    /// As invalid, without the value, which is an object; under another path where upstream has it.
    Whole(&'static str),
    /// As forbidden; the detail.
    Forbidden(&'static str),
}

/// Where the text of a cell comes from.
#[derive(Clone, Copy)]
pub enum Cell {
    Name,
    Age,
    /// The value at a path; lists are joined by commas.
    At(&'static str),
    /// As [`At`](Self::At); what is printed when there is no value.
    Or(&'static str, &'static str),
    /// The flag at a path; what it is when it is missing.
    Flag(&'static str, bool),
    Made(fn(&Value) -> Value),
}

impl<K: Kind> Rows<K> {
    pub const NEW: Self = Self {
        default: |_| {},
        name: api::names::dns_subdomain,
        checks: &[],
        fixed: &[],
        update: |_, _, _| {},
        status: None,
        status_update: |_, _, _| {},
        generation: false,
        unconditional: true,
        columns: &[columns::NAME, columns::AGE],
        cells: &[Cell::Name, Cell::Age],
    };
}

impl<K: Kind> Strategy for Rows<K> {
    type Object = K;

    fn default(&self, object: &mut K) {
        (self.default)(object);
    }

    fn prepare_create(&self, object: &mut K, _: &Context<'_>) {
        if self.status.is_some() {
            replace(object, |json| {
                json.insert("status".to_owned(), Value::Object(serde_json::Map::new()));
            });
        }
    }

    fn prepare_update(&self, new: &mut K, old: &K, _: &Context<'_>) {
        if self.status.is_some() {
            take(new, old, "status");
        }
    }

    fn prepare_status_update(&self, new: &mut K, old: &K, _: &Context<'_>) {
        take(new, old, "spec");
        let labels = k8s_openapi::Metadata::metadata(old).labels.clone();
        k8s_openapi::Metadata::metadata_mut(new).labels = labels;
    }

    fn validate(&self, object: &K) -> Vec<FieldError> {
        let mut errors = Errors::new();
        run(self.checks, &json(object), &Path::new(""), &mut errors);
        errors
    }

    fn validate_update(&self, new: &K, old: &K) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let (new_json, old_json) = (json(new), json(old));
        for (path, fixed) in self.fixed {
            let (value, was) = (at(&new_json, path), at(&old_json, path));
            if semantic::pruned(value.clone()) != semantic::pruned(was.clone()) {
                errors.push(match fixed {
                    Fixed::Immutable => FieldError::invalid(*path, value, check::IMMUTABLE),
                    Fixed::Whole(path) => FieldError {
                        value: String::new(),
                        ..FieldError::invalid(*path, "", check::IMMUTABLE)
                    },
                    Fixed::Forbidden(detail) => FieldError::forbidden(*path, *detail),
                });
            }
        }
        (self.update)(new, old, &mut errors);
        errors
    }

    fn validate_status_update(&self, new: &K, old: &K) -> Vec<FieldError> {
        let mut errors = Errors::new();
        run(self.status.unwrap_or_default(), &json(new), &Path::new(""), &mut errors);
        (self.status_update)(new, old, &mut errors);
        errors
    }

    fn generation_changes(&self, new: &K, old: &K) -> Option<bool> {
        self.generation.then(|| semantic::field(new, "spec") != semantic::field(old, "spec"))
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        (self.name)(name)
    }

    fn allow_unconditional_update(&self) -> bool {
        self.unconditional
    }

    fn columns(&self) -> &'static [Column] {
        self.columns
    }

    fn cells(&self, object: &K, now: Timestamp) -> Vec<Value> {
        let (json, metadata) = (json(object), k8s_openapi::Metadata::metadata(object));
        let cell = |cell: &Cell| match cell {
            Cell::Name => columns::name(metadata),
            Cell::Age => columns::age(metadata, now),
            Cell::At(path) => shown(at(&json, path), ""),
            Cell::Or(path, missing) => shown(at(&json, path), missing),
            Cell::Flag(path, missing) => at(&json, path).as_bool().unwrap_or(*missing).into(),
            Cell::Made(make) => make(&json),
        };
        self.cells.iter().map(cell).collect()
    }
}

/// A part of an object as JSON.
pub fn value(part: &impl serde::Serialize) -> Value {
    serde_json::to_value(part).unwrap_or_default()
}

fn json<K: Kind>(object: &K) -> Value {
    // This server encoded it itself: it is JSON.
    serde_json::from_slice(&object.encode()).unwrap_or_default()
}

fn replace<K: Kind>(object: &mut K, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let Value::Object(mut fields) = json(object) else { return };
    change(&mut fields);
    // It was decoded from the same fields before.
    if let Ok(changed) = K::decode(Value::Object(fields).to_string().as_bytes()) {
        *object = changed;
    }
}

/// Sets a field of the new object to what it is in the old one.
fn take<K: Kind>(new: &mut K, old: &K, field: &str) {
    let was = json(old)[field].take();
    replace(new, |fields| {
        if was.is_null() {
            fields.remove(field);
        } else {
            fields.insert(field.to_owned(), was);
        }
    });
}

static NULL: Value = Value::Null;

fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    let names = path.split('.').filter(|name| !name.is_empty());
    let found = names.into_iter().try_fold(value, |value, name| match value.get(name) {
        Some(found) => ControlFlow::Continue(found),
        None => ControlFlow::Break(&NULL),
    });
    match found {
        ControlFlow::Continue(found) | ControlFlow::Break(found) => found,
    }
}

fn shown(value: &Value, missing: &str) -> Value {
    match value {
        Value::Null => missing.into(),
        Value::String(text) => text.as_str().into(),
        Value::Array(items) if items.is_empty() => missing.into(),
        Value::Array(items) => {
            let texts: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            texts.join(",").into()
        }
        other => other.clone(),
    }
}

/// Checks a value by rows, whose paths are below it.
pub fn run(rows: &[Row], value: &Value, path: &Path, errors: &mut Errors) {
    for (names, check) in rows {
        let below =
            names.split('.').filter(|name| !name.is_empty()).fold(path.clone(), Path::below);
        apply(*check, at(value, names), &below, errors);
    }
}

/// Checks one value.
pub fn apply(check: Check, value: &Value, path: &Path, errors: &mut Errors) {
    let text = value.as_str().unwrap_or_default();
    match check {
        Check::Required(detail) => {
            if is_empty(value) {
                errors.push(FieldError::required(path, detail));
            }
        }
        Check::Present => {
            if value.is_null() {
                errors.push(FieldError::required(path, ""));
            }
        }
        Check::OneOf(supported) => {
            if !is_empty(value) && !supported.contains(&text) {
                errors.push(FieldError::not_supported(path, text, supported));
            }
        }
        Check::Text(problems) => check::invalid(problems(text), text, path, errors),
        Check::TextIfAny(problems) => {
            if !text.is_empty() {
                check::invalid(problems(text), text, path, errors);
            }
        }
        Check::RequiredText(problems) => {
            if text.is_empty() {
                errors.push(FieldError::required(path, ""));
            } else {
                check::invalid(problems(text), text, path, errors);
            }
        }
        Check::MaxBytes(max) => {
            if text.len() > max {
                errors.push(FieldError::too_long(path, max));
            }
        }
        Check::MaxItems(max) => {
            let items = value.as_array().map_or(0, Vec::len);
            if items > max {
                errors.push(FieldError::too_many(path, items, max));
            }
        }
        Check::AtLeast(least, problem) => {
            if let Some(number) = value.as_i64().filter(|number| *number < least) {
                errors.push(FieldError::invalid(path, number, problem));
            }
        }
        Check::Amount => {
            if !value.is_null() {
                check::amount(&Text(text.to_owned()), path, errors);
            }
        }
        Check::LabelSelector => {
            let selector = serde_json::from_value::<Option<LabelSelector>>(value.clone());
            check::label_selector(selector.ok().flatten().as_ref(), path, errors);
        }
        Check::Each(rows) => {
            for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                run(rows, item, &path.index(index), errors);
            }
        }
        Check::List(max, rows) => {
            apply(Check::MaxItems(max), value, path, errors);
            if value.as_array().is_some_and(|items| items.len() <= max) {
                apply(Check::Each(rows), value, path, errors);
            }
        }
        Check::Set(max, key, rows) => {
            apply(Check::List(max, rows), value, path, errors);
            let mut unique = check::Unique::default();
            let items = value.as_array().into_iter().filter(|items| items.len() <= max);
            for (index, item) in items.flatten().enumerate() {
                let key = item[key].as_str().unwrap_or_default();
                unique.insert(key, &path.index(index), errors);
            }
        }
        Check::Inside(rows) => {
            if !value.is_null() {
                run(rows, value, path, errors);
            }
        }
        Check::Relation(relation) => relation(value, path, errors),
    }
}

/// Whether Go has nothing but its zero value there: no text, no items.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
