//! Secrets.

use super::columns;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use super::{Column, Strategy, fill};

/// The strategy of Secrets.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text(
        "Type",
        "Used to facilitate programmatic handling of secret data.",
    ),
    columns::integer("Data", "Number of entries."),
    columns::AGE,
];

impl Strategy for Rules {
    type Object = Secret;

    /// `stringData` is a way to write `data`: it wins over it and is never stored.
    fn default(&self, secret: &mut Secret) {
        fill::text(&mut secret.type_, "Opaque");
        for (key, text) in secret.string_data.take().into_iter().flatten() {
            let value = k8s_openapi::ByteString(text.into_bytes());
            secret.data.get_or_insert_default().insert(key, value);
        }
    }

    /// The type cannot be taken away by leaving it out.
    fn prepare_update(&self, new: &mut Secret, old: &Secret, _: &super::Context<'_>) {
        if new.type_.as_deref().unwrap_or_default().is_empty() {
            new.type_.clone_from(&old.type_);
        }
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, secret: &Secret, now: Timestamp) -> Vec<Value> {
        vec![
            columns::name(&secret.metadata),
            secret.type_.clone().unwrap_or_default().into(),
            secret.data.as_ref().map_or(0, |data| data.len()).into(),
            columns::age(&secret.metadata, now),
        ]
    }
}
