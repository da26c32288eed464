//! ResourceSlices: the devices of a pool, as its driver publishes them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use api::names;
use api::quantity::Quantity;
use k8s_openapi::api::resource::v1::ResourceSlice;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use regex::Regex;
use serde_json::Value;

use super::{TAINT, attribute_name, binding_conditions, node_selector, pool_name};
use crate::kinds::at::At;
use crate::kinds::columns::text;
use crate::kinds::storage::driver_name;
use crate::kinds::table::{self, Check, Fixed, Row, Rows, age, items, name};

const DEVICES_MAX: usize = 128;
/// When devices have taints, lists of values, or counters.
const ADVANCED_DEVICES_MAX: usize = 64;
const COUNTER_SETS_MAX: usize = 8;
const COUNTERS_MAX: usize = 32;
const CONSUMED_SETS_MAX: usize = 2;
const TAINTS_MAX: usize = 16;
const ATTRIBUTES_MAX: usize = 32;
const VALUES_MAX: usize = 48;
const VALUE_MAX_BYTES: usize = 64;

/// A version as semver.org defines it.
static VERSION: LazyLock<Regex> = LazyLock::new(|| {
    const NUMBER: &str = r"(0|[1-9][0-9]*)";
    const PRE: &str = r"(0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)";
    const BUILD: &str = r"[0-9a-zA-Z-]+";
    let text =
        format!(r"^{NUMBER}\.{NUMBER}\.{NUMBER}(-{PRE}(\.{PRE})*)?(\+{BUILD}(\.{BUILD})*)?$");
    Regex::new(&text).expect("a valid pattern")
});

pub static RESOURCE_SLICES: Rows<ResourceSlice> = Rows {
    default: |slice| {
        let spec = &mut slice.spec;
        for device in spec.devices.iter_mut().flatten() {
            for capacity in device.capacity.iter_mut().flat_map(BTreeMap::values_mut) {
                canonical(&mut capacity.value);
            }
            for consumed in device.consumes_counters.iter_mut().flatten() {
                consumed.counters.values_mut().for_each(|counter| canonical(&mut counter.value));
            }
        }
        for set in spec.shared_counters.iter_mut().flatten() {
            set.counters.values_mut().for_each(|counter| canonical(&mut counter.value));
        }
    },
    checks: &[
        ("spec.driver", Check::RequiredText(driver_name)),
        ("spec.pool.name", Check::Relation(pool_name)),
        ("spec.pool.resourceSliceCount", Check::AtLeast(1, "must be greater than zero")),
        ("spec.pool.generation", Check::AtLeast(0, "must be greater than or equal to zero")),
        ("spec", Check::Relation(one_place)),
        ("spec", Check::Relation(one_content)),
        ("spec", Check::Relation(devices)),
        (
            "spec.sharedCounters",
            Check::Set(
                COUNTER_SETS_MAX,
                "name",
                &[
                    ("name", Check::RequiredText(names::dns_label)),
                    ("counters", Check::Required("")),
                    ("counters", Check::Relation(counters)),
                ],
            ),
        ),
    ],
    fixed: &[
        ("spec.pool.name", Fixed::Immutable),
        ("spec.driver", Fixed::Immutable),
        ("spec.nodeName", Fixed::Immutable),
    ],
    generation: table::spec_changes,
    columns: &[
        name(),
        text("Node", "Where the devices are.").pointer("spec.nodeName"),
        text("Driver", "Driver of the devices.").at("spec.driver"),
        text("Pool", "Pool that the devices are part of.").at("spec.pool.name"),
        age(),
    ],
    ..Rows::NEW
};

const DEVICE: &[Row] = &[
    ("name", Check::Text(names::dns_label)),
    ("", Check::Relation(not_too_much)),
    ("attributes", Check::Relation(attributes)),
    ("", Check::Relation(capacities)),
    ("taints", Check::List(TAINTS_MAX, TAINT)),
    (
        "consumesCounters",
        Check::Set(
            CONSUMED_SETS_MAX,
            "counterSet",
            &[
                ("counterSet", Check::RequiredText(names::dns_label)),
                ("counters", Check::Required("")),
                ("counters", Check::Relation(counters)),
            ],
        ),
    ),
];

/// An amount in its canonical form; none is zero.
fn canonical(text: &mut Text) {
    let amount =
        if text.0.is_empty() { Ok(Quantity::default()) } else { text.0.parse::<Quantity>() };
    if let Ok(amount) = amount {
        *text = amount.to_text();
    }
}

