//! Which requests the rules of a FlowSchema match (upstream's `rule.go`).

use k8s_openapi::api::flowcontrol::v1::{
    FlowSchemaSpec, NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject,
};

use crate::request::{Subject as About, Target};
use crate::user::User;

const ALL: &str = "*";

/// Whether some rule matches.
pub fn matches(spec: &FlowSchemaSpec, user: &User, about: &About) -> bool {
    spec.rules.iter().flatten().any(|rule| rule_matches(rule, user, about))
}

fn rule_matches(rule: &PolicyRulesWithSubjects, user: &User, about: &About) -> bool {
    rule.subjects.iter().any(|subject| is_subject(subject, user))
        && match ResourceInfo::of(about) {
            Some(info) => {
                rule.resource_rules.iter().flatten().any(|rule| resource_matches(rule, &info))
            }
            None => about.path().is_some_and(|(method, path)| {
                let mut rules = rule.non_resource_rules.iter().flatten();
                rules.any(|rule| path_matches(rule, method, path))
            }),
        }
}

/// What a request about a resource is about.
pub struct ResourceInfo<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    /// That of a Namespace is itself.
    pub namespace: &'a str,
    pub name: &'a str,
}

impl<'a> ResourceInfo<'a> {
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// `None`: it is about a path.
    pub fn of(about: &'a About) -> Option<Self> {
        Some(match about {
            About::Resource { verb, target } => Self {
                verb: verb.as_str(),
                group: &target.row.group,
                version: &target.row.version,
                resource: &target.row.plural,
                subresource: &target.subresource,
                namespace: namespace(target),
                name: &target.name,
            },
            About::Path { .. } => return None,
            About::Delegated(delegated) => {
                let resource = delegated.resource.as_ref()?;
                Self {
                    verb: resource.verb,
                    group: &resource.group,
                    version: delegated.version(),
                    resource: &resource.resource,
                    subresource: &resource.subresource,
                    namespace: &resource.namespace,
                    name: &resource.name,
                }
            }
        })
    }
}

fn is_subject(subject: &Subject, user: &User) -> bool {
    let named = |name: &str| name == ALL || user.name == name;
    match subject.kind.as_str() {
        "User" => subject.user.as_ref().is_some_and(|given| named(&given.name)),
        "Group" => subject
            .group
            .as_ref()
            .is_some_and(|group| group.name == ALL || user.in_group(&group.name)),
        "ServiceAccount" => subject.service_account.as_ref().is_some_and(|given| {
            let account = user.name.strip_prefix("system:serviceaccount:");
            account.and_then(|account| account.split_once(':')).is_some_and(|(namespace, name)| {
                namespace == given.namespace && (given.name == ALL || given.name == name)
            })
        }),
        _ => false,
    }
}

/// Whether a list has a value, or is the wildcard alone.
fn has(list: &[String], value: &str) -> bool {
    list.iter().any(|item| item == value) || matches!(list, [only] if only == ALL)
}

fn resource_matches(rule: &ResourcePolicyRule, about: &ResourceInfo<'_>) -> bool {
    let resource = || match about.subresource {
        "" => rule.resources.iter().any(|one| one == about.resource),
        subresource => rule.resources.iter().any(|one| {
            let rest = one.strip_prefix(about.resource);
            rest.and_then(|rest| rest.strip_prefix('/')) == Some(subresource)
        }),
    };
    has(&rule.verbs, about.verb)
        && (matches!(rule.resources.as_slice(), [only] if only == ALL) || resource())
        && has(&rule.api_groups, about.group)
        && match about.namespace {
            "" => rule.cluster_scope.unwrap_or_default(),
            namespace => has(rule.namespaces.as_deref().unwrap_or_default(), namespace),
        }
}

fn namespace(target: &Target) -> &str {
    if target.row.kind == "Namespace" && target.row.group.is_empty() {
        &target.name
    } else {
        &target.namespace
    }
}

fn path_matches(rule: &NonResourcePolicyRule, verb: &str, path: &str) -> bool {
    has(&rule.verbs, verb)
        && rule.non_resource_urls.iter().any(|url| {
            let folder = url.strip_suffix('*').unwrap_or(url);
            let folder = folder.strip_suffix('/').unwrap_or(folder);
            let below = path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
            url == ALL || url == path || below
        })
}

#[cfg(test)]
mod tests {
    use api::Kind;
    use k8s_openapi::api::coordination::v1::Lease;
    use k8s_openapi::api::core::v1::{Node, Pod};

    use super::*;
    use crate::flowcontrol::objects::SCHEMA_OBJECTS;
    use crate::request::Verb;

    /// The name of the first default schema that matches.
    fn schema(name: &str, groups: &[&str], about: &About) -> String {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let user = User::authenticated(name, groups);
        let mut all: Vec<_> = SCHEMA_OBJECTS.iter().map(|default| &default.object).collect();
        all.sort_by_key(|schema| (schema.spec.matching_precedence, schema.metadata.name.clone()));
        let found = all.iter().find(|schema| matches(&schema.spec, &user, about));
        found.unwrap().metadata.name.clone().unwrap()
    }

    fn about(row: &'static api::KindRow, verb: Verb, namespace: &str, sub: &str) -> About {
        let target = Target {
            row: row.into(),
            namespace: namespace.to_owned(),
            name: "x".to_owned(),
            subresource: sub.to_owned(),
            subpath: String::new(),
        };
        About::Resource { verb, target }
    }

    fn path(path: &str) -> About {
        About::Path { path: path.to_owned(), method: "get", accept: String::new() }
    }

    #[test]
    fn defaults_put_everybody_where_upstream_does() {
        let lease = || about(Lease::ROW, Verb::Update, "kube-node-lease", "");
        let (node, pods) = ("system:nodes", || about(Pod::ROW, Verb::List, "", ""));
        let account = |namespace: &str| format!("system:serviceaccount:{namespace}:default");
        for (user, groups, about, expected) in [
            ("admin", &["system:masters"][..], pods(), "exempt"),
            ("bob", &[], path("/healthz"), "probes"),
            ("bob", &[], path("/livez/etcd"), "probes"),
            ("bob", &[], path("/livezy"), "global-default"),
            ("bob", &[], path("/metrics"), "global-default"),
            ("system:node:n", &[node], lease(), "system-node-high"),
            (
                "system:node:n",
                &[node],
                about(Node::ROW, Verb::Patch, "", "status"),
                "system-node-high",
            ),
            ("system:node:n", &[node], about(Node::ROW, Verb::Get, "", "proxy"), "system-nodes"),
            ("system:node:n", &[node], pods(), "system-nodes"),
            ("system:kube-scheduler", &[], lease(), "system-leader-election"),
            ("system:kube-scheduler", &[], pods(), "kube-scheduler"),
            ("system:kube-controller-manager", &[], pods(), "kube-controller-manager"),
            (&account("kube-system"), &[], lease(), "system-leader-election"),
            (&account("kube-system"), &[], pods(), "kube-system-service-accounts"),
            (&account("kube"), &["system:serviceaccounts"], pods(), "service-accounts"),
            ("bob", &[], lease(), "global-default"),
        ] {
            assert_eq!(schema(user, groups, &about), expected, "{user} {about:?}");
        }
    }
}
