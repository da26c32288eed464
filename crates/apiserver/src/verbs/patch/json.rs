//! JSON patches within bounds: a few copies of copies would otherwise exhaust memory, and nested
//! paths would nest values deeper than they can be traversed.

use api::ApiError;
use json_patch::{Patch, PatchErrorKind, PatchOperation, TestOperation};
use serde::Deserialize;
use serde_json::Value;

/// Maximum depth of a patched object; decoding allows no more either.
const MAX_DEPTH: usize = 128;
/// Maximum number of values in all copies and moves of one patch, long texts being several. Upstream
/// limits the bytes of copies to 3 MiB.
const MAX_CARRIED: usize = 1 << 20;
/// As many bytes of a text count as a value.
const TEXT_UNIT: usize = 32;

/// Why a patch cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It holds what is not an operation.
    #[error("{0}")]
    Malformed(String),
    /// An operation is unknown, or lacks its paths.
    #[error("{0}")]
    Impossible(String),
}

impl Unreadable {
    /// The error of a request with the patch.
    pub fn refusal(self) -> ApiError {
        match self {
            Self::Malformed(why) => ApiError::bad_request(why),
            Self::Impossible(_) => rejected(),
        }
    }
}

/// The error of a request whose operations cannot be carried out. Like upstream's, it does not say
/// why.
pub fn rejected() -> ApiError {
    ApiError::new(422, "Invalid", "the server rejected our request due to an error in our request")
}

/// Reads the operations of a patch.
///
/// # Errors
/// What is not an operation, or one that cannot be carried out: an unknown one, or one without its
/// paths.
pub fn parse(operations: &[Value]) -> Result<Patch, Unreadable> {
    operations.iter().map(operation).collect::<Result<_, _>>().map(Patch)
}

fn operation(json: &Value) -> Result<PatchOperation, Unreadable> {
    let Some(members) = json.as_object() else {
        let kind = match json {
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            _ => "array",
        };
        return Err(Unreadable::Malformed(format!(
            "json: cannot unmarshal {kind} into Go value of type jsonpatch.Operation"
        )));
    };
    let name = members.get("op").and_then(Value::as_str).unwrap_or("unknown");
    let needed: &[&str] = match name {
        "add" | "replace" | "remove" | "test" => &["path"],
        "copy" | "move" => &["from", "path"],
        other => return Err(Unreadable::Impossible(format!("Unexpected kind: {other}"))),
    };
    if let Some(member) =
        needed.iter().find(|member| !members.get(**member).is_some_and(Value::is_string))
    {
        let why = format!("{name} operation failed to decode {member}: missing value");
        return Err(Unreadable::Impossible(why));
    }
    // What Go takes for null.
    let mut members = members.clone();
    members.entry("value").or_insert(Value::Null);
    PatchOperation::deserialize(Value::Object(members))
        .map_err(|error| Unreadable::Impossible(error.to_string()))
}

/// Why an operation failed, in the words of evanphx/json-patch.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unapplied {
    pub why: String,
    /// A `test` found another value.
    pub is_test: bool,
}

impl From<String> for Unapplied {
    fn from(why: String) -> Self {
        Self { why, is_test: false }
    }
}

/// Applies the operations in order.
///
/// # Errors
/// Why an operation failed; the value is then unusable.
pub fn apply(value: &mut Value, patch: &Patch) -> Result<(), Unapplied> {
    let mut carried = 0;
    for operation in &patch.0 {
        let (depth, nodes) = match operation {
            PatchOperation::Add(add) => measure(&add.value).nested_in(add.path.tokens().count()),
            PatchOperation::Replace(replace) => {
                measure(&replace.value).nested_in(replace.path.tokens().count())
            }
            PatchOperation::Copy(copy) => {
                let found = copy.from.resolve(value).map(measure).unwrap_or_default();
                carried += found.nodes;
                found.nested_in(copy.path.tokens().count())
            }
            PatchOperation::Move(one) => {
                let found = one.from.resolve(value).map(measure).unwrap_or_default();
                carried += found.nodes;
                found.nested_in(one.path.tokens().count())
            }
            PatchOperation::Remove(_) | PatchOperation::Test(_) => (0, 0),
        };
        if depth > MAX_DEPTH || nodes > MAX_CARRIED {
            return Err("exceeded max depth".to_owned().into());
        }
        if carried > MAX_CARRIED {
            return Err(format!(
                "Unable to complete the copy, the accumulated size increase of copy is {carried}, exceeding the limit {MAX_CARRIED}"
            )
            .into());
        }
        if let PatchOperation::Test(test) = operation
            && is_absent(value, test)
        {
            continue;
        }
        json_patch::patch_unsafe(value, std::slice::from_ref(operation)).map_err(|error| {
            let why = missing(value, operation).unwrap_or_else(|| error.to_string());
            Unapplied { why, is_test: matches!(error.kind, PatchErrorKind::TestFailed) }
        })?;
    }
    Ok(())
}

