//! Read access to the JSON of a schema; what is missing is Go's zero value.

use serde_json::{Map, Value};

/// A schema as a definition has it.
#[derive(Clone, Copy)]
pub struct Schema<'a>(pub &'a Value);

impl<'a> Schema<'a> {
    /// A member that is set.
    pub fn get(self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub fn text(self, name: &str) -> &'a str {
        super::text(self.0.get(name))
    }

    pub fn flag(self, name: &str) -> bool {
        super::flag(self.0.get(name))
    }

    pub fn list(self, name: &str) -> &'a [Value] {
        self.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    pub fn schemas(self, name: &str) -> impl Iterator<Item = (usize, Schema<'a>)> {
        self.list(name).iter().map(Schema).enumerate()
    }

    pub fn map(self, name: &str) -> impl Iterator<Item = (&'a str, Schema<'a>)> {
        let map = self.get(name).and_then(Value::as_object);
        map.into_iter().flatten().map(|(name, schema)| (name.as_str(), Schema(schema)))
    }

    pub fn properties(self) -> impl Iterator<Item = (&'a str, Schema<'a>)> {
        self.map("properties")
    }

    pub fn property(self, name: &str) -> Option<Schema<'a>> {
        self.get("properties").and_then(|properties| properties.get(name)).map(Schema)
    }

    pub fn has_properties(self) -> bool {
        self.get("properties").and_then(Value::as_object).is_some_and(|map| !map.is_empty())
    }

    /// A member that is a schema.
    pub fn schema(self, name: &str) -> Option<Schema<'a>> {
        self.get(name).filter(|value| value.is_object()).map(Schema)
    }

    /// `items`, if it is one schema.
    pub fn items(self) -> Option<Schema<'a>> {
        self.schema("items")
    }

    /// Whether a member has another value than zero.
    pub fn is_set(self, name: &str) -> bool {
        match self.get(name) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(flag)) => *flag,
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::Object(map)) => !map.is_empty(),
            Some(Value::Number(_)) => true,
        }
    }

    /// Whether this schema or one in it fulfils a condition.
    pub fn any(self, condition: &impl Fn(Schema<'_>) -> bool) -> bool {
        if condition(self) {
            return true;
        }
        let lists = ["allOf", "anyOf", "oneOf", "items"];
        let maps = ["properties", "patternProperties", "definitions", "dependencies"];
        let singles = ["items", "not", "additionalProperties", "additionalItems"];
        lists.into_iter().any(|name| self.schemas(name).any(|(_, schema)| schema.any(condition)))
            || maps.into_iter().any(|name| self.map(name).any(|(_, schema)| schema.any(condition)))
            || singles
                .into_iter()
                .filter_map(|name| self.schema(name))
                .any(|schema| schema.any(condition))
    }

    /// The members that are set.
    pub fn members(self) -> impl Iterator<Item = &'a str> {
        let map: Option<&Map<String, Value>> = self.0.as_object();
        map.into_iter()
            .flatten()
            .map(|(name, _)| name.as_str())
            .filter(move |name| self.is_set(name))
    }
}
