//! Values that are not of their schema's type, in the words of upstream's merging
//! (`sigs.k8s.io/structured-merge-diff/typed/validate.go`).

use serde_json::Value;

use super::merge::step_of;
use super::{FieldSchema, Merge};
use crate::schema::Ty;
use crate::schema::mismatch::{printed, type_of};
use crate::structural::node::{Node, Type};
use crate::structural::path::Path;

/// What a schema wants a value to be.
#[derive(Clone, Copy)]
enum Wanted {
    Anything,
    Map,
    List,
    Text,
    Number,
    Boolean,
    /// A text, a number or a boolean: quantities, times, texts with a format.
    Scalar,
}

impl Wanted {
    fn of(schema: FieldSchema<'_>) -> Self {
        match (schema.node, schema.ty) {
            (Some(node), _) => Self::of_node(node),
            (None, Some(Ty::String | Ty::Bytes)) => Self::Text,
            (None, Some(Ty::Int32 | Ty::Int64 | Ty::Number)) => Self::Number,
            (None, Some(Ty::Boolean)) => Self::Boolean,
            (None, Some(Ty::Time | Ty::MicroTime | Ty::Quantity | Ty::IntOrString)) => Self::Scalar,
            (None, Some(Ty::Array(_))) => Self::List,
            (None, Some(Ty::Map(_))) => Self::Map,
            (None, Some(Ty::Any)) => Self::Anything,
            (None, Some(Ty::Ref(_)) | None) if schema.fields.is_some() => Self::Map,
            (None, Some(Ty::Ref(_)) | None) => Self::Anything,
        }
    }

    fn of_node(node: &Node) -> Self {
        match node.ty {
            Type::Any => Self::Anything,
            Type::Object => Self::Map,
            Type::Array => Self::List,
            Type::String => match node.checks.as_ref().and_then(|checks| checks.format.as_ref()) {
                Some(_) => Self::Scalar,
                None => Self::Text,
            },
            Type::Integer | Type::Number => Self::Number,
            Type::Boolean => Self::Boolean,
            Type::IntOrString => Self::Scalar,
        }
    }

    /// What is wrong with a value.
    fn problem(self, value: &Value) -> Option<String> {
        let (fits, expected) = match self {
            Self::Anything => return None,
            Self::Map => (value.is_object(), "map"),
            Self::List => (value.is_array(), "list"),
            Self::Text => (value.is_string(), "string"),
            Self::Number => (value.is_number(), "numeric (int or float)"),
            Self::Boolean => (value.is_boolean(), "boolean"),
            Self::Scalar => (!value.is_object() && !value.is_array(), "any scalar"),
        };
        let got = match self {
            _ if fits || value.is_null() => return None,
            Self::Text => format!("&value.valueUnstructured{{Value:{}}}", literal(value)),
            Self::Number => type_of(value).to_owned(),
            _ => format!("&{{{}}}", printed(value)),
        };
        Some(format!("expected {expected}, got {got}"))
    }
}

/// Bytes of lines after which no more are added.
const TEXT_MAX: usize = 64 << 10;

/// What has been found.
#[derive(Default)]
pub(super) struct Problems {
    pub lines: Vec<String>,
    bytes: usize,
}

/// Adds a line for each value that is not of its type, or is below a list's element without keys.
pub(super) fn find(value: &Value, schema: FieldSchema<'_>, path: &Path<'_>, found: &mut Problems) {
    if found.bytes > TEXT_MAX {
        return;
    }
    if let Some(problem) = Wanted::of(schema).problem(value) {
        let line = format!(".{path}: {problem}");
        found.bytes += line.len();
        return found.lines.push(line);
    }
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                find(value, schema.child(name), &path.field(name), found);
            }
        }
        Value::Array(list) => {
            for (index, element) in list.iter().enumerate() {
                match schema.list {
                    Merge::Atomic => find(element, schema.element(), &path.index(index), found),
                    Merge::Set | Merge::Map(_) => {
                        let step = step_of(element, schema);
                        find(element, schema.element(), &path.element(&step), found);
                    }
                }
            }
        }
        _ => {}
    }
}

