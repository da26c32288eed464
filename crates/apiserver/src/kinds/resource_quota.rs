//! ResourceQuotas.

mod scopes;

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ResourceQuota;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::Value;

use super::at::At;
use super::columns::text;
use super::table::{Check, Rows, age, name, parsed, status_apart};
use super::{check, fill, pod_spec};

pub static RULES: Rows<ResourceQuota> = Rows {
    default: |quota| {
        fill::amounts(&mut quota.spec.get_or_insert_default().hard);
        if let Some(status) = &mut quota.status {
            fill::amounts(&mut status.hard);
            fill::amounts(&mut status.used);
        }
    },
    parts: status_apart!(),
    checks: &[("spec.hard", Check::Relation(limits))],
    judge: |quota, at| {
        if let Some(spec) = &quota.spec {
            scopes::validate(spec, &at.child("spec"));
        }
    },
    update: |new, old, at| {
        let scopes = |quota: &ResourceQuota| -> BTreeSet<String> {
            let scopes = quota.spec.as_ref().and_then(|spec| spec.scopes.clone());
            scopes.into_iter().flatten().collect()
        };
        if scopes(new) != scopes(old) {
            let scopes = new.spec.as_ref().and_then(|spec| spec.scopes.as_ref());
            at.child("spec.scopes").invalid(scopes, check::IMMUTABLE);
        }
    },
    status: &[("status.hard", Check::Relation(amounts)), ("status.used", Check::Relation(amounts))],
    columns: &[
        name(),
        text("Request", "Used and allowed requests.").json(|quota| usage(quota, false)),
        text("Limit", "Used and allowed limits.").json(|quota| usage(quota, true)),
        age(),
    ],
    ..Rows::NEW
};

fn limits(hard: &Value, at: &At<'_>) {
    for (name, amount) in hard.as_object().into_iter().flatten() {
        let at = at.key(name);
        at.qualified_name(name.strip_prefix("count/").unwrap_or(name));
        if !name.contains('/') && !is_quota_resource(name) {
            at.invalid(name, "must be a standard resource type or fully qualified");
        }
        quantity(name, amount, &at);
    }
}

fn amounts(amounts: &Value, at: &At<'_>) {
    for (name, amount) in amounts.as_object().into_iter().flatten() {
        quantity(name, amount, &at.key(name));
    }
}

fn quantity(name: &str, amount: &Value, at: &At<'_>) {
    let amount = parsed::<Quantity>(amount).unwrap_or_default();
    pod_spec::resources::quantity(name, &amount, at);
}

/// `requests.cpu: 1/2, pods: 3/10`
fn usage(quota: &Value, of_limits: bool) -> Value {
    let in_status = &quota["status"]["hard"];
    let hard = if in_status.is_null() { &quota["spec"]["hard"] } else { in_status };
    let all = hard.as_object().into_iter().flatten();
    let shown = all.filter(|(name, _)| name.starts_with("limits.") == of_limits);
    let text = shown.map(|(name, most)| {
        let used = quota["status"]["used"][name].as_str().unwrap_or("0");
        format!("{name}: {used}/{}", most.as_str().unwrap_or_default())
    });
    text.collect::<Vec<_>>().join(", ").into()
}

/// Resources without a domain that a quota can limit.
fn is_quota_resource(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "cpu",
        "memory",
        "ephemeral-storage",
        "storage",
        "requests.cpu",
        "requests.memory",
        "requests.storage",
        "requests.ephemeral-storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "pods",
        "services",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    ];
    NAMES.contains(&name)
        || name.starts_with("hugepages-")
        || name.starts_with("requests.hugepages-")
}
