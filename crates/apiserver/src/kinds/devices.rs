//! The kinds of `resource.k8s.io`: classes of devices, claims to them, and what there is of them
//! (`k8s.io/kubernetes/pkg/apis/resource/validation`).

mod slices;

use std::collections::BTreeSet;

use api::cel::Environment;
use api::defaults::fill;
use api::names;
use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1::{
    DeviceClass, DeviceRequest, DeviceTaintRule, ResourceClaim, ResourceClaimTemplate,
};
use serde_json::Value;

use super::at::At;
use super::columns::text;
use super::storage::driver_name;
use super::table::{self, Check, Fixed, Row, Rows, age, items, name, status_apart, text_at};
use super::{check, pod_spec, semantic, status};

pub use slices::RESOURCE_SLICES;

/// Selectors, constraints, requests and configurations of one claim or class.
const ITEMS_MAX: usize = 32;
/// Alternatives of a request.
const ALTERNATIVES_MAX: usize = 8;
const EXPRESSION_MAX_BYTES: usize = 10 << 10;
const PARAMETERS_MAX_BYTES: usize = 10 << 10;
const RESERVED_MAX: usize = 256;
const POOL_NAME_MAX: usize = 253;
const ID_MAX: usize = 32;
const CONDITIONS_MAX: usize = 8;
const BINDING_CONDITIONS_MAX: usize = 4;
const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

pub static DEVICE_CLASSES: Rows<DeviceClass> = Rows {
    checks: &[
        ("spec.selectors", Check::List(ITEMS_MAX, SELECTOR)),
        ("spec.config", Check::List(ITEMS_MAX, OPAQUE)),
        ("spec.extendedResourceName", Check::TextIfAny(extended_resource)),
    ],
    generation: table::spec_changes,
    ..Rows::NEW
};

pub static RESOURCE_CLAIMS: Rows<ResourceClaim> = Rows {
    default: |claim| {
        let spec = claim.spec.get_or_insert_default();
        default_requests(spec.devices.iter_mut().flat_map(|all| all.requests.iter_mut().flatten()));
    },
    parts: status_apart!(),
    checks: &[("spec.devices", Check::Inside(DEVICE_CLAIM))],
    fixed: &[("spec", Fixed::Immutable)],
    status: &[
        ("status.reservedFor", Check::Set(RESERVED_MAX, "uid", CONSUMER)),
        (
            "status.devices",
            Check::Each(&[
                ("driver", Check::RequiredText(driver_name)),
                ("pool", Check::Relation(pool_name)),
                ("device", Check::Text(names::dns_label)),
                ("conditions", Check::Relation(conditions)),
                ("networkData.interfaceName", Check::MaxBytes(256)),
                ("networkData.hardwareAddress", Check::MaxBytes(128)),
                ("networkData.ips", Check::MaxItems(16)),
            ]),
        ),
        ("", Check::Relation(devices_of_allocation)),
    ],
    status_update: |new, old, _, at| {
        let at = at.child("status");
        let (now, was) = (new.status.clone().unwrap_or_default(), old.status.as_ref());
        let reserved = now.reserved_for.unwrap_or_default();
        if !reserved.is_empty() {
            let at = at.child("reservedFor");
            let before = was.and_then(|was| was.reserved_for.as_deref()).unwrap_or_default();
            if now.allocation.is_none() {
                at.forbidden("may not be specified when `allocated` is not set");
            } else if new.metadata.deletion_timestamp.is_some()
                && reserved.iter().any(|one| !before.contains(one))
            {
                at.forbidden("new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set");
            }
        }
        let at = at.child("allocation");
        let before = was.and_then(|was| was.allocation.clone());
        match (now.allocation, before) {
            (Some(now), Some(before)) if now != before => at.invalid(now, check::IMMUTABLE),
            (Some(now), None) => {
                let requests = semantic::field(new, "spec");
                validate_allocation(&table::value(&now), &requests["devices"], &at);
            }
            _ => {}
        }
    },
    columns: &[name(), text("State", "What has become of the claim.").json(state), age()],
    ..Rows::NEW
};

