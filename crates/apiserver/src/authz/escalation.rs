//! Privilege escalation: nobody may grant rights they do not have
//! (`k8s.io/kubernetes/pkg/registry/rbac/validation`).

use std::collections::BTreeMap;

use api::object::Object;
use api::{ApiError, Kind};
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef,
};

use super::Attributes;
use super::rbac::rule_allows;
use crate::core::Call;

/// Checks a write of a role or binding: the writer must hold every right in it, or have the verb
/// `escalate` on the role or `bind` on the role referred to. That includes writes that leave the
/// rights as they are, as labels decide which roles an aggregated one gathers.
///
/// # Errors
/// 403 that lists the rights in excess.
pub async fn check(
    call: Call<'_>,
    object: &dyn Object,
    old: Option<&dyn Object>,
) -> Result<(), ApiError> {
    if call.user.in_group(crate::user::MASTERS)
        || old.is_some_and(|old| differ_for_the_collector_only(object, old))
    {
        return Ok(());
    }
    let name = object.metadata().name.as_deref().unwrap_or_default();
    let namespace = object.metadata().namespace.as_deref().unwrap_or_default();
    if let Some(role) = object.downcast_ref::<ClusterRole>() {
        if may_escalate(call, "").await {
            return Ok(());
        }
        covered(call, name, "", role.rules.as_deref().unwrap_or_default())?;
        let old = old.and_then(|old| old.downcast_ref::<ClusterRole>());
        let mut both = [Some(role), old].into_iter().flatten();
        return if both.any(|role| role.aggregation_rule.is_some()) {
            may_aggregate(call, name)
        } else {
            Ok(())
        };
    }
    if let Some(role) = object.downcast_ref::<Role>() {
        if may_escalate(call, namespace).await {
            return Ok(());
        }
        return covered(call, name, namespace, role.rules.as_deref().unwrap_or_default());
    }
    let binding = object.downcast_ref::<ClusterRoleBinding>().map(|binding| &binding.role_ref);
    let reference =
        binding.or_else(|| object.downcast_ref::<RoleBinding>().map(|binding| &binding.role_ref));
    match reference {
        Some(reference) => binding_write(call, name, namespace, reference).await,
        None => Ok(()),
    }
}

/// Whether only what the garbage collector changes differs (`IsOnlyMutatingGCFields`).
fn differ_for_the_collector_only(object: &dyn Object, old: &dyn Object) -> bool {
    let (mut copy, was) = (object.clone_object(), old.metadata());
    let metadata = copy.metadata_mut();
    metadata.owner_references.clone_from(&was.owner_references);
    metadata.finalizers.clone_from(&was.finalizers);
    metadata.managed_fields.clone_from(&was.managed_fields);
    metadata.resource_version.clone_from(&was.resource_version);
    copy.equals(old)
}

/// Whether the user has `escalate` on the role of the request, which has no name on creations.
async fn may_escalate(call: Call<'_>, namespace: &str) -> bool {
    permitted(call, "escalate", &call.row().plural, namespace, &call.target.name).await
}

