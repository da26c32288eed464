//! Kubernetes' default roles and bindings (`pkg/auth/authorizer/rbac/bootstrappolicy`, and
//! `kubernetes.io/docs/reference/access-authn-authz/rbac/#default-roles-and-role-bindings`), and
//! those of `system:dns`.
//!
//! Here are those that users and Skiff's own components have; [`further`] has those for components
//! that a cluster may add, [`namespaced`] those of `kube-system` and `kube-public`.

mod further;
mod namespaced;

use std::collections::BTreeMap;

use api::{ApiError, Kind};
use futures::future::try_join_all;
use k8s_openapi::api::rbac::v1::{
    AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, RoleRef, Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::{controller_roles, create_or_complete};
use crate::authz::not_covered;
use crate::core::Core;

const GROUP: &str = "rbac.authorization.k8s.io";
const ALL: &str = "get,list,watch,create,update,patch,delete,deletecollection";
pub(super) const READ: &str = "get,list,watch";
const WRITE: &str = "create,update,patch,delete,deletecollection";
/// Resources of a group that is no longer served, which upstream's roles still name.
const EXTENSIONS: &str = "daemonsets,deployments,deployments/rollback,deployments/scale,ingresses,networkpolicies,replicasets,replicasets/scale,replicationcontrollers/scale";
const EXTENSIONS_READ: &str = "daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,ingresses,ingresses/status,networkpolicies,replicasets,replicasets/scale,replicasets/status,replicationcontrollers/scale";

/// An administrator sets it to `false` on a default role or binding that is not to be updated
/// (`kubernetes.io/docs/reference/access-authn-authz/rbac/#auto-reconciliation`).
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// Creates the default roles and bindings that are missing, and adds missing rules and subjects to
/// existing ones: after an upgrade, components may need more.
///
/// # Errors
/// When the store fails.
pub async fn reconcile(core: &Core) -> Result<(), ApiError> {
    // All at once: on the first start each is a write, and the store commits them together.
    let (roles, bindings) = (roles(), bindings());
    let roles = roles.iter().map(|role| create_or_complete(core, role, complete_role));
    let bindings =
        bindings.iter().map(|binding| create_or_complete(core, binding, complete_binding));
    let namespaced = namespaced::reconcile(core);
    tokio::try_join!(try_join_all(roles), try_join_all(bindings), namespaced)?;
    Ok(())
}

fn autoupdates(metadata: &ObjectMeta) -> bool {
    let annotations = metadata.annotations.iter();
    let value = annotations.filter_map(|annotations| annotations.get(AUTOUPDATE)).next();
    value.is_none_or(|value| value != "false")
}

/// The rules of an aggregated role are set by its controller.
fn complete_role(role: &mut ClusterRole, wanted: &ClusterRole) {
    if !autoupdates(&role.metadata) {
        return;
    }
    complete_metadata(&mut role.metadata, &wanted.metadata);
    if role.aggregation_rule.is_none() {
        complete_rules(&mut role.rules, wanted.rules.as_deref().unwrap_or_default());
    }
}

fn complete_rules(rules: &mut Option<Vec<PolicyRule>>, wanted: &[PolicyRule]) {
    let missing = not_covered(rules.as_deref().unwrap_or_default(), wanted);
    if !missing.is_empty() {
        rules.get_or_insert_default().extend(missing);
    }
}

/// Adds labels and annotations; one that is there keeps its value.
fn complete_metadata(metadata: &mut ObjectMeta, wanted: &ObjectMeta) {
    let pairs =
        [(&mut metadata.labels, &wanted.labels), (&mut metadata.annotations, &wanted.annotations)];
    for (there, wanted) in pairs {
        for (key, value) in wanted.iter().flatten() {
            there.get_or_insert_default().entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
}

fn complete_binding(binding: &mut ClusterRoleBinding, wanted: &ClusterRoleBinding) {
    if !autoupdates(&binding.metadata) {
        return;
    }
    complete_metadata(&mut binding.metadata, &wanted.metadata);
    if binding.metadata.name.as_deref() == Some("system:node") {
        // Earlier versions bound it to all nodes.
        let subjects = binding.subjects.take().unwrap_or_default();
        let kept = subjects.into_iter().filter(|subject| subject.name != "system:nodes");
        binding.subjects = Some(kept.collect::<Vec<_>>()).filter(|kept| !kept.is_empty());
    }
    complete_subjects(&mut binding.subjects, wanted.subjects.as_deref().unwrap_or_default());
}

fn complete_subjects(subjects: &mut Option<Vec<Subject>>, wanted: &[Subject]) {
    for subject in wanted {
        let subjects = subjects.get_or_insert_default();
        if !subjects.contains(subject) {
            subjects.push(subject.clone());
        }
    }
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(|item| item.trim().to_owned()).collect()
}

/// A rule from comma-separated lists; the core group is the empty item.
pub(super) fn rule(groups: &str, resources: &str, verbs: &str) -> PolicyRule {
    PolicyRule {
        api_groups: Some(list(groups)),
        resources: Some(list(resources)),
        verbs: list(verbs),
        ..PolicyRule::default()
    }
}

/// A rule for objects of certain names.
pub(super) fn named(groups: &str, resources: &str, names: &str, verbs: &str) -> PolicyRule {
    PolicyRule { resource_names: Some(list(names)), ..rule(groups, resources, verbs) }
}

fn paths(urls: &str, verbs: &str) -> PolicyRule {
    PolicyRule { non_resource_urls: Some(list(urls)), verbs: list(verbs), ..PolicyRule::default() }
}

fn labels(extra: &[(&str, &str)]) -> Option<BTreeMap<String, String>> {
    let own = [("kubernetes.io/bootstrapping", "rbac-defaults")];
    let all = own.iter().chain(extra);
    Some(all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
}

pub(super) fn role(name: &str, rules: Vec<PolicyRule>) -> ClusterRole {
    let mut role = ClusterRole { rules: Some(rules), ..ClusterRole::default() };
    role.metadata.name = Some(name.to_owned());
    role.metadata.labels = labels(&[]);
    role.metadata.annotations = Some(BTreeMap::from([(AUTOUPDATE.to_owned(), "true".to_owned())]));
    role
}

fn aggregated(name: &str, to: &str, rules: Vec<PolicyRule>) -> ClusterRole {
    let mut role = role(name, rules);
    role.metadata.labels = labels(&[(to, "true")]);
    role
}

fn aggregating(name: &str, from: &str, rules: Vec<PolicyRule>) -> ClusterRole {
    let mut role = role(name, rules);
    role.aggregation_rule = Some(AggregationRule {
        cluster_role_selectors: Some(vec![LabelSelector {
            match_labels: Some(BTreeMap::from([(from.to_owned(), "true".to_owned())])),
            match_expressions: None,
        }]),
    });
    role
}

fn roles() -> Vec<ClusterRole> {
    let mut roles = vec![
        role("cluster-admin", vec![rule("*", "*", "*"), paths("*", "*")]),
        role(
            "system:discovery",
            vec![paths(
                "/api,/api/*,/apis,/apis/*,/healthz,/livez,/openapi,/openapi/*,/readyz,/version,/version/",
                "get",
            )],
        ),
        role(
            "system:public-info-viewer",
            vec![paths("/healthz,/livez,/readyz,/version,/version/", "get")],
        ),
        role(
            "system:basic-user",
            vec![
                rule(
                    "authorization.k8s.io",
                    "selfsubjectaccessreviews,selfsubjectrulesreviews",
                    "create",
                ),
                rule("authentication.k8s.io", "selfsubjectreviews", "create"),
            ],
        ),
        role(
            "system:service-account-issuer-discovery",
            vec![paths(
                "/.well-known/openid-configuration,/.well-known/openid-configuration/,/openid/v1/jwks,/openid/v1/jwks/",
                "get",
            )],
        ),
        role(
            "system:monitoring",
            vec![paths(
                "/healthz,/healthz/*,/livez,/livez/*,/metrics,/metrics/slis,/readyz,/readyz/*,/flagz,/statusz",
                "get",
            )],
        ),
        role(
            "system:auth-delegator",
            vec![
                rule("authentication.k8s.io", "tokenreviews", "create"),
                rule("authorization.k8s.io", "subjectaccessreviews", "create"),
            ],
        ),
        role(
            "system:dns",
            vec![
                rule("", "services,endpoints,pods,namespaces,nodes", READ),
                rule("discovery.k8s.io", "endpointslices", READ),
            ],
        ),
    ];
    roles.extend(user_roles());
    roles.extend(component_roles());
    roles.extend(further::roles());
    roles.extend(controller_roles::roles());
    roles
}

fn user_roles() -> Vec<ClusterRole> {
    let view = vec![
        rule(
            "",
            "configmaps,endpoints,persistentvolumeclaims,persistentvolumeclaims/status,pods,replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/status,bindings,events,limitranges,namespaces/status,pods/log,pods/status,replicationcontrollers/status,resourcequotas,resourcequotas/status,namespaces",
            READ,
        ),
        rule("discovery.k8s.io", "endpointslices", READ),
        rule(
            "apps",
            "controllerrevisions,daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,replicasets,replicasets/scale,replicasets/status,statefulsets,statefulsets/scale,statefulsets/status",
            READ,
        ),
        rule("autoscaling", "horizontalpodautoscalers,horizontalpodautoscalers/status", READ),
        rule("batch", "cronjobs,cronjobs/status,jobs,jobs/status", READ),
        rule("policy", "poddisruptionbudgets,poddisruptionbudgets/status", READ),
        rule("networking.k8s.io", "ingresses,ingresses/status,networkpolicies", READ),
        rule("extensions", EXTENSIONS_READ, READ),
        rule(
            "resource.k8s.io",
            "resourceclaims,resourceclaims/status,resourceclaimtemplates",
            READ,
        ),
    ];
    // No Endpoints and no EndpointSlices, by which a Service could lead out of the namespace
    // (CVE-2021-25740).
    let edit = vec![
        rule("", "pods/attach,pods/exec,pods/portforward,pods/proxy,secrets,services/proxy", READ),
        rule("", "serviceaccounts", "impersonate"),
        rule("", "pods,pods/attach,pods/exec,pods/portforward,pods/proxy", WRITE),
        rule("", "pods/eviction,serviceaccounts/token", "create"),
        rule(
            "",
            "configmaps,events,persistentvolumeclaims,replicationcontrollers,replicationcontrollers/scale,secrets,serviceaccounts,services,services/proxy",
            WRITE,
        ),
        rule(
            "apps",
            "daemonsets,deployments,deployments/rollback,deployments/scale,replicasets,replicasets/scale,statefulsets,statefulsets/scale",
            WRITE,
        ),
        rule("autoscaling", "horizontalpodautoscalers", WRITE),
        rule("batch", "cronjobs,jobs", WRITE),
        rule("policy", "poddisruptionbudgets", WRITE),
        rule("networking.k8s.io", "ingresses,networkpolicies", WRITE),
        rule("extensions", EXTENSIONS, WRITE),
        rule("coordination.k8s.io", "leases", ALL),
        rule("resource.k8s.io", "resourceclaims,resourceclaimtemplates", WRITE),
    ];
    let admin = vec![
        rule("authorization.k8s.io", "localsubjectaccessreviews", "create"),
        rule(GROUP, "rolebindings,roles", ALL),
    ];
    let (to_view, to_edit, to_admin) = (
        "rbac.authorization.k8s.io/aggregate-to-view",
        "rbac.authorization.k8s.io/aggregate-to-edit",
        "rbac.authorization.k8s.io/aggregate-to-admin",
    );
    let both = |first: &[PolicyRule], second: &[PolicyRule]| [first, second].concat();
    let edit_rules = both(&edit, &view);
    let mut metrics_role = aggregated(
        "system:aggregated-metrics-reader",
        to_view,
        vec![rule(api::metrics::GROUP, "pods,nodes", READ)],
    );
    let labels_of_all = [to_view, to_edit, to_admin].map(|to| (to, "true"));
    metrics_role.metadata.labels = labels(&labels_of_all);
    let mut view_role = aggregating("view", to_view, view.clone());
    view_role.metadata.labels = labels(&[(to_edit, "true")]);
    let mut edit_role = aggregating("edit", to_edit, edit_rules.clone());
    edit_role.metadata.labels = labels(&[(to_admin, "true")]);
    vec![
        aggregated("system:aggregate-to-view", to_view, view),
        aggregated("system:aggregate-to-edit", to_edit, edit),
        aggregated("system:aggregate-to-admin", to_admin, admin.clone()),
        metrics_role,
        view_role,
        edit_role,
        aggregating("admin", to_admin, both(&admin, &edit_rules)),
    ]
}

/// Writing Events, which every component does.
pub(super) fn events() -> PolicyRule {
    rule(",events.k8s.io", "events", "create,patch,update")
}

fn scheduler_role() -> ClusterRole {
    role(
        "system:kube-scheduler",
        vec![
            events(),
            rule("coordination.k8s.io", "leases", "create,get,update,list,watch,patch"),
            rule("", "nodes", READ),
            rule("", "pods", "delete,get,list,watch"),
            rule("", "pods/binding,bindings", "create"),
            rule("", "pods/status", "patch,update"),
            rule(
                "",
                "replicationcontrollers,services,namespaces,persistentvolumeclaims,persistentvolumes",
                READ,
            ),
            rule("", "persistentvolumeclaims,persistentvolumes", "update,patch"),
            rule("apps,extensions", "replicasets,statefulsets", READ),
            rule("policy", "poddisruptionbudgets", READ),
            rule(
                "storage.k8s.io",
                "csidrivers,csinodes,csistoragecapacities,storageclasses,volumeattachments",
                READ,
            ),
            rule("scheduling.k8s.io", "priorityclasses", READ),
            rule("resource.k8s.io", "*", "get,list,watch,update,patch"),
            rule("authentication.k8s.io", "tokenreviews", "create"),
            rule("authorization.k8s.io", "subjectaccessreviews", "create"),
        ],
    )
}

fn component_roles() -> Vec<ClusterRole> {
    vec![
        scheduler_role(),
        controller_roles::manager_role(),
        role(
            "system:node",
            vec![
                rule("", "nodes", "create,get,list,watch,update,patch,delete"),
                rule("", "nodes/status", "update,patch,get"),
                rule("", "pods", "get,list,watch,create,delete"),
                rule("", "pods/status", "get,update,patch"),
                rule("", "pods/eviction", "create"),
                // Secrets, ConfigMaps and claims: see `authz::node`.
                rule("", "services", READ),
                rule("", "persistentvolumeclaims/status", "get,update,patch"),
                rule("", "serviceaccounts", "get"),
                rule("", "serviceaccounts/token", "create"),
                events(),
                rule("coordination.k8s.io", "leases", "create,delete,get,list,patch,update,watch"),
                rule("authentication.k8s.io", "tokenreviews", "create"),
                rule(
                    "authorization.k8s.io",
                    "localsubjectaccessreviews,subjectaccessreviews",
                    "create",
                ),
                rule("certificates.k8s.io", "certificatesigningrequests", "create,get,list,watch"),
                rule("certificates.k8s.io", "clustertrustbundles", READ),
                rule("certificates.k8s.io", "podcertificaterequests", "create,get,list,watch"),
                rule("storage.k8s.io", "csidrivers", READ),
                rule("storage.k8s.io", "csinodes", "create,delete,get,patch,update"),
                rule("storage.k8s.io", "volumeattachments", "get"),
                rule("node.k8s.io", "runtimeclasses", READ),
                rule("resource.k8s.io", "resourceclaims,resourceslices", ALL),
                rule("discovery.k8s.io", "endpointslices", READ),
                rule("scheduling.k8s.io", "priorityclasses", READ),
            ],
        ),
        role(
            "system:node-proxier",
            vec![
                rule("", "endpoints,services,nodes,namespaces,pods", READ),
                rule("discovery.k8s.io", "endpointslices", READ),
                rule("networking.k8s.io", "networkpolicies,servicecidrs", READ),
                events(),
            ],
        ),
    ]
}

pub(super) fn binding(role: &str, kind: &str, subject: &str) -> ClusterRoleBinding {
    let mut binding = ClusterRoleBinding {
        role_ref: RoleRef {
            api_group: Some(GROUP.to_owned()),
            kind: ClusterRole::ROW.kind.to_string(),
            name: role.to_owned(),
        },
        subjects: Some(vec![Subject {
            kind: kind.to_owned(),
            name: subject.to_owned(),
            api_group: Some(GROUP.to_owned()),
            namespace: None,
        }]),
        ..ClusterRoleBinding::default()
    };
    binding.metadata.name = Some(role.to_owned());
    binding.metadata.labels = labels(&[]);
    binding.metadata.annotations =
        Some(BTreeMap::from([(AUTOUPDATE.to_owned(), "true".to_owned())]));
    binding
}

/// A binding without subjects: the node authorizer gives kubelets less than their role says.
fn unbound(role: &str) -> ClusterRoleBinding {
    ClusterRoleBinding { subjects: None, ..binding(role, "Group", "") }
}

/// The rules of the role `system:node`.
pub fn node_rules() -> Vec<PolicyRule> {
    let node = component_roles()
        .into_iter()
        .find(|role| role.metadata.name.as_deref() == Some("system:node"));
    node.and_then(|role| role.rules).unwrap_or_default()
}

fn bindings() -> Vec<ClusterRoleBinding> {
    let authenticated = "system:authenticated";
    let mut public = binding("system:public-info-viewer", "Group", authenticated);
    public.subjects.get_or_insert_default().push(Subject {
        kind: "Group".to_owned(),
        name: "system:unauthenticated".to_owned(),
        api_group: Some(GROUP.to_owned()),
        namespace: None,
    });
    let mut bindings = vec![
        binding("cluster-admin", "Group", crate::user::MASTERS),
        binding("system:discovery", "Group", authenticated),
        binding("system:basic-user", "Group", authenticated),
        public,
        binding("system:service-account-issuer-discovery", "Group", "system:serviceaccounts"),
        binding(further::TRUST_BUNDLES, "Group", "system:serviceaccounts"),
        binding("system:monitoring", "Group", "system:monitoring"),
        binding("system:kube-scheduler", "User", "system:kube-scheduler"),
        binding("system:kube-controller-manager", "User", "system:kube-controller-manager"),
        unbound("system:node"),
        binding("system:node-proxier", "User", "system:kube-proxy"),
        binding("system:dns", "User", "system:dns"),
        binding("system:volume-scheduler", "User", "system:kube-scheduler"),
        further::kube_dns_binding(),
        // What kubeadm adds: a node may go on being itself.
        binding(further::OWN_CLIENT_CERTIFICATE, "Group", "system:nodes"),
    ];
    bindings.extend(controller_roles::bindings());
    bindings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_gets_what_it_lacks_and_keeps_what_it_has() {
        let wanted = role("r", vec![rule("", "pods,nodes", READ), paths("/x", "get")]);
        let own = rule("apps", "deployments", "get");
        let mut there = role("r", vec![own.clone(), rule("", "pods", "*")]);
        complete_role(&mut there, &wanted);
        let rules = there.rules.clone().unwrap();
        assert_eq!(rules.len(), 4, "{rules:?}");
        assert_eq!(rules[0], own);
        let once = there.clone();
        complete_role(&mut there, &wanted);
        assert_eq!(there, once);
        let mut kept = role("r", vec![]);
        kept.metadata.annotations =
            Some(BTreeMap::from([(AUTOUPDATE.to_owned(), "false".to_owned())]));
        complete_role(&mut kept, &wanted);
        assert_eq!(kept.rules, Some(vec![]));
    }

    #[test]
    fn a_binding_gets_the_subjects_that_it_lacks() {
        let wanted = binding("r", "User", "a");
        let mut there = binding("r", "User", "b");
        complete_binding(&mut there, &wanted);
        complete_binding(&mut there, &wanted);
        let names: Vec<_> = there.subjects.iter().flatten().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
    }

    #[test]
    fn the_role_of_nodes_is_bound_to_nobody() {
        let mut there = binding("system:node", "Group", "system:nodes");
        let own = binding("r", "User", "own").subjects.unwrap();
        there.subjects.as_mut().unwrap().extend(own.clone());
        complete_binding(&mut there, &unbound("system:node"));
        assert_eq!(there.subjects, Some(own));
        let mut there = binding("system:node", "Group", "system:nodes");
        complete_binding(&mut there, &unbound("system:node"));
        assert_eq!(there, unbound("system:node"));
        assert!(!node_rules().is_empty());
    }
}
