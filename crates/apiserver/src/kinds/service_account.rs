//! ServiceAccounts.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;
use serde_json::Value;

use super::{Column, Strategy, columns};

/// The strategy of ServiceAccounts.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::integer("Secrets", "Number of secrets that pods may use."),
    columns::AGE,
];

impl Strategy for Rules {
    type Object = ServiceAccount;

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, account: &ServiceAccount, now: Timestamp) -> Vec<Value> {
        vec![
            columns::name(&account.metadata),
            account.secrets.as_ref().map_or(0, Vec::len).into(),
            columns::age(&account.metadata, now),
        ]
    }
}
