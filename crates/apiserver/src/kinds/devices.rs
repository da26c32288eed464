//! The kinds of `resource.k8s.io`: classes of devices, claims to them, and what there is of them
//! (`k8s.io/kubernetes/pkg/apis/resource/validation`).

mod slices;

use std::collections::BTreeSet;

use api::cel::Environment;
use api::defaults::fill;
use api::names;
use api::status::FieldError;
use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1::{
    DeviceClass, DeviceRequest, DeviceTaintRule, ResourceClaim, ResourceClaimTemplate,
};
use serde_json::Value;

use super::check::{self, Errors};
use super::columns::{self, text};
use super::path::Path;
use super::storage::driver_name;
use super::table::{self, Cell, Check, Fixed, Row, Rows};
use super::{pod_spec, semantic, status};
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
    generation: true,
    ..Rows::NEW
};

pub static RESOURCE_CLAIMS: Rows<ResourceClaim> = Rows {
    default: |claim| {
        let spec = claim.spec.get_or_insert_default();
        default_requests(spec.devices.iter_mut().flat_map(|all| all.requests.iter_mut().flatten()));
    },
    checks: &[("spec.devices", Check::Inside(DEVICE_CLAIM))],
    fixed: &[("spec", Fixed::Immutable)],
    status: Some(&[
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
    ]),
    status_update: |new, old, errors| {
        let path = Path::new("status");
        let (now, was) = (new.status.clone().unwrap_or_default(), old.status.as_ref());
        let reserved = now.reserved_for.unwrap_or_default();
        if !reserved.is_empty() {
            let path = path.child("reservedFor");
            let before = was.and_then(|was| was.reserved_for.as_deref()).unwrap_or_default();
            if now.allocation.is_none() {
                let problem = "may not be specified when `allocated` is not set";
                errors.push(FieldError::forbidden(path, problem));
            } else if new.metadata.deletion_timestamp.is_some()
                && reserved.iter().any(|one| !before.contains(one))
            {
                let problem = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
                errors.push(FieldError::forbidden(path, problem));
            }
        }
        let path = path.child("allocation");
        let before = was.and_then(|was| was.allocation.clone());
        match (now.allocation, before) {
            (Some(now), Some(before)) if now != before => {
                errors.push(FieldError::invalid(path, now, check::IMMUTABLE));
            }
            (Some(now), None) => {
                let requests = semantic::field(new, "spec");
                validate_allocation(&table::value(&now), &requests["devices"], &path, errors);
            }
            _ => {}
        }
    },
    columns: &[columns::NAME, text("State", "What has become of the claim."), columns::AGE],
    cells: &[Cell::Name, Cell::Made(state), Cell::Age],
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
    status: Some(&[("status.conditions", Check::Relation(conditions))]),
    generation: true,
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
    &[("cel", Check::Present), ("cel.expression", Check::Relation(expression))];

const OPAQUE: &[Row] = &[
    ("opaque", Check::Present),
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

fn one_way_to_ask(request: &Value, path: &Path, errors: &mut Errors) {
    match (request["exactly"].is_null(), table::is_empty(&request["firstAvailable"])) {
        (true, true) => errors.push(FieldError::required(
            path,
            "exactly one of `exactly` or `firstAvailable` is required",
        )),
        (false, false) => errors.push(FieldError::invalid(
            path,
            Value::Null,
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
        )),
        _ => {}
    }
}

fn allocation_mode(request: &Value, path: &Path, errors: &mut Errors) {
    let count = request["count"].as_i64().unwrap_or_default();
    let at = path.child("count");
    match request["allocationMode"].as_str().unwrap_or_default() {
        "All" if count != 0 => {
            let problem = "must not be specified when allocationMode is 'All'";
            errors.push(FieldError::invalid(at, count, problem));
        }
        "ExactCount" if count <= 0 => {
            errors.push(FieldError::invalid(at, count, "must be greater than zero"));
        }
        "All" | "ExactCount" => {}
        other => {
            let supported = &["All", "ExactCount"];
            errors.push(FieldError::not_supported(path.child("allocationMode"), other, supported));
        }
    }
}

fn expression(source: &Value, path: &Path, errors: &mut Errors) {
    let Some(source) = source.as_str() else { return };
    if source.len() > EXPRESSION_MAX_BYTES {
        errors.push(FieldError::too_long(path, EXPRESSION_MAX_BYTES));
    } else if let Err(problem) = Environment::of(&["device"]).condition(source) {
        errors.push(FieldError::invalid(path, source, problem));
    }
}

fn parameters(parameters: &Value, path: &Path, errors: &mut Errors) {
    let size = parameters.to_string().len();
    match parameters {
        Value::Null => errors.push(FieldError::required(path, "")),
        _ if size > PARAMETERS_MAX_BYTES => {
            errors.push(FieldError::too_long(path, PARAMETERS_MAX_BYTES));
        }
        Value::Object(_) => {}
        _ => {
            errors.push(FieldError::invalid(path, "<value omitted>", "must be a valid JSON object"))
        }
    }
}

fn tolerated_value(toleration: &Value, path: &Path, errors: &mut Errors) {
    let value = toleration["value"].as_str().unwrap_or_default();
    let path = path.child("value");
    match toleration["operator"].as_str() {
        Some("Exists") if !value.is_empty() => {
            let problem = "must be empty for operator `Exists`";
            errors.push(FieldError::invalid(path, value, problem));
        }
        Some("Equal") => check::invalid(names::label_value(value), value, &path, errors),
        _ => {}
    }
}

/// One or more subdomains, separated by slashes.
pub fn pool_name(name: &Value, path: &Path, errors: &mut Errors) {
    let name = name.as_str().unwrap_or_default();
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    if name.len() > POOL_NAME_MAX {
        errors.push(FieldError::too_long(path, POOL_NAME_MAX));
    }
    for part in name.split('/') {
        check::dns_subdomain(part, path, errors);
    }
}

fn pool_name_if_any(name: &Value, path: &Path, errors: &mut Errors) {
    if !name.is_null() {
        pool_name(name, path, errors);
    }
}

/// The name of an attribute or a capacity: an identifier, with or without a domain.
pub fn attribute_name(name: &str, path: &Path, errors: &mut Errors) {
    let identifier = |name: &str, errors: &mut Errors| {
        if name.len() > ID_MAX {
            errors.push(FieldError::too_long(path, ID_MAX));
        }
        let first = name.bytes().next();
        let starts = first.is_some_and(|first| first.is_ascii_alphabetic() || first == b'_');
        if !starts || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            let problem = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
            errors.push(FieldError::invalid(path, name, problem));
        }
    };
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        [name] => identifier(name, errors),
        [domain, name] => {
            if domain.is_empty() {
                errors.push(FieldError::invalid(path, "", "the domain must not be empty"));
            } else {
                check::invalid(driver_name(domain), domain, path, errors);
            }
            if name.is_empty() {
                errors.push(FieldError::invalid(path, "", "the name must not be empty"));
            } else {
                identifier(name, errors);
            }
        }
        // Upstream accepts more than one slash.
        _ => {}
    }
}

