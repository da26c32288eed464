//! What may only be used where a quota covers it: `limitedResources` of the configuration
//! (`k8s.io/apiserver/pkg/admission/plugin/resourcequota/apis/resourcequota`).

use std::collections::BTreeSet;

use api::object::Object;
use api::quota;
use api::status::FieldError;
use k8s_openapi::api::core::v1::{ResourceQuota, ScopedResourceSelectorRequirement};
use serde::Deserialize;

use super::{claimed, growth};
use crate::admission::configuration::decode;
use crate::configuration::{Unusable, aggregate};

/// What may only be used where a quota covers it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitedResource {
    #[serde(default)]
    api_group: String,
    #[serde(default)]
    resource: String,
    /// Parts of the names of resources that are used.
    #[serde(default)]
    match_contains: Vec<String>,
    #[serde(default)]
    match_scopes: Vec<ScopedResourceSelectorRequirement>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    #[serde(default)]
    limited_resources: Vec<LimitedResource>,
}

const KINDS: &[(&str, &str)] = &[
    ("apiserver.config.k8s.io/v1", "ResourceQuotaConfiguration"),
    ("resourcequota.admission.k8s.io/v1beta1", "Configuration"),
    ("resourcequota.admission.k8s.io/v1alpha1", "Configuration"),
];

/// Decodes what the plugin is told.
///
/// # Errors
/// What is wrong with it.
pub fn configured(text: &str) -> Result<Vec<LimitedResource>, Unusable> {
    let limited = decode::<Configuration>(text, KINDS)?.limited_resources;
    let unnamed = limited.iter().enumerate().filter(|(_, limited)| limited.resource.is_empty());
    let errors: Vec<FieldError> = unnamed
        .map(|(index, _)| FieldError::required(format!("limitedResources[{index}].resource"), ""))
        .collect();
    match aggregate(&errors) {
        Some(problem) => Err(Unusable(problem)),
        None => Ok(limited),
    }
}

/// What a write uses although no quota covers it.
#[derive(Debug, PartialEq)]
pub enum Uncovered {
    Nothing,
    Resources(String),
    Scopes(String),
}

/// Whether the namespace's quotas cover what is limited (`CheckRequest`).
///
/// # Errors
/// What a quota refuses anyway.
pub fn uncovered(
    limited: &[LimitedResource],
    quotas: &[&ResourceQuota],
    new: &dyn Object,
    old: Option<&dyn Object>,
) -> Result<Uncovered, String> {
    if limited.is_empty() {
        return Ok(Uncovered::Nothing);
    }
    let (row, used) = (new.row(), quota::usage(new));
    let (mut covered, mut scopes) = (BTreeSet::new(), Vec::new());
    let (mut matching, mut grows) = (false, false);
    for quota in quotas {
        scopes.extend(quota::scopes_of(&quota.spec.clone().unwrap_or_default(), new));
        if let Some(claim) = claimed(quota, new, old)? {
            matching = true;
            grows |= !claim.growth.is_empty();
            covered.extend(claim.relevant.into_iter().map(str::to_owned));
        }
    }
    if !matching {
        grows = !growth(used.clone(), &old.map(quota::usage).unwrap_or_default()).is_empty();
    }
    if !grows {
        return Ok(Uncovered::Nothing);
    }
    let own = limited
        .iter()
        .filter(|limited| limited.api_group == *row.group && limited.resource == *row.plural);
    let parts: Vec<&String> = own.flat_map(|limited| &limited.match_contains).collect();
    let is_limited = |name: &&String| parts.iter().any(|part| name.contains(*part));
    let positive = used.iter().filter(|(_, amount)| !amount.is_zero() && !amount.is_negative());
    let missing: Vec<&str> = positive
        .map(|(name, _)| name)
        .filter(is_limited)
        .filter(|name| !covered.contains(*name))
        .map(String::as_str)
        .collect();
    if !missing.is_empty() {
        let missing = missing.join(",");
        return Ok(Uncovered::Resources(format!("insufficient quota to consume: {missing}")));
    }
    let asked = limited.iter().flat_map(|limited| &limited.match_scopes);
    let open: Vec<String> = asked
        .filter(|asked| quota::is_in(asked, new))
        .filter(|asked| !scopes.contains(&asked.scope_name))
        .map(|asked| {
            let values = asked.values.as_deref().unwrap_or_default().join(" ");
            format!("{{{} {} [{values}]}}", asked.scope_name, asked.operator)
        })
        .collect();
    if open.is_empty() {
        return Ok(Uncovered::Nothing);
    }
    let open = open.join(" ");
    Ok(Uncovered::Scopes(format!("insufficient quota to match these scopes: [{open}]")))
}

