//! Structural schemas: what custom resources are pruned, defaulted and validated by
//! (`k8s.io/apiextensions-apiserver`, `pkg/apiserver/schema`).
//!
//! Entry points: [`Structural`] for the schema of one version of a CustomResourceDefinition, and
//! [`definition`] for the definitions themselves. A request's object is pruned, then defaulted;
//! after admission it is pruned and defaulted again, and validated. What is stored is pruned and
//! defaulted when it is read, since the schema may have changed. [`Column`], [`at_path`] and
//! [`validate_scale`] serve tables, selectable fields and the scale subresource; [`openapi`] what is
//! published.
//!
//! Everything works on JSON and is pure; schemas are at most [`DEPTH_MAX`] levels deep, and no walk
//! goes deeper than its schema.

mod column;
mod correlate;
mod default;
pub mod definition;
mod format;
pub(crate) mod go;
mod lists;
mod metadata;
pub(crate) mod node;
mod numbers;
pub mod openapi;
pub(crate) mod path;
mod pattern;
mod prune;
pub(crate) mod rules;
#[cfg(test)]
mod tests;
mod unchanged;
mod validate;

use serde_json::Value;

pub use column::{Column, ScalePaths, at_path, validate_scale};
pub use default::TooLarge;
pub use node::{DEPTH_MAX, SchemaError};

use crate::schema::TypeRow;
use crate::status::{FieldError, FieldErrorType};
use node::{ListType, Node, Reader};
use path::Path;
use prune::Pruned;

/// The definition of the metadata that every object has.
pub(crate) fn object_meta() -> Option<&'static TypeRow> {
    metadata::definition()
}

/// The schema of one version of a CustomResourceDefinition.
#[derive(Debug)]
pub struct Structural {
    pub(crate) root: Node,
    has: Parts,
}

/// What a schema has anywhere: walks that look for nothing else are left out.
#[derive(Clone, Copy, Debug, Default)]
struct Parts {
    rules: bool,
    /// Objects with metadata of their own.
    embedded: bool,
    /// Lists whose elements have to differ.
    distinct: bool,
}

impl Parts {
    fn of(node: &Node) -> Self {
        let own = Self {
            rules: node.has_rules,
            embedded: node.embedded,
            distinct: node.list != ListType::Atomic,
        };
        node.children().map(Self::of).fold(own, |all, below| Self {
            rules: all.rules,
            embedded: all.embedded || below.embedded,
            distinct: all.distinct || below.distinct,
        })
    }
}

impl Structural {
    /// Reads `openAPIV3Schema`. A schema that [`definition`] has nothing against can be read.
    ///
    /// # Errors
    /// When it has parts that custom resources do not support, or is too deep.
    pub fn new(schema: &Value) -> Result<Self, SchemaError> {
        let root = Reader::default().node(schema, 0)?;
        Ok(Self { has: Parts::of(&root), root })
    }

    /// Removes the fields of an object that the schema does not have, and returns their paths as
    /// strict decoding reports them: `spec.foo`, `spec.list[0].bar`. `apiVersion`, `kind` and
    /// `metadata` of the object itself are left alone.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        self.pruned(object).unknown
    }

    fn pruned(&self, object: &mut Value) -> Pruned {
        prune::prune(object, &self.root, true, self.has.embedded)
    }

    /// Removes nulls that the schema does not allow, and sets defaults; whether anything changed.
    ///
    /// # Errors
    /// When the defaults are too large: the object stays as it is, and is not [valid](Self::validate).
    pub fn default(&self, object: &mut Value) -> Result<bool, TooLarge> {
        default::check(object, &self.root, true)?;
        Ok(default::default(object, &self.root, true))
    }

    /// Whether a stored object, whose `apiVersion` has to be this, is certainly read as it is.
    pub fn is_read_as_stored(&self, json: &[u8], api_version: &str) -> bool {
        unchanged::is_read_as_stored(json, &self.root, api_version)
    }

    /// Whether a missing field of the object itself gets a default.
    pub fn defaults(&self, field: &str) -> bool {
        self.root.property(field).is_some_and(|property| property.default.is_some())
    }

    /// What is read of a stored object: pruned, with its defaults; whether that differs.
    ///
    /// # Errors
    /// As [`Self::default`].
    pub fn read(&self, object: &mut Value) -> Result<bool, TooLarge> {
        let pruned = self.pruned(object).changed;
        Ok(self.default(object)? || pruned)
    }

    /// What is wrong with an object but its own metadata. With the object before an update, what
    /// the update does not change is not judged anew.
    pub fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        if let Err(error) = self.has_defaults(new) {
            return vec![error];
        }
        let mut errors = validate::validate(&self.root, new, old, "");
        if self.has.embedded {
            metadata::validate(&self.root, new, &Path::ROOT, &mut errors);
        }
        self.unique(new, old, &mut errors);
        self.rules(new, old, &mut errors);
        errors
    }

    /// What is wrong with an object whose status is updated: only the status is judged, and the
    /// rules of the whole object.
    pub fn validate_status(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        if let Err(error) = self.has_defaults(new) {
            return vec![error];
        }
        let mut errors = match (self.root.property("status"), new.get("status")) {
            (Some(node), Some(status)) => {
                validate::validate(node, status, old.get("status"), "status")
            }
            _ => Vec::new(),
        };
        self.unique(new, Some(old), &mut errors);
        self.rules(new, Some(old), &mut errors);
        errors
    }

    /// Fails for an object whose defaults are too large to be set.
    fn has_defaults(&self, object: &Value) -> Result<(), FieldError> {
        let too_large =
            |error: TooLarge| FieldError::forbidden(Path::ROOT.below(""), error.to_string());
        default::check(object, &self.root, true).map_err(too_large)
    }

    /// The validation rules, which are judged only if what they read has the right form.
    fn rules(&self, new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
        if !self.has.rules {
            return;
        }
        let is_blocking = |error: &FieldError| {
            matches!(
                error.kind,
                FieldErrorType::NotSupported
                    | FieldErrorType::Required
                    | FieldErrorType::TooLong
                    | FieldErrorType::TooMany
                    | FieldErrorType::TypeInvalid
            )
        };
        if !errors.iter().any(is_blocking) {
            return errors.append(&mut rules::judge(&self.root, new, old, ""));
        }
        let detail = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
        errors.push(FieldError {
            value: "\"null\"".to_owned(),
            ..FieldError::invalid(Path::ROOT.below(""), "", detail)
        });
    }

    /// What is wrong with the validation rules of the schema at `path`. `unchanged`: the schema has
    /// been accepted before.
    fn rule_errors(&self, path: &str, unchanged: bool) -> Vec<FieldError> {
        rules::errors(&self.root, path, unchanged)
    }

    /// Duplicates in sets and maps, unless the old object has some, too.
    fn unique(&self, new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
        if !self.has.distinct {
            return;
        }
        let mut duplicates = Vec::new();
        lists::validate(&self.root, new, &Path::ROOT, &mut duplicates);
        if duplicates.is_empty() {
            return;
        }
        let mut before = Vec::new();
        if let Some(old) = old {
            lists::validate(&self.root, old, &Path::ROOT, &mut before);
        }
        if before.is_empty() {
            errors.append(&mut duplicates);
        }
    }
}

/// Of a version without a schema: anything is allowed.
impl Default for Structural {
    fn default() -> Self {
        let anything =
            serde_json::json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        Self::new(&anything).expect("the schema has nothing that can be wrong")
    }
}
