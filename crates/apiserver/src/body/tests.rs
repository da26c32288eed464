//! Decoding, and that every form of an object is the same object.

use std::collections::HashSet;

use api::schema::{Field, Ty};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use super::*;

#[test]
fn strictness_is_worded_as_kubernetes_words_it() {
    let json = br#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a","name":"b"},"spec":{"foo":1}}"#;
    let error = decode(Deployment::ROW, json, FieldValidation::Strict).unwrap_err();
    assert_eq!(
        error.message(),
        "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: \
         unknown field \"spec.foo\", duplicate field \"metadata.name\""
    );
}

#[test]
fn yaml_is_read_as_kubernetes_reads_it() {
    let json = as_json(b"a: 0644\nb: on\nc: 'x'\n", BodyFormat::Yaml).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(value, serde_json::json!({"a": 420, "b": true, "c": "x"}));
    assert!(as_json(b"a: [", BodyFormat::Yaml).is_err());
    assert!(as_json(&[0xff, 0xfe], BodyFormat::Yaml).is_err());
}

#[test]
fn hostile_bodies_are_errors() {
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    for body in [&b""[..], b"[]", b"\xff", &deep, b"{\"metadata\":[]}", b"{\"spec\":"] {
        decode(Deployment::ROW, body, FieldValidation::Strict).unwrap_err();
    }
}

/// A value of a field that is not Go's zero value.
fn sample(ty: Ty) -> Value {
    match ty {
        Ty::String => "a".into(),
        Ty::Bytes => "AAEC".into(),
        Ty::Time => "2026-01-02T03:04:05Z".into(),
        Ty::MicroTime => "2026-01-02T03:04:05.000006Z".into(),
        Ty::Int32 | Ty::Int64 | Ty::IntOrString => 7.into(),
        Ty::Number => 1.5.into(),
        Ty::Boolean => true.into(),
        Ty::Quantity => "1Gi".into(),
        Ty::Any => json!({"raw": [1]}),
        // An element without fields is not the zero value of the list.
        Ty::Ref(_) => json!({}),
        Ty::Array(element) => json!([sample(*element)]),
        Ty::Map(element) => json!({"key": sample(*element)}),
    }
}

fn zero(ty: Ty) -> Value {
    match ty {
        Ty::String | Ty::Bytes => "".into(),
        Ty::Time | Ty::MicroTime => zero::ZERO_TIME.into(),
        Ty::Int32 | Ty::Int64 | Ty::IntOrString | Ty::Number => 0.into(),
        Ty::Boolean => false.into(),
        Ty::Quantity => "0".into(),
        Ty::Any => Value::Null,
        Ty::Ref(_) | Ty::Map(_) => json!({}),
        Ty::Array(_) => json!([]),
    }
}

/// A value that Go would not decode.
fn misfit(ty: Ty) -> Option<Value> {
    Some(match ty {
        Ty::Any => return None,
        // Without fields, Rust's type takes anything.
        Ty::Ref(_) if ty.definition().is_some_and(|row| row.fields.is_empty()) => return None,
        Ty::String | Ty::Bytes | Ty::Time | Ty::MicroTime => false.into(),
        Ty::Int32 | Ty::Int64 | Ty::Number | Ty::Boolean => "".into(),
        Ty::IntOrString | Ty::Quantity => json!([]),
        Ty::Ref(_) | Ty::Map(_) => json!([]),
        Ty::Array(_) => json!({}),
    })
}

/// One field of a kind's schema, and how to wrap it in an object of the kind.
struct Place {
    row: &'static KindRow,
    field: &'static Field,
    path: Vec<Step>,
    /// Whether protobuf has the field and all above it.
    in_protobuf: bool,
}

#[derive(Clone)]
enum Step {
    Field(&'static str),
    Element,
    Key,
}

impl Place {
    /// The object with the field; `None` leaves it out.
    fn object(&self, value: Option<&Value>) -> Value {
        let mut inner = json!({});
        if let Some(value) = value {
            inner[self.field.name] = value.clone();
        }
        for step in self.path.iter().rev() {
            inner = match step {
                Step::Field(name) => json!({*name: inner}),
                Step::Element => json!([inner]),
                Step::Key => json!({"key": inner}),
            };
        }
        inner["apiVersion"] = self.row.api_version().into();
        inner["kind"] = self.row.kind.to_string().into();
        inner
    }

