//! Definitions as OpenAPI schemas.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use api::KindRow;
use api::custom::Custom;
use api::schema::{self, Field, List, Ty, TypeRow};
use api::structural::openapi::{self as structural, Descriptions};
use serde_json::{Map, Value, json};

use super::Definitions;
use super::{descriptions, enums};

/// The version of OpenAPI.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    V2,
    V3,
}

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// Schemas of custom resources, which hold values of any type.
const SCHEMA: &str = "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
const API_VERSION: &str = "Version of this representation of an object.";
const KIND: &str = "What the object is.";
const METADATA: &str = "Metadata of the object.";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// The schemas of one document: those referred to, directly or indirectly.
pub struct Schemas<'a> {
    dialect: Dialect,
    definitions: Definitions<'a>,
    done: BTreeMap<String, Value>,
    pending: Vec<&'static TypeRow>,
}

impl<'a> Schemas<'a> {
    pub fn new(dialect: Dialect, definitions: Definitions<'a>) -> Self {
        Self { dialect, definitions, done: BTreeMap::new(), pending: Vec::new() }
    }

    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    fn link(&self, name: &str) -> Value {
        let prefix = match self.dialect {
            Dialect::V2 => "#/definitions/",
            Dialect::V3 => "#/components/schemas/",
        };
        json!({ "$ref": format!("{prefix}{name}") })
    }

    /// A reference to a definition, which becomes part of the document.
    pub fn reference(&mut self, row: &'static TypeRow) -> Value {
        if !self.done.contains_key(row.name) {
            self.done.insert(row.name.to_owned(), Value::Null);
            self.pending.push(row);
        }
        self.link(row.name)
    }

    /// A reference to the list of a kind.
    pub fn list_reference(&mut self, row: &'static TypeRow) -> Value {
        let name = format!("{}List", row.name);
        if !self.done.contains_key(&name) {
            let items = self.reference(row);
            let metadata = schema::definition(LIST_META).map(|row| self.reference(row));
            let mut list = json!({
                "description": format!("{} is a list of {} objects.", short(&name), short(row.name)),
                "type": "object",
                "required": ["items"],
                "properties": {
                    "apiVersion": described(API_VERSION),
                    "kind": described(KIND),
                    "metadata": metadata,
                    "items": {"type": "array", "items": items, "description": format!("List of {}.", short(row.name))},
                },
            });
            if let Some((group, version, kind)) = row.resource {
                list["x-kubernetes-group-version-kind"] =
                    json!([{"group": group, "version": version, "kind": format!("{kind}List")}]);
            }
            self.done.insert(name.clone(), list);
        }
        self.link(&name)
    }

    /// A reference to an event of a watch.
    pub fn watch_event(&mut self) -> Value {
        const NAME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";
        let event = json!({
            "description": "A change of an object.",
            "type": "object",
            "required": ["type", "object"],
            "properties": {
                "object": {"type": "object", "description": "The object after the change, or a Status."},
                "type": {"type": "string", "description": "ADDED, MODIFIED, DELETED, BOOKMARK or ERROR."},
            },
        });
        self.done.entry(NAME.to_owned()).or_insert(event);
        self.link(NAME)
    }

