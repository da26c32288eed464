//! The roles that every cluster has, and what those of users do not allow.

use serde_json::json;

use crate::server::Server;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// Upstream's default ClusterRoles, without those of the controllers.
const CLUSTER_ROLES: &[&str] = &[
    "admin",
    "cluster-admin",
    "edit",
    "system:aggregate-to-admin",
    "system:aggregate-to-edit",
    "system:aggregate-to-view",
    // metrics-server's.
    "system:aggregated-metrics-reader",
    "system:auth-delegator",
    "system:basic-user",
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
    "system:certificates.k8s.io:kube-apiserver-client-approver",
    "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
    "system:certificates.k8s.io:kubelet-serving-approver",
    "system:certificates.k8s.io:legacy-unknown-approver",
    "system:cluster-trust-bundle-discovery",
    "system:discovery",
    "system:heapster",
    "system:kube-aggregator",
    "system:kube-controller-manager",
    "system:kube-dns",
    "system:kube-scheduler",
    "system:kubelet-api-admin",
    "system:monitoring",
    "system:node",
    "system:node-bootstrapper",
    "system:node-problem-detector",
    "system:node-proxier",
    "system:persistent-volume-provisioner",
    "system:public-info-viewer",
    "system:service-account-issuer-discovery",
    "system:volume-scheduler",
    "view",
];
const CLUSTER_BINDINGS: &[&str] = &[
    "cluster-admin",
    "system:basic-user",
    // kubeadm's.
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
    "system:cluster-trust-bundle-discovery",
    "system:discovery",
    "system:kube-controller-manager",
    "system:kube-dns",
    "system:kube-scheduler",
    "system:monitoring",
    "system:node",
    "system:node-proxier",
    "system:public-info-viewer",
    "system:service-account-issuer-discovery",
    "system:volume-scheduler",
];
/// Namespace, role, binding.
const ROLES: &[(&str, &str, &str)] = &[
    (
        "kube-system",
        "extension-apiserver-authentication-reader",
        "system::extension-apiserver-authentication-reader",
    ),
    (
        "kube-system",
        "system::leader-locking-kube-controller-manager",
        "system::leader-locking-kube-controller-manager",
    ),
    (
        "kube-system",
        "system::leader-locking-kube-scheduler",
        "system::leader-locking-kube-scheduler",
    ),
    ("kube-system", "system:controller:bootstrap-signer", "system:controller:bootstrap-signer"),
    ("kube-system", "system:controller:cloud-provider", "system:controller:cloud-provider"),
    ("kube-system", "system:controller:token-cleaner", "system:controller:token-cleaner"),
    ("kube-public", "system:controller:bootstrap-signer", "system:controller:bootstrap-signer"),
];

#[tokio::test]
async fn the_default_roles_are_there() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut paths = Vec::new();
    paths.extend(CLUSTER_ROLES.iter().map(|name| format!("{RBAC}/clusterroles/{name}")));
    paths.extend(CLUSTER_BINDINGS.iter().map(|name| format!("{RBAC}/clusterrolebindings/{name}")));
    for (namespace, role, binding) in ROLES {
        paths.push(format!("{RBAC}/namespaces/{namespace}/roles/{role}"));
        paths.push(format!("{RBAC}/namespaces/{namespace}/rolebindings/{binding}"));
    }
    for path in paths {
        let object = admin.get(&path).await.expect(200);
        let metadata = &object["metadata"];
        let label = &metadata["labels"]["kubernetes.io/bootstrapping"];
        let update = &metadata["annotations"]["rbac.authorization.kubernetes.io/autoupdate"];
        assert_eq!((label, update), (&json!("rbac-defaults"), &json!("true")), "{path}");
    }
    // There are no others, but for the DNS server's.
    for (kind, upstream) in
        [("clusterroles", CLUSTER_ROLES), ("clusterrolebindings", CLUSTER_BINDINGS)]
    {
        let list = admin.get(&format!("{RBAC}/{kind}")).await.expect(200);
        let names = list["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]);
        let own = names
            .map(|name| name.as_str().unwrap())
            .filter(|name| !name.starts_with("system:controller:") && *name != "system:dns");
        assert_eq!(own.collect::<Vec<_>>(), upstream, "{kind}");
    }
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let map = admin.get(path).await.expect(200);
    assert_eq!(map["data"]["client-ca-file"], server.ca_pem);
    assert_eq!(map["data"]["requestheader-username-headers"], "[\"X-Remote-User\"]");
    // A scheduler may read it, as an extension server that has the role may.
    server.rest_as("system:kube-scheduler", &[]).get(path).await.expect(200);
    server.rest_as("bob", &[]).get(path).await.expect(403);
    server.stop().await;
}

