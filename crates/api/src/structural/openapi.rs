//! Schemas of custom resources as OpenAPI publishes them (`k8s.io/apiextensions-apiserver`,
//! `pkg/controller/openapi`).
//!
//! The documents are made of the definition's JSON, since a [`Structural`](super::Structural) keeps no
//! descriptions.

use serde_json::{Map, Value, json};

use super::node::DEPTH_MAX;
use super::prune::META_FIELDS;

/// The version of OpenAPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Without alternatives and nullable values, which kubectl does not understand there.
    V2,
    V3,
}

/// What the fields that every object has are described as; empty texts are left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Descriptions<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub metadata: &'a str,
}

/// The document of a kind. `schema`: `openAPIV3Schema`; without one, anything is allowed.
pub fn document(
    schema: Option<&Value>,
    (group, version, kind): (&str, &str, &str),
    dialect: Dialect,
    descriptions: &Descriptions<'_>,
) -> Value {
    let schema = schema.filter(|schema| {
        let opaque = schema["x-kubernetes-preserve-unknown-fields"] == true;
        schema.is_object() && !(dialect == Dialect::V2 && opaque)
    });
    let mut document = match schema {
        None => json!({"type": "object"}),
        Some(schema) => {
            let writer = Writer { dialect, descriptions };
            let mut document = writer.schema(schema, 0);
            writer.add_meta(&mut document);
            document
        }
    };
    document["x-kubernetes-group-version-kind"] =
        json!([{"group": group, "version": version, "kind": kind}]);
    document
}

struct Writer<'a> {
    dialect: Dialect,
    descriptions: &'a Descriptions<'a>,
}

impl Writer<'_> {
    fn schema(&self, schema: &Value, depth: usize) -> Value {
        let Some(schema) = schema.as_object().filter(|_| depth <= DEPTH_MAX) else {
            return json!({});
        };
        let mut out = schema.clone();
        unfold(&mut out);
        if self.dialect == Dialect::V2 {
            reduce(&mut out, schema);
        }
        if let Some(Value::Object(properties)) = out.get_mut("properties") {
            for property in properties.values_mut() {
                *property = self.schema(property, depth + 1);
            }
        }
        for name in ["items", "additionalProperties"] {
            if let Some(below) = out.get_mut(name).filter(|below| below.is_object()) {
                *below = self.schema(below, depth + 1);
            }
        }
        let opaque = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&true.into());
        let embedded = schema.get("x-kubernetes-embedded-resource") == Some(&true.into());
        let mut out = Value::Object(out);
        if embedded && !(opaque && self.dialect == Dialect::V2) {
            self.add_meta(&mut out);
            require_type(&mut out);
        }
        out
    }

    /// Adds the fields that every object has.
    fn add_meta(&self, out: &mut Value) {
        let Some(out) = out.as_object_mut() else {
            return;
        };
        let properties = out.entry("properties").or_insert_with(|| json!({}));
        let Some(properties) = properties.as_object_mut() else {
            return;
        };
        let definitions = match self.dialect {
            Dialect::V2 => "#/definitions",
            Dialect::V3 => "#/components/schemas",
        };
        let meta = json!({"$ref": format!("{definitions}/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")});
        let text = json!({"type": "string"});
        let texts =
            [self.descriptions.api_version, self.descriptions.kind, self.descriptions.metadata];
        for ((name, schema), description) in
            META_FIELDS.iter().zip([text.clone(), text, meta]).zip(texts)
        {
            let mut schema = schema;
            if !description.is_empty() {
                schema["description"] = description.into();
            }
            properties.insert((*name).to_owned(), schema);
        }
    }
}

fn require_type(out: &mut Value) {
    let mut required = out["required"].as_array().cloned().unwrap_or_default();
    for name in ["kind", "apiVersion"] {
        if !required.iter().any(|known| known == name) {
            required.push(name.into());
        }
    }
    out["required"] = required.into();
}

/// Spells `x-kubernetes-int-or-string` out.
fn unfold(schema: &mut Map<String, Value>) {
    if schema.get("x-kubernetes-int-or-string") != Some(&true.into()) {
        return;
    }
    let either = json!([{"type": "integer"}, {"type": "string"}]);
    let first = schema.get("allOf").and_then(|all| all.get(0));
    let spelled = schema.get("anyOf") == Some(&either)
        || first.and_then(|first| first.get("anyOf")) == Some(&either);
    if spelled {
        return;
    }
    if schema.get("anyOf").is_none_or(Value::is_null) {
        schema.insert("anyOf".to_owned(), either);
        return;
    }
    let mut all = vec![json!({"anyOf": either})];
    all.extend(schema.get("allOf").and_then(Value::as_array).into_iter().flatten().cloned());
    schema.insert("allOf".to_owned(), all.into());
}

