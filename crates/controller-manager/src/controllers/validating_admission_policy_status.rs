//! Says in the status of a ValidatingAdmissionPolicy what is wrong with its expressions, for the kinds
//! that it is about (`k8s.io/kubernetes/pkg/controller/validatingadmissionpolicystatus`).

use std::collections::BTreeMap;
use std::sync::Arc;

use api::KindRow;
use api::cel::type_checking::{Subject, Type, warnings};
use api::custom::definition;
use api::kind::KINDS;
use client::{Api, Client, ListOptions};
use k8s_openapi::api::admissionregistration::v1::{
    NamedRuleWithOperations, ParamKind, TypeChecking, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicySpec, ValidatingAdmissionPolicyStatus,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use crate::Error;
use crate::machinery::cache::{Cache, Key};
use crate::machinery::error::During;
use crate::machinery::queue::{Controller, Next, queue};
use crate::machinery::status;
use crate::wire::Wiring;

/// Kinds that the expressions of a policy are checked for, at most, of each rule.
const KINDS_MAX: usize = 10;

struct Statuses {
    client: Client,
    policies: Arc<Cache<ValidatingAdmissionPolicy>>,
}

/// Adds the controller; its keys are policies.
pub fn start(wiring: &mut Wiring) {
    let (trigger, requests) = queue();
    let informer = &wiring.informers.validating_admission_policies;
    informer.subscribe(&trigger, |change| {
        let unchecked = change.new.as_ref().filter(|policy| is_unchecked(policy));
        unchecked.map(|policy| Key::of(&**policy)).into_iter().collect()
    });
    let controller = Statuses { client: wiring.client.clone(), policies: informer.cache() };
    wiring.run(controller, requests);
}

/// Whether a policy has changed since it was checked.
fn is_unchecked(policy: &ValidatingAdmissionPolicy) -> bool {
    let observed = policy.status.as_ref().and_then(|status| status.observed_generation);
    policy.metadata.generation.unwrap_or_default() > observed.unwrap_or_default()
}

/// The status of a policy, in a cluster with these custom kinds.
fn plan(
    policy: &ValidatingAdmissionPolicy,
    custom: &[Arc<KindRow>],
) -> ValidatingAdmissionPolicyStatus {
    let spec = policy.spec.clone().unwrap_or_default();
    let named = kinds_of(&spec, custom);
    let subjects: Vec<Subject<'_>> = named
        .iter()
        .filter_map(|row| {
            let ty = type_of(row)?;
            Some(Subject { group: &row.group, version: &row.version, kind: &row.kind, ty })
        })
        .collect();
    let params = spec.param_kind.as_ref().map(|kind| {
        let found = all(custom).find(|row| is_of(row, kind));
        found.and_then(type_of).unwrap_or(Type::Unknown)
    });
    let found = warnings(&spec, &subjects, params);
    ValidatingAdmissionPolicyStatus {
        observed_generation: policy.metadata.generation,
        type_checking: Some(TypeChecking {
            expression_warnings: (!found.is_empty()).then_some(found),
        }),
        ..policy.status.clone().unwrap_or_default()
    }
}

fn all(custom: &[Arc<KindRow>]) -> impl Iterator<Item = &KindRow> {
    KINDS.iter().copied().chain(custom.iter().map(|row| &**row))
}

fn is_of(row: &KindRow, kind: &ParamKind) -> bool {
    row.api_version() == kind.api_version.as_deref().unwrap_or_default()
        && row.kind == kind.kind.as_deref().unwrap_or_default()
}

fn type_of(row: &KindRow) -> Option<Type<'_>> {
    match &row.custom {
        Some(custom) => Some(Type::Custom(&custom.schema)),
        None => api::schema::kind(&row.group, &row.version, &row.kind).map(Type::BuiltIn),
    }
}

/// The kinds that the rules of a policy name exactly, in their order.
fn kinds_of<'a>(
    spec: &ValidatingAdmissionPolicySpec,
    custom: &'a [Arc<KindRow>],
) -> Vec<&'a KindRow> {
    let mut found = BTreeMap::new();
    let constraints = spec.match_constraints.as_ref();
    let rules = constraints.and_then(|constraints| constraints.resource_rules.as_ref());
    for rule in rules.into_iter().flatten() {
        let named = named_by(rule, custom);
        let mut count = 0;
        for row in named {
            found.insert(
                (row.group.to_string(), row.version.to_string(), row.kind.to_string()),
                row,
            );
            count += 1;
            if count == KINDS_MAX {
                // As upstream: what other rules name does not count any more.
                return found.into_values().collect();
            }
        }
    }
    found.into_values().collect()
}

fn named_by<'a>(
    rule: &NamedRuleWithOperations,
    custom: &'a [Arc<KindRow>],
) -> impl Iterator<Item = &'a KindRow> {
    let exact = |list: &Option<Vec<String>>| {
        let mut list = list.clone().unwrap_or_default();
        list.sort();
        list
    };
    let (groups, versions) = (exact(&rule.api_groups), exact(&rule.api_versions));
    let mut resources = exact(&rule.resources);
    resources.retain(|resource| !resource.contains(['*', '/']));
    let is_open = groups.iter().chain(&versions).any(|name| name.contains('*'));
    let names = groups.into_iter().flat_map(move |group| {
        let resources = resources.clone();
        versions.clone().into_iter().flat_map(move |version| {
            let group = group.clone();
            resources
                .clone()
                .into_iter()
                .map(move |resource| (group.clone(), version.clone(), resource))
        })
    });
    names.filter(move |_| !is_open).flat_map(move |(group, version, resource)| {
        all(custom).filter(move |row| {
            // As upstream resolves it: without a group it is of any.
            (group.is_empty() || row.group == group)
                && row.version == version
                && (row.plural == resource || row.singular == resource)
        })
    })
}

