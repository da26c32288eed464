//! Tables and partial metadata: what kubectl prints.

use std::sync::Arc;

use api::{ApiError, Kind, KindRef, KindRow};
use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use serde_json::{Value, json};

use crate::cache::Version;
use crate::core::decode;
use crate::kinds::{Column, columns, strategy};
use crate::response::ListAnswer;
use crate::scan;

/// What rows include besides their cells (`meta.v1.TableOptions`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    /// The whole object, which kubectl sorts by.
    Object,
}

impl IncludeObject {
    /// Parses the parameter `includeObject`.
    ///
    /// # Errors
    /// 400 for an invalid value.
    pub fn parse(value: &str) -> Result<Self, ApiError> {
        match value {
            "None" => Ok(Self::None),
            "" | "Metadata" => Ok(Self::Metadata),
            "Object" => Ok(Self::Object),
            _ => Err(ApiError::bad_request(
                "Unable to convert to Table as requested: must be 'Metadata', 'Object', 'None', or empty",
            )),
        }
    }
}

/// How a Table is rendered.
#[derive(Clone, Copy, Debug, Default)]
pub struct TableOptions {
    pub omit_columns: bool,
    pub include: IncludeObject,
}

/// One object as a Table, with its age as of `now`.
///
/// # Errors
/// 500 when it cannot be decoded.
pub fn table(
    row: &KindRef,
    item: &Arc<Version>,
    options: &TableOptions,
    now: Timestamp,
) -> Result<Bytes, ApiError> {
    let mut out = BytesMut::new();
    table_head(row, None, std::slice::from_ref(item), options, &mut out);
    table_row(row, item, options, now, &mut out)?;
    out.put_slice(b"]}\n");
    Ok(out.freeze())
}

/// Everything of a Table before the first row: of `list`, or of single `items`.
pub fn table_head(
    row: &KindRef,
    list: Option<&ListAnswer>,
    items: &[Arc<Version>],
    options: &TableOptions,
    out: &mut BytesMut,
) {
    let columns = columns_of(row);
    let mut metadata = json!({});
    if let Some(list) = list {
        if list.revision > 0 {
            metadata["resourceVersion"] = list.revision.to_string().into();
        }
        if !list.continue_token.is_empty() {
            metadata["continue"] = list.continue_token.clone().into();
        }
        if let Some(remaining) = list.remaining.filter(|remaining| *remaining > 0) {
            metadata["remainingItemCount"] = remaining.into();
        }
    } else if let [only] = items {
        metadata["resourceVersion"] = only.revision.to_string().into();
    }
    let columns = if options.omit_columns { Value::Null } else { Value::Array(columns) };
    out.put_slice(
        format!("{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata},\"columnDefinitions\":{columns},\"rows\":[")
            .as_bytes(),
    );
}

/// The columns of a kind: the name, and then its own.
fn columns_of(row: &KindRow) -> Vec<Value> {
    let Some(custom) = row.custom.as_ref().filter(|custom| !custom.columns.is_empty()) else {
        return definitions(&strategy(row).columns());
    };
    let mut all = definitions(&[columns::NAME]);
    all.extend(custom.columns.iter().map(|column| {
        let description = match column.description.as_str() {
            // As upstream describes a column without a text.
            "" => format!(
                "Custom resource definition column (in JSONPath format): {}",
                column.json_path
            ),
            own => own.to_owned(),
        };
        json!({"name": column.name, "type": column.kind, "format": column.format,
            "description": description, "priority": column.priority})
    }));
    all
}

fn definitions(columns: &[Column]) -> Vec<Value> {
    let definition = |column: &Column| {
        json!({"name": column.name, "type": column.kind, "format": column.format,
            "description": column.description, "priority": column.priority})
    };
    columns.iter().map(definition).collect()
}

/// The scale of an object as a Table; `None` if the JSON is something else.
pub fn scale_table(json: &[u8], options: &TableOptions, now: Timestamp) -> Option<Bytes> {
    const COLUMNS: [Column; 4] = [
        columns::NAME,
        columns::integer("Desired", "Number of pods that are wanted."),
        columns::integer("Available", "Number of pods that there are."),
        columns::AGE,
    ];
    let value: Value = serde_json::from_slice(json).ok()?;
    let scale: Scale = (value["kind"] == *Scale::ROW.kind).then(|| Scale::decode(json).ok())??;
    let desired = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default();
    let available = scale.status.as_ref().map_or(0, |status| status.replicas);
    let metadata = &scale.metadata;
    let object = match options.include {
        IncludeObject::None => Value::Null,
        IncludeObject::Metadata => json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": value["metadata"],
        }),
        IncludeObject::Object => value["metadata"].is_object().then(|| value.clone())?,
    };
    let columns = if options.omit_columns { Value::Null } else { definitions(&COLUMNS).into() };
    let cells =
        [columns::name(metadata), desired.into(), available.into(), columns::age(metadata, now)];
    let table = json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": metadata.resource_version},
        "columnDefinitions": columns, "rows": [{"cells": cells, "object": object}],
    });
    Some(table.to_string().into())
}

/// One row of a Table.
///
/// # Errors
/// 500 when the object cannot be decoded.
pub fn table_row(
    row: &KindRef,
    item: &Arc<Version>,
    options: &TableOptions,
    now: Timestamp,
    out: &mut BytesMut,
) -> Result<(), ApiError> {
    let cells = Value::Array(strategy(row).cells(&*decode(row, item)?, now));
    out.put_slice(b"{\"cells\":");
    out.put_slice(cells.to_string().as_bytes());
    out.put_slice(b",\"object\":");
    match options.include {
        IncludeObject::None => out.put_slice(b"null"),
        IncludeObject::Metadata => out.put_slice(&partial(item)),
        IncludeObject::Object => out.put_slice(&item.json),
    }
    out.put_u8(b'}');
    Ok(())
}

/// An object's metadata as PartialObjectMetadata.
pub fn partial(version: &Version) -> Bytes {
    let range = scan::member(&version.json, "metadata").unwrap_or_default();
    let metadata = version.json.get(range).unwrap_or(b"{}");
    let mut out = BytesMut::with_capacity(metadata.len() + 96);
    out.put_slice(
        b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":",
    );
    out.put_slice(metadata);
    out.put_u8(b'}');
    out.freeze()
}