/// Removes what OpenAPI v2 does not have, and what kubectl reads wrongly there.
fn reduce(out: &mut Map<String, Value>, schema: &Map<String, Value>) {
    for name in ["allOf", "anyOf", "oneOf", "not"] {
        out.remove(name);
    }
    let is_true = |name: &str| schema.get(name) == Some(&true.into());
    let is_nullable = |schema: &Value| schema["nullable"] == true;
    let opaque = is_true("x-kubernetes-preserve-unknown-fields");
    out.remove("nullable");
    if is_true("nullable") || opaque {
        out.remove("items");
        out.remove("properties");
    }
    let ty = out.get("type").and_then(Value::as_str).unwrap_or_default();
    let untyped = is_true("nullable")
        || (ty == "array" && !out.contains_key("items"))
        || (ty == "object" && opaque);
    if untyped {
        out.remove("type");
    }
    let nullable: Vec<String> = out
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(_, property)| is_nullable(property))
        .map(|(name, _)| name.clone())
        .collect();
    if out.get("additionalProperties").is_some_and(is_nullable) {
        out.remove("required");
    }
    if let Some(required) = out.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| !nullable.iter().any(|known| name == known));
        if required.is_empty() {
            out.remove("required");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: (&str, &str, &str) = ("example.com", "v1", "Foo");

    fn published(schema: Value, dialect: Dialect) -> Value {
        document(Some(&schema), NAME, dialect, &Descriptions::default())
    }

    #[test]
    fn objects_have_their_metadata() {
        let descriptions = Descriptions { kind: "what it is", ..Descriptions::default() };
        let schema = json!({"type": "object", "properties": {"metadata": {"type": "object"}, "spec": {"type": "string"}}});
        let found = document(Some(&schema), NAME, Dialect::V3, &descriptions);
        assert_eq!(
            found,
            json!({"type": "object", "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string", "description": "what it is"},
            "metadata": {"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"},
            "spec": {"type": "string"}},
            "x-kubernetes-group-version-kind": [{"group": "example.com", "version": "v1", "kind": "Foo"}]})
        );
        let found = published(schema, Dialect::V2);
        assert_eq!(
            found["properties"]["metadata"]["$ref"],
            "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
        );
        let opaque = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        assert_eq!(published(opaque.clone(), Dialect::V2).as_object().unwrap().len(), 2);
        assert!(published(opaque, Dialect::V3)["properties"]["metadata"].is_object());
        assert_eq!(document(None, NAME, Dialect::V3, &Descriptions::default())["type"], "object");
    }

    #[test]
    fn version_two_is_reduced() {
        for (schema, v2, v3) in [
            (
                json!({"type": "string", "nullable": true, "oneOf": [{"pattern": "a"}]}),
                json!({}),
                json!({"type": "string", "nullable": true, "oneOf": [{"pattern": "a"}]}),
            ),
            (
                json!({"x-kubernetes-int-or-string": true}),
                json!({"x-kubernetes-int-or-string": true}),
                json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
            ),
            (
                json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "string"}}}),
                json!({"x-kubernetes-preserve-unknown-fields": true}),
                json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "string"}}}),
            ),
            (
                json!({"type": "object", "required": ["a", "b"], "properties": {"a": {"type": "string", "nullable": true}, "b": {"type": "array", "items": {"type": "string"}}}}),
                json!({"type": "object", "required": ["b"], "properties": {"a": {}, "b": {"type": "array", "items": {"type": "string"}}}}),
                json!({"type": "object", "required": ["a", "b"], "properties": {"a": {"type": "string", "nullable": true}, "b": {"type": "array", "items": {"type": "string"}}}}),
            ),
        ] {
            let of = |dialect| {
                published(json!({"type": "object", "properties": {"x": schema.clone()}}), dialect)["properties"]["x"].clone()
            };
            assert_eq!(of(Dialect::V2), v2);
            assert_eq!(of(Dialect::V3), v3);
        }
    }

    #[test]
    fn embedded_objects_have_metadata_too() {
        let schema = json!({"type": "object", "properties": {"x": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "string"}}}}});
        let found = published(schema, Dialect::V3)["properties"]["x"].clone();
        assert_eq!(found["required"], json!(["kind", "apiVersion"]));
        assert!(found["properties"]["metadata"]["$ref"].is_string());
    }
}