pub static RESOURCE_CLAIM_TEMPLATES: Rows<ResourceClaimTemplate> = Rows {
    default: |template| {
        let spec = template.spec.get_or_insert_default().spec.get_or_insert_default();
        default_requests(spec.devices.iter_mut().flat_map(|all| all.requests.iter_mut().flatten()));
    },
    checks: &[
        ("spec.metadata", Check::Relation(template_metadata)),
        ("spec.spec.devices", Check::Inside(DEVICE_CLAIM)),
    ],
    fixed: &[("spec", Fixed::Immutable)],
    ..Rows::NEW
};

pub static DEVICE_TAINT_RULES: Rows<DeviceTaintRule> = Rows {
    parts: status_apart!(),
    checks: &[
        (
            "spec.deviceSelector",
            Check::Inside(&[
                ("driver", Check::TextIfAny(driver_name)),
                ("pool", Check::Relation(pool_name_if_any)),
                ("device", Check::TextIfAny(names::dns_label)),
            ]),
        ),
        ("spec.taint", Check::Inside(TAINT)),
    ],
    status: &[("status.conditions", Check::Relation(conditions))],
    generation: table::spec_changes,
    ..Rows::NEW
};

/// A claim to devices. Relations between its parts are judged last.
const DEVICE_CLAIM: &[Row] = &[
    (
        "requests",
        Check::Set(
            ITEMS_MAX,
            "name",
            &[
                ("name", Check::Text(names::dns_label)),
                ("", Check::Relation(one_way_to_ask)),
                (
                    "firstAvailable",
                    Check::Set(
                        ALTERNATIVES_MAX,
                        "name",
                        &[
                            ("name", Check::Text(names::dns_label)),
                            ("", Check::Inside(DEVICE_REQUEST)),
                        ],
                    ),
                ),
                ("exactly", Check::Inside(DEVICE_REQUEST)),
            ],
        ),
    ),
    ("", Check::Relation(constraints)),
    ("", Check::Relation(configurations)),
];

const DEVICE_REQUEST: &[Row] = &[
    ("deviceClassName", Check::RequiredText(names::dns_subdomain)),
    ("selectors", Check::List(ITEMS_MAX, SELECTOR)),
    ("", Check::Relation(allocation_mode)),
    ("tolerations", Check::Each(TOLERATION)),
];

const SELECTOR: &[Row] =
    &[("cel", Check::Present("")), ("cel.expression", Check::Relation(expression))];

const OPAQUE: &[Row] = &[
    ("opaque", Check::Present("")),
    (
        "opaque",
        Check::Inside(&[
            ("driver", Check::RequiredText(driver_name)),
            ("parameters", Check::Relation(parameters)),
        ]),
    ),
];

const CONSUMER: &[Row] = &[
    ("resource", Check::Required("")),
    ("name", Check::Required("")),
    ("uid", Check::Required("")),
];

const TOLERATION: &[Row] = &[
    ("key", Check::TextIfAny(label_name)),
    ("operator", Check::Required("")),
    ("operator", Check::OneOf(&["Equal", "Exists"])),
    ("", Check::Relation(tolerated_value)),
    ("effect", Check::OneOf(EFFECTS)),
];

/// What a device or a rule keeps from being allocated.
pub const TAINT: &[Row] = &[
    ("key", Check::Text(label_name)),
    ("value", Check::TextIfAny(names::label_value)),
    ("effect", Check::Required("")),
    ("effect", Check::OneOf(EFFECTS)),
];

const ALLOCATED: &[Row] = &[
    ("driver", Check::RequiredText(driver_name)),
    ("pool", Check::Relation(pool_name)),
    ("device", Check::Text(names::dns_label)),
    ("", Check::Relation(binding_conditions)),
    ("tolerations", Check::Each(TOLERATION)),
];

