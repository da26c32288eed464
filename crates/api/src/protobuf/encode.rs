//! Encoding of JSON as protobuf.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde_json::Value;

use super::{MAGIC, ProtobufError, by_name};
use crate::schema::{self, Field, Ty, TypeRow};

const LIST_META: &str = "ListMeta";

/// Encodes one object or list with `apiVersion` and `kind`.
///
/// # Errors
/// When the schema table has no such kind.
pub fn from_json(object: &Value) -> Result<Vec<u8>, ProtobufError> {
    let text = |name: &str| object[name].as_str().unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let row = |kind: &str| schema::kind(group, version, kind);
    let raw = if let Some(row) = row(kind).or_else(|| by_name(kind)) {
        message(object, row)
    } else if let Some(row) = kind.strip_suffix("List").and_then(row) {
        list(object, row)
    } else {
        return Err(ProtobufError::Kind {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
        });
    };
    Ok(unknown(api_version, kind, &raw))
}

/// Encodes one event of a watch: `meta.v1.WatchEvent` with the object's whole message inside,
/// without the length that the stream's framing puts before it.
pub fn watch_event_from_json(kind: &str, object: &Value) -> Result<Vec<u8>, ProtobufError> {
    Ok(watch_event(kind, &from_json(object)?))
}

/// The wire format of a value.
enum WireFormat {
    Varint,
    Fixed64,
    Length,
}

fn wire(ty: Ty) -> WireFormat {
    match ty {
        Ty::Int32 | Ty::Int64 | Ty::Boolean => WireFormat::Varint,
        Ty::Number => WireFormat::Fixed64,
        Ty::String
        | Ty::Bytes
        | Ty::Time
        | Ty::MicroTime
        | Ty::Quantity
        | Ty::IntOrString
        | Ty::Any
        | Ty::Ref(_)
        | Ty::Array(_)
        | Ty::Map(_) => WireFormat::Length,
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn key(out: &mut Vec<u8>, tag: u16, wire: u8) {
    varint(out, u64::from(tag) << 3 | u64::from(wire));
}

fn bytes(out: &mut Vec<u8>, tag: u16, data: &[u8]) {
    key(out, tag, 2);
    varint(out, data.len() as u64);
    out.extend_from_slice(data);
}

fn number(out: &mut Vec<u8>, tag: u16, value: i64) {
    key(out, tag, 0);
    varint(out, value as u64);
}

/// Wraps a message in the magic and a `runtime.Unknown`.
fn unknown(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut meta = Vec::new();
    bytes(&mut meta, 1, api_version.as_bytes());
    bytes(&mut meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(raw.len() + meta.len() + 24);
    out.extend_from_slice(MAGIC);
    bytes(&mut out, 1, &meta);
    bytes(&mut out, 2, raw);
    bytes(&mut out, 3, b"");
    bytes(&mut out, 4, b"");
    out
}

fn watch_event(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut extension = Vec::with_capacity(object.len() + 8);
    bytes(&mut extension, 1, object);
    let mut out = Vec::with_capacity(extension.len() + 16);
    bytes(&mut out, 1, kind.as_bytes());
    bytes(&mut out, 2, &extension);
    out
}

/// A list kind: metadata, then items.
fn list(object: &Value, row: &'static TypeRow) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(metadata) = by_name(LIST_META) {
        bytes(&mut out, 1, &message(&object["metadata"], metadata));
    }
    for item in object["items"].as_array().into_iter().flatten() {
        bytes(&mut out, 2, &message(item, row));
    }
    out
}

fn message(object: &Value, row: &'static TypeRow) -> Vec<u8> {
    members(object, row, &[])
}

/// The fields of a message, or of one within it that JSON does not have (`within`: its numbers),
/// whose fields are inlined.
fn members(object: &Value, row: &'static TypeRow, within: &[u16]) -> Vec<u8> {
    let mut out = Vec::new();
    let numbered = row.fields.iter().filter_map(|field| {
        let numbers = field.proto.strip_prefix(within)?;
        Some((*numbers.first()?, (numbers.len() == 1).then_some(field)))
    });
    let mut chosen: Vec<(u16, Option<&'static Field>)> = numbered.collect();
    chosen.sort_by_key(|(tag, _)| *tag);
    chosen.dedup_by(|next, kept| next.0 == kept.0 && kept.1.is_none());
    for (tag, own) in chosen {
        if let Some(own) = own {
            field(object, own, tag, &mut out);
            continue;
        }
        let inner = members(object, row, &[within, &[tag]].concat());
        if !inner.is_empty() {
            bytes(&mut out, tag, &inner);
        }
    }
    out
}

fn field(object: &Value, field: &'static Field, tag: u16, out: &mut Vec<u8>) {
    match (field.ty, &object[field.name]) {
        (_, Value::Null) => {}
        (Ty::Array(element), Value::Array(items)) => {
            for item in items {
                value(item, *element, tag, out);
            }
        }
        (Ty::Map(element), Value::Object(entries)) => {
            for (name, item) in entries {
                let mut entry = Vec::new();
                bytes(&mut entry, 1, name.as_bytes());
                value(item, *element, 2, &mut entry);
                bytes(out, tag, &entry);
            }
        }
        (ty, found) => value(found, ty, tag, out),
    }
}

/// Encodes one value; a value whose JSON type does not match the table is left out.
fn value(found: &Value, ty: Ty, tag: u16, out: &mut Vec<u8>) {
    let integer = || found.as_i64().or_else(|| found.as_f64().map(|number| number as i64));
    match wire(ty) {
        WireFormat::Varint => {
            if let Some(integer) = found.as_bool().map(i64::from).or_else(integer) {
                number(out, tag, integer);
            }
        }
        WireFormat::Fixed64 => {
            if let Some(float) = found.as_f64() {
                key(out, tag, 1);
                out.extend_from_slice(&float.to_bits().to_le_bytes());
            }
        }
        WireFormat::Length => {
            if let Some(data) = length_delimited(found, ty) {
                bytes(out, tag, &data);
            }
        }
    }
}

fn length_delimited(found: &Value, ty: Ty) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match ty {
        Ty::String => return Some(found.as_str()?.as_bytes().to_vec()),
        Ty::Bytes => return BASE64.decode(found.as_str()?).ok(),
        Ty::Quantity => match found {
            Value::String(text) => bytes(&mut out, 1, text.as_bytes()),
            other => bytes(&mut out, 1, other.to_string().as_bytes()),
        },
        Ty::IntOrString => match found {
            Value::String(text) => {
                number(&mut out, 1, 1);
                number(&mut out, 2, 0);
                bytes(&mut out, 3, text.as_bytes());
            }
            other => {
                number(&mut out, 1, 0);
                number(&mut out, 2, other.as_i64()?);
                bytes(&mut out, 3, b"");
            }
        },
        Ty::Time | Ty::MicroTime => {
            let moment: Timestamp = found.as_str()?.parse().ok()?;
            number(&mut out, 1, moment.as_second());
            number(&mut out, 2, i64::from(moment.subsec_nanosecond()));
        }
        Ty::Any => bytes(&mut out, 1, found.to_string().as_bytes()),
        Ty::Ref(_) => return Some(message(found, ty.definition()?)),
        Ty::Array(element) => {
            for item in found.as_array()? {
                value(item, *element, 1, &mut out);
            }
        }
        Ty::Map(_) | Ty::Int32 | Ty::Int64 | Ty::Boolean | Ty::Number => return None,
    }
    Some(out)
}
