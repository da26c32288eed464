//! RBAC: roles and bindings from the cache, compiled by subject, and recompiled when one of them
//! changes.

use std::collections::HashMap;
use std::sync::Arc;

use api::{Kind, KindRow};
use arc_swap::ArcSwapOption;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};

use super::Attributes;
use crate::cache::{Cache, Filter, ResourceCache};
use crate::user::User;

/// Where rules apply.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Cluster,
    Namespace(String),
}

enum SubjectKey {
    User(String),
    Group(String),
}

type Rules = Arc<Vec<PolicyRule>>;

/// Rules, and the binding that grants them, in Kubernetes' words.
struct Grant {
    rules: Rules,
    by: String,
}

/// What is granted in one scope.
#[derive(Default)]
struct Grants {
    users: HashMap<String, Vec<Grant>>,
    groups: HashMap<String, Vec<Grant>>,
}

/// By scope and subject, so that a request is looked up by what it has, without copies of it.
struct Compiled {
    /// What it is made of, and the last changes of each.
    resources: [Arc<ResourceCache>; 4],
    changed: [u64; 4],
    cluster: Grants,
    namespaces: HashMap<String, Grants>,
}

/// The authorizer.
#[derive(Default)]
pub struct Rbac {
    compiled: ArcSwapOption<Compiled>,
}

fn rows() -> [&'static KindRow; 4] {
    [Role::ROW, RoleBinding::ROW, ClusterRole::ROW, ClusterRoleBinding::ROW]
}

impl Rbac {
    /// Why `user` may do what `attributes` say: `RBAC: allowed by ...`.
    pub fn reason(&self, cache: &Cache, user: &User, attributes: &Attributes) -> Option<String> {
        let mut reason = None;
        self.visit(cache, user, attributes.namespace(), |grant| {
            let mut rules = grant.rules.iter();
            let allows = rules.any(|rule| rule_allows(rule, attributes));
            if allows {
                reason = Some(format!("RBAC: allowed by {}", grant.by));
            }
            allows
        });
        reason
    }

    /// All rules that apply to `user` in a namespace (empty: the whole cluster).
    pub fn rules_of(&self, cache: &Cache, user: &User, namespace: &str) -> Vec<PolicyRule> {
        let mut all = Vec::new();
        self.visit(cache, user, namespace, |grant| {
            all.extend(grant.rules.iter().cloned());
            false
        });
        all
    }

    /// Visits every grant of the user until `found` returns true.
    fn visit(
        &self,
        cache: &Cache,
        user: &User,
        namespace: &str,
        mut found: impl FnMut(&Grant) -> bool,
    ) -> bool {
        let compiled = self.compiled(cache);
        let mut visit = |grants: &Grants| {
            if grants.users.get(&user.name).into_iter().flatten().any(&mut found) {
                return true;
            }
            for group in &user.groups {
                if grants.groups.get(group).into_iter().flatten().any(&mut found) {
                    return true;
                }
            }
            false
        };
        visit(&compiled.cluster) || compiled.namespaces.get(namespace).is_some_and(visit)
    }

    fn compiled(&self, cache: &Cache) -> Arc<Compiled> {
        if let Some(compiled) = self.compiled.load_full()
            && compiled.changed == changes(&compiled.resources)
        {
            return compiled;
        }
        let compiled = Arc::new(compile(cache));
        self.compiled.store(Some(compiled.clone()));
        compiled
    }
}

fn changes(resources: &[Arc<ResourceCache>; 4]) -> [u64; 4] {
    resources.each_ref().map(|resource| resource.changed())
}

fn objects<K: Kind>(cache: &Cache) -> Vec<K> {
    let all = cache.resource(K::ROW).list(&Filter::everything(K::ROW, ""));
    all.iter()
        .filter_map(|version| match K::decode(&version.json) {
            Ok(object) => Some(object),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, key = %version.key(), "RBAC object skipped");
                None
            }
        })
        .collect()
}

