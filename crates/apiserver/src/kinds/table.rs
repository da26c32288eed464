//! Kinds as tables: what is said about one field is a row, and one engine reads them all.
//! Relations between fields are functions that a row names.
//!
//! A kind is a static [`Rows`]; what it leaves out is as in most kinds. Rows are read on the
//! object's JSON. Kinds that are written many times a second, and those with a pod's template, are
//! judged on their own type instead, by [`Rows::judge`].

use std::cell::OnceCell;
use std::ops::ControlFlow;

use api::Kind;
use api::object::Object;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::at::At;
use super::check::{self, IMMUTABLE};
use super::{Column, Context, Dependents, Strategy, columns, semantic};
use crate::scan;

/// Everything that a kind's strategy says, as data.
pub struct Rows<K: 'static> {
    pub default: fn(&mut K),
    /// Whether finalizers need no domain.
    pub any_finalizer: bool,
    /// What is wrong with a name.
    pub name: fn(&str) -> Vec<String>,
    /// What clients cannot write where.
    pub parts: Parts<K>,
    /// Checks of every write, in upstream's order.
    pub checks: &'static [Row],
    /// Checks of every write that follow.
    pub judge: fn(&K, &At<'_>),
    /// Checks of a create that follow.
    pub create: fn(&K, &At<'_>),
    /// Fields that an update may not change.
    pub fixed: &'static [(&'static str, Fixed)],
    /// What an update (the new object, the old one) may not do otherwise.
    pub update: fn(&K, &K, &At<'_>),
    /// Checks of an update of the status.
    pub status: &'static [Row],
    /// What an update of the status, or of another subresource, may not do otherwise.
    pub status_update: fn(&K, &K, &Context<'_>, &At<'_>),
    /// Whether a change counts as one of the spec. `None`: the kind has no generation.
    pub generation: fn(&K, &K) -> Option<bool>,
    /// About a new object, or an update of an old one.
    pub warnings: fn(&K, Option<&K>) -> Vec<String>,
    /// Whether an update without resourceVersion is accepted.
    pub unconditional: bool,
    /// Whether a PUT on a missing object creates it.
    pub create_on_update: bool,
    pub dependents: Dependents,
    pub grace_seconds: fn(&K) -> Option<i64>,
    pub columns: &'static [Shown<K>],
    /// Columns that are not rows, instead of those above.
    pub table: Option<Table<K>>,
}

/// Columns that depend on more than the kind, and the cells of an object.
pub struct Table<K> {
    pub columns: fn() -> Vec<Column>,
    pub cells: fn(&K, Timestamp) -> Vec<Value>,
}

