//! Tables and partial metadata: what kubectl prints.

use std::sync::Arc;

use api::{ApiError, KindRow};
use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cache::Version;
use crate::core::decode;
use crate::kinds::strategy;
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
    /// The parameter `includeObject` of a query.
    ///
    /// # Errors
    /// 400 for an invalid value.
    pub fn parse(query: &str) -> Result<Self, ApiError> {
        let value = query.split('&').find_map(|pair| pair.strip_prefix("includeObject="));
        match value.unwrap_or_default() {
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
    row: &'static KindRow,
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
    row: &'static KindRow,
    list: Option<&ListAnswer>,
    items: &[Arc<Version>],
    options: &TableOptions,
    out: &mut BytesMut,
) {
    let columns: Vec<Value> = strategy(row)
        .columns()
        .iter()
        .map(|column| {
            json!({"name": column.name, "type": column.kind, "format": column.format,
                "description": column.description, "priority": column.priority})
        })
        .collect();
    let mut metadata = json!({});
    if let Some(list) = list {
        metadata["resourceVersion"] = list.revision.to_string().into();
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

/// One row of a Table.
///
/// # Errors
/// 500 when the object cannot be decoded.
pub fn table_row(
    row: &'static KindRow,
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
