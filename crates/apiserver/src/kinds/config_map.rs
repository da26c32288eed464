//! ConfigMaps.

use api::names;
use k8s_openapi::api::core::v1::ConfigMap;

use super::at::At;
use super::columns::integer;
use super::table::{Rows, age, name};

/// Maximum total of keys and values, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

pub static RULES: Rows<ConfigMap> = Rows {
    judge: |map, at| {
        let mut size = 0;
        for (key, value) in map.data.iter().flatten() {
            let at = at.entry("data", key);
            at.texts(names::config_map_key(key), key);
            if map.binary_data.as_ref().is_some_and(|binary| binary.contains_key(key)) {
                at.invalid(key, "duplicate of key present in binaryData");
            }
            size += key.len() + value.len();
        }
        for (key, value) in map.binary_data.iter().flatten() {
            at.entry("binaryData", key).texts(names::config_map_key(key), key);
            size += key.len() + value.0.len();
        }
        at.child("[]").max_bytes(size, MAX_BYTES);
    },
    update: |new, old, at| {
        if old.immutable == Some(true) {
            let data = |map: &ConfigMap| map.data.clone().unwrap_or_default();
            immutable("immutable", new.immutable != Some(true), at);
            immutable("data", data(new) != data(old), at);
            immutable("binaryData", new.binary_data != old.binary_data, at);
        }
    },
    columns: &[
        name(),
        integer("Data", "Number of entries.").of(|map| {
            let binary = map.binary_data.as_ref().map_or(0, |data| data.len());
            (map.data.as_ref().map_or(0, |data| data.len()) + binary).into()
        }),
        age(),
    ],
    ..Rows::NEW
};

/// Refuses the change of a field of an immutable object.
pub fn immutable(field: &str, changed: bool, at: &At<'_>) {
    if changed {
        at.child(field).forbidden("field is immutable when `immutable` is set");
    }
}
