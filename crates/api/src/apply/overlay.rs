//! Applying a configuration that nobody owns: what a mutating policy makes. It is checked against the
//! schema as structured merge does it (`structured-merge-diff`, `typed`), in its words.

use serde_json::Value;

use super::merge::{self, step_of};
use super::{FieldSchema, Merge, Schema};
use crate::schema::Ty;
use crate::schema::mismatch::go_kind;
use crate::structural::go;
use crate::structural::node::{Additional, Node, Type};

/// How deep a configuration may be: decoding allows no more either.
const DEPTH_MAX: usize = 128;

/// Merges a configuration into an object. It may not set lists, maps or structs that are owned as a
/// whole: what it leaves out would be lost.
///
/// # Errors
/// Why it cannot be applied, in Kubernetes' words.
pub fn overlay<'a>(
    object: &Value,
    config: &Value,
    schema: impl Into<Schema<'a>>,
) -> Result<Value, String> {
    let schema = schema.into().root();
    let mut problems = Vec::new();
    check(config, schema, "", &mut problems, 0);
    let joined = match problems.as_slice() {
        [] => None,
        [only] => Some(only.clone()),
        all => Some(format!("errors:\n  {}", all.join("\n  "))),
    };
    if let Some(why) = joined {
        return Err(format!("failed to convert patch object to typed object: {why}"));
    }
    let mut atomics = Vec::new();
    find_atomics(config, schema, "", &mut atomics);
    if !atomics.is_empty() {
        let all = atomics.join(", ");
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {all}"
        ));
    }
    Ok(merge::merge(object, config, schema))
}

/// What a value may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Numeric,
    Text,
    Boolean,
    /// Any scalar.
    Scalar,
    List,
    Map,
    Any,
}

impl FieldSchema<'_> {
    fn form(self) -> Form {
        if let Some(node) = self.node {
            return match node.ty {
                Type::Object => Form::Map,
                Type::Array => Form::List,
                Type::String => Form::Text,
                Type::Integer | Type::Number => Form::Numeric,
                Type::Boolean => Form::Boolean,
                Type::IntOrString => Form::Scalar,
                Type::Any => Form::Any,
            };
        }
        match self.ty {
            None if self.fields.is_some() => Form::Map,
            None | Some(Ty::Any) => Form::Any,
            Some(Ty::Ref(_) | Ty::Map(_)) => Form::Map,
            Some(Ty::Array(_)) => Form::List,
            Some(Ty::Int32 | Ty::Int64 | Ty::Number) => Form::Numeric,
            Some(Ty::Boolean) => Form::Boolean,
            Some(Ty::Quantity | Ty::IntOrString) => Form::Scalar,
            Some(Ty::String | Ty::Bytes | Ty::Time | Ty::MicroTime) => Form::Text,
        }
    }

    /// Whether an object here may have a field of that name.
    fn declares(self, name: &str) -> bool {
        const OF_OBJECTS: [&str; 3] = ["apiVersion", "kind", "metadata"];
        match (self.node, self.fields) {
            (Some(node), _) => {
                (self.is_object && OF_OBJECTS.contains(&name))
                    || node.member(name).is_some()
                    || is_open(node)
            }
            (None, Some(fields)) => fields.iter().any(|field| field.name == name),
            (None, None) => true,
        }
    }
}

fn is_open(node: &Node) -> bool {
    node.preserve_unknown || matches!(node.additional, Some(Additional::Allowed(true)))
}