/// A value in Go's syntax.
fn literal(value: &Value) -> String {
    let joined = |parts: Vec<String>| parts.join(", ");
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::Array(list) => {
            format!("{}{{{}}}", type_of(value), joined(list.iter().map(literal).collect()))
        }
        Value::Object(map) => {
            let entry = |(name, value): (&String, &Value)| format!("{name:?}:{}", literal(value));
            format!("{}{{{}}}", type_of(value), joined(map.iter().map(entry).collect()))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::mistyped;
    use super::*;

    /// A long key above many elements is copied only as often as an error has room for it.
    #[test]
    fn paths_are_rendered_for_errors_only() {
        let row =
            crate::kind::by_kind("certificates.k8s.io/v1", "CertificateSigningRequest").unwrap();
        let extra = |element: Value| {
            let list = Value::Array(vec![element; 100_000]);
            json!({"spec": {"extra": {"k".repeat(1 << 20): list}}})
        };
        assert_eq!(mistyped(&extra(json!("a")), row.schema()), Vec::<String>::new());
        assert_eq!(mistyped(&extra(json!(1)), row.schema()).len(), 1);
        let nested: Value = (0..100_000).map(|index| (index.to_string(), json!([1]))).collect();
        let spec = json!({"spec": {"extra": {"k".repeat(1 << 20): nested}}});
        assert_eq!(super::super::duplicate(&spec, row.schema()), None);
    }

    #[test]
    fn wrong_types_are_named_with_their_paths() {
        let row = crate::kind::by_kind("apps/v1", "Deployment").unwrap();
        let found = |config: Value| mistyped(&config, row.schema());
        let main = |more: Value| {
            let mut container = json!({"name": "main", "image": "x"});
            for (name, value) in more.as_object().unwrap() {
                container[name] = value.clone();
            }
            json!({"spec": {"template": {"spec": {"containers": [container]}}}})
        };
        let at = ".spec.template.spec.containers[name=\"main\"]";
        for (config, expected) in [
            (
                json!({"spec": {"replicas": "two"}}),
                vec![".spec.replicas: expected numeric (int or float), got string".to_owned()],
            ),
            (
                json!({"spec": {"paused": 1, "selector": "x", "replicas": {"a": 1}}}),
                vec![
                    ".spec.paused: expected boolean, got &{1}".to_owned(),
                    ".spec.replicas: expected numeric (int or float), got map[string]interface {}"
                        .to_owned(),
                    ".spec.selector: expected map, got &{x}".to_owned(),
                ],
            ),
            (
                json!({"metadata": {"labels": {"a": 5}, "finalizers": {"b": ["c"]}}}),
                vec![
                    ".metadata.finalizers: expected list, got &{map[b:[c]]}".to_owned(),
                    ".metadata.labels.a: expected string, got &value.valueUnstructured{Value:5}"
                        .to_owned(),
                ],
            ),
            (
                main(json!({"image": {"a": ["b", 1]}, "args": ["a", true]})),
                vec![
                    format!(
                        "{at}.args[1]: expected string, got &value.valueUnstructured{{Value:true}}"
                    ),
                    format!(
                        "{at}.image: expected string, got &value.valueUnstructured{{Value:map[string]interface {{}}{{\"a\":[]interface {{}}{{\"b\", 1}}}}}}"
                    ),
                ],
            ),
            (
                main(json!({"resources": {"limits": {"cpu": [1]}}})),
                vec![format!("{at}.resources.limits.cpu: expected any scalar, got &{{[1]}}")],
            ),
            (main(json!({"resources": {"limits": {"cpu": 1}}, "ports": null})), vec![]),
        ] {
            assert_eq!(found(config.clone()), expected, "{config}");
        }
    }
}
