//! ResourceQuotas.

mod scopes;

use super::check;
use super::columns;
use super::path::Path;
use super::pod_spec;
use api::status::FieldError;
use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;
use serde_json::Value;

use super::rules::status_apart;
use super::{Column, Strategy, fill};

/// The strategy of ResourceQuotas.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Request", "Used and allowed requests."),
    columns::text("Limit", "Used and allowed limits."),
    columns::AGE,
];

impl Strategy for Rules {
    type Object = ResourceQuota;

    status_apart!();

    fn default(&self, quota: &mut ResourceQuota) {
        fill::amounts(&mut quota.spec.get_or_insert_default().hard);
        if let Some(status) = &mut quota.status {
            fill::amounts(&mut status.hard);
            fill::amounts(&mut status.used);
        }
    }

    fn validate(&self, quota: &ResourceQuota) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = Path::new("spec").child("hard");
        let hard = quota.spec.iter().flat_map(|spec| spec.hard.iter().flatten());
        for (name, amount) in hard {
            let path = path.key(name);
            check::qualified_name(name.strip_prefix("count/").unwrap_or(name), &path, &mut errors);
            if !name.contains('/') && !is_quota_resource(name) {
                let problem = "must be a standard resource type or fully qualified";
                errors.push(FieldError::invalid(&path, name, problem));
            }
            pod_spec::resources::quantity(name, amount, &path, &mut errors);
        }
        if let Some(spec) = &quota.spec {
            scopes::validate(spec, &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &ResourceQuota, old: &ResourceQuota) -> Vec<FieldError> {
        let scopes = |quota: &ResourceQuota| -> BTreeSet<String> {
            let scopes = quota.spec.as_ref().and_then(|spec| spec.scopes.clone());
            scopes.into_iter().flatten().collect()
        };
        if scopes(new) == scopes(old) {
            return Vec::new();
        }
        let scopes = new.spec.as_ref().and_then(|spec| spec.scopes.as_ref());
        let problem = check::IMMUTABLE;
        vec![FieldError::invalid("spec.scopes", scopes, problem)]
    }

    fn validate_status_update(&self, new: &ResourceQuota, _: &ResourceQuota) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let status = new.status.clone().unwrap_or_default();
        for (field, amounts) in [("hard", &status.hard), ("used", &status.used)] {
            let path = Path::new("status").child(field);
            for (name, amount) in amounts.iter().flatten() {
                let path = path.key(name);
                pod_spec::resources::quantity(name, amount, &path, &mut errors);
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, quota: &ResourceQuota, now: Timestamp) -> Vec<Value> {
        let status = quota.status.clone().unwrap_or_default();
        let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
        let used = status.used.unwrap_or_default();
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, most) in status.hard.unwrap_or(hard) {
            let used = used.get(&name).map_or("0", |used| used.0.as_str());
            let text = format!("{name}: {used}/{}", most.0);
            if name.starts_with("limits.") { limits.push(text) } else { requests.push(text) }
        }
        vec![
            columns::name(&quota.metadata),
            requests.join(", ").into(),
            limits.join(", ").into(),
            columns::age(&quota.metadata, now),
        ]
    }
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