async fn permitted(
    call: Call<'_>,
    verb: &str,
    resource: &str,
    namespace: &str,
    name: &str,
) -> bool {
    let attributes = Attributes::Resource {
        verb: verb.to_owned(),
        group: "rbac.authorization.k8s.io".to_owned(),
        resource: resource.to_owned(),
        subresource: String::new(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    call.core.authorizers.allows(call.core, call.user, &attributes).await
}

/// An aggregated role can gain any right later on.
fn may_aggregate(call: Call<'_>, name: &str) -> Result<(), ApiError> {
    let all = || Some(vec!["*".to_owned()]);
    let everything = [
        PolicyRule {
            api_groups: all(),
            resources: all(),
            verbs: vec!["*".to_owned()],
            ..PolicyRule::default()
        },
        PolicyRule {
            non_resource_urls: all(),
            verbs: vec!["*".to_owned()],
            ..PolicyRule::default()
        },
    ];
    let problem = "must have cluster-admin privileges to use the aggregationRule";
    covered(call, name, "", &everything).map_err(|_| ApiError::forbidden(call.row(), name, problem))
}

async fn binding_write(
    call: Call<'_>,
    name: &str,
    namespace: &str,
    reference: &RoleRef,
) -> Result<(), ApiError> {
    let (row, key, resource) = if reference.kind == "ClusterRole" {
        (ClusterRole::ROW, reference.name.clone(), "clusterroles")
    } else {
        (Role::ROW, format!("{namespace}/{}", reference.name), "roles")
    };
    if permitted(call, "bind", resource, namespace, &reference.name).await {
        return Ok(());
    }
    let Some(version) = call.core.find(row, &key).await? else {
        return Err(ApiError::not_found(row, &reference.name));
    };
    let object = crate::core::decode(row, &version)?;
    let rules = object
        .downcast_ref::<ClusterRole>()
        .map(|role| role.rules.clone())
        .or_else(|| object.downcast_ref::<Role>().map(|role| role.rules.clone()))
        .flatten();
    covered(call, name, namespace, rules.as_deref().unwrap_or_default())
}

/// Whether the user's own rules in `namespace` cover all of `rules`.
fn covered(
    call: Call<'_>,
    name: &str,
    namespace: &str,
    rules: &[PolicyRule],
) -> Result<(), ApiError> {
    let own = call.core.rbac.rules_of(&call.core.cache, call.user, namespace);
    let missing = rules
        .iter()
        .flat_map(single_rights)
        .filter(|right| !own.iter().any(|rule| right.is_covered_by(rule)));
    let missing = described(missing);
    if missing.is_empty() {
        return Ok(());
    }
    Err(ApiError::forbidden(
        call.row(),
        name,
        format!(
            "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            call.user.name,
            quoted(&call.user.groups),
            missing.join("\n")
        ),
    ))
}

/// Rights as rules, merged where they differ only in their verbs, formatted as Kubernetes does
/// (`CompactRules`, `CompactString`).
fn described(rights: impl Iterator<Item = Right>) -> Vec<String> {
    let mut verbs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for Right { attributes, every_name } in rights {
        let (of, verb) = match attributes {
            Attributes::Path { verb, path } => (format!("NonResourceURLs:[{path:?}]"), verb),
            Attributes::Resource { verb, group, resource, subresource, name, .. } => {
                let resource = if subresource.is_empty() {
                    resource
                } else {
                    format!("{resource}/{subresource}")
                };
                let mut of = format!("APIGroups:[{group:?}], Resources:[{resource:?}]");
                if !every_name {
                    of.push_str(&format!(", ResourceNames:[{name:?}]"));
                }
                (of, verb)
            }
        };
        let verbs = verbs.entry(of).or_default();
        if !verbs.contains(&verb) {
            verbs.push(verb);
        }
    }
    verbs.into_iter().map(|(of, verbs)| format!("{{{of}, Verbs:{}}}", quoted(&verbs))).collect()
}

/// A list formatted as by Go's `%q`.
fn quoted(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|item| format!("{item:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

/// The rules among `wanted` that `own` do not cover.
pub fn not_covered(own: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let allowed = |right: &Right| own.iter().any(|rule| right.is_covered_by(rule));
    wanted.iter().filter(|rule| !single_rights(rule).iter().all(allowed)).cloned().collect()
}

/// What a rule grants: one verb on one resource or path.
struct Right {
    attributes: Attributes,
    /// For objects of any name, which the empty name does not stand for: rules can name that.
    every_name: bool,
}

impl Right {
    fn is_covered_by(&self, rule: &PolicyRule) -> bool {
        let restricted = rule.resource_names.as_ref().is_some_and(|names| !names.is_empty());
        !(self.every_name && restricted) && rule_allows(rule, &self.attributes)
    }
}

/// Breaks a rule down into single rights; `*` stands for itself, so that only a `*` covers it.
fn single_rights(rule: &PolicyRule) -> Vec<Right> {
    let names = rule.resource_names.clone().unwrap_or_default();
    let every_name = names.is_empty();
    let names = if every_name { vec![String::new()] } else { names };
    let mut rights = Vec::new();
    for verb in &rule.verbs {
        for path in rule.non_resource_urls.iter().flatten() {
            let attributes = Attributes::Path { verb: verb.clone(), path: path.clone() };
            rights.push(Right { attributes, every_name: true });
        }
        for group in rule.api_groups.iter().flatten() {
            for item in rule.resources.iter().flatten() {
                let (resource, subresource) = item.split_once('/').unwrap_or((item, ""));
                rights.extend(names.iter().map(|name| Right {
                    attributes: Attributes::Resource {
                        verb: verb.clone(),
                        group: group.clone(),
                        resource: resource.to_owned(),
                        subresource: subresource.to_owned(),
                        namespace: String::new(),
                        name: name.clone(),
                    },
                    every_name,
                }));
            }
        }
    }
    rights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_covered_by_the_same_names_or_by_none() {
        let rule = |names: &[&str]| PolicyRule {
            api_groups: Some(vec![String::new()]),
            resources: Some(vec!["secrets".to_owned()]),
            resource_names: Some(names.iter().map(|name| (*name).to_owned()).collect()),
            verbs: vec!["get".to_owned()],
            ..PolicyRule::default()
        };
        let unnamed = PolicyRule { resource_names: None, ..rule(&[]) };
        let table: &[(&[&str], &[&str], bool)] = &[
            (&[], &[], true),
            (&[], &["a", "b"], true),
            (&[], &[""], true),
            (&[""], &[], false),
            (&["", "a"], &[], false),
            (&[""], &[""], true),
            (&["a"], &[], false),
            (&["a"], &[""], false),
            (&["a"], &["a"], true),
            (&["a"], &["a", "b"], false),
            (&["a", "b"], &["b"], true),
        ];
        for (own, wanted, covered) in table {
            let missing = not_covered(&[rule(own)], &[rule(wanted)]);
            assert_eq!(missing.is_empty(), *covered, "{own:?} covers {wanted:?}");
        }
        assert_eq!(not_covered(&[rule(&[""])], std::slice::from_ref(&unnamed)), [unnamed]);
    }

    #[test]
    fn what_is_missing_is_told_with_its_names() {
        let rule = PolicyRule {
            api_groups: Some(vec![String::new()]),
            resources: Some(vec!["pods/log".to_owned()]),
            resource_names: Some(vec![String::new()]),
            verbs: vec!["get".to_owned(), "list".to_owned()],
            ..PolicyRule::default()
        };
        let text = described(single_rights(&rule).into_iter());
        let expected =
            r#"{APIGroups:[""], Resources:["pods/log"], ResourceNames:[""], Verbs:["get" "list"]}"#;
        assert_eq!(text, [expected]);
    }
}
