//! Which requests the rules of a FlowSchema match (upstream's `rule.go`).
//!
//! Every request is compared with the rules of several schemas, so that these are compiled: what a
//! comparison needs is looked up once, and nothing is allocated.

use k8s_openapi::api::flowcontrol::v1::{
    FlowSchemaSpec, NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject,
};

use crate::aggregation::Delegated;
use crate::request::{Subject as About, Target};
use crate::user::User;

const ALL: &str = "*";

/// The rules of a FlowSchema.
#[derive(Debug, Default)]
pub struct Rules(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    subjects: Vec<Who>,
    resources: Vec<OfResources>,
    paths: Vec<OfPaths>,
}

#[derive(Debug)]
enum Who {
    Everybody,
    User(String),
    Group(String),
    /// `name`: `None` for all of the namespace.
    Account {
        namespace: String,
        name: Option<String>,
    },
}

/// A list that may be the wildcard alone.
#[derive(Debug)]
enum Names {
    All,
    Of(Vec<String>),
}

#[derive(Debug)]
struct OfResources {
    verbs: Names,
    groups: Names,
    resources: Names,
    namespaces: Names,
    cluster_scope: bool,
}

#[derive(Debug)]
struct OfPaths {
    verbs: Names,
    urls: Vec<String>,
}

/// What the rules are compared with: who asks, for what.
pub struct Asked<'a> {
    user: &'a User,
    /// Namespace and name of a ServiceAccount.
    account: Option<(&'a str, &'a str)>,
    about: Result<ResourceInfo<'a>, Option<(&'a str, &'a str)>>,
}

impl<'a> Asked<'a> {
    pub fn new(user: &'a User, about: &'a About) -> Self {
        let account = user.name.strip_prefix("system:serviceaccount:");
        Self {
            user,
            account: account.and_then(|account| account.split_once(':')),
            about: ResourceInfo::of(about).ok_or_else(|| about.path()),
        }
    }

    fn is(&self, who: &Who) -> bool {
        match who {
            Who::Everybody => true,
            Who::User(name) => self.user.name == *name,
            Who::Group(name) => self.user.in_group(name),
            Who::Account { namespace, name } => self.account.is_some_and(|(own, account)| {
                own == namespace && name.as_ref().is_none_or(|name| name == account)
            }),
        }
    }
}

impl Rules {
    pub fn new(spec: &FlowSchemaSpec) -> Self {
        Self(spec.rules.iter().flatten().map(Rule::new).collect())
    }

    /// Whether some rule matches.
    pub fn match_with(&self, asked: &Asked<'_>) -> bool {
        // Loops, since programs that are not optimized run them faster than adapters.
        for rule in &self.0 {
            if rule.matches(asked) {
                return true;
            }
        }
        false
    }
}

impl Rule {
    fn new(rule: &PolicyRulesWithSubjects) -> Self {
        Self {
            subjects: rule.subjects.iter().filter_map(Who::new).collect(),
            resources: rule.resource_rules.iter().flatten().map(OfResources::new).collect(),
            paths: rule.non_resource_rules.iter().flatten().map(OfPaths::new).collect(),
        }
    }

    fn matches(&self, asked: &Asked<'_>) -> bool {
        match &asked.about {
            Ok(_) if self.resources.is_empty() => return false,
            Err(_) if self.paths.is_empty() => return false,
            _ => {}
        }
        for who in &self.subjects {
            if asked.is(who) {
                return match &asked.about {
                    Ok(info) => self.resources.iter().any(|rule| rule.matches(info)),
                    Err(Some((method, path))) => {
                        self.paths.iter().any(|rule| rule.matches(method, path))
                    }
                    Err(None) => false,
                };
            }
        }
        false
    }
}

impl Who {
    /// `None`: nobody.
    fn new(subject: &Subject) -> Option<Self> {
        let named = |name: &str, own: fn(String) -> Self| match name {
            ALL => Self::Everybody,
            name => own(name.to_owned()),
        };
        match subject.kind.as_str() {
            "User" => subject.user.as_ref().map(|user| named(&user.name, Self::User)),
            "Group" => subject.group.as_ref().map(|group| named(&group.name, Self::Group)),
            "ServiceAccount" => subject.service_account.as_ref().map(|given| Self::Account {
                namespace: given.namespace.clone(),
                name: (given.name != ALL).then(|| given.name.clone()),
            }),
            _ => None,
        }
    }
}

impl Names {
    fn new(list: &[String]) -> Self {
        match list {
            [only] if only == ALL => Self::All,
            list => Self::Of(list.to_vec()),
        }
    }

    fn have(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Of(list) => list.iter().any(|one| one == name),
        }
    }
}

impl OfResources {
    fn new(rule: &ResourcePolicyRule) -> Self {
        Self {
            verbs: Names::new(&rule.verbs),
            groups: Names::new(&rule.api_groups),
            resources: Names::new(&rule.resources),
            namespaces: Names::new(rule.namespaces.as_deref().unwrap_or_default()),
            cluster_scope: rule.cluster_scope.unwrap_or_default(),
        }
    }

    fn matches(&self, about: &ResourceInfo<'_>) -> bool {
        self.verbs.have(about.verb)
            && self.names(about)
            && self.groups.have(about.group)
            && match about.namespace {
                "" => self.cluster_scope,
                namespace => self.namespaces.have(namespace),
            }
    }

    fn names(&self, about: &ResourceInfo<'_>) -> bool {
        match (&self.resources, about.subresource) {
            (Names::Of(list), subresource) if !subresource.is_empty() => list.iter().any(|one| {
                let rest = one.strip_prefix(about.resource);
                rest.and_then(|rest| rest.strip_prefix('/')) == Some(subresource)
            }),
            (names, _) => names.have(about.resource),
        }
    }
}

impl OfPaths {
    fn new(rule: &NonResourcePolicyRule) -> Self {
        Self { verbs: Names::new(&rule.verbs), urls: rule.non_resource_urls.clone() }
    }

    fn matches(&self, verb: &str, path: &str) -> bool {
        self.verbs.have(verb)
            && self.urls.iter().any(|url| {
                let folder = url.strip_suffix('*').unwrap_or(url);
                let folder = folder.strip_suffix('/').unwrap_or(folder);
                let below = path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
                url == ALL || url == path || below
            })
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
            About::Delegated(Delegated { info, .. }) | About::Unserved(info) => {
                let resource = info.resource.as_ref()?;
                Self {
                    verb: resource.verb,
                    group: &resource.group,
                    version: info.version(),
                    resource: &resource.resource,
                    subresource: &resource.subresource,
                    namespace: &resource.namespace,
                    name: &resource.name,
                }
            }
        })
    }
}

fn namespace(target: &Target) -> &str {
    if target.row.kind == "Namespace" && target.row.group.is_empty() {
        &target.name
    } else {
        &target.namespace
    }
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
        let asked = Asked::new(&user, about);
        let found = all.iter().find(|schema| Rules::new(&schema.spec).match_with(&asked));
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
