//! APIServices (`k8s.io/kube-aggregator`, `pkg/{apis/apiregistration,registry/apiservice}`).

use api::names;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{
    APIService, APIServiceSpec, APIServiceStatus,
};
use serde_json::Value;

use super::check::{self, Errors};
use super::path::Path;
use super::{Column, Context, Strategy, columns, fill};
use crate::aggregation::condition;

/// Port of a Service that names none.
const DEFAULT_PORT: i32 = 443;
const GROUP_PRIORITY_MAX: i32 = 20_000;
const VERSION_PRIORITY_MAX: i32 = 1_000;

/// The strategy of APIServices.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Service", "The reference to the service that hosts this API endpoint."),
    columns::text("Available", "Whether this service is available."),
    columns::AGE,
];

fn validate_spec(spec: &APIServiceSpec, errors: &mut Errors) {
    let path = Path::new("spec");
    let (group, version) = (check::text(&spec.group), check::text(&spec.version));
    let at = path.child("group");
    if group.is_empty() && version != "v1" {
        let why = "only v1 may have an empty group and it better be legacy kube";
        errors.push(FieldError::required(&at, why));
    }
    if !group.is_empty() {
        check::dns_subdomain(group, &at, errors);
    }
    check::invalid(names::dns_1035_label(version), version, &path.child("version"), errors);
    for (value, most, name) in [
        (spec.group_priority_minimum, GROUP_PRIORITY_MAX, "groupPriorityMinimum"),
        (spec.version_priority, VERSION_PRIORITY_MAX, "versionPriority"),
    ] {
        if value <= 0 || value > most {
            let why = format!("must be positive and less than {most}");
            errors.push(FieldError::invalid(path.child(name), value, why));
        }
    }
    let bundle = spec.ca_bundle.as_ref().map_or(0, |bundle| bundle.0.len());
    let insecure = spec.insecure_skip_tls_verify.unwrap_or_default();
    let insecure_at = path.child("insecureSkipTLSVerify");
    let Some(service) = &spec.service else {
        if bundle > 0 {
            let (value, why) =
                (format!("{bundle} bytes"), "local APIServices may not have a caBundle");
            errors.push(FieldError::invalid(path.child("caBundle"), value, why));
        }
        if insecure {
            let why = "local APIServices may not have insecureSkipTLSVerify";
            errors.push(FieldError::invalid(&insecure_at, true, why));
        }
        return;
    };
    let at = path.child("service");
    check::required(check::text(&service.namespace), &at.child("namespace"), errors);
    check::required(check::text(&service.name), &at.child("name"), errors);
    let port = service.port.unwrap_or_default();
    if !(1..=i32::from(u16::MAX)).contains(&port) {
        let why = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(FieldError::invalid(at.child("port"), port, why));
    }
    if insecure && bundle > 0 {
        let why = "may not be true if caBundle is present";
        errors.push(FieldError::invalid(&insecure_at, true, why));
    }
}

fn validate_status(status: Option<&APIServiceStatus>) -> Errors {
    let (mut errors, path) = (Errors::new(), Path::new("status").child("conditions"));
    let conditions = status.into_iter().flat_map(|status| status.conditions.iter().flatten());
    for (index, condition) in conditions.enumerate() {
        let supported = ["True", "False", "Unknown"];
        if !supported.contains(&condition.status.as_str()) {
            let at = path.index(index).child("status");
            errors.push(FieldError::not_supported(at, &condition.status, &supported));
        }
    }
    errors
}

impl Strategy for Rules {
    type Object = APIService;

    fn default(&self, service: &mut APIService) {
        let spec = service.spec.as_mut();
        if let Some(service) = spec.and_then(|spec| spec.service.as_mut()) {
            fill::missing(&mut service.port, DEFAULT_PORT);
        }
    }

    fn prepare_create(&self, service: &mut APIService, context: &Context<'_>) {
        service.status = None;
        if service.spec.as_ref().is_none_or(|spec| spec.service.is_none()) {
            condition::set(service, &condition::local(), context.now);
        }
    }

    fn prepare_update(&self, new: &mut APIService, old: &APIService, _: &Context<'_>) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(&self, new: &mut APIService, old: &APIService, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
        let metadata = &mut new.metadata;
        metadata.labels.clone_from(&old.metadata.labels);
        metadata.annotations.clone_from(&old.metadata.annotations);
        metadata.finalizers.clone_from(&old.metadata.finalizers);
        metadata.owner_references.clone_from(&old.metadata.owner_references);
    }

    fn validate(&self, service: &APIService) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let none = APIServiceSpec::default();
        let spec = service.spec.as_ref().unwrap_or(&none);
        let name = check::text(&service.metadata.name);
        let wanted = format!("{}.{}", check::text(&spec.version), check::text(&spec.group));
        if names::path_segment(name).is_empty() && name != wanted {
            let why = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
            errors.push(FieldError::invalid(Path::new("metadata").child("name"), name, why));
        }
        validate_spec(spec, &mut errors);
        errors
    }

    fn validate_status_update(&self, new: &APIService, _: &APIService) -> Vec<FieldError> {
        validate_status(new.status.as_ref())
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, service: &APIService, now: Timestamp) -> Vec<Value> {
        let named = service.spec.as_ref().and_then(|spec| spec.service.as_ref());
        let named = named.map_or_else(
            || "Local".to_owned(),
            |named| format!("{}/{}", check::text(&named.namespace), check::text(&named.name)),
        );
        let available = match condition::available(service) {
            None => "Unknown".to_owned(),
            Some(known) => match check::text(&known.reason) {
                reason if known.status != "True" && !reason.is_empty() => {
                    format!("{} ({reason})", known.status)
                }
                _ => known.status.clone(),
            },
        };
        let metadata = &service.metadata;
        vec![columns::name(metadata), named.into(), available.into(), columns::age(metadata, now)]
    }
}