    fn name(&self) -> String {
        let steps = self.path.iter().map(|step| match step {
            Step::Field(name) => format!(".{name}"),
            Step::Element => "[0]".to_owned(),
            Step::Key => ".key".to_owned(),
        });
        format!("{}{}.{}", self.row.kind, steps.collect::<String>(), self.field.name)
    }
}

/// Every field of every definition that the kinds reach: near the root in each kind, deeper ones
/// once.
fn places() -> Vec<Place> {
    let mut places = Vec::new();
    let mut everywhere = HashSet::new();
    for row in api::kind::KINDS {
        let root = row.schema().unwrap();
        let mut here = HashSet::new();
        let mut open = std::collections::VecDeque::from([(root, Vec::new(), true)]);
        while let Some((definition, path, whole)) = open.pop_front() {
            let new = everywhere.insert(definition.name);
            if !here.insert(definition.name) || (path.len() > 2 && !new) {
                continue;
            }
            for field in definition.fields {
                if path.is_empty() && matches!(field.name, "apiVersion" | "kind") {
                    continue;
                }
                let mut below = path.clone();
                below.push(Step::Field(field.name));
                let mut ty = field.ty;
                while let Ty::Array(inner) | Ty::Map(inner) = ty {
                    below.push(if matches!(ty, Ty::Array(_)) { Step::Element } else { Step::Key });
                    ty = *inner;
                }
                let in_protobuf = whole && !field.proto.is_empty();
                open.extend(ty.definition().map(|inner| (inner, below, in_protobuf)));
                places.push(Place { row, field, path: path.clone(), in_protobuf });
            }
        }
    }
    assert!(places.len() > 2_000, "{}", places.len());
    places
}

/// What is stored of a body, before defaults.
fn stored(row: &'static KindRow, body: &[u8], format: BodyFormat) -> Result<String, String> {
    let json = object_json(&row.kind, body, format).map_err(|error| error.message().to_owned())?;
    let decoded = decode(row, &json, FieldValidation::Strict);
    let decoded = decoded.map_err(|error| error.message().to_owned())?;
    Ok(String::from_utf8_lossy(&decoded.object.encode()).into_owned())
}

/// In every form, of every field: missing, null, Go's zero value and another value.
#[test]
fn an_object_is_the_same_in_every_form() {
    for place in places() {
        let (row, name) = (place.row, place.name());
        let zero_value = zero(place.field.ty);
        let json = |value: Option<&Value>| {
            let object = place.object(value);
            let body = object.to_string();
            let json = stored(row, body.as_bytes(), BodyFormat::Json)
                .unwrap_or_else(|why| panic!("{body}: {why}"));
            assert_eq!(
                stored(row, body.as_bytes(), BodyFormat::Yaml).as_ref(),
                Ok(&json),
                "{name}"
            );
            if place.in_protobuf {
                let bytes = api::protobuf::from_json(&object).unwrap();
                assert_eq!(
                    stored(row, &bytes, BodyFormat::Protobuf).as_ref(),
                    Ok(&json),
                    "{name}: {body}"
                );
            }
            json
        };
        let absent = json(None);
        assert_eq!(json(Some(&Value::Null)), absent, "{name}: null");
        let set = json(Some(&sample(place.field.ty)));
        let is_value = !matches!(place.field.ty, Ty::Ref(_)) || place.field.pointer;
        if is_value && !(place.field.required && matches!(place.field.ty, Ty::Ref(_))) {
            assert_ne!(set, absent, "{name}");
        }
        if place.field.name == "managedFields" || place.field.ty == Ty::Any {
            continue;
        }
        let unset = json(Some(&zero_value));
        if place.field.pointer {
            let is_time = matches!(place.field.ty, Ty::Time | Ty::MicroTime);
            // Rust's type of a required field has no absence.
            let differs = is_time || place.field.required || unset != absent;
            assert!(differs, "{name}: a pointer to {zero_value}");
        } else {
            assert_eq!(unset, absent, "{name}: {zero_value}");
        }
        if let Some(misfit) = misfit(place.field.ty) {
            let body = place.object(Some(&misfit)).to_string();
            stored(row, body.as_bytes(), BodyFormat::Json).expect_err(&body);
        }
    }
}

/// Elements that are null have the zero value of their type, as Go decodes them.
#[test]
fn null_elements_are_zero_values() {
    for place in places() {
        let (list, element) = match place.field.ty {
            Ty::Array(element) if *element != Ty::Any => (json!([null]), json!([zero(*element)])),
            Ty::Map(element) if *element != Ty::Any => {
                (json!({"key": null}), json!({"key": zero(*element)}))
            }
            _ => continue,
        };
        let read = |value: &Value| {
            let body = place.object(Some(value)).to_string();
            stored(place.row, body.as_bytes(), BodyFormat::Json)
                .unwrap_or_else(|why| panic!("{body}: {why}"))
        };
        assert_eq!(read(&list), read(&element), "{}", place.name());
    }
}
