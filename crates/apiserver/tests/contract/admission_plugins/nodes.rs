//! NodeRestriction: what a kubelet may change, as a table of its requests.

use super::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{CertificateParams, DnType, KeyPair};

/// A request of the kubelet of `n1`, and its refusal; none: it passes.
struct Row {
    verb: &'static str,
    path: String,
    body: Value,
    refusal: &'static str,
}

fn row(verb: &'static str, path: impl Into<String>, body: Value, refusal: &'static str) -> Row {
    Row { verb, path: path.into(), body, refusal }
}

async fn prepare(server: &Server) {
    let admin = server.admin();
    server.default_account("default").await;
    admin.post("/api/v1/namespaces", &json!({"metadata": {"name": "kube-node-lease"}})).await;
    for name in ["n1", "n2"] {
        let node = json!({"metadata": {"name": name}});
        admin.post("/api/v1/nodes", &node).await.expect(201);
    }
    for (name, node) in [("mine", "n1"), ("other", "n2")] {
        admin.post(PODS, &pod(name, json!({"nodeName": node}))).await.expect(201);
    }
    // Rights beyond a kubelet's own, which the plugin does not let it use.
    let rules = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let role = json!({"metadata": {"name": "all"}, "rules": rules});
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    admin.post(&format!("{rbac}/clusterroles"), &role).await.expect(201);
    let binding = json!({"metadata": {"name": "all"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "all"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"}]});
    admin.post(&format!("{rbac}/clusterrolebindings"), &binding).await.expect(201);
    admin.get(&format!("{rbac}/clusterrolebindings/all")).await.expect(200);
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    admin.post(CLAIMS, &claim).await.expect(201);
    for name in ["n1", "n2"] {
        let slice = json!({"metadata": {"name": name}, "spec": {"driver": "d.example.com", "nodeName": name,
            "pool": {"name": name, "generation": 1, "resourceSliceCount": 1}}});
        admin.post("/apis/resource.k8s.io/v1/resourceslices", &slice).await.expect(201);
    }
}

fn request(name: &str, signer: &str) -> Value {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    json!({"metadata": {"generateName": "r-"}, "spec": {"request": BASE64.encode(pem),
        "signerName": signer, "usages": ["client auth", "digital signature"]}})
}

fn rows() -> Vec<Row> {
    let nodes = "/api/v1/nodes";
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let slices = "/apis/resource.k8s.io/v1/resourceslices";
    let leases = "/apis/coordination.k8s.io/v1/namespaces";
    let csi_nodes = "/apis/storage.k8s.io/v1/csinodes";
    let kubelet_signer = "kubernetes.io/kube-apiserver-client-kubelet";
    let mirror = |change: Value| {
        let mut pod = pod("m", json!({"nodeName": "n1"}));
        pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "hash"});
        pod["metadata"].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        pod
    };
    let owner = |uid: &str| json!({"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": uid, "controller": true}]});
    let label = |key: &str| json!({"metadata": {"labels": {key: "x"}}});
    let lease = |name: &str| json!({"metadata": {"name": name}, "spec": {"holderIdentity": name}});
    let slice = |node: &str| {
        json!({"metadata": {"name": "s"}, "spec": {"driver": "d.example.com", "nodeName": node,
        "pool": {"name": "s", "generation": 1, "resourceSliceCount": 1}}})
    };
    vec![
        row(
            "POST",
            nodes,
            json!({"metadata": {"name": "n3"}}),
            "nodes \"n3\" is forbidden: node \"n1\" is not allowed to modify node \"n3\"",
        ),
        row(
            "PATCH",
            format!("{nodes}/n2"),
            label("a"),
            "nodes \"n2\" is forbidden: node \"n1\" is not allowed to modify node \"n2\"",
        ),
        row(
            "DELETE",
            format!("{nodes}/n2"),
            Value::Null,
            "nodes \"n2\" is forbidden: node \"n1\" is not allowed to modify node \"n2\"",
        ),
        row("PATCH", format!("{nodes}/n1"), label("example.com/a"), ""),
        row("PATCH", format!("{nodes}/n1"), label("node.kubernetes.io/a"), ""),
        row(
            "PATCH",
            format!("{nodes}/n1"),
            label("node-restriction.kubernetes.io/a"),
            "nodes \"n1\" is forbidden: is not allowed to modify labels: node-restriction.kubernetes.io/a",
        ),
        row(
            "PATCH",
            format!("{nodes}/n1/status"),
            label("node-role.kubernetes.io/a"),
            "nodes \"n1\" is forbidden: is not allowed to modify labels: node-role.kubernetes.io/a",
        ),
        row(
            "PATCH",
            format!("{nodes}/n1"),
            json!({"spec": {"taints": []}}),
            "nodes \"n1\" is forbidden: node \"n1\" is not allowed to modify taints",
        ),
        row(
            "PATCH",
            format!("{nodes}/n1/status"),
            json!({"spec": {"taints": []}}),
            "nodes \"n1\" is forbidden: node \"n1\" is not allowed to modify taints",
        ),
        row(
            "PATCH",
            format!("{nodes}/n1"),
            json!({"metadata": owner("u")}),
            "nodes \"n1\" is forbidden: node \"n1\" is not allowed to modify ownerReferences",
        ),
        row(
            "PATCH",
            format!("{nodes}/n1/status"),
            json!({"status": {"nodeInfo": {"kernelVersion": "x"}}}),
            "",
        ),
        row(
            "POST",
            PODS,
            pod("p", json!({"nodeName": "n1"})),
            "pods \"p\" is forbidden: pod does not have \"kubernetes.io/config.mirror\" annotation, node \"n1\" can only create mirror pods",
        ),
        row(
            "POST",
            PODS,
            mirror(json!({})),
            "pods \"m\" is forbidden: node \"n1\" can only create pods with an owner reference set to itself",
        ),
        row("POST", PODS, mirror(owner("none")), "node n1 UID mismatch: expected none got "),
        row(
            "PATCH",
            format!("{PODS}/mine"),
            label("a"),
            "pods \"mine\" is forbidden: unexpected operation \"UPDATE\", node \"n1\" can only create and delete mirror pods",
        ),
        row("PATCH", format!("{PODS}/mine/status"), json!({"status": {"phase": "Running"}}), ""),
        row(
            "PATCH",
            format!("{PODS}/mine/status"),
            label("a"),
            "pods \"mine\" is forbidden: node \"n1\" cannot update labels through pod status",
        ),
        row(
            "PATCH",
            format!("{PODS}/other/status"),
            json!({"status": {"phase": "Running"}}),
            "pods \"other\" is forbidden: node \"n1\" can only update pod status for pods with spec.nodeName set to itself",
        ),
        row(
            "PATCH",
            format!("{PODS}/mine/status"),
            json!({"status": {"resourceClaimStatuses": [{"name": "a", "resourceClaimName": "b"}]}}),
            "pods \"mine\" is forbidden: node \"n1\" cannot update resource claim statues",
        ),
        row(
            "PATCH",
            format!("{PODS}/mine/resize"),
            json!({"spec": {}}),
            "pods \"mine\" is forbidden: unexpected pod subresource \"resize\", only 'status' and 'eviction' are allowed",
        ),
        row(
            "POST",
            format!("{PODS}/mine/binding"),
            json!({"target": {"kind": "Node", "name": "n1"}}),
            "pods \"mine\" is forbidden: unexpected pod subresource \"binding\", only 'status' and 'eviction' are allowed",
        ),
        row(
            "POST",
            format!("{PODS}/other/eviction"),
            json!({"metadata": {"name": "other"}}),
            "pods \"other\" is forbidden: node n1 can only evict pods with spec.nodeName set to itself",
        ),
        row(
            "POST",
            format!("{PODS}/gone/eviction"),
            json!({"metadata": {"name": "gone"}}),
            "pods \"gone\" not found",
        ),
        row(
            "DELETE",
            format!("{PODS}/other"),
            Value::Null,
            "pods \"other\" is forbidden: node \"n1\" can only delete pods with spec.nodeName set to itself",
        ),
        row(
            "PATCH",
            format!("{CLAIMS}/c"),
            label("a"),
            "persistentvolumeclaims \"c\" is forbidden: may only update PVC status",
        ),
        row(
            "DELETE",
            format!("{CLAIMS}/c"),
            Value::Null,
            "persistentvolumeclaims \"c\" is forbidden: may only update PVC status",
        ),
        row(
            "PATCH",
            format!("{CLAIMS}/c/status"),
            json!({"status": {"capacity": {"storage": "1Gi"}}}),
            "",
        ),
        row(
            "PATCH",
            format!("{CLAIMS}/c/status"),
            json!({"status": {"phase": "Bound"}}),
            "persistentvolumeclaims \"c\" is forbidden: node \"n1\" is not allowed to update fields other than status.quantity and status.conditions",
        ),
        row(
            "POST",
            format!("{leases}/default/leases"),
            lease("n1"),
            "leases.coordination.k8s.io \"n1\" is forbidden: can only access leases in the \"kube-node-lease\" system namespace",
        ),
        row(
            "POST",
            format!("{leases}/kube-node-lease/leases"),
            lease("n2"),
            "leases.coordination.k8s.io \"n2\" is forbidden: can only access node lease with the same name as the requesting node",
        ),
        row("POST", format!("{leases}/kube-node-lease/leases"), lease("n1"), ""),
        row(
            "POST",
            csi_nodes,
            json!({"metadata": {"name": "n2"}, "spec": {"drivers": []}}),
            "csinodes.storage.k8s.io \"n2\" is forbidden: can only access CSINode with the same name as the requesting node",
        ),
        row("POST", csi_nodes, json!({"metadata": {"name": "n1"}, "spec": {"drivers": []}}), ""),
        row(
            "POST",
            slices,
            slice("n2"),
            "resourceslices.resource.k8s.io \"s\" is forbidden: can only create ResourceSlice with the same NodeName as the requesting node",
        ),
        row(
            "DELETE",
            format!("{slices}/n2"),
            Value::Null,
            "resourceslices.resource.k8s.io \"n2\" is forbidden: can only delete ResourceSlice with the same NodeName as the requesting node",
        ),
        row("DELETE", format!("{slices}/n1"), Value::Null, ""),
        row(
            "POST",
            requests,
            request("system:node:n2", kubelet_signer),
            "certificatesigningrequests.certificates.k8s.io \"r-\" is forbidden: can only create a node CSR with CN=system:node:n1",
        ),
        row(
            "POST",
            requests,
            request("system:node:n2", "kubernetes.io/kubelet-serving"),
            "certificatesigningrequests.certificates.k8s.io \"r-\" is forbidden: can only create a node CSR with CN=system:node:n1",
        ),
        row("POST", requests, request("system:node:n2", "example.com/other"), ""),
        row("POST", requests, request("system:node:n1", kubelet_signer), ""),
        row("POST", format!("{NAMESPACE}/serviceaccounts"), json!({"metadata": {"name": "a"}}), ""),
        row(
            "POST",
            format!("{NAMESPACE}/serviceaccounts/default/token"),
            json!({"spec": {}}),
            "serviceaccounts \"default\" is forbidden: node requested token not bound to a pod",
        ),
        row("DELETE", format!("{PODS}/mine?gracePeriodSeconds=0"), Value::Null, ""),
    ]
}

