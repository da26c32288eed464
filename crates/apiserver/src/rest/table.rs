//! Tables and partial metadata: what kubectl prints.

use std::sync::Arc;

use api::{ApiError, KindRow};
use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::render::list_head;
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

/// The objects as a Table, with ages as of `now`.
///
/// # Errors
/// 500 when an object cannot be decoded.
pub fn table(
    row: &'static KindRow,
    items: &[Arc<Version>],
    list: Option<&ListAnswer>,
    options: &TableOptions,
    now: Timestamp,
) -> Result<Bytes, ApiError> {
    let strategy = strategy(row);
    let columns: Vec<Value> = strategy
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
    let mut out = BytesMut::with_capacity(512 * (items.len() + 1));
    let columns = if options.omit_columns { Value::Null } else { Value::Array(columns) };
    out.put_slice(
        format!("{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata},\"columnDefinitions\":{columns},\"rows\":[")
            .as_bytes(),
    );
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        let cells = Value::Array(strategy.cells(&*decode(row, item)?, now));
        out.put_slice(b"{\"cells\":");
        out.put_slice(cells.to_string().as_bytes());
        out.put_slice(b",\"object\":");
        match options.include {
            IncludeObject::None => out.put_slice(b"null"),
            IncludeObject::Metadata => out.put_slice(&partial(item)),
            IncludeObject::Object => out.put_slice(&item.json),
        }
        out.put_u8(b'}');
    }
    out.put_slice(b"]}\n");
    Ok(out.freeze())
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

/// The objects' metadata as a PartialObjectMetadataList.
pub fn partial_list(list: &ListAnswer) -> Bytes {
    let mut out = BytesMut::new();
    list_head(&mut out, "PartialObjectMetadataList", "meta.k8s.io/v1", list);
    for (index, item) in list.items.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        out.put_slice(&partial(item));
    }
    out.put_slice(b"]}\n");
    out.freeze()
}
