//! ConfigMaps.

use super::check::{self, Errors};
use super::columns;
use super::path::Path;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

use super::{Column, Strategy};

/// Maximum total of keys and values, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// The strategy of ConfigMaps.
pub struct Rules;

static COLUMNS: &[Column] =
    &[columns::NAME, columns::integer("Data", "Number of entries."), columns::AGE];

impl Strategy for Rules {
    type Object = ConfigMap;

    fn validate(&self, map: &ConfigMap) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut size = 0;
        let path = Path::new("data");
        for (key, value) in map.data.iter().flatten() {
            check::invalid(api::names::config_map_key(key), key, &path.key(key), &mut errors);
            if map.binary_data.as_ref().is_some_and(|binary| binary.contains_key(key)) {
                errors.push(FieldError::invalid(
                    path.key(key),
                    key,
                    "duplicate of key present in binaryData",
                ));
            }
            size += key.len() + value.len();
        }
        for (key, value) in map.binary_data.iter().flatten() {
            check::invalid(
                api::names::config_map_key(key),
                key,
                &Path::new("binaryData").key(key),
                &mut errors,
            );
            size += key.len() + value.0.len();
        }
        if size > MAX_BYTES {
            errors.push(FieldError::too_long("[]", MAX_BYTES));
        }
        errors
    }

    fn validate_update(&self, new: &ConfigMap, old: &ConfigMap) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if old.immutable == Some(true) {
            let changed = [
                ("immutable", new.immutable != Some(true)),
                (
                    "data",
                    new.data.clone().unwrap_or_default() != old.data.clone().unwrap_or_default(),
                ),
                ("binaryData", new.binary_data != old.binary_data),
            ];
            immutable(&changed, &mut errors);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, map: &ConfigMap, now: Timestamp) -> Vec<Value> {
        let entries = map.data.as_ref().map_or(0, |data| data.len())
            + map.binary_data.as_ref().map_or(0, |data| data.len());
        vec![columns::name(&map.metadata), entries.into(), columns::age(&map.metadata, now)]
    }
}

/// Refuses changes to an immutable object.
pub fn immutable(changed: &[(&str, bool)], errors: &mut Errors) {
    for (field, _) in changed.iter().filter(|(_, changed)| *changed) {
        errors.push(FieldError::forbidden(*field, "field is immutable when `immutable` is set"));
    }
}
