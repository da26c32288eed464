//! Upstream's ClusterRoles for what a cluster may add: node bootstrapping, certificate approval,
//! volume provisioners, monitoring. Nothing is bound to most of them until an administrator does.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Subject};

use super::{READ, binding, events, named, role, rule};

/// The signers whose approval has a role, by the end of the role's name.
const APPROVERS: &[(&str, &str)] = &[
    ("kube-apiserver-client-approver", "kubernetes.io/kube-apiserver-client"),
    ("kube-apiserver-client-kubelet-approver", "kubernetes.io/kube-apiserver-client-kubelet"),
    ("kubelet-serving-approver", "kubernetes.io/kubelet-serving"),
    ("legacy-unknown-approver", "kubernetes.io/legacy-unknown"),
];
const CERTIFICATES: &str = "certificates.k8s.io";
/// The role of all ServiceAccounts to read the trust bundles that pods may mount.
pub const TRUST_BUNDLES: &str = "system:cluster-trust-bundle-discovery";

/// The role of nodes to get the next client certificate for themselves.
pub const OWN_CLIENT_CERTIFICATE: &str =
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient";

pub fn roles() -> Vec<ClusterRole> {
    let mut roles = vec![
        role(
            "system:kubelet-api-admin",
            vec![
                rule("", "nodes", READ),
                rule("", "nodes", "proxy"),
                rule("", "nodes/log,nodes/metrics,nodes/proxy,nodes/stats", "*"),
                rule("", "nodes/configz,nodes/healthz,nodes/pods", "*"),
            ],
        ),
        role(
            "system:node-bootstrapper",
            vec![rule(CERTIFICATES, "certificatesigningrequests", "create,get,list,watch")],
        ),
        role(
            "system:node-problem-detector",
            vec![rule("", "nodes", "get"), rule("", "nodes/status", "patch"), events()],
        ),
        role(
            "system:persistent-volume-provisioner",
            vec![
                rule("", "persistentvolumes", "create,delete,get,list,watch"),
                rule("", "persistentvolumeclaims", "get,list,update,watch"),
                rule("storage.k8s.io", "storageclasses", READ),
                rule("", "events", "watch"),
                events(),
            ],
        ),
        role(
            "system:volume-scheduler",
            vec![
                rule("", "persistentvolumes", "get,list,patch,update,watch"),
                rule("storage.k8s.io", "storageclasses", READ),
                rule("", "persistentvolumeclaims", "get,list,patch,update,watch"),
            ],
        ),
        // Of the controller that attaches the volumes of CSI drivers, which a cluster may add.
        role(
            "system:controller:attachdetach-controller",
            vec![
                rule("", "persistentvolumes,persistentvolumeclaims", "list,watch"),
                rule("", "nodes", READ),
                rule("", "nodes/status", "patch,update"),
                rule("", "pods", "list,watch"),
                events(),
                rule("storage.k8s.io", "volumeattachments", "create,delete,get,list,watch"),
                rule("storage.k8s.io", "csidrivers,csinodes", READ),
            ],
        ),
        role(TRUST_BUNDLES, vec![rule(CERTIFICATES, "clustertrustbundles", READ)]),
        role("system:kube-aggregator", vec![rule("", "endpoints,services", READ)]),
        role("system:kube-dns", vec![rule("", "endpoints,services", "list,watch")]),
        role(
            "system:heapster",
            vec![
                rule("", "events,namespaces,nodes,pods", READ),
                rule("extensions", "deployments", READ),
            ],
        ),
    ];
    for kind in ["nodeclient", "selfnodeclient"] {
        let resource = format!("certificatesigningrequests/{kind}");
        roles.push(role(
            &format!("system:certificates.k8s.io:certificatesigningrequests:{kind}"),
            vec![rule(CERTIFICATES, &resource, "create")],
        ));
    }
    roles.extend(APPROVERS.iter().map(|(name, signer)| {
        role(
            &format!("system:certificates.k8s.io:{name}"),
            vec![named(CERTIFICATES, "signers", signer, "approve")],
        )
    }));
    roles
}

/// For the ServiceAccount of an added DNS server.
pub fn kube_dns_binding() -> ClusterRoleBinding {
    let account = Subject {
        kind: "ServiceAccount".to_owned(),
        name: "kube-dns".to_owned(),
        namespace: Some("kube-system".to_owned()),
        api_group: None,
    };
    ClusterRoleBinding { subjects: Some(vec![account]), ..binding("system:kube-dns", "User", "") }
}
