//! Strategic merge patch: Kubernetes' merge patch with support for lists.
//!
//! [`apply()`] applies a patch to an object (`$patch`, `$retainKeys`, `$deleteFromPrimitiveList`
//! and `$setElementOrder` included); [`three_way`] and [`two_way`] compute the patch that `kubectl
//! apply` and `kubectl edit` send. Lists merge by the keys in the schema table; without a schema
//! both degenerate to JSON merge patch, which is what custom resources need.
//!
//! Rules: `k8s.io/apimachinery/pkg/util/strategicpatch`.

mod apply;
mod diff;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::schema::{Field, Patch, Ty, TypeRow};

pub use diff::{three_way, two_way};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// Why a patch cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    #[error("unable to apply the patch: it is not a JSON object")]
    NotAnObject,
    #[error("unknown patch type: {directive} in map: {map}")]
    UnknownDirective { directive: String, map: String },
    #[error("map: {element} does not contain declared merge key: {key}")]
    MissingMergeKey { element: String, key: &'static str },
    #[error("list element types are not identical: {0}")]
    MixedElements(String),
    #[error("lists of lists are not supported")]
    ListOfLists,
    #[error("invalid patch format of setElementOrder list")]
    ElementOrder,
    #[error("invalid patch format of primitive list")]
    PrimitiveList,
    #[error("invalid patch format of retainKeys")]
    RetainKeysFormat,
    #[error("The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{order}\n")]
    Order { patch: String, order: String },
}

/// Applies `patch` to `original`, both objects of the kind that `schema` defines.
pub fn apply(
    original: Value,
    patch: Value,
    schema: Option<&'static TypeRow>,
) -> Result<Value, PatchError> {
    let (Value::Object(original), Value::Object(patch)) = (original, patch) else {
        return Err(PatchError::NotAnObject);
    };
    apply::object(original, patch, FieldSchema::root(schema)).map(Value::Object)
}

/// The schema of a value.
#[derive(Clone, Copy)]
struct FieldSchema {
    fields: Option<&'static [Field]>,
    ty: Option<Ty>,
    patch: Patch,
    merge_key: Option<&'static str>,
}

impl FieldSchema {
    const UNKNOWN: Self = Self { fields: None, ty: None, patch: Patch::None, merge_key: None };

    fn root(schema: Option<&'static TypeRow>) -> Self {
        Self { fields: schema.map(|row| row.fields), ..Self::UNKNOWN }
    }

    fn of(ty: Ty, patch: Patch, merge_key: Option<&'static str>) -> Self {
        Self { fields: ty.definition().map(|row| row.fields), ty: Some(ty), patch, merge_key }
    }

    /// The schema of a field or of a map's value.
    fn child(self, name: &str) -> Self {
        if let Some(Ty::Map(value)) = self.ty {
            return Self::of(*value, Patch::None, None);
        }
        let field = self.fields.and_then(|fields| {
            let index = fields.binary_search_by(|field| field.name.cmp(name)).ok()?;
            Some(fields[index])
        });
        field.map_or(Self::UNKNOWN, |field| Self::of(field.ty, field.patch, field.merge_key))
    }

    /// The schema of a list's elements. A list that retains keys does so for each element.
    fn element(self) -> Self {
        let Some(ty) = self.ty.and_then(Ty::element) else {
            return Self::UNKNOWN;
        };
        let patch = if self.patch.retains_keys() { Patch::RetainKeys } else { Patch::None };
        Self::of(ty, patch, None)
    }
}

/// The value that identifies an element: that of its merge key, or itself.
fn identity<'a>(element: &'a Value, key: Option<&str>) -> Option<&'a Value> {
    match key {
        Some(key) => element.get(key),
        None => Some(element),
    }
}

fn position(list: &[Value], id: &Value, key: Option<&str>) -> Option<usize> {
    list.iter().position(|element| identity(element, key) == Some(id))
}

/// Index of a list's elements by their identity: clients' lists may be long.
struct ElementIndex(HashMap<String, usize>);

impl ElementIndex {
    fn of(list: &[Value], key: Option<&str>) -> Self {
        let mut index = HashMap::with_capacity(list.len());
        for (at, element) in list.iter().enumerate() {
            if let Some(id) = identity(element, key) {
                index.entry(id.to_string()).or_insert(at);
            }
        }
        Self(index)
    }

    fn get(&self, id: &Value) -> Option<usize> {
        self.0.get(&id.to_string()).copied()
    }
}

fn objects(list: &[Value]) -> bool {
    list.iter().any(Value::is_object)
}

fn single(key: &str, value: &Value) -> Map<String, Value> {
    Map::from_iter([(key.to_owned(), value.clone())])
}