fn check(
    value: &Value,
    schema: FieldSchema<'_>,
    path: &str,
    problems: &mut Vec<String>,
    depth: usize,
) {
    let mut problem = |text: String| {
        problems.push(if path.is_empty() { text } else { format!("{path}: {text}") });
    };
    if depth > DEPTH_MAX {
        return problem("exceeded max depth".to_owned());
    }
    match (schema.form(), value) {
        (_, Value::Null) | (Form::Any, _) => {}
        (Form::Numeric, Value::Number(_))
        | (Form::Text, Value::String(_))
        | (Form::Boolean, Value::Bool(_)) => {}
        (Form::Scalar, Value::Number(_) | Value::String(_) | Value::Bool(_)) => {}
        (Form::Map, Value::Object(map)) => {
            for (name, value) in map {
                let path = format!("{path}.{name}");
                if !schema.declares(name) {
                    problems.push(format!("{path}: field not declared in schema"));
                    continue;
                }
                check(value, schema.child(name), &path, problems, depth + 1);
            }
        }
        (Form::List, Value::Array(list)) => check_list(list, schema, path, problems, depth),
        (Form::Numeric, other) => {
            problem(format!("expected numeric (int or float), got {}", go_type(other)));
        }
        (Form::Text, other) => problem(format!(
            "expected string, got &value.valueUnstructured{{Value:{}}}",
            go::shown(other)
        )),
        (form, other) => {
            let wanted = match form {
                Form::Boolean => "boolean",
                Form::Scalar => "any scalar",
                Form::List => "list",
                _ => "map",
            };
            problem(format!("expected {wanted}, got &{{{}}}", go::shown(other)));
        }
    }
}

fn check_list(
    list: &[Value],
    schema: FieldSchema<'_>,
    path: &str,
    problems: &mut Vec<String>,
    depth: usize,
) {
    let mut seen = std::collections::HashSet::new();
    for (index, element) in list.iter().enumerate() {
        let step = match schema.list {
            Merge::Atomic => format!("[{index}]"),
            _ => match edge_problem(element, schema) {
                Some(why) => {
                    return problems.push(format!("{path}: element {index}: {why}"));
                }
                None => step_of(element, schema),
            },
        };
        if !seen.insert(step.clone()) {
            problems.push(format!("{path}: duplicate entries for key {step}"));
        }
        check(element, schema.element(), &format!("{path}{step}"), problems, depth + 1);
    }
}

/// Why an element cannot be told from the others of its list.
fn edge_problem(element: &Value, schema: FieldSchema<'_>) -> Option<String> {
    let Merge::Map(keys) = schema.list else {
        return match element {
            Value::Null => {
                Some("associative list without keys has an element that's an explicit null")
            }
            Value::Object(_) => {
                Some("associative list without keys has an element that's a map type")
            }
            Value::Array(_) => Some("not supported: associative list with lists as elements"),
            _ => None,
        }
        .map(str::to_owned);
    };
    let element = match element {
        Value::Null => {
            return Some("associative list with keys may not have a null element".to_owned());
        }
        Value::Object(element) => element,
        _ => return Some("associative list with keys may not have non-map elements".to_owned()),
    };
    let missing =
        |key: &&str| !element.contains_key(*key) && schema.element().default(key).is_none();
    keys.iter().find(missing).map(|key| {
        format!(
            "associative list with keys has an element that omits key field {} (and doesn't have default value)",
            go::quoted(key)
        )
    })
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
        other => go_kind(other),
    }
}

