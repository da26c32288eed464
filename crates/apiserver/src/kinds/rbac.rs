//! Roles, ClusterRoles and their bindings.

use super::columns;
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, Role, RoleBinding, RoleRef, Subject,
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

    fn columns(&self) -> &'static [Column] {
        ROLES_COLUMNS
    }

    fn cells(&self, role: &Role, _: Timestamp) -> Vec<Value> {
        vec![
            columns::name(&role.metadata),
            columns::created_at(&role.metadata),
        ]
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

    fn columns(&self) -> &'static [Column] {
        CLUSTERROLES_COLUMNS
    }

    fn cells(&self, role: &ClusterRole, _: Timestamp) -> Vec<Value> {
        vec![
            columns::name(&role.metadata),
            columns::created_at(&role.metadata),
        ]
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

/// Users, groups and service accounts with commas: three cells.
fn subjects_by_kind(subjects: Option<&Vec<Subject>>) -> [Value; 3] {
    ["User", "Group", "ServiceAccount"].map(|kind| {
        let of_kind = subjects
            .into_iter()
            .flatten()
            .filter(|subject| subject.kind == kind);
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
