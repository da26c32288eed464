//! Roles, ClusterRoles and their bindings.

use super::check::{self, Errors};
use super::columns;
use super::path::Path;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use serde_json::Value;

use super::{Column, Strategy, fill};

const GROUP: &str = "rbac.authorization.k8s.io";

/// The strategy of Roles.
pub struct Roles;
/// The strategy of ClusterRoles.
pub struct ClusterRoles;
/// The strategy of RoleBindings.
pub struct RoleBindings;
/// The strategy of ClusterRoleBindings.
pub struct ClusterRoleBindings;

fn default_role_ref(role: &mut RoleRef) {
    fill::text(&mut role.api_group, GROUP);
}

fn default_subjects(subjects: &mut Option<Vec<Subject>>) {
    for subject in subjects.iter_mut().flatten() {
        match subject.kind.as_str() {
            "User" | "Group" => fill::text(&mut subject.api_group, GROUP),
            _ => {}
        }
    }
}

static ROLES_COLUMNS: &[Column] = &[columns::NAME, columns::CREATED_AT];

impl Strategy for Roles {
    type Object = Role;

    fn validate_name(&self, name: &str) -> Vec<String> {
        api::names::path_segment(name)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, role: &Role) -> Vec<FieldError> {
        validate_rules(role.rules.as_deref().unwrap_or_default(), true)
    }

    fn columns(&self) -> &'static [Column] {
        ROLES_COLUMNS
    }

    fn cells(&self, role: &Role, _: Timestamp) -> Vec<Value> {
        vec![columns::name(&role.metadata), columns::created_at(&role.metadata)]
    }
}

static CLUSTERROLES_COLUMNS: &[Column] = &[columns::NAME, columns::CREATED_AT];

impl Strategy for ClusterRoles {
    type Object = ClusterRole;

    fn validate_name(&self, name: &str) -> Vec<String> {
        api::names::path_segment(name)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, role: &ClusterRole) -> Vec<FieldError> {
        let mut errors = validate_rules(role.rules.as_deref().unwrap_or_default(), false);
        if let Some(rule) = &role.aggregation_rule {
            let path = Path::new("aggregationRule").child("clusterRoleSelectors");
            let selectors = rule.cluster_role_selectors.as_deref().unwrap_or_default();
            if selectors.is_empty() {
                let problem =
                    "at least one clusterRoleSelector required if aggregationRule is non-nil";
                errors.push(FieldError::required(&path, problem));
            }
            for (index, selector) in selectors.iter().enumerate() {
                check::label_selector(Some(selector), &path.index(index), &mut errors);
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        CLUSTERROLES_COLUMNS
    }

    fn cells(&self, role: &ClusterRole, _: Timestamp) -> Vec<Value> {
        vec![columns::name(&role.metadata), columns::created_at(&role.metadata)]
    }
}

static ROLEBINDINGS_COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Role", "The role that is granted."),
    columns::AGE,
    columns::wide("Users", "Users it is granted to."),
    columns::wide("Groups", "Groups it is granted to."),
    columns::wide("ServiceAccounts", "Service accounts it is granted to."),
];

impl Strategy for RoleBindings {
    type Object = RoleBinding;

    fn default(&self, binding: &mut RoleBinding) {
        default_role_ref(&mut binding.role_ref);
        default_subjects(&mut binding.subjects);
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        api::names::path_segment(name)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, binding: &RoleBinding) -> Vec<FieldError> {
        validate_binding(
            &binding.role_ref,
            &["Role", "ClusterRole"],
            binding.subjects.as_ref(),
            true,
        )
    }

    fn validate_update(&self, new: &RoleBinding, old: &RoleBinding) -> Vec<FieldError> {
        validate_role_ref(&new.role_ref, &old.role_ref)
    }

    fn columns(&self) -> &'static [Column] {
        ROLEBINDINGS_COLUMNS
    }

    fn cells(&self, binding: &RoleBinding, now: Timestamp) -> Vec<Value> {
        let [users, groups, accounts] = subjects_by_kind(binding.subjects.as_ref());
        vec![
            columns::name(&binding.metadata),
            format!("{}/{}", binding.role_ref.kind, binding.role_ref.name).into(),
            columns::age(&binding.metadata, now),
            users,
            groups,
            accounts,
        ]
    }
}

static CLUSTERROLEBINDINGS_COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Role", "The role that is granted."),
    columns::AGE,
    columns::wide("Users", "Users it is granted to."),
    columns::wide("Groups", "Groups it is granted to."),
    columns::wide("ServiceAccounts", "Service accounts it is granted to."),
];

impl Strategy for ClusterRoleBindings {
    type Object = ClusterRoleBinding;

    fn default(&self, binding: &mut ClusterRoleBinding) {
        default_role_ref(&mut binding.role_ref);
        default_subjects(&mut binding.subjects);
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        api::names::path_segment(name)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, binding: &ClusterRoleBinding) -> Vec<FieldError> {
        validate_binding(&binding.role_ref, &["ClusterRole"], binding.subjects.as_ref(), false)
    }

