//! The rights of the controllers: each acts as a ServiceAccount of its own in `kube-system`, bound
//! to a ClusterRole `system:controller:NAME`, and can do no more than its work needs.
//!
//! Names and rules are those of Kubernetes' controllers that exist here
//! (`k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy`). They differ where the work
//! is done differently: events are recorded by the process, and patches are used where upstream
//! updates.

use api::certificates::{
    APISERVER_SERVING_SIGNER, CLIENT_SIGNER, KUBELET_CLIENT_SIGNER, KUBELET_SERVING_SIGNER,
};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Subject};

use super::roles::{READ, binding, named, role, rule};

const ACCOUNTS: &str = "kube-system";

/// API groups, resources and verbs, each a comma-separated list.
type Rule = (&'static str, &'static str, &'static str);

const CERTIFICATES: &str = "certificates.k8s.io";

/// For which signers ServiceAccounts may do what.
const SIGNERS: &[(&str, &str, &str)] = &[
    ("certificate-controller", KUBELET_CLIENT_SIGNER, "approve"),
    ("certificate-controller", CLIENT_SIGNER, "sign"),
    ("certificate-controller", KUBELET_CLIENT_SIGNER, "sign"),
    ("certificate-controller", KUBELET_SERVING_SIGNER, "sign"),
    ("kubelet-serving-certificate-approver", KUBELET_SERVING_SIGNER, "approve"),
    (TRUST_PUBLISHER, APISERVER_SERVING_SIGNER, "attest"),
];
const TRUST_PUBLISHER: &str = "kube-apiserver-serving-clustertrustbundle-publisher";

/// ServiceAccounts and their rights.
#[rustfmt::skip]
const CONTROLLERS: &[(&str, &[Rule])] = &[
    ("certificate-controller", &[
        (CERTIFICATES, "certificatesigningrequests", "get,list,watch,delete"),
        (CERTIFICATES, "certificatesigningrequests/status,certificatesigningrequests/approval", "update"),
        ("authorization.k8s.io", "subjectaccessreviews", "create"),
    ]),
    ("podcertificaterequestcleaner", &[
        (CERTIFICATES, "podcertificaterequests", "get,list,watch,delete"),
    ]),
    ("clusterrole-aggregation-controller", &[
        // It writes rules that it does not have itself.
        ("rbac.authorization.k8s.io", "clusterroles", "escalate,get,list,watch,update,patch"),
    ]),
    ("cronjob-controller", &[
        ("batch", "cronjobs", "get,list,watch,update"),
        ("batch", "jobs", "get,list,watch,create,update,delete,patch"),
        ("batch", "cronjobs/status", "update"),
        ("batch", "cronjobs/finalizers", "update"),
        ("", "pods", "list,watch,delete"),
    ]),
    ("daemon-set-controller", &[
        ("apps", "daemonsets", READ),
        ("apps", "daemonsets/status", "update"),
        ("apps", "daemonsets/finalizers", "update"),
        ("", "nodes", "list,watch"),
        ("", "pods", "list,watch,create,delete,patch"),
        ("apps", "controllerrevisions", "get,list,watch,create,delete,update,patch"),
    ]),
    ("deployment-controller", &[
        ("apps", "deployments", "get,list,watch,update"),
        ("apps", "deployments/status", "update,patch"),
        ("apps", "deployments/finalizers", "update"),
        ("apps", "replicasets", "get,list,watch,create,update,patch,delete"),
        ("", "pods", READ),
    ]),
    ("disruption-controller", &[
        ("apps", "deployments,replicasets,statefulsets", READ),
        ("", "replicationcontrollers", READ),
        ("policy", "poddisruptionbudgets", READ),
        ("policy", "poddisruptionbudgets/status", "update"),
        ("", "pods/status", "patch,update"),
        ("*", "*/scale", "get"),
    ]),
    ("endpoint-controller", &[
        ("", "services,pods", READ),
        ("", "endpoints", "get,list,watch,create,update,delete"),
        ("", "endpoints/restricted", "create"),
    ]),
    ("endpointslice-controller", &[
        ("", "services,pods,nodes", READ),
        ("", "services/finalizers", "update"),
        ("discovery.k8s.io", "endpointslices", "get,list,watch,create,update,delete"),
    ]),
    ("endpointslicemirroring-controller", &[
        ("", "services,endpoints", READ),
        ("", "services/finalizers,endpoints/finalizers", "update"),
        ("discovery.k8s.io", "endpointslices", "get,list,watch,create,update,delete"),
    ]),
    ("ephemeral-volume-controller", &[
        ("", "pods", READ),
        ("", "pods/finalizers", "update"),
        ("", "persistentvolumeclaims", "get,list,watch,create"),
    ]),
    ("expand-controller", &[
        ("", "persistentvolumes", READ),
        ("", "persistentvolumeclaims", READ),
    ]),
    ("generic-garbage-collector", &[
        ("*", "*", "get,list,watch,patch,update,delete"),
    ]),
    ("horizontal-pod-autoscaler", &[
        ("autoscaling", "horizontalpodautoscalers", READ),
        ("autoscaling", "horizontalpodautoscalers/status", "update"),
        ("*", "*/scale", "get,update"),
        ("", "pods", "list"),
        ("metrics.k8s.io", "pods", "list"),
        ("custom.metrics.k8s.io", "*", "get,list"),
        ("external.metrics.k8s.io", "*", "get,list"),
    ]),
    ("job-controller", &[
        ("batch", "jobs", "get,list,watch,update,patch"),
        ("batch", "jobs/status", "update"),
        ("batch", "jobs/finalizers", "update"),
        ("", "pods", "list,watch,create,delete,patch"),
    ]),
    // Kubernetes has it beside the cluster, if at all.
    ("kubelet-serving-certificate-approver", &[
        (CERTIFICATES, "certificatesigningrequests", READ),
        (CERTIFICATES, "certificatesigningrequests/approval", "update"),
    ]),
    // Kubernetes has it beside the cluster: the rights of the external provisioner and resizer of CSI.
    ("local-path-provisioner", &[
        ("", "persistentvolumes", "get,list,watch,create,update,patch,delete"),
        ("", "persistentvolumeclaims", "get,list,watch,update"),
        ("", "persistentvolumeclaims/status", "update"),
        ("storage.k8s.io", "storageclasses", READ),
        ("", "nodes", READ),
    ]),
    ("namespace-controller", &[
        ("", "namespaces", "get,list,watch,delete"),
        ("", "namespaces/finalize,namespaces/status", "update"),
        ("*", "*", "get,list,watch,delete,deletecollection"),
    ]),
    ("node-controller", &[
        ("", "nodes", "get,list,watch,update,delete,patch"),
        ("", "nodes/status", "patch,update"),
        ("", "pods", "get,list,watch,delete"),
        ("", "pods/status", "patch,update"),
        // The last heartbeat, before a node is marked unknown.
        ("coordination.k8s.io", "leases", "get"),
    ]),
    ("persistent-volume-binder", &[
        ("", "persistentvolumes", "get,list,watch,update,create,delete"),
        ("", "persistentvolumes/status", "update"),
        ("", "persistentvolumeclaims", "get,list,watch,update"),
        ("", "persistentvolumeclaims/status", "update"),
        ("storage.k8s.io", "storageclasses", READ),
        ("", "nodes", "list,watch"),
    ]),
    ("pod-garbage-collector", &[
        ("", "pods", "list,watch,delete"),
        ("", "nodes", READ),
        ("", "pods/status", "patch"),
    ]),
    ("pv-protection-controller", &[
        ("", "persistentvolumes", "get,list,watch,update,patch"),
    ]),
    ("pvc-protection-controller", &[
        ("", "persistentvolumeclaims", "get,list,watch,update,patch"),
        ("", "pods", READ),
    ]),
    ("replicaset-controller", &[
        ("apps", "replicasets", "get,list,watch,update"),
        ("apps", "replicasets/status", "update"),
        ("apps", "replicasets/finalizers", "update"),
        ("", "pods", "list,watch,patch,create,delete"),
    ]),
    ("replication-controller", &[
        ("", "replicationcontrollers", "get,list,watch,update"),
        ("", "replicationcontrollers/status", "update"),
        ("", "replicationcontrollers/finalizers", "update"),
        ("", "pods", "list,watch,patch,create,delete"),
    ]),
    ("resource-claim-controller", &[
        ("", "pods", READ),
        ("", "pods/finalizers", "update"),
        ("", "pods/status", "update,patch"),
        ("resource.k8s.io", "resourceclaims", "get,list,watch,create,delete"),
        ("resource.k8s.io", "resourceclaims/status", "update,patch"),
        ("resource.k8s.io", "resourceclaimtemplates", READ),
    ]),
    ("resourcequota-controller", &[
        ("*", "*", "list,watch"),
        ("", "resourcequotas/status", "update"),
    ]),
    (TRUST_PUBLISHER, &[
        (CERTIFICATES, "clustertrustbundles", "create,update,delete,list,watch"),
    ]),
    ("root-ca-cert-publisher", &[
        ("", "configmaps", "create,update"),
    ]),
    ("service-account-controller", &[
        ("", "serviceaccounts", "create"),
    ]),
    ("service-cidrs-controller", &[
        ("networking.k8s.io", "servicecidrs", "get,list,watch,patch,update"),
        ("networking.k8s.io", "servicecidrs/finalizers", "patch,update"),
        ("networking.k8s.io", "servicecidrs/status", "patch,update"),
        ("networking.k8s.io", "ipaddresses", READ),
    ]),
    ("service-controller", &[
        ("", "services", READ),
        ("", "services/status", "patch,update"),
        ("", "nodes", "list,watch"),
    ]),
    ("statefulset-controller", &[
        ("apps", "statefulsets", READ),
        ("apps", "statefulsets/status", "update"),
        ("apps", "statefulsets/finalizers", "update"),
        ("", "pods", "get,list,watch,create,delete,update,patch"),
        ("", "pods/finalizers", "update"),
        ("apps", "controllerrevisions", "get,list,watch,create,delete,update,patch"),
        ("", "persistentvolumeclaims", "get,list,watch,create,update,delete,patch"),
    ]),
    ("storage-version-migrator-controller", &[
        // It writes objects of every kind as they are.
        ("*", "*", "list,patch"),
        ("storagemigration.k8s.io", "storageversionmigrations", READ),
        ("storagemigration.k8s.io", "storageversionmigrations/status", "update"),
    ]),
    ("ttl-after-finished-controller", &[
        ("batch", "jobs", "get,list,watch,delete"),
    ]),
    ("validatingadmissionpolicy-status-controller", &[
        ("admissionregistration.k8s.io", "validatingadmissionpolicies", READ),
        ("admissionregistration.k8s.io", "validatingadmissionpolicies/status", "get,patch,update"),
        // The types of custom resources.
        ("apiextensions.k8s.io", "customresourcedefinitions", "list"),
    ]),
];

/// The role of the process itself: the Lease, the caches, the events, and the tokens of the
/// controllers' ServiceAccounts.
pub fn manager_role() -> ClusterRole {
    let own_lease = PolicyRule {
        resource_names: Some(vec!["kube-controller-manager".to_owned()]),
        ..rule("coordination.k8s.io", "leases", "get,update")
    };
    role(
        "system:kube-controller-manager",
        vec![
            super::roles::events(),
            rule("coordination.k8s.io", "leases", "create"),
            own_lease,
            rule("", "serviceaccounts,serviceaccounts/token", "create"),
            rule("", "namespaces,secrets,serviceaccounts,configmaps", "get"),
            rule("authentication.k8s.io", "tokenreviews", "create"),
            rule("authorization.k8s.io", "subjectaccessreviews", "create"),
            rule("*", "*", "list,watch"),
        ],
    )
}

/// The roles of the controllers.
pub fn roles() -> impl Iterator<Item = ClusterRole> {
    CONTROLLERS.iter().map(|(account, rules)| {
        let rules = rules.iter().map(|(groups, resources, verbs)| rule(groups, resources, verbs));
        let signers = SIGNERS.iter().filter(|(owner, ..)| owner == account);
        let signers = signers.map(|(_, signer, verb)| named(CERTIFICATES, "signers", signer, verb));
        role(&name(account), rules.chain(signers).collect())
    })
}

/// The bindings of the controllers' ServiceAccounts to their roles.
pub fn bindings() -> impl Iterator<Item = ClusterRoleBinding> {
    CONTROLLERS.iter().map(|(account, _)| {
        let mut binding = binding(&name(account), "ServiceAccount", account);
        binding.subjects = Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: (*account).to_owned(),
            namespace: Some(ACCOUNTS.to_owned()),
            api_group: None,
        }]);
        binding
    })
}

