//! One level of a schema, read from JSON into a compact form.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::format::Format;
use super::pattern::Pattern;
use super::rules::{Rule, cost};

/// Deepest nesting of schemas.
pub const DEPTH_MAX: usize = 100;

/// Why JSON is not a schema that can be used. The texts are upstream's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SchemaError {
    #[error("OpenAPIV3Schema '{0}' is not supported")]
    Unsupported(&'static str),
    #[error("OpenAPIV3Schema 'items' must be a schema, but is an array")]
    ItemsArray,
    #[error("internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined")]
    PreserveFalse,
    #[error("unsupported type {0:?}")]
    Type(String),
    #[error("a schema must be an object")]
    NotObject,
    #[error("schemas are nested more than {DEPTH_MAX} levels deep")]
    TooDeep,
}

/// The type that a schema demands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Type {
    #[default]
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
}

impl Type {
    /// As errors name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::IntOrString => "integer,string",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "" => Self::Any,
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    pub fn has_integer(self) -> bool {
        matches!(self, Self::Integer | Self::IntOrString)
    }
}

/// How a list merges and what makes its elements unique.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    #[default]
    Atomic,
    Set,
    /// With the keys that identify elements.
    Map(Box<[String]>),
}

/// Schemas by name.
type Properties = Box<[(Box<str>, Node)]>;

/// What members without a schema of their own are.
#[derive(Debug)]
pub enum Additional {
    Allowed(bool),
    Schema(Box<Node>),
}

/// A schema, or a part of one below `properties`, `items`, `allOf` and the like.
#[derive(Debug, Default)]
pub struct Node {
    pub ty: Type,
    pub nullable: bool,
    pub preserve_unknown: bool,
    /// An object with its own `apiVersion`, `kind` and `metadata`.
    pub embedded: bool,
    /// A map that is owned as a whole.
    pub atomic: bool,
    pub list: ListType,
    pub default: Option<Box<Value>>,
    /// Sorted by name.
    properties: Properties,
    pub additional: Option<Additional>,
    pub items: Option<Box<Node>>,
    pub checks: Option<Box<Checks>>,
    /// Bytes of the smallest value; zero if rules do not see such values.
    pub min_size: u32,
    /// `x-kubernetes-validations`
    pub rules: Box<[Rule]>,
    /// Whether this schema or one below it has rules.
    pub has_rules: bool,
}

/// What a schema demands of values besides their structure.
#[derive(Debug, Default)]
pub struct Checks {
    /// With the name as it was written.
    pub format: Option<(Format, Box<str>)>,
    pub multiple_of: Option<f64>,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub max_length: Option<i64>,
    pub min_length: Option<i64>,
    pub pattern: Option<Arc<Pattern>>,
    pub max_items: Option<i64>,
    pub min_items: Option<i64>,
    pub unique_items: bool,
    pub max_properties: Option<i64>,
    pub min_properties: Option<i64>,
    pub values: Vec<Value>,
    pub required: Vec<String>,
    pub all_of: Vec<Node>,
    pub any_of: Vec<Node>,
    pub one_of: Vec<Node>,
    pub not: Option<Box<Node>>,
}

impl Node {
    pub fn property(&self, name: &str) -> Option<&Node> {
        let index = self.properties.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        Some(&self.properties[index].1)
    }

    pub fn properties(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.properties.iter().map(|(name, node)| (&**name, node))
    }

    pub fn has_properties(&self) -> bool {
        !self.properties.is_empty()
    }

    /// The schema of members that are not properties.
    pub fn additional_schema(&self) -> Option<&Node> {
        match &self.additional {
            Some(Additional::Schema(node)) => Some(node),
            _ => None,
        }
    }

    /// The schema of a member.
    pub fn member(&self, name: &str) -> Option<&Node> {
        self.property(name).or_else(|| self.additional_schema())
    }

    /// All schemas directly below that describe structure.
    pub fn children(&self) -> impl Iterator<Item = &Node> {
        let properties = self.properties.iter().map(|(_, node)| node);
        properties.chain(self.additional_schema()).chain(self.items.as_deref())
    }
}

/// Members of a schema that custom resources cannot use, with their names in errors.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("id", "id"),
    ("$schema", "schema"),
    ("$ref", "$ref"),
    ("patternProperties", "patternProperties"),
    ("dependencies", "dependencies"),
    ("additionalItems", "additionalItems"),
    ("definitions", "definitions"),
];

/// Reads schemas; equal patterns share one compiled form.
#[derive(Default)]
pub struct Reader {
    patterns: HashMap<String, Arc<Pattern>>,
}

