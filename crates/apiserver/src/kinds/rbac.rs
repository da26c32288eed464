//! Roles, ClusterRoles and their bindings.

use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, Role, RoleBinding, RoleRef, Subject,
};

use super::{Strategy, fill};

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

impl Strategy for Roles {
    type Object = Role;

    fn validate_name(&self, name: &str) -> Vec<String> {
        api::names::path_segment(name)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}

impl Strategy for ClusterRoles {
    type Object = ClusterRole;

    fn validate_name(&self, name: &str) -> Vec<String> {
        api::names::path_segment(name)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}

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
}

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
}