fn default_requests<'a>(requests: impl Iterator<Item = &'a mut DeviceRequest>) {
    const MODE: &str = "ExactCount";
    for request in requests {
        if let Some(exactly) = &mut request.exactly {
            fill::text(&mut exactly.allocation_mode, MODE);
            default_count(exactly.allocation_mode.as_deref(), &mut exactly.count);
            for toleration in exactly.tolerations.iter_mut().flatten() {
                fill::text(&mut toleration.operator, "Equal");
            }
        }
        for alternative in request.first_available.iter_mut().flatten() {
            fill::text(&mut alternative.allocation_mode, MODE);
            default_count(alternative.allocation_mode.as_deref(), &mut alternative.count);
            for toleration in alternative.tolerations.iter_mut().flatten() {
                fill::text(&mut toleration.operator, "Equal");
            }
        }
    }
}

fn default_count(mode: Option<&str>, count: &mut Option<i64>) {
    if mode == Some("ExactCount") && count.unwrap_or_default() == 0 {
        *count = Some(1);
    }
}

/// `pending`, or what has been done for the claim.
fn state(claim: &Value) -> Value {
    let deleted = !claim["metadata"]["deletionTimestamp"].is_null();
    let status = &claim["status"];
    let mut states = Vec::new();
    if deleted {
        states.push("deleted");
    }
    if status["allocation"].is_null() {
        if !deleted {
            states.push("pending");
        }
    } else {
        states.push("allocated");
        if status["reservedFor"].as_array().is_some_and(|users| !users.is_empty()) {
            states.push("reserved");
        }
    }
    states.join(",").into()
}

fn label_name(name: &str) -> Vec<String> {
    names::qualified_name(name)
}

fn extended_resource(name: &str) -> Vec<String> {
    let native =
        !name.contains('/') || name.contains("kubernetes.io/") || name.starts_with("requests.");
    let wrong = native || !names::qualified_name(&format!("requests.{name}")).is_empty();
    wrong.then(|| "must be a valid extended resource name".to_owned()).into_iter().collect()
}

fn one_way_to_ask(request: &Value, at: &At<'_>) {
    match (request["exactly"].is_null(), table::is_empty(&request["firstAvailable"])) {
        (true, true) => at.required("exactly one of `exactly` or `firstAvailable` is required"),
        (false, false) => at.invalid(
            Value::Null,
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
        ),
        _ => {}
    }
}

fn allocation_mode(request: &Value, at: &At<'_>) {
    let count = request["count"].as_i64().unwrap_or_default();
    let own = at.child("count");
    match text_at(request, "allocationMode") {
        "All" if count != 0 => {
            own.invalid(count, "must not be specified when allocationMode is 'All'")
        }
        "ExactCount" if count <= 0 => own.invalid(count, "must be greater than zero"),
        "All" | "ExactCount" => {}
        other => at.child("allocationMode").not_supported(other, &["All", "ExactCount"]),
    }
}

fn expression(source: &Value, at: &At<'_>) {
    let Some(source) = source.as_str() else { return };
    if source.len() > EXPRESSION_MAX_BYTES {
        at.too_long(EXPRESSION_MAX_BYTES);
    } else if let Err(problem) = Environment::of(&["device"]).condition(source) {
        at.invalid(source, problem);
    }
}

fn parameters(parameters: &Value, at: &At<'_>) {
    let size = parameters.to_string().len();
    match parameters {
        Value::Null => at.required(""),
        _ if size > PARAMETERS_MAX_BYTES => at.too_long(PARAMETERS_MAX_BYTES),
        Value::Object(_) => {}
        _ => at.invalid("<value omitted>", "must be a valid JSON object"),
    }
}

fn tolerated_value(toleration: &Value, at: &At<'_>) {
    let value = text_at(toleration, "value");
    let at = at.child("value");
    match toleration["operator"].as_str() {
        Some("Exists") if !value.is_empty() => {
            at.invalid(value, "must be empty for operator `Exists`")
        }
        Some("Equal") => at.texts(names::label_value(value), value),
        _ => {}
    }
}

/// One or more subdomains, separated by slashes.
pub fn pool_name(name: &Value, at: &At<'_>) {
    let name = name.as_str().unwrap_or_default();
    if name.is_empty() {
        at.required("");
        return;
    }
    at.max_bytes(name.len(), POOL_NAME_MAX);
    for part in name.split('/') {
        at.dns_subdomain(part);
    }
}