/// What an operation does not find.
fn missing(value: &Value, operation: &PatchOperation) -> Option<String> {
    let (name, path) = match operation {
        PatchOperation::Add(one) => ("add", &one.path),
        PatchOperation::Replace(one) => ("replace", &one.path),
        PatchOperation::Remove(one) => ("remove", &one.path),
        _ => return None,
    };
    let parent = path.parent().and_then(|parent| parent.resolve(value).ok());
    let container = parent.filter(|parent| parent.is_object() || parent.is_array());
    let key = path.last().map(|key| key.decoded().into_owned()).unwrap_or_default();
    let quoted = |path: &json_patch::jsonptr::Pointer| match name {
        "replace" => path.to_string(),
        _ => format!("\"{path}\""),
    };
    Some(match (container, name) {
        (None, _) => format!(
            "{name} operation does not apply: doc is missing path: {}: missing value",
            quoted(path)
        ),
        (Some(_), "replace") => {
            format!("replace operation does not apply: doc is missing key: {path}: missing value")
        }
        (Some(Value::Object(_)), "remove") => format!(
            "error in remove for path: '{path}': Unable to remove nonexistent key: {key}: missing value"
        ),
        (Some(_), _) => {
            let index = match key.parse::<i64>() {
                Ok(index) => {
                    format!("Unable to access invalid index: {index}: invalid array index")
                }
                Err(_) => format!("strconv.Atoi: parsing {key:?}: invalid syntax"),
            };
            format!("error in {name} for path: '{path}': {index}")
        }
    })
}

/// Whether null is expected where an object has no such member, which upstream takes for the same:
/// the `test` of evanphx/json-patch. Clients add what must not be there yet by it, as kube-rs does
/// the first finalizer.
fn is_absent(value: &Value, test: &TestOperation) -> bool {
    let parent = test.path.parent().and_then(|parent| parent.resolve(value).ok());
    test.value.is_null()
        && parent.is_some_and(Value::is_object)
        && test.path.resolve(value).is_err()
}

/// The size of a value.
#[derive(Clone, Copy, Default)]
struct Size {
    depth: usize,
    nodes: usize,
}

impl Size {
    fn nested_in(self, levels: usize) -> (usize, usize) {
        (self.depth + levels, self.nodes)
    }
}

