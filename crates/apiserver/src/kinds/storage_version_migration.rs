//! StorageVersionMigrations (`k8s.io/kubernetes/pkg/apis/storagemigration/validation`).

use api::names;
use k8s_openapi::api::storagemigration::v1::StorageVersionMigration;
use serde_json::Value;

use super::at::At;
use super::columns::text;
use super::table::{self, Check, Fixed, Rows, name, status_apart, text_at};
use super::{check, status};

pub static STORAGE_VERSION_MIGRATIONS: Rows<StorageVersionMigration> = Rows {
    parts: status_apart!(),
    checks: &[
        ("spec.resource.resource", Check::Required("resource is required to be set")),
        ("spec.resource.resource", Check::TextIfAny(names::dns_1035_label)),
        ("spec.resource.group", Check::TextIfAny(names::dns_subdomain)),
    ],
    fixed: &[("spec", Fixed::Immutable)],
    status: &[
        ("status.resourceVersion", Check::TextIfAny(revision)),
        ("status.conditions", Check::Relation(status::conditions)),
    ],
    status_update: |new, old, _, at| {
        let at = at.child("status");
        let revision = |one: &StorageVersionMigration| {
            one.status.as_ref().and_then(|status| status.resource_version.clone())
        };
        let was = revision(old).filter(|was| !was.is_empty());
        if was.is_some() && was != revision(new) {
            let shown = revision(new).unwrap_or_default();
            at.child("resourceVersion").invalid(shown, check::IMMUTABLE);
        }
        conditions(new, old, &at.child("conditions"));
    },
    generation: table::spec_changes,
    unconditional: false,
    columns: &[name(), text("Resource", "What is migrated.").json(resource)],
    ..Rows::NEW
};

fn resource(migration: &Value) -> Value {
    let resource = &migration["spec"]["resource"];
    let of = |field: &str| text_at(resource, field);
    match of("group") {
        "" => of("resource").into(),
        group => format!("{}.{group}", of("resource")).into(),
    }
}

fn revision(text: &str) -> Vec<String> {
    let valid = text.parse::<u64>().is_ok_and(|number| number > 0);
    let problem = || format!("resource version is not well formed: {text}");
    (!valid).then(problem).into_iter().collect()
}

/// A migration runs, then succeeds or fails, and that is it.
fn conditions(new: &StorageVersionMigration, old: &StorageVersionMigration, at: &At<'_>) {
    let holds = |one: &StorageVersionMigration, wanted: &str| {
        let all = one.status.iter().flat_map(|status| status.conditions.iter().flatten());
        all.into_iter().any(|condition| condition.type_ == wanted && condition.status == "True")
    };
    let (done, failed, running) =
        (holds(new, "Succeeded"), holds(new, "Failed"), holds(new, "Running"));
    for (wrong, problem) in [
        (done && failed, "Both success and failed conditions cannot be true at the same time"),
        (done && running, "Running condition cannot be true when success condition is true"),
        (failed && running, "Running condition cannot be true when failed condition is true"),
        (
            holds(old, "Succeeded") && !done,
            "Success condition cannot be set to false once it is true",
        ),
        (
            holds(old, "Failed") && !failed,
            "Failed condition cannot be set to false once it is true",
        ),
    ] {
        if wrong {
            let shown = new.status.as_ref().and_then(|status| status.conditions.clone());
            at.invalid(shown, problem);
        }
    }
}
