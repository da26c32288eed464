//! ServiceAccounts.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::columns::integer;
use super::table::{Rows, age, name};

pub static RULES: Rows<ServiceAccount> = Rows {
    columns: &[
        name(),
        integer("Secrets", "Number of secrets that pods may use.")
            .of(|account| account.secrets.as_ref().map_or(0, Vec::len).into()),
        age(),
    ],
    ..Rows::NEW
};
