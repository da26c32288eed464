//! OpenAPI v2 as protobuf, which kubectl asks for.
//!
//! The message is gnostic's `openapi.v2.Document` (`github.com/google/gnostic-models/openapiv2`);
//! the tables below have the field numbers that our documents use. Kubernetes' extensions (`x-…`)
//! go into each message's extensions, as YAML, of which JSON is a subset.

use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::{Map, Value};

/// The layout of one message.
struct Message {
    fields: &'static [Field],
    /// The number of its extensions; 0: it has none.
    extensions: u32,
}

/// A field: its JSON name, the numbers that lead to it (single-field messages wrap what JSON has
/// directly), and its type.
struct Field(&'static str, &'static [u32], FieldType);

enum FieldType {
    Text,
    Flag,
    /// Any value, as YAML.
    Any,
    /// Several of them.
    Anys,
    /// One or more texts.
    Texts,
    One(&'static Message),
    Parameters,
    /// A map as a list of names (1) with values (2, and further numbers that lead to the value).
    Named(&'static [u32], &'static Message),
}

static DOCUMENT: Message = Message {
    fields: &[
        Field("swagger", &[1], FieldType::Text),
        Field("info", &[2], FieldType::One(&INFO)),
        Field("paths", &[8, 2], FieldType::Named(&[2], &PATH_ITEM)),
        Field("definitions", &[9, 1], FieldType::Named(&[2], &SCHEMA)),
        Field("parameters", &[10, 1], FieldType::Named(&[2, 2, 3], &QUERY_PARAMETER)),
    ],
    extensions: 16,
};

static INFO: Message = Message {
    fields: &[Field("title", &[1], FieldType::Text), Field("version", &[2], FieldType::Text)],
    extensions: 7,
};

static PATH_ITEM: Message = Message {
    fields: &[
        Field("get", &[2], FieldType::One(&OPERATION)),
        Field("put", &[3], FieldType::One(&OPERATION)),
        Field("post", &[4], FieldType::One(&OPERATION)),
        Field("delete", &[5], FieldType::One(&OPERATION)),
        Field("options", &[6], FieldType::One(&OPERATION)),
        Field("head", &[7], FieldType::One(&OPERATION)),
        Field("patch", &[8], FieldType::One(&OPERATION)),
        Field("parameters", &[9], FieldType::Parameters),
    ],
    extensions: 10,
};

static OPERATION: Message = Message {
    fields: &[
        Field("tags", &[1], FieldType::Texts),
        Field("description", &[3], FieldType::Text),
        Field("operationId", &[5], FieldType::Text),
        Field("produces", &[6], FieldType::Texts),
        Field("consumes", &[7], FieldType::Texts),
        Field("parameters", &[8], FieldType::Parameters),
        Field("responses", &[9, 1], FieldType::Named(&[2, 1], &RESPONSE)),
        Field("schemes", &[10], FieldType::Texts),
    ],
    extensions: 13,
};

static RESPONSE: Message = Message {
    fields: &[
        Field("description", &[1], FieldType::Text),
        Field("schema", &[2, 1], FieldType::One(&SCHEMA)),
    ],
    extensions: 5,
};

/// In a query.
static QUERY_PARAMETER: Message = Message {
    fields: &[
        Field("in", &[2], FieldType::Text),
        Field("description", &[3], FieldType::Text),
        Field("name", &[4], FieldType::Text),
        Field("type", &[6], FieldType::Text),
        Field("uniqueItems", &[20], FieldType::Flag),
    ],
    extensions: 23,
};

/// In a path.
static PATH_PARAMETER: Message = Message {
    fields: &[
        Field("required", &[1], FieldType::Flag),
        Field("in", &[2], FieldType::Text),
        Field("description", &[3], FieldType::Text),
        Field("name", &[4], FieldType::Text),
        Field("type", &[5], FieldType::Text),
        Field("uniqueItems", &[19], FieldType::Flag),
    ],
    extensions: 22,
};

/// The body.
static BODY_PARAMETER: Message = Message {
    fields: &[
        Field("name", &[2], FieldType::Text),
        Field("in", &[3], FieldType::Text),
        Field("required", &[4], FieldType::Flag),
        Field("schema", &[5], FieldType::One(&SCHEMA)),
    ],
    extensions: 6,
};

/// A link to a parameter of the document.
static REFERENCE: Message =
    Message { fields: &[Field("$ref", &[1], FieldType::Text)], extensions: 0 };

static SCHEMA: Message = Message {
    fields: &[
        Field("$ref", &[1], FieldType::Text),
        Field("format", &[2], FieldType::Text),
        Field("description", &[4], FieldType::Text),
        Field("default", &[5], FieldType::Any),
        Field("required", &[19], FieldType::Texts),
        Field("enum", &[20], FieldType::Anys),
        Field("additionalProperties", &[21, 1], FieldType::One(&SCHEMA)),
        Field("type", &[22, 1], FieldType::Texts),
        Field("items", &[23, 1], FieldType::One(&SCHEMA)),
        Field("properties", &[25, 1], FieldType::Named(&[2], &SCHEMA)),
    ],
    extensions: 31,
};

/// A document of OpenAPI v2, from JSON. Fields that are not in the tables are left out.
pub fn document(json: &Value) -> Vec<u8> {
    json.as_object().map(|object| encode(object, &DOCUMENT)).unwrap_or_default()
}

fn encode(object: &Map<String, Value>, message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    for Field(name, numbers, field_type) in message.fields {
        if let Some(value) = object.get(*name) {
            field(value, numbers, field_type, &mut out);
        }
    }
    for (name, value) in object.iter().filter(|(name, _)| name.starts_with("x-")) {
        let mut named = Vec::new();
        put(&[1], name.as_bytes(), &mut named);
        put(&[2, 2], value.to_string().as_bytes(), &mut named);
        put(&[message.extensions], &named, &mut out);
    }
    out
}

fn field(value: &Value, numbers: &[u32], field_type: &FieldType, out: &mut Vec<u8>) {
    match (field_type, value) {
        (FieldType::Text | FieldType::Texts, Value::String(text)) => {
            put(numbers, text.as_bytes(), out)
        }
        (FieldType::Texts, Value::Array(texts)) => {
            // The list is in the innermost message, as a whole.
            let (outer, last) = numbers.split_at(numbers.len() - 1);
            let mut list = Vec::new();
            for text in texts.iter().filter_map(Value::as_str) {
                put(last, text.as_bytes(), &mut list);
            }
            put(outer, &list, out);
        }
        (FieldType::Flag, Value::Bool(true)) => {
            for number in numbers {
                encode_key(*number, WireType::Varint, out);
                encode_varint(1, out);
            }
        }
        (FieldType::Any, value) => {
            let mut any = Vec::new();
            put(&[2], value.to_string().as_bytes(), &mut any);
            put(numbers, &any, out);
        }
        (FieldType::Anys, Value::Array(values)) => {
            for value in values {
                field(value, numbers, &FieldType::Any, out);
            }
        }
        (FieldType::One(message), Value::Object(object)) => {
            put(numbers, &encode(object, message), out)
        }
        (FieldType::Parameters, Value::Array(parameters)) => {
            for parameter in parameters.iter().filter_map(Value::as_object) {
                let place = parameter.get("in").and_then(Value::as_str);
                let (path, message): (&[u32], _) = match place {
                    Some("path") => (&[1, 2, 4], &PATH_PARAMETER),
                    Some("body") => (&[1, 1], &BODY_PARAMETER),
                    Some(_) => (&[1, 2, 3], &QUERY_PARAMETER),
                    None => (&[2], &REFERENCE),
                };
                let mut item = Vec::new();
                put(path, &encode(parameter, message), &mut item);
                put(numbers, &item, out);
            }
        }
        (FieldType::Named(path, message), Value::Object(entries)) => {
            let (outer, last) = numbers.split_at(numbers.len() - 1);
            let mut list = Vec::new();
            for (name, value) in entries {
                let Some(object) = value.as_object() else {
                    continue;
                };
                let mut entry = Vec::new();
                put(&[1], name.as_bytes(), &mut entry);
                put(path, &encode(object, message), &mut entry);
                put(last, &entry, &mut list);
            }
            put(outer, &list, out);
        }
        _ => debug_assert!(false, "{numbers:?} has another type: {value}"),
    }
}

/// `data` nested in messages of one field each, the last number innermost. Without numbers:
/// unchanged.
fn put(numbers: &[u32], data: &[u8], out: &mut Vec<u8>) {
    let Some((number, inner)) = numbers.split_first() else {
        out.extend_from_slice(data);
        return;
    };
    let mut nested = Vec::new();
    if !inner.is_empty() {
        put(inner, data, &mut nested);
    }
    let data = if inner.is_empty() { data } else { &nested };
    encode_key(*number, WireType::LengthDelimited, out);
    encode_varint(data.len() as u64, out);
    out.extend_from_slice(data);
}