/// Traverses a value, which never nests deeper than [`MAX_DEPTH`].
fn measure(value: &Value) -> Size {
    let within = |sizes: &mut dyn Iterator<Item = Size>| {
        let inner = sizes.fold(Size::default(), |all, one| Size {
            depth: all.depth.max(one.depth),
            nodes: all.nodes + one.nodes,
        });
        Size { depth: inner.depth + 1, nodes: inner.nodes + 1 }
    };
    match value {
        Value::Array(items) => within(&mut items.iter().map(measure)),
        Value::Object(members) => within(&mut members.iter().map(|(name, value)| {
            let size = measure(value);
            Size { nodes: size.nodes + name.len() / TEXT_UNIT, ..size }
        })),
        Value::String(text) => Size { depth: 0, nodes: 1 + text.len() / TEXT_UNIT },
        _ => Size { depth: 0, nodes: 1 },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(operations: Value) -> Result<Value, String> {
        let patch: Patch = serde_json::from_value(operations).unwrap();
        let mut value = json!({"data": {"k": "v"}});
        apply(&mut value, &patch).map(|()| value).map_err(|unapplied| unapplied.why)
    }

    #[test]
    fn what_is_missing_is_named() {
        let cases = [
            (
                "replace",
                "/none",
                "replace operation does not apply: doc is missing key: /none: missing value",
            ),
            (
                "replace",
                "/a/b",
                "replace operation does not apply: doc is missing path: /a/b: missing value",
            ),
            (
                "add",
                "/a/b",
                "add operation does not apply: doc is missing path: \"/a/b\": missing value",
            ),
            (
                "remove",
                "/a/b",
                "remove operation does not apply: doc is missing path: \"/a/b\": missing value",
            ),
            (
                "remove",
                "/data/x",
                "error in remove for path: '/data/x': Unable to remove nonexistent key: x: missing value",
            ),
            (
                "add",
                "/list/7",
                "error in add for path: '/list/7': Unable to access invalid index: 7: invalid array index",
            ),
        ];
        for (op, path, expected) in cases {
            let list = json!({"op": "add", "path": "/list", "value": [1]});
            let why = patched(json!([list, {"op": op, "path": path, "value": 1}])).unwrap_err();
            assert_eq!(why, expected);
        }
    }

    #[test]
    fn impossible_operations_are_named() {
        for (operation, why) in [
            (json!({"op": "fly", "path": "/spec"}), "Unexpected kind: fly"),
            (json!({"path": "/spec"}), "Unexpected kind: unknown"),
            (json!({"op": "remove"}), "remove operation failed to decode path: missing value"),
            (
                json!({"op": "move", "path": "/spec"}),
                "move operation failed to decode from: missing value",
            ),
        ] {
            let unreadable = parse(std::slice::from_ref(&operation)).unwrap_err();
            assert_eq!(unreadable, Unreadable::Impossible(why.to_owned()), "{operation}");
        }
    }

    #[test]
    fn ordinary_patches_are_applied() {
        let value = patched(json!([
            {"op": "test", "path": "/data/k", "value": "v"},
            {"op": "copy", "from": "/data", "path": "/more"},
            {"op": "move", "from": "/data/k", "path": "/data/l"},
            {"op": "replace", "path": "/more/k", "value": [1]},
            {"op": "add", "path": "/more/k/-", "value": 2},
            {"op": "remove", "path": "/data/l"},
        ]));
        assert_eq!(value.unwrap(), json!({"data": {}, "more": {"k": [1, 2]}}));
        assert!(patched(json!([{"op": "remove", "path": "/none"}])).is_err());
        assert!(patched(json!([{"op": "copy", "from": "/none", "path": "/a"}])).is_err());
    }

    #[test]
    fn what_is_absent_equals_null() {
        let test = |path: &str, value: Value| {
            let add = json!({"op": "add", "path": "/new", "value": [1]});
            patched(json!([{"op": "test", "path": path, "value": value}, add]))
        };
        for path in ["/new", "/data/new", "/data/a~1b"] {
            assert_eq!(test(path, Value::Null).unwrap()["new"], json!([1]), "{path}");
            assert!(test(path, json!([])).is_err(), "{path}");
        }
        for path in ["/data", "/data/k", "/none/new", "/data/k/new"] {
            assert!(test(path, Value::Null).is_err(), "{path}");
        }
    }

    #[test]
    fn bombs_are_refused() {
        let long = json!({"op": "add", "path": "/data", "value": "x".repeat(1 << 20)});
        let copy = |number| json!({"op": "copy", "from": "/data", "path": format!("/{number}")});
        let copies: Vec<Value> = std::iter::once(long).chain((0..100).map(copy)).collect();
        let error = patched(copies.into()).unwrap_err();
        assert!(error.starts_with("Unable to complete the copy"), "{error}");
        let copies: Vec<Value> = (0..10_000)
            .map(|number| json!({"op": "copy", "from": "/data", "path": format!("/data/{number}")}))
            .collect();
        let error = patched(copies.into()).unwrap_err();
        assert!(
            error.starts_with("exceeded") || error.starts_with("Unable to complete the copy"),
            "{error}"
        );
        let swing = ["/a/x", "/data/x"];
        let mut operations = vec![json!({"op": "add", "path": "/a", "value": {}})];
        for number in 0..10_000 {
            let (path, from) = (swing[number % 2], swing[(number + 1) % 2]);
            operations
                .push(json!({"op": "move", "from": from.trim_end_matches("/x"), "path": path}));
            operations.push(json!({"op": "add", "path": from.trim_end_matches("/x"), "value": {}}));
        }
        let error = patched(operations.into()).unwrap_err();
        assert_eq!(error, "exceeded max depth");
        let path = "/data".to_owned() + &"/x".repeat(200);
        let error = patched(json!([{"op": "add", "path": path, "value": 1}])).unwrap_err();
        assert_eq!(error, "exceeded max depth");
    }
}
