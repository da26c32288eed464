//! Why JSON does not fit a kind, in the words of Go's decoder, which users know.

use serde_json::Value;

use super::{Field, Ty, TypeRow};

/// The first value whose type is not the schema's: `json: cannot unmarshal bool into Go struct
/// field EnvVar.spec.template.spec.containers.env.name of type string`. `None` if all match.
pub fn find(json: &Value, row: &'static TypeRow) -> Option<String> {
    object(json, row, "")
}

/// The first value of a patched object that does not fit, in the words of the converter that
/// Kubernetes decodes the results of strategic merge patches with: `cannot restore map from string`.
pub fn unconverted(json: &Value, row: &'static TypeRow) -> Option<String> {
    let members = json.as_object()?.iter().filter(|(_, value)| !value.is_null());
    members.into_iter().find_map(|(name, value)| {
        let field = row.field(name)?;
        let path = FieldPath { owner: "", path: name, field };
        unconverted_value(value, field.ty, &path)
    })
}

fn unconverted_value(value: &Value, ty: Ty, at: &FieldPath<'_>) -> Option<String> {
    match (ty, value) {
        (_, Value::Null) | (Ty::Any, _) => None,
        (Ty::Ref(_), Value::Object(_)) => unconverted(value, ty.definition()?),
        (Ty::Map(element), Value::Object(map)) => {
            map.values().find_map(|value| unconverted_value(value, *element, at))
        }
        (Ty::Array(element), Value::Array(list)) => {
            list.iter().find_map(|value| unconverted_value(value, *element, at))
        }
        (Ty::Ref(_), other) => Some(format!("cannot restore struct from: {}", go_kind(other))),
        (Ty::Map(_), other) => Some(format!("cannot restore map from {}", go_kind(other))),
        (Ty::Array(_), other) => Some(format!("cannot restore slice from {}", go_kind(other))),
        (Ty::Bytes, Value::String(_)) => None,
        (Ty::Bytes, other) => Some(format!("cannot restore slice from {}", go_kind(other))),
        // Types that decode JSON themselves.
        (Ty::Time | Ty::MicroTime | Ty::Quantity | Ty::IntOrString, _) => of_type(value, ty, at),
        (scalar, _) => {
            of_type(value, scalar, at)?;
            let (from, to) = (go_kind(value), go_type(scalar));
            let convertible = match value {
                Value::Number(number) if number.is_f64() => scalar != Ty::String,
                Value::Number(_) => true,
                _ => false,
            };
            Some(match convertible && scalar != Ty::Boolean {
                true => format!("cannot convert {from} to {to}"),
                false => format!("unrecognized type: {to}"),
            })
        }
    }
}

/// Go's name for the kind of a decoded value.
pub(crate) fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

/// Go's name for the type of a decoded value.
pub fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// A value as Go prints it: `map[metadata:map[labels:invalid]]`.
pub fn printed(value: &Value) -> String {
    let joined = |parts: Vec<String>| parts.join(" ");
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", joined(list.iter().map(printed).collect())),
        Value::Object(map) => {
            let entry = |(name, value): (&String, &Value)| format!("{name}:{}", printed(value));
            format!("map[{}]", joined(map.iter().map(entry).collect()))
        }
        other => other.to_string(),
    }
}

fn object(json: &Value, row: &'static TypeRow, path: &str) -> Option<String> {
    let short = row.name.rsplit('.').next().unwrap_or(row.name);
    json.as_object()?.iter().filter(|(_, value)| !value.is_null()).find_map(|(name, value)| {
        let field = row.field(name)?;
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        of_type(value, field.ty, &FieldPath { owner: short, path: &path, field })
    })
}

/// The field of a value.
struct FieldPath<'a> {
    /// Name of the innermost struct.
    owner: &'a str,
    /// Names of the fields from the root, without indices.
    path: &'a str,
    field: &'static Field,
}