/// Whether `serviceaccount:NAMESPACE:NAME`, a user's name without `system:`, is a controller.
pub fn is_controller(account: &str) -> bool {
    let name = account.strip_prefix("serviceaccount:").and_then(|rest| rest.strip_prefix(ACCOUNTS));
    let name = name.and_then(|rest| rest.strip_prefix(':'));
    name.is_some_and(|name| CONTROLLERS.iter().any(|(controller, _)| *controller == name))
}

fn name(account: &str) -> String {
    format!("system:controller:{account}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_collectors_may_delete_everything() {
        let all = |rule: &PolicyRule| {
            let everything =
                |list: &Option<Vec<String>>| list.as_ref().unwrap().contains(&"*".into());
            let reads = ["get", "list", "watch"];
            everything(&rule.resources)
                && rule.verbs.iter().any(|verb| !reads.contains(&verb.as_str()))
        };
        let powerful = roles().filter(|role| role.rules.iter().flatten().any(all));
        let names: Vec<_> = powerful.filter_map(|role| role.metadata.name).collect();
        assert_eq!(
            names,
            [
                "system:controller:generic-garbage-collector",
                "system:controller:namespace-controller",
                "system:controller:storage-version-migrator-controller"
            ]
        );
        assert!(!manager_role().rules.iter().flatten().any(all));
    }

    #[test]
    fn every_resource_of_a_rule_is_served() {
        let known = |group: &str, resource: &str| {
            let plural = resource.split('/').next().unwrap_or_default();
            plural == "*"
                || api::kind::KINDS.iter().any(|row| row.group == group && row.plural == plural)
                // What is asked about only.
                || plural == "signers"
                || api::metrics::rows().any(|row| row.group == group && row.plural == plural)
        };
        for rule in roles().chain([manager_role()]).flat_map(|role| role.rules.unwrap()) {
            let groups = rule.api_groups.unwrap();
            for resource in rule.resources.unwrap() {
                let served = groups.iter().any(|group| group == "*" || known(group, &resource));
                assert!(served, "{groups:?} {resource}");
            }
        }
    }
}
