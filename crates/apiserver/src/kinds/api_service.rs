//! APIServices (`k8s.io/kube-aggregator`, `pkg/{apis/apiregistration,registry/apiservice}`).

use api::names;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec};
use serde_json::Value;

use super::at::At;
use super::columns::text;
use super::table::{Check, Parts, Rows, age, name, status_apart, text_at};
use super::{check, fill};
use crate::aggregation::condition;

/// Port of a Service that names none.
const DEFAULT_PORT: i32 = 443;
const GROUP_PRIORITY_MAX: i32 = 20_000;
const VERSION_PRIORITY_MAX: i32 = 1_000;

pub static RULES: Rows<APIService> = Rows {
    any_finalizer: true,
    default: |service| {
        let spec = service.spec.as_mut();
        if let Some(service) = spec.and_then(|spec| spec.service.as_mut()) {
            fill::missing(&mut service.port, DEFAULT_PORT);
        }
    },
    name: names::path_segment,
    parts: Parts {
        create: |service, context| {
            service.status = None;
            if service.spec.as_ref().is_none_or(|spec| spec.service.is_none()) {
                condition::set(service, &condition::local(), context.now);
            }
        },
        status: |new, old, _| {
            new.spec.clone_from(&old.spec);
            let metadata = &mut new.metadata;
            metadata.labels.clone_from(&old.metadata.labels);
            metadata.annotations.clone_from(&old.metadata.annotations);
            metadata.finalizers.clone_from(&old.metadata.finalizers);
            metadata.owner_references.clone_from(&old.metadata.owner_references);
        },
        ..status_apart!()
    },
    judge: |service, at| {
        let none = APIServiceSpec::default();
        let spec = service.spec.as_ref().unwrap_or(&none);
        let name = check::text(&service.metadata.name);
        let wanted = format!("{}.{}", check::text(&spec.version), check::text(&spec.group));
        if names::path_segment(name).is_empty() && name != wanted {
            let why = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
            at.child("metadata.name").invalid(name, why);
        }
        judge_spec(spec, &at.child("spec"));
    },
    status: &[(
        "status.conditions",
        Check::Each(&[("status", Check::SetOneOf(&["True", "False", "Unknown"]))]),
    )],
    unconditional: false,
    columns: &[
        name(),
        text("Service", "The reference to the service that hosts this API endpoint.").json(|own| {
            match &own["spec"]["service"] {
                Value::Null => "Local".into(),
                named => {
                    format!("{}/{}", text_at(named, "namespace"), text_at(named, "name")).into()
                }
            }
        }),
        text("Available", "Whether this service is available.").of(|service| {
            let Some(known) = condition::available(service) else { return "Unknown".into() };
            match check::text(&known.reason) {
                reason if known.status != "True" && !reason.is_empty() => {
                    format!("{} ({reason})", known.status).into()
                }
                _ => known.status.clone().into(),
            }
        }),
        age(),
    ],
    ..Rows::NEW
};

fn judge_spec(spec: &APIServiceSpec, at: &At<'_>) {
    let (group, version) = (check::text(&spec.group), check::text(&spec.version));
    let own = at.child("group");
    if group.is_empty() && version != "v1" {
        own.required("only v1 may have an empty group and it better be legacy kube");
    }
    if !group.is_empty() {
        own.dns_subdomain(group);
    }
    at.child("version").texts(names::dns_1035_label(version), version);
    for (value, most, name) in [
        (spec.group_priority_minimum, GROUP_PRIORITY_MAX, "groupPriorityMinimum"),
        (spec.version_priority, VERSION_PRIORITY_MAX, "versionPriority"),
    ] {
        if value <= 0 || value > most {
            at.child(name).invalid(value, format!("must be positive and less than {most}"));
        }
    }
    let bundle = spec.ca_bundle.as_ref().map_or(0, |bundle| bundle.0.len());
    let insecure = spec.insecure_skip_tls_verify.unwrap_or_default();
    let insecure_at = at.child("insecureSkipTLSVerify");
    let Some(service) = &spec.service else {
        if bundle > 0 {
            let (value, why) =
                (format!("{bundle} bytes"), "local APIServices may not have a caBundle");
            at.child("caBundle").invalid(value, why);
        }
        if insecure {
            insecure_at.invalid(true, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    };
    let own = at.child("service");
    own.child("namespace").not_empty(check::text(&service.namespace));
    own.child("name").not_empty(check::text(&service.name));
    let port = service.port.unwrap_or_default();
    if !(1..=i32::from(u16::MAX)).contains(&port) {
        let why = "port is not valid: must be between 1 and 65535, inclusive";
        own.child("port").invalid(port, why);
    }
    if insecure && bundle > 0 {
        insecure_at.invalid(true, "may not be true if caBundle is present");
    }
}
