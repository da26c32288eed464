//! LimitRanges.

use super::columns;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::LimitRange;
use serde_json::Value;

use super::{Column, Strategy, fill};

/// The strategy of LimitRanges.
pub struct Rules;

static COLUMNS: &[Column] = &[columns::NAME, columns::CREATED_AT];

impl Strategy for Rules {
    type Object = LimitRange;

    /// For containers, a limit that is not given is the maximum; a request the limit, or else the
    /// minimum.
    fn default(&self, range: &mut LimitRange) {
        for item in &mut range.spec.get_or_insert_default().limits {
            let lists = [
                &mut item.max,
                &mut item.min,
                &mut item.default,
                &mut item.default_request,
                &mut item.max_limit_request_ratio,
            ];
            lists.into_iter().for_each(fill::amounts);
            if item.type_ != "Container" {
                continue;
            }
            let limits = item.default.get_or_insert_default();
            for (name, amount) in item.max.iter().flatten() {
                limits.entry(name.clone()).or_insert_with(|| amount.clone());
            }
            let requests = item.default_request.get_or_insert_default();
            for (name, amount) in limits.iter().chain(item.min.iter().flatten()) {
                requests
                    .entry(name.clone())
                    .or_insert_with(|| amount.clone());
            }
        }
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, range: &LimitRange, _: Timestamp) -> Vec<Value> {
        vec![
            columns::name(&range.metadata),
            columns::created_at(&range.metadata),
        ]
    }
}