/// What a write leaves alone.
pub struct Parts<K> {
    /// Drops from a new object what only the server sets.
    pub create: fn(&mut K, &Context<'_>),
    /// Sets in the new object of an update what only a subresource changes.
    pub update: fn(&mut K, &K, &Context<'_>),
    /// Sets what an update of the status, or of another subresource, does not change.
    pub status: fn(&mut K, &K, &Context<'_>),
}

/// Spec and status are kept apart: the object's own writes leave the status alone, and those of the
/// status leave the rest alone.
macro_rules! status_apart {
    () => {
        $crate::kinds::table::Parts {
            create: |object, _| object.status = Some(Default::default()),
            update: |new, old, _| new.status.clone_from(&old.status),
            status: |new, old, _| {
                new.spec.clone_from(&old.spec);
                new.metadata.labels.clone_from(&old.metadata.labels);
            },
        }
    };
}
pub(crate) use status_apart;

/// A field, as a path of names below its parent (`""`: the parent itself), and what is checked.
pub type Row = (&'static str, Check);

type Problems = fn(&str) -> Vec<String>;
type Texts = &'static [&'static str];

/// What may be wrong with one field.
#[derive(Clone, Copy)]
pub enum Check {
    /// There must be a value; the detail of the error.
    Required(&'static str),
    /// A pointer that must be there, whatever it points to; the detail of the error.
    Present(&'static str),
    /// If there is a value, it is one of these.
    OneOf(Texts),
    /// As [`OneOf`](Self::OneOf), but there must be one.
    RequiredOneOf(Texts),
    /// As [`OneOf`](Self::OneOf), but an empty text is none of them.
    SetOneOf(Texts),
    /// What a function finds wrong with the text, which may be empty.
    Text(Problems),
    /// As [`Text`](Self::Text), but an empty text is not judged.
    TextIfAny(Problems),
    /// As [`Text`](Self::Text), but a missing text is not judged.
    SetText(Problems),
    /// As [`Text`](Self::Text), but an empty text is `Required`.
    RequiredText(Problems),
    MaxBytes(usize),
    MaxItems(usize),
    /// A number that is there is at least this; what is said about a smaller one.
    AtLeast(i64, &'static str),
    /// A number that is there is at most this; what is said about a larger one.
    AtMost(i64, &'static str),
    /// A number that is there is not negative.
    NotNegative,
    /// A number that is there lies between two, both included.
    Range(i64, i64),
    Amount,
    /// A number or a percentage of at most 100, if there is one.
    AtMostAll,
    Labels,
    LabelSelector,
    /// The elements of a list; rows below each.
    Each(&'static [Row]),
    /// The values of a map; rows below each.
    Values(&'static [Row]),
    /// As [`Each`](Self::Each), of so many elements at most; more are not looked at.
    List(usize, &'static [Row]),
    /// As [`List`](Self::List), and no two have the same text in a field.
    Set(usize, &'static str, &'static [Row]),
    /// Rows below an object, if it is there.
    Inside(&'static [Row]),
    /// A relation between fields.
    Relation(fn(&Value, &At<'_>)),
}

/// How a change of a fixed field is refused.
#[derive(Clone, Copy)]
pub enum Fixed {
    /// As invalid, with the new value.
    Immutable,
    /// As invalid with a text of its own, with the new value.
    Invalid(&'static str),
    /// As invalid, without the value, which is an object; under another path where upstream has it.
    Whole(&'static str),
    /// As forbidden; the detail.
    Forbidden(&'static str),
}

/// A printer column, and where its cells come from.
pub struct Shown<K> {
    column: Column,
    cell: Cell<K>,
}

enum Cell<K> {
    Name,
    Age,
    CreatedAt,
    Value(&'static str, &'static str),
    Pointer(&'static str),
    Number(&'static str),
    Flag(&'static str, bool),
    Json(fn(&Value) -> Value),
    Object(fn(&K) -> Value),
    Now(fn(&K, Timestamp) -> Value),
}

/// The column of the object's name.
pub const fn name<K>() -> Shown<K> {
    Shown { column: columns::NAME, cell: Cell::Name }
}

/// The column of the object's age.
pub const fn age<K>() -> Shown<K> {
    Shown { column: columns::AGE, cell: Cell::Age }
}

/// The column of the time of creation.
pub const fn created_at<K>() -> Shown<K> {
    Shown { column: columns::CREATED_AT, cell: Cell::CreatedAt }
}

/// What a column shows.
impl Column {
    /// The value at a path; lists are joined by commas.
    pub const fn at<K>(self, path: &'static str) -> Shown<K> {
        self.or(path, "")
    }

    /// The value at a path that may not be set.
    pub const fn pointer<K>(self, path: &'static str) -> Shown<K> {
        Shown { column: self, cell: Cell::Pointer(path) }
    }

    /// As [`at`](Self::at); what is printed when there is no value, or an empty one.
    pub const fn or<K>(self, path: &'static str, missing: &'static str) -> Shown<K> {
        Shown { column: self, cell: Cell::Value(path, missing) }
    }

    /// The number at a path, zero when it is missing.
    pub const fn number<K>(self, path: &'static str) -> Shown<K> {
        Shown { column: self, cell: Cell::Number(path) }
    }

    /// The flag at a path; what it is when it is missing.
    pub const fn flag<K>(self, path: &'static str, missing: bool) -> Shown<K> {
        Shown { column: self, cell: Cell::Flag(path, missing) }
    }

    /// What is made of the object's JSON.
    pub const fn json<K>(self, make: fn(&Value) -> Value) -> Shown<K> {
        Shown { column: self, cell: Cell::Json(make) }
    }

    /// What is made of the object.
    pub const fn of<K>(self, make: fn(&K) -> Value) -> Shown<K> {
        Shown { column: self, cell: Cell::Object(make) }
    }

    /// What is made of the object at a time.
    pub const fn now<K>(self, make: fn(&K, Timestamp) -> Value) -> Shown<K> {
        Shown { column: self, cell: Cell::Now(make) }
    }
}

impl<K: Object> Rows<K> {
    pub const NEW: Self = Self {
        default: |_| {},
        any_finalizer: false,
        name: api::names::dns_subdomain,
        parts: Parts { create: |_, _| {}, update: |_, _, _| {}, status: |_, _, _| {} },
        checks: &[],
        judge: |_, _| {},
        create: |_, _| {},
        fixed: &[],
        update: |_, _, _| {},
        status: &[],
        status_update: |_, _, _, _| {},
        generation: |_, _| None,
        warnings: |_, _| Vec::new(),
        unconditional: true,
        create_on_update: false,
        dependents: Dependents::Deleted,
        grace_seconds: |_| None,
        columns: &[name(), age()],
        table: None,
    };
}

fn typed<K: Object>(object: &dyn Object) -> &K {
    object.as_any().downcast_ref().expect("a strategy is found by the row of its object")
}

fn typed_mut<K: Object>(object: &mut dyn Object) -> &mut K {
    object.as_any_mut().downcast_mut().expect("a strategy is found by the row of its object")
}

impl<K: Object> Strategy for Rows<K> {
    fn default(&self, object: &mut dyn Object) {
        (self.default)(typed_mut(object));
    }

    fn prepare_create(&self, object: &mut dyn Object, context: &Context<'_>) {
        (self.parts.create)(typed_mut(object), context);
    }

    fn prepare_update(&self, new: &mut dyn Object, old: &dyn Object, context: &Context<'_>) {
        (self.parts.update)(typed_mut(new), typed(old), context);
    }

    fn prepare_status_update(&self, new: &mut dyn Object, old: &dyn Object, context: &Context<'_>) {
        (self.parts.status)(typed_mut(new), typed(old), context);
    }

    fn validate(&self, object: &dyn Object) -> Vec<FieldError> {
        At::object(|at| {
            if !self.checks.is_empty() {
                run(self.checks, &object.json(), at);
            }
            (self.judge)(typed(object), at);
        })
    }

    fn validate_create(&self, object: &dyn Object) -> Vec<FieldError> {
        At::object(|at| (self.create)(typed(object), at))
    }

    fn validate_update(&self, new: &dyn Object, old: &dyn Object) -> Vec<FieldError> {
        At::object(|at| {
            if !self.fixed.is_empty() {
                unchanged(self.fixed, &new.json(), &old.json(), at);
            }
            (self.update)(typed(new), typed(old), at);
        })
    }

    fn validate_subresource_update(
        &self,
        new: &dyn Object,
        old: &dyn Object,
        context: &Context<'_>,
    ) -> Vec<FieldError> {
        At::object(|at| {
            if !self.status.is_empty() {
                run(self.status, &new.json(), at);
            }
            (self.status_update)(typed(new), typed(old), context, at);
        })
    }

    fn generation_changes(&self, new: &dyn Object, old: &dyn Object) -> Option<bool> {
        (self.generation)(typed(new), typed(old))
    }

    fn warnings(&self, new: &dyn Object, old: Option<&dyn Object>) -> Vec<String> {
        (self.warnings)(typed(new), old.map(typed))
    }

    fn any_finalizer(&self) -> bool {
        self.any_finalizer
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        (self.name)(name)
    }

    fn default_grace_seconds(&self, object: &dyn Object) -> Option<i64> {
        (self.grace_seconds)(typed(object))
    }

    fn dependents(&self) -> Dependents {
        self.dependents
    }

    fn allow_create_on_update(&self) -> bool {
        self.create_on_update
    }

    fn allow_unconditional_update(&self) -> bool {
        self.unconditional
    }

    fn columns(&self) -> Vec<Column> {
        match &self.table {
            Some(table) => (table.columns)(),
            None => self.columns.iter().map(|shown| shown.column).collect(),
        }
    }

    fn cells(&self, object: &dyn Object, now: Timestamp) -> Vec<Value> {
        if let Some(table) = &self.table {
            return (table.cells)(typed(object), now);
        }
        let (text, tree, metadata) = (OnceCell::new(), OnceCell::new(), object.metadata());
        let json = || tree.get_or_init(|| object.json());
        // One field is found in the text sooner than a tree is made of it.
        let at = |path: &str| -> Value {
            let found = scan::at_path(text.get_or_init(|| object.encode()), path);
            found.and_then(|found| serde_json::from_slice(found).ok()).unwrap_or_default()
        };
        let cell = |cell: &Cell<K>| match cell {
            Cell::Name => columns::name(metadata),
            Cell::Age => columns::age(metadata, now),
            Cell::CreatedAt => columns::created_at(metadata),
            Cell::Value(path, missing) => printed(&at(path), missing),
            Cell::Pointer(path) => {
                Some(at(path)).filter(|it| !it.is_null()).unwrap_or("<unset>".into())
            }
            Cell::Number(path) => at(path).as_i64().unwrap_or_default().into(),
            Cell::Flag(path, missing) => at(path).as_bool().unwrap_or(*missing).into(),
            Cell::Json(make) => make(json()),
            Cell::Object(make) => make(typed(object)),
            Cell::Now(make) => make(typed(object), now),
        };
        self.columns.iter().map(|shown| cell(&shown.cell)).collect()
    }
}

/// An object or a part of one as JSON.
pub fn value(part: &impl serde::Serialize) -> Value {
    serde_json::to_value(part).unwrap_or_default()
}

/// Whether the spec has changed, where zero values are the same as none.
pub fn spec_changes<K: Kind>(new: &K, old: &K) -> Option<bool> {
    Some(semantic::field(new, "spec") != semantic::field(old, "spec"))
}

fn unchanged(fixed: &[(&str, Fixed)], new: &Value, old: &Value, object: &At<'_>) {
    for (path, fixed) in fixed {
        let (value, was) = (at(new, path), at(old, path));
        if semantic::same(value, was) {
            continue;
        }
        let field = object.child(path);
        match fixed {
            Fixed::Immutable => field.invalid(value, IMMUTABLE),
            Fixed::Invalid(detail) => field.invalid(value, *detail),
            Fixed::Whole(path) => object.child(path).invalid_whole(IMMUTABLE),
            Fixed::Forbidden(detail) => field.forbidden(*detail),
        }
    }
}

static NULL: Value = Value::Null;

/// The value at a path, `null` where there is none.
pub fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    let names = path.split('.').filter(|name| !name.is_empty());
    let found = names.into_iter().try_fold(value, |value, name| match value.get(name) {
        Some(found) => ControlFlow::Continue(found),
        None => ControlFlow::Break(&NULL),
    });
    match found {
        ControlFlow::Continue(found) | ControlFlow::Break(found) => found,
    }
}

/// The elements of a list, none of what is not there.
pub fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The text at a path, empty where there is none.
pub fn text_at<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).as_str().unwrap_or_default()
}

fn printed(value: &Value, missing: &str) -> Value {
    match value {
        Value::Null => missing.into(),
        Value::String(text) if text.is_empty() => missing.into(),
        Value::Array(items) if items.is_empty() => missing.into(),
        Value::Array(items) => {
            let texts: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            texts.join(",").into()
        }
        other => other.clone(),
    }
}

/// Checks a value by rows, whose paths are below it.
pub fn run(rows: &[Row], value: &Value, object: &At<'_>) {
    for (path, check) in rows {
        apply(*check, at(value, path), &object.child(path));
    }
}

/// Checks one value.
pub fn apply(check: Check, value: &Value, at: &At<'_>) {
    match check {
        Check::Required(detail) if is_empty(value) => at.required(detail),
        Check::Present(detail) if value.is_null() => at.required(detail),
        Check::Required(_) | Check::Present(_) => {}
        Check::AtLeast(least, problem) => {
            if let Some(number) = value.as_i64().filter(|number| *number < least) {
                at.invalid(number, problem);
            }
        }
        Check::AtMost(most, problem) => {
            if let Some(number) = value.as_i64().filter(|number| *number > most) {
                at.invalid(number, problem);
            }
        }
        Check::NotNegative => at.not_negative(value.as_i64().unwrap_or_default()),
        Check::Range(low, high) => {
            value.as_i64().iter().for_each(|number| at.in_range(*number, low, high));
        }
        Check::AtMostAll => {
            if let Some(value) = parsed::<IntOrString>(value) {
                at.number_or_percent(&value);
                at.not_more_than_all(&value);
            }
        }
        Check::Labels => at.labels(parsed(value).as_ref()),
        Check::LabelSelector => at.label_selector(parsed::<LabelSelector>(value).as_ref()),
        Check::MaxItems(max) => {
            at.max_items(items(value).len(), max);
        }
        Check::Each(rows) => {
            for (index, item) in items(value).iter().enumerate() {
                run(rows, item, &at.index(index));
            }
        }
        Check::Values(rows) => {
            for (key, value) in value.as_object().into_iter().flatten() {
                run(rows, value, &at.key(key));
            }
        }
        Check::List(max, rows) => {
            if at.max_items(items(value).len(), max) {
                apply(Check::Each(rows), value, at);
            }
        }
        Check::Set(max, key, rows) => {
            apply(Check::List(max, rows), value, at);
            let mut unique = check::Unique::default();
            let few = Some(items(value)).filter(|items| items.len() <= max).unwrap_or_default();
            for (index, item) in few.iter().enumerate() {
                unique.add(text_at(item, key), &at.index(index));
            }
        }
        Check::Inside(rows) => {
            if !value.is_null() {
                run(rows, value, at);
            }
        }
        Check::Relation(relation) => relation(value, at),
        _ => of_text(check, value, at),
    }
}

fn of_text(check: Check, value: &Value, at: &At<'_>) {
    let text = value.as_str().unwrap_or_default();
    match check {
        Check::OneOf(known) if !is_empty(value) && !known.contains(&text) => {
            at.not_supported(text, known);
        }
        Check::SetOneOf(known) if !value.is_null() && !known.contains(&text) => {
            at.not_supported(text, known);
        }
        Check::RequiredOneOf(known) => at.one_of(text, known),
        Check::Text(problems) => at.texts(problems(text), text),
        Check::TextIfAny(problems) if !text.is_empty() => at.texts(problems(text), text),
        Check::SetText(problems) if !value.is_null() => at.texts(problems(text), text),
        Check::RequiredText(problems) => at.required_text(problems, text),
        Check::MaxBytes(max) => at.max_bytes(text.len(), max),
        Check::Amount if !value.is_null() => {
            at.amount(&Quantity(text.to_owned()));
        }
        _ => {}
    }
}

/// A part of an object as its own type, unless it is not there.
pub fn parsed<T: serde::de::DeserializeOwned>(value: &Value) -> Option<T> {
    serde_json::from_value::<Option<T>>(value.clone()).ok().flatten()
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