async fn ask(rest: &Rest, row: &Row) -> crate::server::Answer {
    match row.verb {
        "PATCH" => rest.patch(&row.path, "merge", &row.body).await,
        "DELETE" => rest.delete(&row.path).await,
        verb => rest.send(verb, &row.path, &row.body).await,
    }
}

#[tokio::test]
async fn a_kubelet_changes_its_own_alone() {
    let server = Server::start().await;
    prepare(&server).await;
    let kubelet = server.rest_as("system:node:n1", &["system:nodes"]);
    for row in rows() {
        let answer = ask(&kubelet, &row).await;
        if row.refusal.is_empty() {
            assert!(answer.code < 300, "{} {}: {}", row.verb, row.path, answer.text);
            continue;
        }
        let message = answer.body["message"].as_str().unwrap_or_default();
        let is_said = message == row.refusal
            || message.contains(row.refusal) && row.refusal.contains("UID mismatch");
        assert!(is_said, "{} {}: {}", row.verb, row.path, answer.text);
        let is_missing = row.refusal.ends_with("not found");
        assert_eq!(answer.code, if is_missing { 404 } else { 403 });
    }
    let nameless = server.rest_as("system:node:", &["system:nodes"]);
    let map = json!({"metadata": {"name": "m"}});
    let refused = nameless.post(&format!("{NAMESPACE}/configmaps"), &map).await.expect(403);
    assert_eq!(
        refused["message"],
        "configmaps \"m\" is forbidden: could not determine node from user \"system:node:\""
    );
    server.stop().await;
}

#[tokio::test]
async fn without_the_plugin_rights_alone_decide() {
    let server = Server::start_with(&["--disable-admission-plugins=NodeRestriction"]).await;
    prepare(&server).await;
    let kubelet = server.rest_as("system:node:n1", &["system:nodes"]);
    for row in rows().into_iter().filter(|row| row.refusal.contains("is forbidden: ")) {
        let answer = ask(&kubelet, &row).await;
        let message = answer.body["message"].as_str().unwrap_or_default();
        assert_ne!(message, row.refusal, "{} {}", row.verb, row.path);
    }
    server.stop().await;
}