    fn validate_update(
        &self,
        new: &ClusterRoleBinding,
        old: &ClusterRoleBinding,
    ) -> Vec<FieldError> {
        validate_role_ref(&new.role_ref, &old.role_ref)
    }

    fn columns(&self) -> &'static [Column] {
        CLUSTERROLEBINDINGS_COLUMNS
    }

    fn cells(&self, binding: &ClusterRoleBinding, now: Timestamp) -> Vec<Value> {
        let [users, groups, accounts] = subjects_by_kind(binding.subjects.as_ref());
        vec![
            columns::name(&binding.metadata),
            format!("{}/{}", binding.role_ref.kind, binding.role_ref.name).into(),
            columns::age(&binding.metadata, now),
            users,
            groups,
            accounts,
        ]
    }
}

/// Users, groups and service accounts separated by commas: three cells.
fn subjects_by_kind(subjects: Option<&Vec<Subject>>) -> [Value; 3] {
    ["User", "Group", "ServiceAccount"].map(|kind| {
        let of_kind = subjects.into_iter().flatten().filter(|subject| subject.kind == kind);
        let names: Vec<String> = of_kind
            .map(|subject| match subject.namespace.as_deref() {
                Some(namespace) if kind == "ServiceAccount" => {
                    format!("{namespace}/{}", subject.name)
                }
                _ => subject.name.clone(),
            })
            .collect();
        names.join(", ").into()
    })
}

fn validate_rules(rules: &[PolicyRule], namespaced: bool) -> Errors {
    let mut errors = Errors::new();
    for (index, rule) in rules.iter().enumerate() {
        let path = Path::new("rules").index(index);
        let has = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
        if rule.verbs.is_empty() {
            errors.push(FieldError::required(
                path.child("verbs"),
                "verbs must contain at least one value",
            ));
        }
        if has(&rule.non_resource_urls) {
            let own = path.child("nonResourceURLs");
            if namespaced {
                let problem = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(&own, &rule.non_resource_urls, problem));
            }
            if has(&rule.api_groups) || has(&rule.resources) || has(&rule.resource_names) {
                let problem = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(FieldError::invalid(&own, &rule.non_resource_urls, problem));
            }
            continue;
        }
        if !has(&rule.api_groups) {
            let problem = "resource rules must supply at least one api group";
            errors.push(FieldError::required(path.child("apiGroups"), problem));
        }
        if !has(&rule.resources) {
            let problem = "resource rules must supply at least one resource";
            errors.push(FieldError::required(path.child("resources"), problem));
        }
    }
    errors
}

fn validate_binding(
    role: &RoleRef,
    kinds: &[&str],
    subjects: Option<&Vec<Subject>>,
    namespaced: bool,
) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("roleRef");
    let group = check::text(&role.api_group);
    if group != GROUP {
        errors.push(FieldError::not_supported(path.child("apiGroup"), group, &[GROUP]));
    }
    if !kinds.contains(&role.kind.as_str()) {
        errors.push(FieldError::not_supported(path.child("kind"), &role.kind, kinds));
    }
    if role.name.is_empty() {
        errors.push(FieldError::required(path.child("name"), ""));
    } else {
        check::invalid(
            api::names::path_segment(&role.name),
            &role.name,
            &path.child("name"),
            &mut errors,
        );
    }
    for (index, subject) in subjects.into_iter().flatten().enumerate() {
        validate_subject(subject, namespaced, &Path::new("subjects").index(index), &mut errors);
    }
    errors
}

fn validate_subject(subject: &Subject, namespaced: bool, path: &Path, errors: &mut Errors) {
    check::required(&subject.name, &path.child("name"), errors);
    let group = check::text(&subject.api_group);
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !subject.name.is_empty() {
                check::dns_subdomain(&subject.name, &path.child("name"), errors);
            }
            if !group.is_empty() {
                errors.push(FieldError::not_supported(path.child("apiGroup"), group, &[""]));
            }
            if !namespaced && check::text(&subject.namespace).is_empty() {
                errors.push(FieldError::required(path.child("namespace"), ""));
            }
        }
        "User" | "Group" if group != GROUP => {
            errors.push(FieldError::not_supported(path.child("apiGroup"), group, &[GROUP]));
        }
        "User" | "Group" => {}
        other => {
            let kinds = &["ServiceAccount", "User", "Group"];
            errors.push(FieldError::not_supported(path.child("kind"), other, kinds));
        }
    }
}

fn validate_role_ref(new: &RoleRef, old: &RoleRef) -> Errors {
    if new == old {
        return Errors::new();
    }
    let value = serde_json::json!({"apiGroup": new.api_group, "kind": new.kind, "name": new.name});
    vec![FieldError::invalid("roleRef", value, "cannot change roleRef")]
}
