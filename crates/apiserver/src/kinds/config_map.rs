//! ConfigMaps.

use super::columns;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

use super::{Column, Strategy};

/// The strategy of ConfigMaps.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::integer("Data", "Number of entries."),
    columns::AGE,
];

impl Strategy for Rules {
    type Object = ConfigMap;

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, map: &ConfigMap, now: Timestamp) -> Vec<Value> {
        let entries = map.data.as_ref().map_or(0, |data| data.len())
            + map.binary_data.as_ref().map_or(0, |data| data.len());
        vec![
            columns::name(&map.metadata),
            entries.into(),
            columns::age(&map.metadata, now),
        ]
    }
}
