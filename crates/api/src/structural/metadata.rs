//! `apiVersion`, `kind` and `metadata` of embedded objects
//! (`k8s.io/apiextensions-apiserver`, `schema/objectmeta`).

use std::sync::LazyLock;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Map, Value};

use super::node::Node;
use super::path::Path;
use crate::schema::{self, TypeRow, mismatch};
use crate::status::FieldError;
use crate::{names, owners};

/// The definition of `ObjectMeta`.
pub fn definition() -> Option<&'static TypeRow> {
    static DEFINITION: LazyLock<Option<&TypeRow>> =
        LazyLock::new(|| schema::definition("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"));
    *DEFINITION
}

/// What is wrong with the embedded objects of a value.
pub fn validate(node: &Node, value: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(map) => {
            if node.embedded {
                object(map, path, errors);
            }
            for (name, member) in map {
                if let Some(property) = node.property(name) {
                    validate(property, member, &path.field(name), errors);
                } else if let Some(schema) = node.additional_schema() {
                    validate(schema, member, &path.key(name), errors);
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = node.items.as_deref() else {
                return;
            };
            for (index, element) in list.iter().enumerate() {
                validate(items, element, &path.index(index), errors);
            }
        }
        _ => {}
    }
}

/// `apiVersion`, `kind` and `metadata` of one object.
pub fn object(map: &Map<String, Value>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for name in ["apiVersion", "kind"] {
        let field = path.field(name).to_string();
        match map.get(name) {
            None => errors.push(FieldError::required(field, "")),
            Some(Value::String(text)) if text.is_empty() => {
                errors.push(FieldError::invalid(field, text, "must not be empty"));
            }
            Some(Value::String(text)) if name == "apiVersion" => {
                if text.matches('/').count() > 1 {
                    let detail = format!("unexpected GroupVersion string: {text}");
                    errors.push(FieldError::invalid(field, text, detail));
                }
            }
            Some(Value::String(text)) => {
                let problems = names::dns_1035_label(&text.to_lowercase());
                if !problems.is_empty() {
                    errors.push(FieldError::invalid(field, text, mixed_case(&problems)));
                }
            }
            Some(other) => errors.push(FieldError::invalid(field, other, "must be a string")),
        }
    }
    if let Some(metadata) = map.get("metadata") {
        self::metadata(metadata, &path.field("metadata"), errors);
    }
}

/// Problems of a kind, which may have capitals.
pub fn mixed_case(problems: &[String]) -> String {
    format!("may have mixed case, but should otherwise match: {}", problems.join(","))
}

fn metadata(value: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let malformed = match value {
        Value::Null => return,
        Value::Object(_) => definition().and_then(|row| mismatch::find(value, row)),
        other => {
            let kind = match other {
                Value::Array(_) => "array",
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                _ => "number",
            };
            Some(format!("json: cannot unmarshal {kind} into Go value of type v1.ObjectMeta"))
        }
    };
    if let Some(detail) = malformed {
        errors.push(FieldError::invalid(path.to_string(), value, detail));
        return;
    }
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut invalid = |field: &str, text: &str, problems: Vec<String>| {
        let field = path.field(field).to_string();
        errors
            .extend(problems.into_iter().map(|why| FieldError::invalid(field.clone(), text, why)));
    };
    for name in ["generateName", "name"] {
        if !text(name).is_empty() {
            invalid(name, text(name), names::path_segment(text(name)));
        }
    }
    if !text("namespace").is_empty() {
        invalid("namespace", text("namespace"), names::dns_label(text("namespace")));
    }
    for (key, value) in value.get("labels").and_then(Value::as_object).into_iter().flatten() {
        invalid("labels", key, names::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        invalid("labels", value, names::label_value(value));
    }
    let mut size = 0;
    for (key, value) in value.get("annotations").and_then(Value::as_object).into_iter().flatten() {
        invalid("annotations", key, names::qualified_name(&key.to_lowercase()));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    for finalizer in value.get("finalizers").and_then(Value::as_array).into_iter().flatten() {
        let finalizer = finalizer.as_str().unwrap_or_default();
        invalid("finalizers", finalizer, names::qualified_name(finalizer));
    }
    if size > names::ANNOTATIONS_MAX_BYTES {
        let field = path.field("annotations").to_string();
        errors.push(FieldError::too_long(field, names::ANNOTATIONS_MAX_BYTES));
    }
    let owners = value.get("ownerReferences").cloned().unwrap_or_default();
    let owners: Vec<OwnerReference> = serde_json::from_value(owners).unwrap_or_default();
    owners::validate(&owners, &path.field("ownerReferences").to_string(), errors);
}