impl Controller for Statuses {
    const NAME: &'static str = "validatingadmissionpolicy-status";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(policy) = self.policies.get(key).filter(|policy| is_unchecked(policy)) else {
            return Ok(Next::Change);
        };
        let definitions = Api::<CustomResourceDefinition>::all(&self.client)
            .list(&ListOptions::default())
            .await
            .during(|| format!("list the custom kinds that policy {key} may be about"))?;
        let served = definitions.items.iter().flat_map(|found| definition::rows(found).served);
        let custom: Vec<Arc<KindRow>> = served.collect();
        let mut changed = (*policy).clone();
        changed.status = Some(plan(&policy, &custom));
        status::write(&self.client, &*policy, &changed).await?;
        Ok(Next::Change)
    }
}

#[cfg(test)]
mod tests {
    use api::Kind;
    use serde_json::{Value, json};

    use super::*;

    fn policy(rules: Value, expression: &str) -> ValidatingAdmissionPolicy {
        let json = json!({"metadata": {"name": "p", "generation": 2}, "spec": {
            "matchConstraints": {"resourceRules": rules},
            "validations": [{"expression": expression, "messageExpression": expression}]}});
        ValidatingAdmissionPolicy::decode(json.to_string().as_bytes()).unwrap()
    }

    fn rule(groups: &[&str], versions: &[&str], resources: &[&str]) -> Value {
        json!({"operations": ["*"], "apiGroups": groups, "apiVersions": versions, "resources": resources})
    }

    fn widgets() -> Vec<Arc<KindRow>> {
        let json = json!({
            "metadata": {"name": "widgets.example.com"},
            "spec": {"group": "example.com", "scope": "Namespaced",
                "names": {"plural": "widgets", "kind": "Widget", "singular": "widget"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {
                    "openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object",
                        "properties": {"size": {"type": "integer"}}}}}}}]},
            "status": {"conditions": [{"type": "Established", "status": "True"}]},
        });
        let found = CustomResourceDefinition::decode(json.to_string().as_bytes()).unwrap();
        definition::rows(&found).served
    }

    #[test]
    fn rules_name_kinds() {
        let custom = widgets();
        let all: Vec<String> = KINDS.iter().map(|row| row.plural.to_string()).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let cases = [
            (
                json!([rule(
                    &["apps"],
                    &["v1"],
                    &["deployments", "pods", "deployments/scale", "*"]
                )]),
                "Deployment",
            ),
            (json!([rule(&["*"], &["v1"], &["pods"])]), ""),
            (json!([rule(&[""], &["*"], &["pods"])]), ""),
            (
                json!([rule(&["", "apps"], &["v1", "v2"], &["pods", "deployments"])]),
                "Deployment Pod",
            ),
            // Without a group it is of any.
            (json!([rule(&[""], &["v1"], &["events"])]), "Event Event"),
            (json!([rule(&["example.com"], &["v1"], &["widgets"])]), "Widget"),
            (json!([rule(&["none.example.com"], &["v1"], &["widgets"])]), ""),
        ];
        for (rules, expected) in cases {
            let spec = policy(rules.clone(), "true").spec.unwrap();
            let mut kinds: Vec<&str> =
                kinds_of(&spec, &custom).iter().map(|row| &*row.kind).collect();
            kinds.sort_unstable();
            assert_eq!(kinds.join(" "), expected, "{rules}");
        }
        let spec = policy(json!([rule(&[""], &["v1"], &all)]), "true").spec.unwrap();
        assert_eq!(kinds_of(&spec, &custom).len(), KINDS_MAX);
    }

    #[test]
    fn statuses_say_what_has_been_checked() {
        let rules = json!([rule(&["example.com"], &["v1"], &["widgets"])]);
        let mut checked = policy(rules.clone(), "object.spec.size > 1");
        assert!(is_unchecked(&checked));
        checked.status = Some(plan(&checked, &widgets()));
        assert!(!is_unchecked(&checked));
        let status: Value = serde_json::from_slice(&checked.encode()).unwrap();
        assert_eq!(status["status"], json!({"observedGeneration": 2, "typeChecking": {}}));
        let status = plan(&policy(rules, "object.spec.sise > 1"), &widgets());
        let warnings = status.type_checking.unwrap().expression_warnings.unwrap();
        let fields: Vec<&str> = warnings.iter().map(|one| one.field_ref.as_str()).collect();
        assert_eq!(
            fields,
            ["spec.validations[0].expression", "spec.validations[0].messageExpression"]
        );
        assert!(
            warnings[0].warning.starts_with(
                "example.com/v1, Kind=Widget: ERROR: <input>:1:12: undefined field 'sise'"
            ),
            "{}",
            warnings[0].warning
        );
    }
}