/// The fields by which something says where it is, of those that are set; wrong values are errors.
fn places(place: &Value, empty: &str, at: &At<'_>) -> Vec<&'static str> {
    let mut set = Vec::new();
    if let Some(name) = place["nodeName"].as_str() {
        let at = at.child("nodeName");
        if name.is_empty() {
            at.invalid(name, empty);
        } else {
            set.push("`nodeName`");
            at.dns_subdomain(name);
        }
    }
    if !place["nodeSelector"].is_null() {
        set.push("`nodeSelector`");
        node_selector(&place["nodeSelector"], &at.child("nodeSelector"));
    }
    for (field, name) in
        [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")]
    {
        match place[field].as_bool() {
            Some(true) => set.push(name),
            Some(false) => at.child(field).invalid(false, "must be either unset or set to true"),
            None => {}
        }
    }
    set
}

fn one_place(spec: &Value, at: &At<'_>) {
    let empty = "must be either unset or set to a non-empty string";
    let set = places(spec, empty, at);
    let terms = &spec["nodeSelector"]["nodeSelectorTerms"];
    if terms.as_array().is_some_and(|terms| terms.len() > 1) {
        let at = at.child("nodeSelector.nodeSelectorTerms");
        at.invalid(terms, "must have exactly one node selector term");
    }
    let one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    exactly_one(&set, one, &format!("{one}, but multiple fields are set"), at);
}

fn exactly_one(set: &[&str], none: &str, many: &str, at: &At<'_>) {
    match set {
        [] => at.required(none),
        [_] => {}
        _ => at.invalid(format!("{{{}}}", set.join(", ")), many),
    }
}

fn one_content(spec: &Value, at: &At<'_>) {
    if !spec["sharedCounters"].is_null() && !spec["devices"].is_null() {
        at.invalid("", "only one of `sharedCounters` or `devices` is allowed");
    }
}

fn devices(spec: &Value, at: &At<'_>) {
    let at = at.child("devices");
    let all = items(&spec["devices"]);
    let advanced = |device: &Value| {
        let lists = |attribute: &Value| {
            ["bools", "ints", "strings", "versions"].iter().any(|list| !attribute[*list].is_null())
        };
        let attributes = device["attributes"].as_object().into_iter().flatten();
        !table::is_empty(&device["taints"])
            || !table::is_empty(&device["consumesCounters"])
            || attributes.map(|(_, value)| value).any(lists)
    };
    let max = if all.iter().any(advanced) { ADVANCED_DEVICES_MAX } else { DEVICES_MAX };
    table::apply(Check::Set(max, "name", DEVICE), &spec["devices"], &at);
    if all.len() > max {
        return;
    }
    let per_device = spec["perDeviceNodeSelection"].as_bool() == Some(true);
    for (index, device) in all.iter().enumerate() {
        let at = at.index(index);
        place_of_device(device, per_device, &at);
        binding_conditions(device, &at);
    }
}

fn place_of_device(device: &Value, per_device: bool, at: &At<'_>) {
    if per_device {
        let set = places(device, "must not be empty", at);
        let one = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
        exactly_one(&set, one, one, at);
    } else if ["nodeName", "nodeSelector", "allNodes"].iter().any(|field| !device[*field].is_null())
    {
        at.invalid(Value::Null, "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec");
    }
}

fn entries(map: &Value) -> impl Iterator<Item = (&String, &Value)> {
    map.as_object().into_iter().flatten()
}

fn not_too_much(device: &Value, at: &At<'_>) {
    let count = entries(&device["attributes"]).count() + entries(&device["capacity"]).count();
    if count > ATTRIBUTES_MAX {
        let problem = format!(
            "the total number of attributes and capacities must not exceed {ATTRIBUTES_MAX}"
        );
        at.invalid(count, problem);
    }
    let values = |attribute: &Value| {
        let lists = ["bools", "ints", "strings", "versions"];
        let items = lists.iter().filter_map(|list| attribute[*list].as_array()).map(Vec::len);
        items.sum::<usize>().max(1)
    };
    let count: usize = entries(&device["attributes"]).map(|(_, attribute)| values(attribute)).sum();
    if count > VALUES_MAX {
        let problem = format!("the total number of attribute values must not exceed {VALUES_MAX}");
        at.invalid(count, problem);
    }
}

fn attributes(attributes: &Value, at: &At<'_>) {
    for (name, attribute) in entries(attributes) {
        attribute_name(name, at);
        let at = at.key(name);
        let fields = entries(attribute).filter(|(_, value)| !value.is_null());
        let set: Vec<_> = fields.collect();
        for (field, value) in &set {
            let at = at.child(field);
            match value {
                Value::String(text) => attribute_text(field, text, &at),
                Value::Array(items) if items.is_empty() => {
                    at.invalid(value, "must not be empty if specified")
                }
                Value::Array(items) => {
                    for (index, text) in items.iter().enumerate() {
                        if let Some(text) = text.as_str() {
                            attribute_text(field, text, &at.index(index));
                        }
                    }
                }
                _ => {}
            }
        }
        if set.len() != 1 {
            let shown = if set.is_empty() { Value::from("") } else { attribute.clone() };
            at.invalid(shown, "exactly one value must be specified");
        }
    }
}

fn attribute_text(field: &str, text: &str, at: &At<'_>) {
    if field.starts_with("version") && !VERSION.is_match(text) {
        at.invalid(text, "must be a string compatible with semver.org spec 2.0.0");
    }
    at.max_bytes(text.len(), VALUE_MAX_BYTES);
}

fn counters(counters: &Value, at: &At<'_>) {
    let count = entries(counters).count();
    if count > COUNTERS_MAX {
        at.too_many(count, COUNTERS_MAX);
        return;
    }
    for (name, _) in entries(counters) {
        at.dns_label(name);
    }
}

fn capacities(device: &Value, at: &At<'_>) {
    let shared = device["allowMultipleAllocations"].as_bool() == Some(true);
    let at = at.child("capacity");
    for (name, capacity) in entries(&device["capacity"]) {
        attribute_name(name, &at);
        let policy = &capacity["requestPolicy"];
        let own = at.key(name);
        let own = own.child("requestPolicy");
        if policy.is_null() {
            continue;
        }
        if shared {
            let all = capacity["value"].as_str().and_then(|text| text.parse().ok());
            request_policy(policy, all.unwrap_or_default(), &own);
        } else {
            own.forbidden("allowMultipleAllocations must be true");
        }
    }
}

/// What may be asked of a capacity: some amounts, or those of a range, in steps.
fn request_policy(policy: &Value, all: Quantity, at: &At<'_>) {
    let amount = |value: &Value| value.as_str().and_then(|text| text.parse::<Quantity>().ok());
    let values = items(&policy["validValues"]);
    let range = &policy["validRange"];
    let default = amount(&policy["default"]);
    match (values.is_empty(), range.is_null()) {
        (true, true) => {}
        (false, false) => at.forbidden("exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time"),
        (one, _) if default.is_none() => {
            let field = if one { "validRange" } else { "validValues" };
            at.child("default").required(format!("required when {field} is defined"));
        }
        (false, true) => {
            let at = at.child("validValues");
            let values: Vec<Quantity> = values.iter().filter_map(amount).collect();
            for (index, pair) in values.windows(2).enumerate() {
                if pair[0] > pair[1] {
                    let problem = "values must be sorted in ascending order".to_owned();
                    at.index(index + 1).invalid(pair[1].to_string(), problem);
                }
            }
            for (index, value) in values.iter().enumerate().filter(|(_, value)| **value > all) {
                let problem = format!("option is larger than capacity value: {all}");
                at.index(index).invalid(value.to_string(), problem);
            }
            if let Some(default) = default.filter(|default| !values.contains(default)) {
                at.invalid(default.to_string(), "default value is not valid according to the requestPolicy".to_owned());
            }
        }
        (true, false) => {
            let (at, default) = (at.child("validRange"), default.unwrap_or_default());
            let (min, max) = (amount(&range["min"]).unwrap_or_default(), amount(&range["max"]));
            if min > all {
                let problem = format!("min is larger than capacity value: {all}");
                at.child("min").invalid(min.to_string(), problem);
            }
            if default < min {
                let problem = format!("default is less than min: {min}");
                at.child("min").invalid(default.to_string(), problem);
            }
            if let Some(max) = max {
                let at = at.child("max");
                if min > max {
                    at.invalid(min.to_string(), format!("min is larger than max: {max}"));
                }
                if max > all {
                    let problem = format!("max is larger than capacity value: {all}");
                    at.invalid(max.to_string(), problem);
                }
                if default > max {
                    at.invalid(default.to_string(), format!("default is more than max: {max}"));
                }
            }
            let Some(step) = amount(&range["step"]) else { return };
            let at = at.child("step");
            if step <= Quantity::default() {
                at.invalid(step.to_string(), "must be greater than zero".to_owned());
                return;
            }
            for value in [Some(default), max].into_iter().flatten() {
                let units = |amount: Quantity| i128::from(amount.units());
                if (units(value) - units(min)) % units(step).max(1) != 0 {
                    let problem =
                        format!("value is not a multiple of a given step ({step}) from ({min})");
                    at.invalid(value.to_string(), problem);
                }
            }
        }
    }
}