/// Where a configuration has something that is owned as a whole.
fn find_atomics(value: &Value, schema: FieldSchema<'_>, path: &str, atomics: &mut Vec<String>) {
    match value {
        Value::Object(map) if schema.form() == Form::Map => {
            if schema.atomic {
                atomics.push(path.to_owned());
            }
            if schema.is_map() {
                return;
            }
            for (name, value) in map {
                find_atomics(value, schema.child(name), &format!("{path}.{name}"), atomics);
            }
        }
        Value::Array(list) if schema.form() == Form::List => {
            if schema.list == Merge::Atomic {
                atomics.push(path.to_owned());
            }
            for (index, element) in list.iter().enumerate() {
                find_atomics(element, schema.element(), &format!("{path}[{index}]"), atomics);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::structural::Structural;

    fn applied(object: &Value, config: &Value) -> Result<Value, String> {
        overlay(object, config, crate::schema::kind("apps", "v1", "Deployment"))
    }

    #[test]
    fn configurations_are_merged_into_objects() {
        let pod =
            |containers: Value| json!({"spec": {"template": {"spec": {"containers": containers}}}});
        let object = pod(json!([{"name": "a", "image": "x"}]));
        for (config, expected) in [
            (
                pod(json!([{"name": "b", "image": "y"}])),
                pod(json!([{"name": "a", "image": "x"}, {"name": "b", "image": "y"}])),
            ),
            (
                pod(json!([{"name": "a", "tty": true}])),
                pod(json!([{"name": "a", "image": "x", "tty": true}])),
            ),
        ] {
            assert_eq!(applied(&object, &config).unwrap(), expected);
        }
        let labelled = json!({"metadata": {"labels": {"a": "b"}}});
        let both = json!({"metadata": {"labels": {"a": "b", "c": "d"}}});
        let config = json!({"metadata": {"labels": {"c": "d"}}});
        assert_eq!(applied(&labelled, &config).unwrap(), both);
    }

    #[test]
    fn configurations_that_do_not_fit_are_refused() {
        let containers =
            |containers: Value| json!({"spec": {"template": {"spec": {"containers": containers}}}});
        const TYPED: &str = "failed to convert patch object to typed object: ";
        const ATOMIC: &str =
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: ";
        for (config, start, expected) in [
            (
                json!({"spec": {"replicasx": 1}}),
                TYPED,
                ".spec.replicasx: field not declared in schema",
            ),
            (
                json!({"spec": {"replicas": "1"}}),
                TYPED,
                ".spec.replicas: expected numeric (int or float), got string",
            ),
            (json!({"spec": {"paused": 1}}), TYPED, ".spec.paused: expected boolean, got &{1}"),
            (json!({"spec": 1}), TYPED, ".spec: expected map, got &{1}"),
            (
                json!({"metadata": {"name": 1}}),
                TYPED,
                ".metadata.name: expected string, got &value.valueUnstructured{Value:1}",
            ),
            (
                containers(json!([{"image": "x"}])),
                TYPED,
                ".spec.template.spec.containers: element 0: associative list with keys has an element that omits key field \"name\" (and doesn't have default value)",
            ),
            (
                containers(json!([{"name": "a"}, {"name": "a"}])),
                TYPED,
                ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]",
            ),
            (
                containers(json!([1])),
                TYPED,
                ".spec.template.spec.containers: element 0: associative list with keys may not have non-map elements",
            ),
            (json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}}), ATOMIC, ".spec.selector"),
            (
                containers(json!([{"name": "a", "args": ["x"]}])),
                ATOMIC,
                ".spec.template.spec.containers[0].args",
            ),
        ] {
            let why = applied(&json!({}), &config).unwrap_err();
            assert_eq!(why, format!("{start}{expected}"));
        }
    }

    #[test]
    fn custom_objects_are_merged_by_their_schema() {
        let schema = Structural::new(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "size": {"type": "integer"},
                "plain": {"type": "array", "items": {"type": "string"}},
                "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}))
        .unwrap();
        let object = json!({"metadata": {"name": "a"}, "spec": {"set": ["a"], "size": 1}});
        let config =
            json!({"metadata": {"labels": {"x": "y"}}, "spec": {"set": ["b"], "free": {"any": 1}}});
        let merged = overlay(&object, &config, &schema).unwrap();
        assert_eq!(
            merged,
            json!({"metadata": {"name": "a", "labels": {"x": "y"}},
                "spec": {"set": ["a", "b"], "size": 1, "free": {"any": 1}}})
        );
        for (config, expected) in [
            (json!({"spec": {"plain": ["a"]}}), "structs: .spec.plain"),
            (json!({"spec": {"other": 1}}), ".spec.other: field not declared in schema"),
        ] {
            let why = overlay(&object, &config, &schema).unwrap_err();
            assert!(why.ends_with(expected), "{why}");
        }
    }
}