fn pool_name_if_any(name: &Value, at: &At<'_>) {
    if !name.is_null() {
        pool_name(name, at);
    }
}

/// The name of an attribute or a capacity: an identifier, with or without a domain.
pub fn attribute_name(name: &str, at: &At<'_>) {
    let identifier = |name: &str| {
        at.max_bytes(name.len(), ID_MAX);
        let first = name.bytes().next();
        let starts = first.is_some_and(|first| first.is_ascii_alphabetic() || first == b'_');
        if !starts || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            at.invalid(name, "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')");
        }
    };
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        [name] => identifier(name),
        [domain, name] => {
            if domain.is_empty() {
                at.invalid("", "the domain must not be empty");
            } else {
                at.texts(driver_name(domain), domain);
            }
            if name.is_empty() {
                at.invalid("", "the name must not be empty");
            } else {
                identifier(name);
            }
        }
        // Upstream accepts more than one slash.
        _ => {}
    }
}

/// The requests of a claim, and their alternatives as `request/alternative`.
fn request_names(devices: &Value) -> BTreeSet<String> {
    let text = |value: &Value| text_at(value, "name").to_owned();
    let mut names = BTreeSet::new();
    for request in items(&devices["requests"]).iter() {
        for alternative in items(&request["firstAvailable"]).iter() {
            names.insert(format!("{}/{}", text(request), text(alternative)));
        }
        names.insert(text(request));
    }
    names
}

fn request_reference(name: &str, known: &BTreeSet<String>, at: &At<'_>) {
    let problem = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    let parts: Vec<&str> = name.split('/').collect();
    if parts.len() <= 2 {
        parts.iter().for_each(|part| at.dns_label(part));
    }
    if parts.len() > 2 || !known.contains(name) {
        at.invalid(name, problem);
    }
}

/// References to requests, each once.
fn request_references(list: &Value, known: &BTreeSet<String>, at: &At<'_>) {
    let all = items(list);
    if !at.max_items(all.len(), ITEMS_MAX) {
        return;
    }
    let texts = || all.iter().map(|name| name.as_str().unwrap_or_default()).enumerate();
    for (index, name) in texts() {
        request_reference(name, known, &at.index(index));
    }
    let mut unique = check::Unique::default();
    for (index, name) in texts() {
        unique.add(name, &at.index(index));
    }
}

fn constraints(devices: &Value, at: &At<'_>) {
    let known = request_names(devices);
    let at = at.child("constraints");
    let all = items(&devices["constraints"]);
    if !at.max_items(all.len(), ITEMS_MAX) {
        return;
    }
    for (index, constraint) in all.iter().enumerate() {
        let at = at.index(index);
        request_references(&constraint["requests"], &known, &at.child("requests"));
        let attribute = ["matchAttribute", "distinctAttribute"]
            .into_iter()
            .find_map(|field| Some((field, constraint[field].as_str()?)));
        let Some((field, name)) = attribute else {
            at.child("matchAttribute").required("");
            continue;
        };
        let at = at.child(field);
        attribute_name(name, &at);
        if !name.contains('/') {
            at.invalid(
                name,
                "a fully qualified name must be a domain and a name separated by a slash",
            );
        }
    }
}

fn configurations(devices: &Value, at: &At<'_>) {
    validate_configurations(&devices["config"], devices, ITEMS_MAX, &at.child("config"));
}

fn validate_configurations(list: &Value, devices: &Value, max: usize, at: &At<'_>) {
    let known = request_names(devices);
    let all = items(list);
    if !at.max_items(all.len(), max) {
        return;
    }
    for (index, configuration) in all.iter().enumerate() {
        let at = at.index(index);
        request_references(&configuration["requests"], &known, &at.child("requests"));
        table::run(OPAQUE, configuration, &at);
    }
}

