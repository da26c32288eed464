//! LimitRanges.

use std::collections::BTreeMap;

use super::check::{self, Errors, Unique};
use super::columns;
use super::path::Path;
use super::pod_spec::resources::container_resource;
use api::quantity::Quantity;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use serde_json::Value;

use super::{Column, Strategy, fill};

/// The strategy of LimitRanges.
pub struct Rules;

static COLUMNS: &[Column] = &[columns::NAME, columns::CREATED_AT];

impl Strategy for Rules {
    type Object = LimitRange;

    fn allow_create_on_update(&self) -> bool {
        true
    }

    /// For containers, the default limit is the maximum; the default request is the limit, or else
    /// the minimum.
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
                requests.entry(name.clone()).or_insert_with(|| amount.clone());
            }
        }
    }

    fn validate(&self, range: &LimitRange) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let items = range.spec.iter().flat_map(|spec| spec.limits.iter());
        let mut types = Unique::default();
        for (index, item) in items.enumerate() {
            let path = Path::new("spec").child("limits").index(index);
            validate_type(&item.type_, &path.child("type"), &mut errors);
            types.insert(&item.type_, &path.child("type"), &mut errors);
            validate_names(item, &path, &mut errors);
            validate_item(item, &path, &mut errors);
            validate_ratios(item, &path, &mut errors);
            validate_storage(item, &path, &mut errors);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, range: &LimitRange, _: Timestamp) -> Vec<Value> {
        vec![columns::name(&range.metadata), columns::created_at(&range.metadata)]
    }
}

/// Validates a type: one that Kubernetes knows, or a qualified name.
fn validate_type(limit: &str, path: &Path, errors: &mut Errors) {
    let before = errors.len();
    check::qualified_name(limit, path, errors);
    let standard = ["Pod", "Container", "PersistentVolumeClaim"];
    if errors.len() == before && !limit.contains('/') && !standard.contains(&limit) {
        let problem = "must be a standard limit type or fully qualified";
        errors.push(FieldError::invalid(path, limit, problem));
    }
}

/// The resource names in an item.
fn validate_names(item: &LimitRangeItem, path: &Path, errors: &mut Errors) {
    let lists = [
        ("max", &item.max),
        ("min", &item.min),
        ("default", &item.default),
        ("defaultRequest", &item.default_request),
        ("maxLimitRequestRatio", &item.max_limit_request_ratio),
    ];
    for (field, list) in lists {
        for name in list.iter().flat_map(|list| list.keys()) {
            let path = path.child(field).key(name);
            if matches!(item.type_.as_str(), "Pod" | "Container") {
                container_resource(name, &path, errors);
            } else {
                check::qualified_name(name, &path, errors);
            }
        }
    }
}

/// A limit must be at least the request, and at most so many times as much.
fn validate_ratios(item: &LimitRangeItem, path: &Path, errors: &mut Errors) {
    for (name, text) in item.max_limit_request_ratio.iter().flatten() {
        let path = path.child("maxLimitRequestRatio").key(name);
        let ratio = Quantity::of(text);
        if ratio < Quantity::from_units(1) {
            let problem = format!("ratio {} is less than 1", text.0);
            errors.push(FieldError::invalid(&path, &text.0, problem));
        }
        let amount =
            |list: &Option<BTreeMap<String, Text>>| list.as_ref()?.get(name).map(Quantity::of);
        let (Some(min), Some(max)) = (amount(&item.min), amount(&item.max)) else {
            continue;
        };
        if min.is_zero() {
            continue;
        }
        let most = max.millis() as f64 / min.millis() as f64;
        if ratio.millis() as f64 / 1000.0 > most {
            let problem = format!("ratio {} is greater than max/min = {most:.6}", text.0);
            errors.push(FieldError::invalid(&path, &text.0, problem));
        }
    }
}

/// A limit on claims must specify a minimum or a maximum.
fn validate_storage(item: &LimitRangeItem, path: &Path, errors: &mut Errors) {
    let has = |list: &Option<BTreeMap<String, Text>>| {
        list.as_ref().is_some_and(|list| list.contains_key("storage"))
    };
    if item.type_ == "PersistentVolumeClaim" && !has(&item.min) && !has(&item.max) {
        let problem =
            "either minimum or maximum storage value is required, but neither was provided";
        errors.push(FieldError::required(path.child("limits"), problem));
    }
}

fn validate_item(item: &LimitRangeItem, path: &Path, errors: &mut Errors) {
    if item.type_ == "Pod" {
        for (field, list) in [("default", &item.default), ("defaultRequest", &item.default_request)]
        {
            if list.iter().flatten().next().is_some() {
                let problem = "may not be specified when `type` is 'Pod'";
                errors.push(FieldError::forbidden(path.child(field), problem));
            }
        }
    }
    // Each pair in ascending order.
    let pairs = [
        ("min", &item.min, "max", &item.max),
        ("min", &item.min, "default request", &item.default_request),
        ("default request", &item.default_request, "max", &item.max),
        ("default request", &item.default_request, "default", &item.default),
        ("min", &item.min, "default", &item.default),
        ("default", &item.default, "max", &item.max),
    ];
    for (low_name, low, high_name, high) in pairs {
        for (name, low) in low.iter().flatten() {
            let Some(high) = high.as_ref().and_then(|high| high.get(name)) else {
                continue;
            };
            if Quantity::of(low) > Quantity::of(high) {
                let field = if low_name == "default request" { "defaultRequest" } else { low_name };
                let problem = format!(
                    "{low_name} value {} is greater than {high_name} value {}",
                    low.0, high.0
                );
                errors.push(FieldError::invalid(path.child(field).key(name), &low.0, problem));
            }
        }
    }
}
