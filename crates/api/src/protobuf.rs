//! Kubernetes' protobuf encoding of objects, converted to and from JSON.
//!
//! Clients in Go may send `application/vnd.kubernetes.protobuf`: four bytes of magic, then a
//! `runtime.Unknown` with the kind and the object's message
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding>). The schema
//! table has each field's number and type, so one decoder serves every kind.
//!
//! Go writes the fields of a message whether or not they are set, unless they are pointers: the
//! zeros that it takes for "not set" are left out here ([`schema::zero`]).

mod encode;
mod wire;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use wire::{Payload, WireError, fields};

use crate::schema::{self, Field, Ty, TypeRow};

pub use encode::{from_json, watch_event_from_json};

/// The media type of requests and answers.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// The magic number of an encoded object.
const MAGIC: &[u8] = b"k8s\0";
/// Maximum nesting of messages; more is an attack.
const DEPTH_MAX: u8 = 64;
/// Why a body cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum ProtobufError {
    #[error("the body does not begin as Kubernetes' protobuf encoding does")]
    Magic,
    #[error("the body names no kind that can be read from protobuf: {api_version} {kind}")]
    Kind { api_version: String, kind: String },
    #[error("messages are nested too deeply")]
    Depth,
    #[error("field {field} has another type than it should have")]
    Type { field: &'static str },
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Decodes the object of a body to JSON with `apiVersion` and `kind`.
///
/// # Errors
/// When the body is malformed, or of a kind that the schema table does not have.
pub fn to_json(body: &[u8]) -> Result<Value, ProtobufError> {
    let body = body.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for (tag, payload) in fields(body)? {
        match (tag, payload) {
            (1, Payload::Bytes(meta)) => {
                for (tag, payload) in fields(meta)? {
                    match (tag, payload) {
                        (1, Payload::Bytes(text)) => api_version = utf8(text),
                        (2, Payload::Bytes(text)) => kind = utf8(text),
                        _ => {}
                    }
                }
            }
            (2, Payload::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let row = schema::kind(group, version, &kind).or_else(|| by_name(&kind)).ok_or_else(|| {
        ProtobufError::Kind { api_version: api_version.clone(), kind: kind.clone() }
    })?;
    let mut object = message(row, raw, DEPTH_MAX)?;
    object.insert("apiVersion".to_owned(), json!(api_version));
    object.insert("kind".to_owned(), json!(kind));
    Ok(Value::Object(object))
}

/// Kinds without a resource of their own, such as `DeleteOptions`, which every group has.
fn by_name(kind: &str) -> Option<&'static TypeRow> {
    schema::definition(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}"))
}

fn message(row: &TypeRow, bytes: &[u8], depth: u8) -> Result<Map<String, Value>, ProtobufError> {
    let mut object = Map::new();
    members(row, bytes, &[], &mut object, depth)?;
    Ok(object)
}

/// Adds the fields of a message, or of one within it that JSON does not have (`within`: its
/// numbers), whose fields are inlined. Unknown ones are ignored, as usual in protobuf.
fn members(
    row: &TypeRow,
    bytes: &[u8],
    within: &[u16],
    object: &mut Map<String, Value>,
    depth: u8,
) -> Result<(), ProtobufError> {
    let depth = depth.checked_sub(1).ok_or(ProtobufError::Depth)?;
    for (tag, payload) in fields(bytes)? {
        let below = |field: &Field| field.proto.strip_prefix(within);
        if let Some(field) = row.fields.iter().find(|field| below(field) == Some(&[tag][..])) {
            put(object, field, payload, depth)?;
        } else if let Payload::Bytes(embedded) = payload
            && row.fields.iter().any(|field| below(field).and_then(<[u16]>::first) == Some(&tag))
        {
            members(row, embedded, &[within, &[tag]].concat(), object, depth)?;
        }
    }
    Ok(())
}

/// Adds one field of a message; a list's or map's occurs once for each element.
fn put(
    object: &mut Map<String, Value>,
    field: &'static Field,
    payload: Payload<'_>,
    depth: u8,
) -> Result<(), ProtobufError> {
    let wrong = || ProtobufError::Type { field: field.name };
    match field.ty {
        Ty::Array(element) => {
            let items = object.entry(field.name).or_insert_with(|| json!([]));
            let items = items.as_array_mut().ok_or_else(wrong)?;
            match (*element, payload) {
                // Numbers may be packed.
                (Ty::Int32 | Ty::Int64, Payload::Bytes(packed)) => {
                    items.extend(wire::packed(packed)?.into_iter().map(|n| json!(n)));
                }
                (element, payload) => items.push(value(element, payload, field.name, depth)?),
            }
        }
        Ty::Map(element) => {
            let Payload::Bytes(entry) = payload else {
                return Err(wrong());
            };
            let (key, value) = map_entry(*element, entry, field.name, depth)?;
            let map = object.entry(field.name).or_insert_with(|| json!({}));
            map.as_object_mut().ok_or_else(wrong)?.insert(key, value);
        }
        ty => {
            let value = value(ty, payload, field.name, depth)?;
            if !field.is_unset(&value) {
                object.insert(field.name.to_owned(), value);
            }
        }
    }
    Ok(())
}

fn map_entry(
    element: Ty,
    entry: &[u8],
    field: &'static str,
    depth: u8,
) -> Result<(String, Value), ProtobufError> {
    let (mut key, mut found) = (String::new(), None);
    for (tag, payload) in fields(entry)? {
        match (tag, payload) {
            (1, Payload::Bytes(text)) => key = utf8(text),
            (2, payload) => found = Some(map_value(element, payload, field, depth)?),
            _ => {}
        }
    }
    let empty = || match element {
        Ty::String | Ty::Bytes => json!(""),
        _ => Value::Null,
    };
    Ok((key, found.unwrap_or_else(empty)))
}

fn map_value(
    element: Ty,
    payload: Payload<'_>,
    field: &'static str,
    depth: u8,
) -> Result<Value, ProtobufError> {
    match (element, payload) {
        // A list in a map is a message with one repeated field.
        (Ty::Array(inner), Payload::Bytes(list)) => {
            let items = fields(list)?.into_iter().map(|(_, p)| value(*inner, p, field, depth));
            Ok(Value::Array(items.collect::<Result<_, _>>()?))
        }
        (element, payload) => value(element, payload, field, depth),
    }
}

fn value(
    ty: Ty,
    payload: Payload<'_>,
    field: &'static str,
    depth: u8,
) -> Result<Value, ProtobufError> {
    Ok(match (ty, payload) {
        (Ty::String, Payload::Bytes(text)) => json!(utf8(text)),
        (Ty::Bytes, Payload::Bytes(bytes)) => json!(STANDARD.encode(bytes)),
        (Ty::Int32 | Ty::Int64 | Ty::Number, Payload::Varint(number)) => json!(number as i64),
        (Ty::Number, Payload::Fixed64(bits)) => json!(f64::from_bits(bits)),
        (Ty::Boolean, Payload::Varint(number)) => json!(number != 0),
        (Ty::Quantity, Payload::Bytes(bytes)) => json!(text_of(bytes, 1)?),
        (Ty::Time, Payload::Bytes(bytes)) => time(bytes, false)?,
        (Ty::MicroTime, Payload::Bytes(bytes)) => time(bytes, true)?,
        (Ty::IntOrString, Payload::Bytes(bytes)) => int_or_string(bytes)?,
        (Ty::Any, Payload::Bytes(bytes)) => any(bytes)?,
        (Ty::Ref(_), Payload::Bytes(bytes)) => match ty.definition() {
            Some(row) => Value::Object(message(row, bytes, depth)?),
            None => return Err(ProtobufError::Type { field }),
        },
        _ => return Err(ProtobufError::Type { field }),
    })
}

/// `seconds` and `nanos`; the zero time is empty, and null in JSON.
fn time(bytes: &[u8], micro: bool) -> Result<Value, ProtobufError> {
    let (mut seconds, mut nanos) = (None, 0);
    for (tag, payload) in fields(bytes)? {
        match (tag, payload) {
            (1, Payload::Varint(number)) => seconds = Some(number as i64),
            (2, Payload::Varint(number)) => nanos = number as i32,
            _ => {}
        }
    }
    let moment = seconds.and_then(|seconds| jiff::Timestamp::new(seconds, nanos).ok());
    Ok(match moment {
        Some(moment) if micro => json!(format!("{moment:.6}")),
        Some(moment) => json!(format!("{moment:.0}")),
        None => Value::Null,
    })
}

fn int_or_string(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    for (tag, payload) in fields(bytes)? {
        match (tag, payload) {
            (1, Payload::Varint(kind)) => is_text = kind == 1,
            (2, Payload::Varint(value)) => number = value as i32,
            (3, Payload::Bytes(value)) => text = utf8(value),
            _ => {}
        }
    }
    Ok(if is_text { json!(text) } else { json!(number) })
}

/// Raw JSON inside a message (`RawExtension`, `FieldsV1`, `JSON`): its first field.
fn any(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let raw = text_of(bytes, 1)?;
    Ok(serde_json::from_str(&raw).unwrap_or(Value::Null))
}

fn text_of(bytes: &[u8], wanted: u16) -> Result<String, ProtobufError> {
    let found = fields(bytes)?.into_iter().find_map(|field| match field {
        (tag, Payload::Bytes(text)) if tag == wanted => Some(utf8(text)),
        _ => None,
    });
    Ok(found.unwrap_or_default())
}

fn utf8(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;