/// What an allocator has found for the claim.
fn validate_allocation(allocation: &Value, devices: &Value, at: &At<'_>) {
    let known = request_names(devices);
    let own = at.child("devices");
    let results = items(&allocation["devices"]["results"]);
    if !own.child("results").max_items(results.len(), ITEMS_MAX) {
        return;
    }
    for (index, result) in results.iter().enumerate() {
        let at = own.item("results", index);
        let request = text_at(result, "request");
        request_reference(request, &known, &at.child("request"));
        table::run(ALLOCATED, result, &at);
    }
    let config = &allocation["devices"]["config"];
    for (index, configuration) in items(config).iter().enumerate() {
        let source = text_at(configuration, "source");
        let at = own.item("config", index);
        at.child("source").one_of(source, &["FromClaim", "FromClass"]);
    }
    validate_configurations(config, devices, 2 * ITEMS_MAX, &own.child("config"));
    node_selector(&allocation["nodeSelector"], &at.child("nodeSelector"));
}

/// Only devices that are allocated have a status, each one.
fn devices_of_allocation(claim: &Value, at: &At<'_>) {
    let id = |one: &Value| {
        ["driver", "pool", "device", "shareID"].map(|field| text_at(one, field).to_owned())
    };
    let results = claim["status"]["allocation"]["devices"]["results"].as_array();
    let known: BTreeSet<_> = results.into_iter().flatten().map(id).collect();
    let at = at.child("status.devices");
    let mut seen = BTreeSet::new();
    for (index, device) in items(&claim["status"]["devices"]).iter().enumerate() {
        let (id, at) = (id(device), at.index(index));
        let shown =
            id.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("/");
        if !known.contains(&id) {
            at.invalid(&shown, "must be an allocated device in the claim");
        }
        if !seen.insert(id) {
            at.duplicate(shown);
        }
    }
}

/// A selector of nodes, if there is one.
pub fn node_selector(selector: &Value, at: &At<'_>) {
    if let Ok(Some(selector)) = serde_json::from_value::<Option<NodeSelector>>(selector.clone()) {
        pod_spec::node_selector(&selector, at);
    }
}

fn template_metadata(metadata: &Value, at: &At<'_>) {
    let map = |field: &str| serde_json::from_value(metadata[field].clone()).unwrap_or_default();
    at.child("labels").labels(Some(&map("labels")));
    at.child("annotations").annotations(Some(&map("annotations")));
}

/// Conditions have a type, once, a status, a reason and a time.
pub fn conditions(list: &Value, at: &At<'_>) {
    let all = items(list);
    at.max_items(all.len(), CONDITIONS_MAX);
    status::conditions(list, at);
}

/// Conditions of a device that has to be prepared: of success and of failure, or none.
pub fn binding_conditions(device: &Value, at: &At<'_>) {
    let list = |field: &str| -> Vec<String> {
        let items = items(&device[field]).iter();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let (good, bad) = ("bindingConditions", "bindingFailureConditions");
    for field in [good, bad] {
        let (all, at) = (list(field), at.child(field));
        if all.len() > BINDING_CONDITIONS_MAX {
            at.too_many(all.len(), BINDING_CONDITIONS_MAX);
            continue;
        }
        for (index, condition) in all.iter().enumerate() {
            at.index(index).qualified_name(condition);
        }
    }
    let (wanted, failures) = (list(good), list(bad));
    let mut unique = check::Unique::default();
    for (index, condition) in wanted.iter().enumerate() {
        unique.add(condition, &at.item(good, index));
    }
    let mut unique = check::Unique::default();
    for (index, condition) in failures.iter().enumerate() {
        let at = at.item(bad, index);
        unique.add(condition, &at);
        if wanted.contains(condition) {
            at.invalid(
                condition,
                "bindingFailureConditions must not overlap with bindingConditions",
            );
        }
    }
    for (empty, field, problem) in [
        (
            wanted.is_empty() && !failures.is_empty(),
            good,
            "bindingConditions are required to use bindingFailureConditions",
        ),
        (
            failures.is_empty() && !wanted.is_empty(),
            bad,
            "bindingFailureConditions are required to use bindingConditions",
        ),
    ] {
        if empty {
            at.child(field).invalid(Value::Null, problem);
        }
    }
}