fn of_type(value: &Value, ty: Ty, at: &FieldPath<'_>) -> Option<String> {
    let fits = match (ty, value) {
        (_, Value::Null) | (Ty::Any, _) => true,
        (Ty::Array(element), Value::Array(list)) => {
            return list.iter().find_map(|value| of_type(value, *element, at));
        }
        (Ty::Map(element), Value::Object(map)) => {
            return map.values().find_map(|value| of_type(value, *element, at));
        }
        (Ty::Ref(_), Value::Object(_)) => {
            return ty.definition().and_then(|row| object(value, row, at.path));
        }
        (Ty::String | Ty::Bytes, Value::String(_)) | (Ty::Boolean, Value::Bool(_)) => true,
        (Ty::Int32, Value::Number(number)) => {
            number.as_i64().is_some_and(|number| i32::try_from(number).is_ok())
        }
        (Ty::Int64, Value::Number(number)) => number.is_i64(),
        (Ty::Number, Value::Number(_)) => true,
        (Ty::IntOrString, Value::String(_)) => true,
        (Ty::IntOrString, Value::Number(number)) => number.is_i64(),
        (Ty::Quantity, Value::String(_) | Value::Number(_)) => true,
        (Ty::Quantity, _) => return Some(crate::quantity::ParseQuantityError.to_string()),
        (Ty::Time | Ty::MicroTime, Value::String(text)) => {
            if text.parse::<k8s_openapi::jiff::Timestamp>().is_ok() {
                return None;
            }
            return Some(format!(
                "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
            ));
        }
        _ => false,
    };
    if fits {
        return None;
    }
    Some(format!(
        "json: cannot unmarshal {} into Go struct field {}.{} of type {}",
        found(value, ty),
        at.owner,
        at.path,
        go_type(whole(ty, at))
    ))
}

/// Go reports the type of what it could not decode: of the field, unless that is a list.
fn whole(ty: Ty, at: &FieldPath<'_>) -> Ty {
    if matches!(at.field.ty, Ty::Array(_) | Ty::Map(_)) { ty } else { at.field.ty }
}

fn found(value: &Value, ty: Ty) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(number) if matches!(ty, Ty::Int32 | Ty::Int64 | Ty::IntOrString) => {
            format!("number {number}")
        }
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
}

fn go_type(ty: Ty) -> String {
    match ty {
        Ty::String => "string".to_owned(),
        Ty::Bytes => "[]uint8".to_owned(),
        Ty::Int32 => "int32".to_owned(),
        Ty::Int64 => "int64".to_owned(),
        Ty::Number => "float64".to_owned(),
        Ty::Boolean => "bool".to_owned(),
        Ty::Time => "v1.Time".to_owned(),
        Ty::MicroTime => "v1.MicroTime".to_owned(),
        Ty::Quantity => "resource.Quantity".to_owned(),
        Ty::IntOrString => "intstr.IntOrString".to_owned(),
        Ty::Any => "runtime.RawExtension".to_owned(),
        Ty::Array(element) => format!("[]{}", go_type(*element)),
        Ty::Map(value) => format!("map[string]{}", go_type(*value)),
        Ty::Ref(_) => {
            let name = ty.definition().map_or("", |row| row.name);
            let mut parts = name.rsplit('.');
            let (kind, package) =
                (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            format!("{package}.{kind}")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_mismatch_is_reported_as_go_reports_it() {
        let row = super::super::kind("apps", "v1", "Deployment").unwrap();
        let cases = [
            (
                json!({"spec": {"replicas": "3"}}),
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                json!({"spec": {"replicas": 1.5}}),
                "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                json!({"spec": {"template": {"spec": {"containers": [{"env": [{"name": true}]}]}}}}),
                "json: cannot unmarshal bool into Go struct field EnvVar.spec.template.spec.containers.env.name of type string",
            ),
            (
                json!({"spec": {"template": {"spec": {"containers": {}}}}}),
                "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
            ),
            (
                json!({"metadata": {"labels": {"a": 1}}}),
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
            ),
        ];
        for (json, text) in cases {
            assert_eq!(find(&json, row).as_deref(), Some(text));
        }
        let good = json!({"metadata": {"labels": null}, "spec": {"replicas": 1, "other": {}}});
        assert_eq!(find(&good, row), None);
    }
}