fn compile(cache: &Cache) -> Compiled {
    let resources = rows().map(|row| cache.resource(row));
    let changed = changes(&resources);
    let mut roles: HashMap<(Scope, String), Rules> = HashMap::new();
    for role in objects::<ClusterRole>(cache) {
        let name = role.metadata.name.unwrap_or_default();
        roles.insert((Scope::Cluster, name), Arc::new(role.rules.unwrap_or_default()));
    }
    for role in objects::<Role>(cache) {
        let namespace = role.metadata.namespace.unwrap_or_default();
        let name = role.metadata.name.unwrap_or_default();
        roles.insert((Scope::Namespace(namespace), name), Arc::new(role.rules.unwrap_or_default()));
    }
    let (mut cluster, mut namespaces) = (Grants::default(), HashMap::<String, Grants>::new());
    let mut bind =
        |scope: Scope, name: &str, reference: &RoleRef, subjects: Option<Vec<Subject>>| {
            let role_scope =
                if reference.kind == "ClusterRole" { Scope::Cluster } else { scope.clone() };
            let Some(role) = roles.get(&(role_scope, reference.name.clone())) else {
                return;
            };
            for subject in subjects.into_iter().flatten() {
                if let Some(subject_key) = subject_key(&subject, &scope) {
                    let by = granted_by(&scope, name, reference, &subject);
                    let rules = role.clone();
                    let grants = match &scope {
                        Scope::Cluster => &mut cluster,
                        Scope::Namespace(name) => namespaces.entry(name.clone()).or_default(),
                    };
                    let (all, name) = match subject_key {
                        SubjectKey::User(name) => (&mut grants.users, name),
                        SubjectKey::Group(name) => (&mut grants.groups, name),
                    };
                    all.entry(name).or_default().push(Grant { rules, by });
                }
            }
        };
    for binding in objects::<ClusterRoleBinding>(cache) {
        let name = binding.metadata.name.unwrap_or_default();
        bind(Scope::Cluster, &name, &binding.role_ref, binding.subjects);
    }
    for binding in objects::<RoleBinding>(cache) {
        let namespace = binding.metadata.namespace.unwrap_or_default();
        let name = binding.metadata.name.unwrap_or_default();
        bind(Scope::Namespace(namespace), &name, &binding.role_ref, binding.subjects);
    }
    Compiled { resources, changed, cluster, namespaces }
}

/// `ClusterRoleBinding "b" of ClusterRole "r" to User "u"`
fn granted_by(scope: &Scope, name: &str, role: &RoleRef, subject: &Subject) -> String {
    let (binding, home) = match scope {
        Scope::Cluster => (format!("ClusterRoleBinding {name:?}"), ""),
        Scope::Namespace(namespace) => {
            (format!("RoleBinding \"{name}/{namespace}\""), namespace.as_str())
        }
    };
    let account = subject.kind == "ServiceAccount";
    let namespace = subject.namespace.as_deref().unwrap_or(home);
    let whom = if account { format!("{}/{namespace}", subject.name) } else { subject.name.clone() };
    format!("{binding} of {} {:?} to {} {whom:?}", role.kind, role.name, subject.kind)
}

fn subject_key(subject: &Subject, scope: &Scope) -> Option<SubjectKey> {
    match subject.kind.as_str() {
        "User" => Some(SubjectKey::User(subject.name.clone())),
        "Group" => Some(SubjectKey::Group(subject.name.clone())),
        "ServiceAccount" => {
            let namespace = match (subject.namespace.as_deref(), scope) {
                (Some(namespace), _) if !namespace.is_empty() => namespace,
                (_, Scope::Namespace(namespace)) => namespace,
                _ => return None,
            };
            Some(SubjectKey::User(format!("system:serviceaccount:{namespace}:{}", subject.name)))
        }
        _ => None,
    }
}

/// Whether one rule allows what `attributes` say.
pub(super) fn rule_allows(rule: &PolicyRule, attributes: &Attributes) -> bool {
    let has = |list: &Option<Vec<String>>, wanted: &str| {
        list.iter().flatten().any(|item| item == "*" || item == wanted)
    };
    let verb_allowed = |verb: &str| rule.verbs.iter().any(|item| item == "*" || item == verb);
    match attributes {
        Attributes::Path { verb, path } => {
            verb_allowed(verb)
                && rule.non_resource_urls.iter().flatten().any(|url| path_matches(url, path))
        }
        Attributes::Resource { verb, group, resource, subresource, name, .. } => {
            let names = rule.resource_names.as_deref().unwrap_or_default();
            verb_allowed(verb)
                && has(&rule.api_groups, group)
                && resource_matches(rule, resource, subresource)
                && (names.is_empty() || names.contains(name))
        }
    }
}

fn path_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

fn resource_matches(rule: &PolicyRule, resource: &str, subresource: &str) -> bool {
    rule.resources.iter().flatten().any(|item| {
        if item == "*" {
            return true;
        }
        if subresource.is_empty() {
            return item == resource;
        }
        match item.split_once('/') {
            Some((left, right)) => (left == "*" || left == resource) && right == subresource,
            None => false,
        }
    })
}
