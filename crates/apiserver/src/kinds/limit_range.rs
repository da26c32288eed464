//! LimitRanges.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::at::At;
use super::check::Unique;
use super::fill;
use super::pod_spec::resources::container_resource;
use super::table::{Rows, created_at, name};

pub static RULES: Rows<LimitRange> = Rows {
    // For containers, the default limit is the maximum; the default request is the limit, or else
    // the minimum.
    default: |range| {
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
    },
    judge: |range, at| {
        let items = range.spec.iter().flat_map(|spec| spec.limits.iter());
        let mut types = Unique::default();
        for (index, item) in items.enumerate() {
            let at = at.item("spec.limits", index);
            validate_type(&item.type_, &at.child("type"));
            types.add(&item.type_, &at.child("type"));
            validate_names(item, &at);
            validate_item(item, &at);
            validate_ratios(item, &at);
            validate_storage(item, &at);
        }
    },
    create_on_update: true,
    columns: &[name(), created_at()],
    ..Rows::NEW
};

/// Validates a type: one that Kubernetes knows, or a qualified name.
fn validate_type(limit: &str, at: &At<'_>) {
    let before = at.count();
    at.qualified_name(limit);
    let standard = ["Pod", "Container", "PersistentVolumeClaim"];
    if at.count() == before && !limit.contains('/') && !standard.contains(&limit) {
        at.invalid(limit, "must be a standard limit type or fully qualified");
    }
}

/// The resource names in an item.
fn validate_names(item: &LimitRangeItem, at: &At<'_>) {
    let lists = [
        ("max", &item.max),
        ("min", &item.min),
        ("default", &item.default),
        ("defaultRequest", &item.default_request),
        ("maxLimitRequestRatio", &item.max_limit_request_ratio),
    ];
    for (field, list) in lists {
        for name in list.iter().flat_map(|list| list.keys()) {
            let at = at.entry(field, name);
            if matches!(item.type_.as_str(), "Pod" | "Container") {
                container_resource(name, &at);
            } else {
                at.qualified_name(name);
            }
        }
    }
}

/// A limit must be at least the request, and at most so many times as much.
fn validate_ratios(item: &LimitRangeItem, at: &At<'_>) {
    for (name, text) in item.max_limit_request_ratio.iter().flatten() {
        let at = at.entry("maxLimitRequestRatio", name);
        let ratio = Quantity::of(text);
        if ratio < Quantity::from_units(1) {
            at.invalid(&text.0, format!("ratio {} is less than 1", text.0));
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
            at.invalid(&text.0, format!("ratio {} is greater than max/min = {most:.6}", text.0));
        }
    }
}

/// A limit on claims must specify a minimum or a maximum.
fn validate_storage(item: &LimitRangeItem, at: &At<'_>) {
    let has = |list: &Option<BTreeMap<String, Text>>| {
        list.as_ref().is_some_and(|list| list.contains_key("storage"))
    };
    if item.type_ == "PersistentVolumeClaim" && !has(&item.min) && !has(&item.max) {
        at.child("limits").required(
            "either minimum or maximum storage value is required, but neither was provided",
        );
    }
}

fn validate_item(item: &LimitRangeItem, at: &At<'_>) {
    if item.type_ == "Pod" {
        for (field, list) in [("default", &item.default), ("defaultRequest", &item.default_request)]
        {
            if list.iter().flatten().next().is_some() {
                at.child(field).forbidden("may not be specified when `type` is 'Pod'");
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
                at.entry(field, name).invalid(&low.0, problem);
            }
        }
    }
}