impl Reader {
    /// # Errors
    /// When the JSON is not a schema of upstream's supported subset, or too deep.
    pub fn node(&mut self, json: &Value, depth: usize) -> Result<Node, SchemaError> {
        let schema = json.as_object().ok_or(SchemaError::NotObject)?;
        if depth > DEPTH_MAX {
            return Err(SchemaError::TooDeep);
        }
        if let Some((_, name)) = UNSUPPORTED.iter().find(|(name, _)| is_set(schema.get(*name))) {
            return Err(SchemaError::Unsupported(name));
        }
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or_default();
        let declared = text(schema, "type");
        let ty = Type::parse(declared).ok_or_else(|| SchemaError::Type(declared.to_owned()))?;
        let ty = if flag("x-kubernetes-int-or-string") { Type::IntOrString } else { ty };
        let preserve = schema.get("x-kubernetes-preserve-unknown-fields").and_then(Value::as_bool);
        if preserve == Some(false) {
            return Err(SchemaError::PreserveFalse);
        }
        let mut node = Node {
            ty,
            nullable: flag("nullable"),
            preserve_unknown: preserve == Some(true),
            embedded: flag("x-kubernetes-embedded-resource"),
            atomic: text(schema, "x-kubernetes-map-type") == "atomic",
            list: list_type(schema),
            default: schema.get("default").filter(|json| !json.is_null()).cloned().map(Box::new),
            properties: self.properties(schema, depth)?,
            additional: self.additional(schema, depth)?,
            items: self.items(schema, depth)?,
            checks: self.checks(schema, ty, depth)?,
            min_size: 0,
            rules: super::rules::read(schema),
            has_rules: false,
        };
        node.min_size = cost::smallest(&node);
        node.has_rules = !node.rules.is_empty() || node.children().any(|child| child.has_rules);
        Ok(node)
    }

    fn properties(
        &mut self,
        schema: &Map<String, Value>,
        depth: usize,
    ) -> Result<Properties, SchemaError> {
        let properties = schema.get("properties").and_then(Value::as_object);
        // The map is sorted by name.
        properties
            .into_iter()
            .flatten()
            .map(|(name, json)| Ok((name.as_str().into(), self.node(json, depth + 1)?)))
            .collect()
    }

    fn additional(
        &mut self,
        schema: &Map<String, Value>,
        depth: usize,
    ) -> Result<Option<Additional>, SchemaError> {
        Ok(match schema.get("additionalProperties") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(allowed)) => Some(Additional::Allowed(*allowed)),
            Some(json) => Some(Additional::Schema(Box::new(self.node(json, depth + 1)?))),
        })
    }

    fn items(
        &mut self,
        schema: &Map<String, Value>,
        depth: usize,
    ) -> Result<Option<Box<Node>>, SchemaError> {
        match schema.get("items") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(_)) => Err(SchemaError::ItemsArray),
            Some(json) => Ok(Some(Box::new(self.node(json, depth + 1)?))),
        }
    }

    fn checks(
        &mut self,
        schema: &Map<String, Value>,
        ty: Type,
        depth: usize,
    ) -> Result<Option<Box<Checks>>, SchemaError> {
        let number = |name: &str| schema.get(name).and_then(Value::as_f64);
        let count = |name: &str| schema.get(name).and_then(Value::as_i64);
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or_default();
        let list =
            |name: &str| schema.get(name).and_then(Value::as_array).filter(|list| !list.is_empty());
        const NAMES: &[&str] = &[
            "format",
            "multipleOf",
            "maximum",
            "minimum",
            "maxLength",
            "minLength",
            "pattern",
            "maxItems",
            "minItems",
            "uniqueItems",
            "maxProperties",
            "minProperties",
            "enum",
            "required",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
        ];
        if !NAMES.iter().any(|name| schema.contains_key(*name)) {
            return Ok(None);
        }
        let format = text(schema, "format");
        let strings = |list: &Vec<Value>| {
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
        };
        // A value that may be of two types has formats of any.
        let of_type = if ty == Type::IntOrString { "" } else { ty.name() };
        let mut alternatives = |name: &str| -> Result<Vec<Node>, SchemaError> {
            list(name).into_iter().flatten().map(|json| self.node(json, depth + 1)).collect()
        };
        let (all_of, any_of, one_of) =
            (alternatives("allOf")?, alternatives("anyOf")?, alternatives("oneOf")?);
        let not = schema.get("not").filter(|json| !json.is_null());
        let not = not.map(|json| self.node(json, depth + 1)).transpose()?.map(Box::new);
        Ok(Some(Box::new(Checks {
            format: Format::of(format, of_type).map(|known| (known, format.into())),
            multiple_of: number("multipleOf"),
            maximum: number("maximum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            minimum: number("minimum"),
            exclusive_minimum: flag("exclusiveMinimum"),
            max_length: count("maxLength"),
            min_length: count("minLength"),
            pattern: self.pattern(text(schema, "pattern")),
            max_items: count("maxItems"),
            min_items: count("minItems"),
            unique_items: flag("uniqueItems"),
            max_properties: count("maxProperties"),
            min_properties: count("minProperties"),
            values: list("enum").cloned().unwrap_or_default(),
            required: list("required").map(strings).unwrap_or_default(),
            all_of,
            any_of,
            one_of,
            not,
        })))
    }

    fn pattern(&mut self, text: &str) -> Option<Arc<Pattern>> {
        if text.is_empty() {
            return None;
        }
        if let Some(known) = self.patterns.get(text) {
            return Some(known.clone());
        }
        let pattern = Arc::new(Pattern::new(text));
        self.patterns.insert(text.to_owned(), pattern.clone());
        Some(pattern)
    }
}

/// Whether a member has another value than Go's zero.
fn is_set(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(_) => true,
    }
}

/// A member that is text, empty when unset.
pub fn text<'a>(schema: &'a Map<String, Value>, name: &str) -> &'a str {
    schema.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn list_type(schema: &Map<String, Value>) -> ListType {
    match text(schema, "x-kubernetes-list-type") {
        "set" => ListType::Set,
        "map" => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            let keys = keys.into_iter().flatten().filter_map(Value::as_str);
            ListType::Map(keys.map(str::to_owned).collect())
        }
        _ => ListType::Atomic,
    }
}
