//! Roles, ClusterRoles and their bindings.

use api::{Kind, names};
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, Role, RoleBinding, RoleRef, Subject,
};
use serde_json::Value;

use super::at::At;
use super::columns::{text, wide};
use super::fill;
use super::table::{Check, Fixed, Row, Rows, age, created_at, is_empty, items, name, text_at};

const GROUP: &str = "rbac.authorization.k8s.io";

pub static ROLES: Rows<Role> = Rows {
    checks: &[("rules", Check::Each(&[("", Check::Relation(rule_of_role))]))],
    ..Rows::ROLE
};

pub static CLUSTER_ROLES: Rows<ClusterRole> = Rows {
    checks: &[
        ("rules", Check::Each(&[("", Check::Relation(rule))])),
        (
            "aggregationRule",
            Check::Inside(&[
                (
                    "clusterRoleSelectors",
                    Check::Required(
                        "at least one clusterRoleSelector required if aggregationRule is non-nil",
                    ),
                ),
                ("clusterRoleSelectors", Check::Each(&[("", Check::LabelSelector)])),
            ]),
        ),
    ],
    ..Rows::ROLE
};

pub static ROLE_BINDINGS: Rows<RoleBinding> = Rows {
    default: |binding| default_binding(&mut binding.role_ref, &mut binding.subjects),
    checks: &[
        ("roleRef.apiGroup", Check::SetOneOf(&[GROUP])),
        ("roleRef.kind", Check::SetOneOf(&["Role", "ClusterRole"])),
        ("roleRef.name", Check::RequiredText(names::path_segment)),
        ("subjects", Check::Each(SUBJECT)),
    ],
    ..Rows::BINDING
};

pub static CLUSTER_ROLE_BINDINGS: Rows<ClusterRoleBinding> = Rows {
    default: |binding| default_binding(&mut binding.role_ref, &mut binding.subjects),
    checks: &[
        ("roleRef.apiGroup", Check::SetOneOf(&[GROUP])),
        ("roleRef.kind", Check::SetOneOf(&["ClusterRole"])),
        ("roleRef.name", Check::RequiredText(names::path_segment)),
        (
            "subjects",
            Check::Each(&[
                ("", Check::Inside(SUBJECT)),
                ("", Check::Relation(account_has_namespace)),
            ]),
        ),
    ],
    ..Rows::BINDING
};

impl<K: Kind> Rows<K> {
    const ROLE: Self = Self {
        name: names::path_segment,
        create_on_update: true,
        columns: &[name(), created_at()],
        ..Self::NEW
    };
    const BINDING: Self = Self {
        name: names::path_segment,
        fixed: &[("roleRef", Fixed::Invalid("cannot change roleRef"))],
        create_on_update: true,
        columns: &[
            name(),
            text("Role", "The role that is granted.").json(|binding| {
                let role = &binding["roleRef"];
                format!("{}/{}", text_at(role, "kind"), text_at(role, "name")).into()
            }),
            age(),
            wide("Users", "Users it is granted to.").json(|binding| subjects(binding, "User")),
            wide("Groups", "Groups it is granted to.").json(|binding| subjects(binding, "Group")),
            wide("ServiceAccounts", "Service accounts it is granted to.")
                .json(|binding| subjects(binding, "ServiceAccount")),
        ],
        ..Self::NEW
    };
}

const SUBJECT: &[Row] = &[("name", Check::Required("")), ("", Check::Relation(subject))];

fn default_binding(role: &mut RoleRef, subjects: &mut Option<Vec<Subject>>) {
    fill::text(&mut role.api_group, GROUP);
    for subject in subjects.iter_mut().flatten() {
        if matches!(subject.kind.as_str(), "User" | "Group") {
            fill::text(&mut subject.api_group, GROUP);
        }
    }
}

/// The subjects of a kind, separated by commas.
fn subjects(binding: &Value, kind: &str) -> Value {
    let of_kind = items(&binding["subjects"]).iter().filter(|subject| subject["kind"] == kind);
    let names = of_kind.map(|subject| match subject["namespace"].as_str() {
        Some(namespace) if kind == "ServiceAccount" => {
            format!("{namespace}/{}", text_at(subject, "name"))
        }
        _ => text_at(subject, "name").to_owned(),
    });
    names.collect::<Vec<_>>().join(", ").into()
}

fn rule(rule: &Value, at: &At<'_>) {
    judge_rule(rule, false, at);
}

fn rule_of_role(rule: &Value, at: &At<'_>) {
    judge_rule(rule, true, at);
}

fn judge_rule(rule: &Value, namespaced: bool, at: &At<'_>) {
    let empty = |field: &str| is_empty(&rule[field]);
    if empty("verbs") {
        at.child("verbs").required("verbs must contain at least one value");
    }
    let urls = "nonResourceURLs";
    if !empty(urls) {
        if namespaced {
            let problem = "namespaced rules cannot apply to non-resource URLs";
            at.child(urls).invalid(&rule[urls], problem);
        }
        if !empty("apiGroups") || !empty("resources") || !empty("resourceNames") {
            let problem = "rules cannot apply to both regular resources and non-resource URLs";
            at.child(urls).invalid(&rule[urls], problem);
        }
        return;
    }
    if empty("apiGroups") {
        at.child("apiGroups").required("resource rules must supply at least one api group");
    }
    if empty("resources") {
        at.child("resources").required("resource rules must supply at least one resource");
    }
}

fn subject(subject: &Value, at: &At<'_>) {
    let (name, group) = (text_at(subject, "name"), text_at(subject, "apiGroup"));
    match text_at(subject, "kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                at.child("name").dns_subdomain(name);
            }
            if !group.is_empty() {
                at.child("apiGroup").not_supported(group, &[""]);
            }
        }
        "User" | "Group" if group != GROUP => at.child("apiGroup").not_supported(group, &[GROUP]),
        "User" | "Group" => {}
        other => at.child("kind").not_supported(other, &["ServiceAccount", "User", "Group"]),
    }
}

fn account_has_namespace(subject: &Value, at: &At<'_>) {
    if subject["kind"] == "ServiceAccount" && text_at(subject, "namespace").is_empty() {
        at.child("namespace").required("");
    }
}