/// The requests of a claim, and their alternatives as `request/alternative`.
fn request_names(devices: &Value) -> BTreeSet<String> {
    let text = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let mut names = BTreeSet::new();
    for request in devices["requests"].as_array().into_iter().flatten() {
        for alternative in request["firstAvailable"].as_array().into_iter().flatten() {
            names.insert(format!("{}/{}", text(request), text(alternative)));
        }
        names.insert(text(request));
    }
    names
}

fn request_reference(name: &str, known: &BTreeSet<String>, path: &Path, errors: &mut Errors) {
    let problem = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    let parts: Vec<&str> = name.split('/').collect();
    if parts.len() <= 2 {
        parts.iter().for_each(|part| check::dns_label(part, path, errors));
    }
    if parts.len() > 2 || !known.contains(name) {
        errors.push(FieldError::invalid(path, name, problem));
    }
}

/// References to requests, each once.
fn request_references(list: &Value, known: &BTreeSet<String>, path: &Path, errors: &mut Errors) {
    let all = list.as_array().map(Vec::as_slice).unwrap_or_default();
    if all.len() > ITEMS_MAX {
        errors.push(FieldError::too_many(path, all.len(), ITEMS_MAX));
        return;
    }
    let texts = || all.iter().map(|name| name.as_str().unwrap_or_default()).enumerate();
    for (index, name) in texts() {
        request_reference(name, known, &path.index(index), errors);
    }
    let mut unique = check::Unique::default();
    for (index, name) in texts() {
        unique.insert(name, &path.index(index), errors);
    }
}

fn constraints(devices: &Value, path: &Path, errors: &mut Errors) {
    let known = request_names(devices);
    let path = path.child("constraints");
    let all = devices["constraints"].as_array().map(Vec::as_slice).unwrap_or_default();
    if all.len() > ITEMS_MAX {
        errors.push(FieldError::too_many(&path, all.len(), ITEMS_MAX));
        return;
    }
    for (index, constraint) in all.iter().enumerate() {
        let path = path.index(index);
        request_references(&constraint["requests"], &known, &path.child("requests"), errors);
        let attribute = ["matchAttribute", "distinctAttribute"]
            .into_iter()
            .find_map(|field| Some((field, constraint[field].as_str()?)));
        let Some((field, name)) = attribute else {
            errors.push(FieldError::required(path.child("matchAttribute"), ""));
            continue;
        };
        let path = path.child(field);
        attribute_name(name, &path, errors);
        if !name.contains('/') {
            let problem = "a fully qualified name must be a domain and a name separated by a slash";
            errors.push(FieldError::invalid(path, name, problem));
        }
    }
}

fn configurations(devices: &Value, path: &Path, errors: &mut Errors) {
    validate_configurations(&devices["config"], devices, ITEMS_MAX, &path.child("config"), errors);
}