#[cfg(test)]
mod tests {
    use api::Kind;
    use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
    use serde_json::{Value, json};

    use super::*;

    fn limited(json: Value) -> Vec<LimitedResource> {
        let mut text = json!({"apiVersion": KINDS[0].0, "kind": KINDS[0].1});
        text["limitedResources"] = json;
        configured(&text.to_string()).unwrap()
    }

    fn quota(spec: Value, used: Value) -> ResourceQuota {
        let json = json!({"metadata": {"name": "q"}, "spec": spec,
            "status": {"hard": spec["hard"], "used": used}});
        ResourceQuota::decode(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn what_grows_has_to_be_covered() {
        let claim = |size: &str| {
            let json = json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": size}}}});
            PersistentVolumeClaim::decode(json.to_string().as_bytes()).unwrap()
        };
        let rules = limited(json!([
            {"resource": "persistentvolumeclaims", "matchContains": ["storage.k8s.io/requests"]},
            {"apiGroup": "apps", "resource": "persistentvolumeclaims", "matchContains": ["count"]},
        ]));
        let name = "gold.storageclass.storage.k8s.io/requests.storage";
        let covering = quota(json!({"hard": {name: "9Gi"}}), json!({name: "0"}));
        let other = quota(
            json!({"hard": {"persistentvolumeclaims": "9"}}),
            json!({"persistentvolumeclaims": "0"}),
        );
        let lacking = Uncovered::Resources(format!("insufficient quota to consume: {name}"));
        for (new, old, quotas, expected) in [
            ("1Gi", None, vec![], &lacking),
            ("1Gi", None, vec![&other], &lacking),
            ("1Gi", None, vec![&other, &covering], &Uncovered::Nothing),
            ("2Gi", Some("1Gi"), vec![], &lacking),
            ("1Gi", Some("2Gi"), vec![], &Uncovered::Nothing),
            ("1Gi", Some("1Gi"), vec![&other], &Uncovered::Nothing),
        ] {
            let (new, old) = (claim(new), old.map(claim));
            let old = old.as_ref().map(|old| old as &dyn Object);
            assert_eq!(uncovered(&rules, &quotas, &new, old).as_ref(), Ok(expected));
        }
        let service = Service::default();
        assert_eq!(uncovered(&rules, &[], &service, None), Ok(Uncovered::Nothing));
    }

    #[test]
    fn a_scope_is_covered_by_a_quota_that_names_it() {
        let pod = |class: &str| {
            let json = json!({"spec": {"priorityClassName": class, "containers": []}});
            Pod::decode(json.to_string().as_bytes()).unwrap()
        };
        let scope = json!({"scopeName": "PriorityClass", "operator": "In", "values": ["a", "b"]});
        let rules = limited(json!([{"resource": "pods", "matchScopes": [scope]}]));
        let text = "insufficient quota to match these scopes: [{PriorityClass In [a b]}]";
        let scopes = || Uncovered::Scopes(text.to_owned());
        let all = quota(json!({"hard": {"pods": "9"}}), json!({"pods": "0"}));
        let own = quota(
            json!({"hard": {"pods": "9"}, "scopeSelector": {"matchExpressions": [scope]}}),
            json!({"pods": "0"}),
        );
        assert_eq!(uncovered(&rules, &[&all], &pod("a"), None), Ok(scopes()));
        assert_eq!(uncovered(&rules, &[&own], &pod("b"), None), Ok(Uncovered::Nothing));
        assert_eq!(uncovered(&rules, &[], &pod("c"), None), Ok(Uncovered::Nothing));
        assert_eq!(uncovered(&[], &[], &pod("a"), None), Ok(Uncovered::Nothing));
    }
}
