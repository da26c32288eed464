//! Go's zero values: the one form of an object, whatever a client sent it as.
//!
//! Go cannot tell a missing field, `null` and the zero value of a field that is not a pointer
//! apart, and Kubernetes therefore treats them alike. Here the missing field is the form that is
//! kept, so that objects are equal whether they came as JSON, YAML or protobuf, from a program
//! that writes every field or from a person who writes the few that matter.
//!
//! [`read`] decodes a body in that form. Most bodies have it already, and are not touched.

use serde_json::{Map, Value};

use super::{Field, Ty, TypeRow};
use crate::kind::DecodeError;

/// Go's zero time, which it writes as null.
pub const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

impl Field {
    /// Whether Go takes this value of the field for its absence. Required fields are always
    /// written.
    pub(crate) fn is_unset(&self, value: &Value) -> bool {
        value.is_null() || self.has_zero() && is_zero(self.ty, value)
    }

    /// Whether the zero value of the field means its absence. An empty list of managed fields
    /// clears them instead.
    pub(super) fn has_zero(&self) -> bool {
        // Rust's zero quantity is an empty text: that a required one is missing says the same.
        let always = self.required && self.ty != Ty::Quantity;
        !self.pointer && !always && self.name != "managedFields"
    }
}

/// A value of another type than the field's does not count as zero: decoding reports it.
fn is_zero(ty: Ty, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => ty == Ty::Boolean && !flag,
        Value::Number(number) if number.is_f64() => {
            is_zero_float(ty, number.as_f64().unwrap_or_default())
        }
        Value::Number(number) => number.as_i64() == Some(0) && is_number(ty),
        Value::String(text) => is_zero_text(ty, text),
        Value::Array(list) => matches!(ty, Ty::Array(_)) && list.is_empty(),
        Value::Object(map) => match ty {
            Ty::Map(_) => map.is_empty(),
            _ => ty.definition().is_some_and(|row| is_zero_struct(map, row)),
        },
    }
}

/// Whether a text is Go's zero time, with or without fractions of a second.
pub fn is_zero_time(text: &str) -> bool {
    let fraction = text.strip_prefix("0001-01-01T00:00:00");
    fraction.is_some_and(|rest| rest.trim_start_matches(['.', '0']) == "Z")
}

/// A struct is zero when all its fields are, those included that are always written.
fn is_zero_struct(map: &Map<String, Value>, row: &'static TypeRow) -> bool {
    map.iter().all(|(name, value)| {
        let field = row.field(name);
        field.is_some_and(|field| value.is_null() || !field.pointer && is_zero(field.ty, value))
    })
}

pub(super) fn is_number(ty: Ty) -> bool {
    matches!(ty, Ty::Int32 | Ty::Int64 | Ty::Number | Ty::IntOrString | Ty::Quantity)
}

pub(super) fn is_zero_float(ty: Ty, number: f64) -> bool {
    matches!(ty, Ty::Number | Ty::Quantity) && number == 0.0
}

/// Of an `IntOrString` the zero value is the number.
pub(super) fn is_zero_text(ty: Ty, text: &str) -> bool {
    match ty {
        Ty::String | Ty::Bytes => text.is_empty(),
        Ty::Quantity => matches!(text, "" | "0"),
        Ty::Time | Ty::MicroTime => is_zero_time(text),
        _ => false,
    }
}

/// Removes what Go takes for unset, and fills in what Rust's types cannot do without. Whether that
/// changed anything.
pub fn normalize(object: &mut Value, row: &'static TypeRow) -> bool {
    match object {
        Value::Object(map) => fields(map, row),
        _ => false,
    }
}

fn fields(map: &mut Map<String, Value>, row: &'static TypeRow) -> bool {
    let mut changed = false;
    map.retain(|name, value| {
        let Some(field) = row.field(name) else {
            return true;
        };
        changed |= within(value, field.ty);
        let unset = field.is_unset(value);
        changed |= unset;
        !unset
    });
    for field in row.fields.iter().filter(|field| field.required) {
        if matches!(field.ty, Ty::Time | Ty::MicroTime) && !map.contains_key(field.name) {
            map.insert(field.name.to_owned(), ZERO_TIME.into());
            changed = true;
        }
    }
    changed
}

fn within(value: &mut Value, ty: Ty) -> bool {
    let elements = |changed, item, ty| element(item, ty) | changed;
    match (value, ty) {
        (Value::Object(map), Ty::Ref(_)) => ty.definition().is_some_and(|row| fields(map, row)),
        (Value::Array(list), Ty::Array(ty)) => {
            list.iter_mut().fold(false, |changed, item| elements(changed, item, *ty))
        }
        (Value::Object(map), Ty::Map(ty)) => {
            map.values_mut().fold(false, |changed, item| elements(changed, item, *ty))
        }
        _ => false,
    }
}

/// An element that is null is the zero value of its type.
fn element(value: &mut Value, ty: Ty) -> bool {
    let is_null = value.is_null() && ty != Ty::Any;
    if is_null {
        *value = match ty {
            Ty::String | Ty::Bytes => "".into(),
            Ty::Int32 | Ty::Int64 | Ty::Number | Ty::IntOrString => 0.into(),
            Ty::Boolean => false.into(),
            Ty::Quantity => "0".into(),
            Ty::Time | Ty::MicroTime => ZERO_TIME.into(),
            Ty::Ref(_) | Ty::Map(_) => Map::new().into(),
            Ty::Array(_) => Vec::<Value>::new().into(),
            Ty::Any => Value::Null,
        };
    }
    within(value, ty) | is_null
}

/// Decodes an object of `row`, `zeros` telling whether [`strict::find`](super::strict::find) saw
/// values in it that are not in the form which is kept.
///
/// # Errors
/// When it cannot be decoded.
pub fn read<T>(
    json: &[u8],
    row: Option<&'static TypeRow>,
    zeros: bool,
    decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let normal = || {
        let mut value = serde_json::from_slice(json).ok()?;
        normalize(&mut value, row?);
        serde_json::to_vec(&value).ok()
    };
    if zeros && let Some(json) = normal() {
        return decode(&json);
    }
    // A required time is the one thing that Rust's types do not take null or nothing for.
    decode(json).or_else(|error| match normal() {
        Some(json) if !zeros => decode(&json),
        _ => Err(error),
    })
}