fn validate_configurations(
    list: &Value,
    devices: &Value,
    max: usize,
    path: &Path,
    errors: &mut Errors,
) {
    let known = request_names(devices);
    let all = list.as_array().map(Vec::as_slice).unwrap_or_default();
    if all.len() > max {
        errors.push(FieldError::too_many(path, all.len(), max));
        return;
    }
    for (index, configuration) in all.iter().enumerate() {
        let path = path.index(index);
        request_references(&configuration["requests"], &known, &path.child("requests"), errors);
        table::run(OPAQUE, configuration, &path, errors);
    }
}

/// What an allocator has found for the claim.
fn validate_allocation(allocation: &Value, devices: &Value, path: &Path, errors: &mut Errors) {
    let known = request_names(devices);
    let at = path.child("devices");
    let results =
        allocation["devices"]["results"].as_array().map(Vec::as_slice).unwrap_or_default();
    if results.len() > ITEMS_MAX {
        errors.push(FieldError::too_many(at.child("results"), results.len(), ITEMS_MAX));
        return;
    }
    for (index, result) in results.iter().enumerate() {
        let path = at.child("results").index(index);
        let request = result["request"].as_str().unwrap_or_default();
        request_reference(request, &known, &path.child("request"), errors);
        table::run(ALLOCATED, result, &path, errors);
    }
    let config = &allocation["devices"]["config"];
    for (index, configuration) in config.as_array().into_iter().flatten().enumerate() {
        let source = configuration["source"].as_str().unwrap_or_default();
        let path = at.child("config").index(index).child("source");
        check::one_of(source, &["FromClaim", "FromClass"], &path, errors);
    }
    validate_configurations(config, devices, 2 * ITEMS_MAX, &at.child("config"), errors);
    node_selector(&allocation["nodeSelector"], &path.child("nodeSelector"), errors);
}

/// Only devices that are allocated have a status, each one.
fn devices_of_allocation(claim: &Value, _: &Path, errors: &mut Errors) {
    let id = |one: &Value| {
        ["driver", "pool", "device", "shareID"]
            .map(|field| one[field].as_str().unwrap_or_default().to_owned())
    };
    let results = claim["status"]["allocation"]["devices"]["results"].as_array();
    let known: BTreeSet<_> = results.into_iter().flatten().map(id).collect();
    let path = Path::new("status").child("devices");
    let mut seen = BTreeSet::new();
    for (index, device) in claim["status"]["devices"].as_array().into_iter().flatten().enumerate() {
        let (id, path) = (id(device), path.index(index));
        let shown =
            id.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("/");
        if !known.contains(&id) {
            let problem = "must be an allocated device in the claim";
            errors.push(FieldError::invalid(&path, &shown, problem));
        }
        if !seen.insert(id) {
            errors.push(FieldError::duplicate(path, shown));
        }
    }
}

/// A selector of nodes, if there is one.
pub fn node_selector(selector: &Value, path: &Path, errors: &mut Errors) {
    if let Ok(Some(selector)) = serde_json::from_value::<Option<NodeSelector>>(selector.clone()) {
        pod_spec::node_selector(&selector, path, errors);
    }
}

fn template_metadata(metadata: &Value, path: &Path, errors: &mut Errors) {
    let map = |field: &str| serde_json::from_value(metadata[field].clone()).unwrap_or_default();
    check::labels(Some(&map("labels")), &path.child("labels"), errors);
    check::annotations(Some(&map("annotations")), &path.child("annotations"), errors);
}

/// Conditions have a type, once, a status, a reason and a time.
pub fn conditions(list: &Value, path: &Path, errors: &mut Errors) {
    let all = list.as_array().map(Vec::as_slice).unwrap_or_default();
    if all.len() > CONDITIONS_MAX {
        errors.push(FieldError::too_many(path, all.len(), CONDITIONS_MAX));
    }
    status::conditions(list, path, errors);
}

/// Conditions of a device that has to be prepared: of success and of failure, or none.
pub fn binding_conditions(device: &Value, path: &Path, errors: &mut Errors) {
    let list = |field: &str| -> Vec<String> {
        let items = device[field].as_array().into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let (good, bad) = ("bindingConditions", "bindingFailureConditions");
    for field in [good, bad] {
        let (all, path) = (list(field), path.child(field));
        if all.len() > BINDING_CONDITIONS_MAX {
            errors.push(FieldError::too_many(path, all.len(), BINDING_CONDITIONS_MAX));
            continue;
        }
        for (index, condition) in all.iter().enumerate() {
            check::qualified_name(condition, &path.index(index), errors);
        }
    }
    let (wanted, failures) = (list(good), list(bad));
    let mut unique = check::Unique::default();
    for (index, condition) in wanted.iter().enumerate() {
        unique.insert(condition, &path.child(good).index(index), errors);
    }
    let mut unique = check::Unique::default();
    for (index, condition) in failures.iter().enumerate() {
        let path = path.child(bad).index(index);
        unique.insert(condition, &path, errors);
        if wanted.contains(condition) {
            let problem = "bindingFailureConditions must not overlap with bindingConditions";
            errors.push(FieldError::invalid(path, condition, problem));
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
            errors.push(FieldError::invalid(path.child(field), Value::Null, problem));
        }
    }
}