/// A restart adds what is missing, and respects who does not want that.
#[tokio::test]
async fn roles_are_completed_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let flag = format!("--embedded-store={}", folder.path().join("kept").display());
    let server = Server::start_with(&[&flag]).await;
    let admin = server.admin();
    let roles = format!("{RBAC}/namespaces/kube-system/roles");
    let (signer, cleaner) =
        ("system:controller:bootstrap-signer", "system:controller:token-cleaner");
    let own = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    for (name, update) in [(signer, "true"), (cleaner, "false")] {
        let patch = json!({"rules": own, "metadata": {"labels": null, "annotations":
            {"rbac.authorization.kubernetes.io/autoupdate": update}}});
        admin.patch(&format!("{roles}/{name}"), "merge", &patch).await.expect(200);
    }
    let binding = format!("{RBAC}/clusterrolebindings/system:monitoring");
    admin.patch(&binding, "merge", &json!({"subjects": null})).await.expect(200);
    server.stop().await;

    let server = Server::start_with(&[&flag]).await;
    let admin = server.admin();
    let completed = admin.get(&format!("{roles}/{signer}")).await.expect(200);
    assert_eq!(completed["rules"].as_array().unwrap().len(), 2, "{completed}");
    assert_eq!(completed["rules"][0], own[0]);
    assert_eq!(completed["metadata"]["labels"]["kubernetes.io/bootstrapping"], "rbac-defaults");
    let kept = admin.get(&format!("{roles}/{cleaner}")).await.expect(200);
    assert_eq!((&kept["rules"], &kept["metadata"]["labels"]), (&own, &json!(null)));
    let bound = admin.get(&binding).await.expect(200);
    assert_eq!(bound["subjects"][0]["name"], "system:monitoring");
    server.stop().await;
}

/// By Endpoints, a Service would lead out of the namespace (CVE-2021-25740).
#[tokio::test]
async fn editors_read_endpoints_and_do_not_write_them() {
    let server = Server::start().await;
    let admin = server.admin();
    let review = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    for role in ["edit", "admin"] {
        let binding = json!({"metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": role}]});
        let bindings = format!("{RBAC}/namespaces/default/rolebindings");
        admin.post(&bindings, &binding).await.expect(201);
        admin.get(&bindings).await.expect(200);
        for (group, resource) in [("", "endpoints"), ("discovery.k8s.io", "endpointslices")] {
            for verb in
                ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"]
            {
                let asked = json!({"spec": {"user": role, "resourceAttributes": {"namespace": "default",
                    "verb": verb, "group": group, "resource": resource}}});
                let answer = admin.post(review, &asked).await.expect(201);
                let reads = matches!(verb, "get" | "list" | "watch");
                assert_eq!(answer["status"]["allowed"], reads, "{role} {verb} {resource}");
            }
        }
    }
    server.stop().await;
}

/// Addresses of this machine and its link are refused in whatever form they are written.
#[tokio::test]
async fn endpoints_have_ordinary_addresses() {
    let server = Server::start().await;
    let admin = server.admin();
    let endpoints = "/api/v1/namespaces/default/endpoints";
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let special = ["127.0.0.1", "127.8.8.8", "169.254.169.254", "0.0.0.0", "224.0.0.1"];
    for address in special {
        for address in [address.to_owned(), format!("::ffff:{address}"), format!("::{address}")] {
            for name in ["e", "kubernetes"] {
                let object = json!({"metadata": {"name": name},
                    "subsets": [{"addresses": [{"ip": address}], "ports": [{"port": 80}]}]});
                let answer = admin.send("PUT", &format!("{endpoints}/{name}"), &object).await;
                // The apiserver's own, which may listen on the loopback interface.
                let own = name == "kubernetes" && address.contains("127.");
                assert_eq!(answer.code == 422, !own, "{name} {address}: {}", answer.text);
            }
            for kind in ["IPv4", "IPv6"] {
                let object = json!({"metadata": {"name": "e"}, "addressType": kind,
                    "endpoints": [{"addresses": [address]}], "ports": []});
                let answer = admin.post(slices, &object).await;
                assert_eq!(answer.code, 422, "{kind} {address}: {}", answer.text);
            }
        }
    }
    for address in ["::1", "fe80::1", "::", "ff02::1"] {
        let object = json!({"metadata": {"name": "e"},
            "subsets": [{"addresses": [{"ip": address}], "ports": [{"port": 80}]}]});
        admin.post(endpoints, &object).await.expect(422);
    }
    server.stop().await;
}
