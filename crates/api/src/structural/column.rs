//! Printer columns, and the simple paths of scale and selectable fields
//! (`k8s.io/apiextensions-apiserver`, `registry/customresource/tableconvertor`).

use jiff::Timestamp;
use k8s_openapi::jiff;
use serde_json::Value;

use crate::duration;
use crate::jsonpath::{JsonPathError, Template, print};
use crate::schema::mismatch;
use crate::status::FieldError;

/// A column of `additionalPrinterColumns`.
#[derive(Clone, Debug)]
pub struct Column {
    path: Template,
    ty: ColumnType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ColumnType {
    Integer,
    Number,
    Boolean,
    Text,
    Date,
    /// Always empty.
    Other,
}

impl Column {
    /// # Errors
    /// When `json_path` (`.spec.replicas`) cannot be read.
    pub fn new(json_path: &str, ty: &str) -> Result<Self, JsonPathError> {
        let ty = match ty {
            "integer" => ColumnType::Integer,
            "number" => ColumnType::Number,
            "boolean" => ColumnType::Boolean,
            "string" => ColumnType::Text,
            "date" => ColumnType::Date,
            _ => ColumnType::Other,
        };
        Ok(Self { path: Template::parse_path(json_path)?, ty })
    }

    /// The cell of an object: of what the path finds, the first; null if it is missing or of
    /// another type. Dates are ages, as of `now`.
    pub fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let Some(value) = self.path.find(object).into_iter().next() else {
            return Value::Null;
        };
        match (self.ty, value) {
            (ColumnType::Text, Value::Null) => "<no value>".into(),
            (ColumnType::Text, value) => print(value).into(),
            (ColumnType::Boolean, Value::Bool(_)) => value.clone(),
            (ColumnType::Number, Value::Number(_)) => value.clone(),
            (ColumnType::Integer, Value::Number(number)) => match number.as_i64() {
                Some(integer) => integer.into(),
                None => (number.as_f64().unwrap_or_default() as i64).into(),
            },
            (ColumnType::Date, Value::String(text)) if text.is_empty() => "<unknown>".into(),
            (ColumnType::Date, Value::String(text)) => match text.parse::<Timestamp>() {
                Ok(time) => duration::human(now.as_second() - time.as_second()).into(),
                Err(_) => "<invalid>".into(),
            },
            _ => Value::Null,
        }
    }
}

/// The value at a simple path (`.spec.replicas`): names and dots, and nothing else.
pub fn at_path<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.strip_prefix('.')
        .unwrap_or(path)
        .split('.')
        .try_fold(object, |value, name| value.get(name))
}

/// The paths of a scale subresource.
#[derive(Clone, Copy, Debug)]
pub struct ScalePaths<'a> {
    /// `None` where only the status is judged.
    pub spec_replicas: Option<&'a str>,
    pub status_replicas: &'a str,
    pub label_selector: Option<&'a str>,
}

/// What is wrong with the replicas and the selector of an object that can be scaled.
pub fn validate_scale(object: &Value, paths: &ScalePaths<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for path in paths.spec_replicas.into_iter().chain([paths.status_replicas]) {
        let Some(value) = at_path(object, path) else {
            continue;
        };
        let detail = match value.as_i64() {
            None => accessor_error(path, value, "int64"),
            Some(..0) => "should be a non-negative integer".to_owned(),
            Some(replicas) if replicas > i64::from(i32::MAX) => {
                format!("should be less than or equal to {}", i32::MAX)
            }
            Some(_) => continue,
        };
        errors.push(FieldError::invalid(path, value.as_i64().unwrap_or_default(), detail));
    }
    if let Some(path) = paths.label_selector
        && let Some(value) = at_path(object, path)
        && !value.is_string()
    {
        errors.push(FieldError::invalid(path, "", accessor_error(path, value, "string")));
    }
    errors
}

fn accessor_error(path: &str, value: &Value, expected: &str) -> String {
    let (found, shown) = (mismatch::type_of(value), mismatch::printed(value));
    format!("{path} accessor error: {shown} is of the type {found}, expected {expected}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells_have_the_type_of_their_column() {
        let now = "2026-11-30T12:00:00Z".parse().unwrap();
        let object = json!({"spec": {"n": 3, "f": 1.5, "s": "x", "b": true, "l": [1, "a"], "o": {"k": 1}},
            "metadata": {"creationTimestamp": "2026-11-30T11:00:00Z", "labels": {"a.b/c": "v"}},
            "status": {"conditions": [{"type": "A", "status": "False"}, {"type": "Ready", "status": "True"}], "t": "soon"}});
        for (path, ty, expected) in [
            (".spec.n", "integer", json!(3)),
            (".spec.f", "integer", json!(1)),
            (".spec.n", "number", json!(3)),
            (".spec.s", "integer", Value::Null),
            (".spec.s", "string", json!("x")),
            (".spec.n", "string", json!("3")),
            (".spec.l", "string", json!("[1,\"a\"]")),
            (".spec.l[1]", "string", json!("a")),
            (".spec.l[9]", "string", Value::Null),
            (".spec.b", "boolean", json!(true)),
            (".spec.missing", "string", Value::Null),
            (".metadata.creationTimestamp", "date", json!("60m")),
            (".metadata.labels.a\\.b/c", "string", json!("v")),
            (".status.t", "date", json!("<invalid>")),
            (".status.conditions[?(@.type==\"Ready\")].status", "string", json!("True")),
        ] {
            let column = Column::new(path, ty).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_eq!(column.cell(&object, now), expected, "{path} {ty}");
        }
        assert_eq!(at_path(&object, ".spec.o.k"), Some(&json!(1)));
        assert_eq!(at_path(&object, ".spec.o.z"), None);
    }

    #[test]
    fn replicas_are_counts() {
        let paths = ScalePaths {
            spec_replicas: Some(".spec.replicas"),
            status_replicas: ".status.replicas",
            label_selector: Some(".status.selector"),
        };
        let of = |object: Value| -> Vec<String> {
            validate_scale(&object, &paths).iter().map(ToString::to_string).collect()
        };
        assert!(
            of(json!({"spec": {"replicas": 3}, "status": {"replicas": 0, "selector": "a=b"}}))
                .is_empty()
        );
        assert!(of(json!({})).is_empty());
        assert_eq!(
            of(
                json!({"spec": {"replicas": -1}, "status": {"replicas": 3_000_000_000_i64, "selector": 5}})
            ),
            [
                ".spec.replicas: Invalid value: -1: should be a non-negative integer",
                ".status.replicas: Invalid value: 3000000000: should be less than or equal to 2147483647",
                ".status.selector: Invalid value: \"\": .status.selector accessor error: 5 is of the type int64, expected string",
            ]
        );
        assert_eq!(
            of(json!({"spec": {"replicas": "x"}})),
            [
                ".spec.replicas: Invalid value: 0: .spec.replicas accessor error: x is of the type string, expected int64"
            ]
        );
    }
}