    /// References to a custom kind and to its list, by upstream's names for them.
    pub fn custom(&mut self, row: &KindRow, custom: &Custom) -> (Value, Value) {
        let mut parts: Vec<&str> = row.group.split('.').collect();
        parts.reverse();
        let name = |kind: &str| format!("{}.{}.{kind}", parts.join("."), row.version);
        let (object, list) = (name(&row.kind), name(&custom.list_kind));
        let of_kind =
            |kind: &str| json!([{"group": row.group, "version": row.version, "kind": kind}]);
        let definition = (self.definitions)(&custom.definition).unwrap_or_default();
        let mut versions = definition["spec"]["versions"].as_array().into_iter().flatten();
        let version = versions.find(|version| version["name"] == *row.version);
        let schema = structural::document(
            version.and_then(|version| version.pointer("/schema/openAPIV3Schema")),
            (&row.group, &row.version, &row.kind),
            match self.dialect {
                Dialect::V2 => structural::Dialect::V2,
                Dialect::V3 => structural::Dialect::V3,
            },
            &Descriptions { api_version: API_VERSION, kind: KIND, metadata: METADATA },
        );
        // Every schema refers to it.
        schema::definition(OBJECT_META).map(|row| self.reference(row));
        self.done.insert(object.clone(), schema);
        let metadata = schema::definition(LIST_META).map(|row| self.reference(row));
        let schema = json!({
            "description": format!("{} is a list of {}", custom.list_kind, row.kind),
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": described(API_VERSION),
                "kind": described(KIND),
                "metadata": metadata,
                "items": {"type": "array", "items": self.link(&object), "description": format!("List of {}.", row.plural)},
            },
            "x-kubernetes-group-version-kind": of_kind(&custom.list_kind),
        });
        self.done.insert(list.clone(), schema);
        (self.link(&object), self.link(&list))
    }

    /// Every schema of the document, by name.
    pub fn finish(mut self) -> BTreeMap<String, Value> {
        while let Some(row) = self.pending.pop() {
            let schema = self.definition(row);
            self.done.insert(row.name.to_owned(), schema);
        }
        self.done
    }

    fn definition(&mut self, row: &'static TypeRow) -> Value {
        let mut schema = json!({ "type": "object" });
        let short = row.name.trim_start_matches("io.k8s.");
        if let Some(text) = DESCRIPTIONS.get(short) {
            schema["description"] = text.as_str().into();
        }
        let required: Vec<&str> = row
            .fields
            .iter()
            .filter(|field| is_required(row, field))
            .map(|field| field.name)
            .collect();
        if !required.is_empty() {
            schema["required"] = required.into();
        }
        let properties: Map<String, Value> = row
            .fields
            .iter()
            .map(|field| (field.name.to_owned(), self.property(short, field)))
            .collect();
        if !properties.is_empty() {
            schema["properties"] = properties.into();
        }
        if row.atomic {
            schema["x-kubernetes-map-type"] = "atomic".into();
        }
        if let Some((group, version, kind)) = row.resource {
            schema["x-kubernetes-group-version-kind"] =
                json!([{"group": group, "version": version, "kind": kind}]);
        }
        schema
    }

    fn property(&mut self, owner: &str, field: &Field) -> Value {
        let mut schema = self.ty(field.ty, untyped(owner, field.name));
        // In OpenAPI 3.0, a reference must stand alone.
        if schema.get("$ref").is_some() && self.dialect == Dialect::V3 {
            schema = json!({ "allOf": [schema] });
        }
        if let Some(text) = DESCRIPTIONS.get(format!("{owner}.{}", field.name).as_str()) {
            schema["description"] = text.as_str().into();
        }
        if let Some(values) = enums::of(owner, field.name) {
            let values = Value::from(values.to_vec());
            match schema.get_mut("items") {
                Some(items) => items["enum"] = values,
                None => schema["enum"] = values,
            }
        }
        if let Some(default) = field.default.and_then(|json| serde_json::from_str(json).ok()) {
            schema["default"] = default;
        }
        match field.list {
            Some(List::Atomic) => schema["x-kubernetes-list-type"] = "atomic".into(),
            Some(List::Set) => schema["x-kubernetes-list-type"] = "set".into(),
            Some(List::Map(keys)) => {
                schema["x-kubernetes-list-type"] = "map".into();
                schema["x-kubernetes-list-map-keys"] = keys.into();
            }
            None => {}
        }
        if field.atomic {
            schema["x-kubernetes-map-type"] = "atomic".into();
        }
        if let Some(strategy) = field.patch.text() {
            schema["x-kubernetes-patch-strategy"] = strategy.into();
        }
        if let Some(key) = field.merge_key {
            schema["x-kubernetes-patch-merge-key"] = key.into();
        }
        schema
    }

    /// `any` is the definition of a value of any type in it; otherwise, such a value is an object.
    fn ty(&mut self, ty: Ty, any: Option<(&str, &str)>) -> Value {
        match ty {
            Ty::String => json!({"type": "string"}),
            Ty::Bytes => json!({"type": "string", "format": "byte"}),
            Ty::Time | Ty::MicroTime => json!({"type": "string", "format": "date-time"}),
            Ty::Int32 => json!({"type": "integer", "format": "int32"}),
            Ty::Int64 => json!({"type": "integer", "format": "int64"}),
            Ty::Number => json!({"type": "number", "format": "double"}),
            Ty::Boolean => json!({"type": "boolean"}),
            Ty::Quantity => self.scalar(
                QUANTITY,
                "Amount of a resource: a number with a suffix, as in 500m or 1Gi.",
            ),
            Ty::IntOrString => {
                self.scalar(INT_OR_STRING, "A number, or a text such as 25% or the name of a port.")
            }
            Ty::Any => match any {
                Some((name, text)) => {
                    let name = format!("io.k8s.{}{name}", SCHEMA.trim_end_matches(short(SCHEMA)));
                    self.done.insert(name.clone(), json!({ "description": text }));
                    self.link(&name)
                }
                None => json!({"type": "object"}),
            },
            Ty::Ref(_) => match ty.definition() {
                Some(row) => self.reference(row),
                None => json!({"type": "object"}),
            },
            Ty::Array(element) => json!({"type": "array", "items": self.ty(*element, any)}),
            Ty::Map(value) => {
                json!({"type": "object", "additionalProperties": self.ty(*value, any)})
            }
        }
    }

    fn scalar(&mut self, name: &str, description: &str) -> Value {
        let schema = match self.dialect {
            Dialect::V2 if name == INT_OR_STRING => {
                json!({"type": "string", "format": "int-or-string", "description": description})
            }
            Dialect::V2 => json!({"type": "string", "description": description}),
            Dialect::V3 => {
                json!({"oneOf": [{"type": "string"}, {"type": "number"}], "description": description})
            }
        };
        self.done.insert(name.to_owned(), schema);
        self.link(name)
    }
}

/// Whether clients have to set the field. The schema table has what a Rust type always has: metadata
/// and texts that default to the empty one are among that, while upstream requires neither.
fn is_required(row: &TypeRow, field: &Field) -> bool {
    let given = field.name == "metadata" || field.default == Some("\"\"");
    let audiences =
        row.name == "io.k8s.api.authentication.v1.TokenRequestSpec" && field.name == "audiences";
    (field.required && !given) || audiences
}

/// The definition of a field's value that has no type, and what it says.
fn untyped(owner: &str, field: &str) -> Option<(&'static str, &'static str)> {
    (owner == SCHEMA).then_some(match field {
        "additionalItems" | "additionalProperties" => {
            ("JSONSchemaPropsOrBool", "A schema, or whether anything is allowed.")
        }
        "dependencies" => ("JSONSchemaPropsOrStringArray", "A schema, or names of properties."),
        "items" => ("JSONSchemaPropsOrArray", "A schema, or one for each element."),
        _ => ("JSON", "Any JSON value: null, a boolean, a number, a string, a list or an object."),
    })
}

static DESCRIPTIONS: LazyLock<BTreeMap<&'static str, String>> = LazyLock::new(descriptions::read);

fn described(text: &str) -> Value {
    json!({"type": "string", "description": text})
}

fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}
