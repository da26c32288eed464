//! Nobody may grant rights they do not have (`k8s.io/kubernetes/pkg/registry/rbac/validation`).

use api::object::Object;
use api::{ApiError, Kind};
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef,
};

use super::Attributes;
use super::rbac::rule_allows;
use crate::core::Call;

/// Checks a write of a role or binding: the writer must hold every right in it, or have the verb
/// `escalate` on the role or `bind` on the role referred to.
///
/// # Errors
/// 403 that names the rights in excess.
pub async fn check(
    call: Call<'_>,
    object: &dyn Object,
    old: Option<&dyn Object>,
) -> Result<(), ApiError> {
    if call.user.in_group(crate::user::MASTERS) {
        return Ok(());
    }
    if let Some(role) = object.downcast_ref::<ClusterRole>() {
        let old = old.and_then(|old| old.downcast_ref::<ClusterRole>());
        return role_write(
            call,
            "",
            role.rules.as_deref(),
            old.map(|old| &old.rules) == Some(&role.rules),
        );
    }
    if let Some(role) = object.downcast_ref::<Role>() {
        let namespace = role.metadata.namespace.as_deref().unwrap_or_default();
        let old = old.and_then(|old| old.downcast_ref::<Role>());
        return role_write(
            call,
            namespace,
            role.rules.as_deref(),
            old.map(|old| &old.rules) == Some(&role.rules),
        );
    }
    if let Some(binding) = object.downcast_ref::<ClusterRoleBinding>() {
        let old = old.and_then(|old| old.downcast_ref::<ClusterRoleBinding>());
        if old.is_some_and(|old| old.subjects == binding.subjects) {
            return Ok(());
        }
        return binding_write(call, "", &binding.role_ref).await;
    }
    if let Some(binding) = object.downcast_ref::<RoleBinding>() {
        let namespace = binding.metadata.namespace.as_deref().unwrap_or_default();
        let old = old.and_then(|old| old.downcast_ref::<RoleBinding>());
        if old.is_some_and(|old| old.subjects == binding.subjects) {
            return Ok(());
        }
        return binding_write(call, namespace, &binding.role_ref).await;
    }
    Ok(())
}

fn permitted(call: Call<'_>, verb: &str, resource: &str, namespace: &str, name: &str) -> bool {
    let attributes = Attributes::Resource {
        verb: verb.to_owned(),
        group: "rbac.authorization.k8s.io".to_owned(),
        resource: resource.to_owned(),
        subresource: String::new(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    call.core
        .rbac
        .allows(&call.core.cache, call.user, &attributes)
}

fn role_write(
    call: Call<'_>,
    namespace: &str,
    rules: Option<&[PolicyRule]>,
    unchanged: bool,
) -> Result<(), ApiError> {
    if unchanged
        || permitted(
            call,
            "escalate",
            call.row().plural,
            namespace,
            &call.target.name,
        )
    {
        return Ok(());
    }
    covered(call, namespace, rules.unwrap_or_default())
}

async fn binding_write(
    call: Call<'_>,
    namespace: &str,
    reference: &RoleRef,
) -> Result<(), ApiError> {
    let (row, key, resource) = if reference.kind == "ClusterRole" {
        (ClusterRole::ROW, reference.name.clone(), "clusterroles")
    } else {
        (
            Role::ROW,
            format!("{namespace}/{}", reference.name),
            "roles",
        )
    };
    if permitted(call, "bind", resource, namespace, &reference.name) {
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
    covered(call, namespace, rules.as_deref().unwrap_or_default())
}

/// Whether the user's own rules in `namespace` allow all that `rules` allow.
fn covered(call: Call<'_>, namespace: &str, rules: &[PolicyRule]) -> Result<(), ApiError> {
    let own = call
        .core
        .rbac
        .rules_of(&call.core.cache, call.user, namespace);
    let missing: Vec<String> = rules
        .iter()
        .flat_map(single_rights)
        .filter(|right| !own.iter().any(|rule| rule_allows(rule, right)))
        .map(|right| right.to_string())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(ApiError::forbidden(
        call.row(),
        &call.target.name,
        format!(
            "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
            call.user.name,
            call.user.groups,
            missing.join("\n")
        ),
    ))
}

/// The rules among `wanted` that `own` do not allow wholly.
pub fn not_covered(own: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let allowed = |right: &Attributes| own.iter().any(|rule| rule_allows(rule, right));
    wanted
        .iter()
        .filter(|rule| !single_rights(rule).iter().all(allowed))
        .cloned()
        .collect()
}

/// A rule as single rights; `*` stands for itself, so that only a `*` covers it.
fn single_rights(rule: &PolicyRule) -> Vec<Attributes> {
    let mut rights = Vec::new();
    for verb in &rule.verbs {
        for path in rule.non_resource_urls.iter().flatten() {
            rights.push(Attributes::Path {
                verb: verb.clone(),
                path: path.clone(),
            });
        }
        for group in rule.api_groups.iter().flatten() {
            for item in rule.resources.iter().flatten() {
                let (resource, subresource) = item.split_once('/').unwrap_or((item, ""));
                let names = rule.resource_names.clone().unwrap_or_default();
                let names = if names.is_empty() {
                    vec![String::new()]
                } else {
                    names
                };
                rights.extend(names.into_iter().map(|name| Attributes::Resource {
                    verb: verb.clone(),
                    group: group.clone(),
                    resource: resource.to_owned(),
                    subresource: subresource.to_owned(),
                    namespace: String::new(),
                    name,
                }));
            }
        }
    }
    rights
}
