//! LimitRanges.

use super::check::{self, Errors, Unique};
use super::columns;
use super::path::Path;
use api::quantity::Quantity;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};
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

    fn validate(&self, range: &LimitRange) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let items = range.spec.iter().flat_map(|spec| spec.limits.iter());
        let mut types = Unique::default();
        for (index, item) in items.enumerate() {
            let path = Path::new("spec").child("limits").index(index);
            check::qualified_name(&item.type_, &path.child("type"), &mut errors);
            types.insert(&item.type_, &path.child("type"), &mut errors);
            validate_item(item, &path, &mut errors);
        }
        errors
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

fn validate_item(item: &LimitRangeItem, path: &Path, errors: &mut Errors) {
    if item.type_ == "Pod" {
        for (field, list) in [
            ("default", &item.default),
            ("defaultRequest", &item.default_request),
        ] {
            if list.iter().flatten().next().is_some() {
                let problem = "may not be specified when `type` is 'Pod'";
                errors.push(FieldError::forbidden(path.child(field), problem));
            }
        }
    }
    // Each pair in the order that its amounts must have.
    let pairs = [
        ("min", &item.min, "max", &item.max),
        ("min", &item.min, "default request", &item.default_request),
        ("default request", &item.default_request, "max", &item.max),
        (
            "default request",
            &item.default_request,
            "default",
            &item.default,
        ),
        ("min", &item.min, "default", &item.default),
        ("default", &item.default, "max", &item.max),
    ];
    for (low_name, low, high_name, high) in pairs {
        for (name, low) in low.iter().flatten() {
            let Some(high) = high.as_ref().and_then(|high| high.get(name)) else {
                continue;
            };
            if Quantity::of(low) > Quantity::of(high) {
                let field = if low_name == "default request" {
                    "defaultRequest"
                } else {
                    low_name
                };
                let problem = format!(
                    "{low_name} value {} is greater than {high_name} value {}",
                    low.0, high.0
                );
                errors.push(FieldError::invalid(
                    path.child(field).key(name),
                    &low.0,
                    problem,
                ));
            }
        }
    }
}
