//! What admission adds to objects, and what it refuses.

use serde_json::{Value, json};

use crate::server::{Rest, Server};

const NAMESPACE: &str = "/api/v1/namespaces/default";

fn pod(name: &str, change: Value) -> Value {
    let mut spec = json!({"containers": [{"name": "c", "image": "i"}]});
    spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    json!({"metadata": {"name": name}, "spec": spec})
}

async fn refused(rest: &Rest, path: &str, object: &Value, message: &str) {
    let answer = rest.post(path, object).await.expect(403);
    assert_eq!(answer["message"], message);
}

#[tokio::test]
async fn claims_volumes_and_ingresses_are_completed() {
    let server = Server::start().await;
    let rest = server.admin();
    let class = |name: &str, key: &str, default: &str| json!({"metadata": {"name": name, "annotations": {key: default}}});
    let storage = "/apis/storage.k8s.io/v1/storageclasses";
    let key = "storageclass.kubernetes.io/is-default-class";
    for (name, default) in [("slow", "false"), ("fast", "true")] {
        let mut class = class(name, key, default);
        class["provisioner"] = "p".into();
        rest.post(storage, &class).await.expect(201);
    }
    let ingress = "/apis/networking.k8s.io/v1";
    let mut nginx = class("nginx", "ingressclass.kubernetes.io/is-default-class", "true");
    nginx["spec"] = json!({"controller": "a/b"});
    rest.post(&format!("{ingress}/ingressclasses"), &nginx).await.expect(201);
    rest.get(&format!("{ingress}/ingressclasses")).await.expect(200);
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let claims = format!("{NAMESPACE}/persistentvolumeclaims");
    let made = rest.post(&claims, &claim).await.expect(201);
    assert_eq!(made["spec"]["storageClassName"], "fast");
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    let going = rest.delete(&format!("{claims}/c")).await.expect(200);
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/v"}}});
    let made = rest.post("/api/v1/persistentvolumes", &volume).await.expect(201);
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pv-protection"]));
    let rule = json!({"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}});
    let ingresses = format!("{ingress}/namespaces/default/ingresses");
    let made =
        rest.post(&ingresses, &json!({"metadata": {"name": "i"}, "spec": rule})).await.expect(201);
    assert_eq!(made["spec"]["ingressClassName"], "nginx");
    let old = json!({"metadata": {"name": "j", "annotations": {"kubernetes.io/ingress.class": "x"}}, "spec": rule});
    let made = rest.post(&ingresses, &old).await.expect(201);
    assert_eq!(made["spec"]["ingressClassName"], Value::Null);
    server.stop().await;
}

#[tokio::test]
async fn priorities_come_from_classes() {
    let server = Server::start().await;
    server.default_account("default").await;
    let rest = server.admin();
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let pods = format!("{NAMESPACE}/pods");
    let made = rest.post(&pods, &pod("plain", json!({}))).await.expect(201);
    assert_eq!(made["spec"]["priority"], 0);
    let class = |name: &str, value: i64, default: bool| json!({"metadata": {"name": name}, "value": value, "globalDefault": default});
    rest.post(classes, &class("usual", 10, true)).await.expect(201);
    rest.post(classes, &class("high", 1_000, false)).await.expect(201);
    rest.get(classes).await.expect(200);
    refused(
        &rest,
        classes,
        &class("other", 5, true),
        "priorityclasses.scheduling.k8s.io \"other\" is forbidden: PriorityClass usual is already marked as default. Only one default can exist",
    )
    .await;
    let high = json!({"globalDefault": true});
    rest.patch(&format!("{classes}/high"), "merge", &high).await.expect(403);
    rest.patch(&format!("{classes}/usual"), "merge", &json!({"description": "d"}))
        .await
        .expect(200);
    for (name, change, priority, class) in [
        ("a", json!({}), 10, json!("usual")),
        ("b", json!({"priorityClassName": "high"}), 1_000, json!("high")),
        ("c", json!({"priorityClassName": "high", "priority": 1_000}), 1_000, json!("high")),
        (
            "d",
            json!({"priorityClassName": "system-cluster-critical"}),
            2_000_000_000,
            json!("system-cluster-critical"),
        ),
    ] {
        let made = rest.post(&pods, &pod(name, change)).await.expect(201);
        assert_eq!(
            (&made["spec"]["priority"], &made["spec"]["priorityClassName"]),
            (&json!(priority), &class)
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn limit_ranges_default_and_limit() {
    let server = Server::start().await;
    server.default_account("default").await;
    let rest = server.admin();
    let pods = format!("{NAMESPACE}/pods");
    let limits = json!([
        {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "250m"}, "max": {"cpu": "1"}},
        {"type": "Pod", "max": {"cpu": "1500m"}},
        {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "5Gi"}},
    ]);
    let range = json!({"metadata": {"name": "l"}, "spec": {"limits": limits}});
    rest.post(&format!("{NAMESPACE}/limitranges"), &range).await.expect(201);
    rest.get(&format!("{NAMESPACE}/limitranges")).await.expect(200);
    let made = rest.post(&pods, &pod("a", json!({}))).await.expect(201);
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "250m"}})
    );
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    let sized = |name: &str, cpu: &str| {
        let resources = json!({"requests": {"cpu": "1m"}, "limits": {"cpu": cpu}});
        json!({"name": name, "image": "i", "resources": resources})
    };
    refused(
        &rest,
        &pods,
        &pod("b", json!({"containers": [sized("c", "2")]})),
        "pods \"b\" is forbidden: [maximum cpu usage per Container is 1, but limit is 2, maximum cpu usage per Pod is 1500m, but limit is 2]",
    )
    .await;
    refused(
        &rest,
        &pods,
        &pod("b", json!({"containers": [sized("c", "1"), sized("d", "600m")]})),
        "pods \"b\" is forbidden: maximum cpu usage per Pod is 1500m, but limit is 1600m",
    )
    .await;
    let claim = |size: &str| json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}});
    let claims = format!("{NAMESPACE}/persistentvolumeclaims");
    refused(
        &rest,
        &claims,
        &claim("6Gi"),
        "persistentvolumeclaims \"c\" is forbidden: maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 6Gi",
    )
    .await;
    refused(
        &rest,
        &claims,
        &claim("100Mi"),
        "persistentvolumeclaims \"c\" is forbidden: minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 100Mi",
    )
    .await;
    rest.post(&claims, &claim("2Gi")).await.expect(201);
    server.stop().await;
}

#[tokio::test]
async fn a_kubelet_gets_tokens_for_its_own_pods_only() {
    let server = Server::start().await;
    server.default_account("default").await;
    let admin = server.admin();
    let kubelet = server.rest_as("system:node:n1", &["system:nodes"]);
    let pods = format!("{NAMESPACE}/pods");
    for (name, node) in [("mine", "n1"), ("other", "n2")] {
        admin.post(&pods, &pod(name, json!({"nodeName": node}))).await.expect(201);
    }
    let tokens = format!("{NAMESPACE}/serviceaccounts/default/token");
    let uid_of = async |name: &str| {
        let found = admin.get(&format!("{pods}/{name}")).await.expect(200);
        found["metadata"]["uid"].as_str().unwrap().to_owned()
    };
    let bound = |name: &str, uid: &str| json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}}});
    let (mine, other) = (uid_of("mine").await, uid_of("other").await);
    kubelet.post(&tokens, &bound("mine", &mine)).await.expect(201);
    for (request, message) in [
        (json!({"spec": {}}), "node requested token not bound to a pod"),
        (bound("mine", ""), "node requested token with a pod binding without a uid"),
        (
            bound("other", &other),
            "node requested token bound to a pod scheduled on a different node",
        ),
    ] {
        let message = format!("serviceaccounts \"default\" is forbidden: {message}");
        refused(&kubelet, &tokens, &request, &message).await;
    }
    let with = |audiences: Value| {
        let mut request = bound("mine", &mine);
        request["spec"]["audiences"] = audiences;
        request
    };
    for (request, message) in [
        (with(json!(["a", "b"])), "node may only request 0 or 1 audiences".to_owned()),
        (
            with(json!(["vault"])),
            "audience \"vault\" not found in pod spec volume, system:node:n1 is not authorized to request tokens for this audience".to_owned(),
        ),
    ] {
        let message = format!("serviceaccounts \"default\" is forbidden: {message}");
        refused(&kubelet, &tokens, &request, &message).await;
    }
    let source = json!({"serviceAccountToken": {"path": "t", "audience": "vault"}});
    let volume = json!({"name": "t", "projected": {"sources": [source]}});
    let vault = pod("vault", json!({"nodeName": "n1", "volumes": [volume]}));
    let vault = admin.post(&pods, &vault).await.expect(201);
    let mut request = bound("vault", vault["metadata"]["uid"].as_str().unwrap());
    request["spec"]["audiences"] = json!(["vault"]);
    kubelet.post(&tokens, &request).await.expect(201);
    // The driver of a volume of the pod may ask for it as well.
    let driver = json!({"metadata": {"name": "d.example.com"}, "spec": {
        "tokenRequests": [{"audience": "store"}], "volumeLifecycleModes": ["Ephemeral"]}});
    admin.post("/apis/storage.k8s.io/v1/csidrivers", &driver).await.expect(201);
    refused(&kubelet, &tokens, &with(json!(["store"])), "serviceaccounts \"default\" is forbidden: audience \"store\" not found in pod spec volume, system:node:n1 is not authorized to request tokens for this audience").await;
    let volume = json!({"name": "c", "csi": {"driver": "d.example.com"}});
    let driven = pod("driven", json!({"nodeName": "n1", "volumes": [volume]}));
    let driven = admin.post(&pods, &driven).await.expect(201);
    let mut request = bound("driven", driven["metadata"]["uid"].as_str().unwrap());
    request["spec"]["audiences"] = json!(["store"]);
    kubelet.post(&tokens, &request).await.expect(201);
    admin.post(&tokens, &with(json!(["vault"]))).await.expect(201);
    admin.post(&tokens, &json!({"spec": {}})).await.expect(201);
    let eviction = json!({"metadata": {"name": "other"}});
    kubelet.post(&format!("{pods}/other/eviction"), &eviction).await.expect(403);
    let lease = |name: &str| json!({"metadata": {"name": name}, "spec": {"holderIdentity": name}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces";
    admin.post("/api/v1/namespaces", &json!({"metadata": {"name": "kube-node-lease"}})).await;
    kubelet.post(&format!("{leases}/kube-node-lease/leases"), &lease("n1")).await.expect(201);
    refused(
        &kubelet,
        &format!("{leases}/kube-node-lease/leases"),
        &lease("n2"),
        "leases.coordination.k8s.io \"n2\" is forbidden: can only access node lease with the same name as the requesting node",
    )
    .await;
    refused(
        &kubelet,
        &format!("{leases}/default/leases"),
        &lease("n1"),
        "leases.coordination.k8s.io is forbidden: User \"system:node:n1\" cannot create resource \"leases\" in API group \"coordination.k8s.io\" in the namespace \"default\": can only access leases in the \"kube-node-lease\" system namespace",
    )
    .await;
    server.stop().await;
}

#[tokio::test]
async fn a_node_keeps_its_pod_cidr() {
    let server = Server::start().await;
    let rest = server.admin();
    let node = json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "10.1.0.0/24"}});
    let made = rest.post("/api/v1/nodes", &node).await.expect(201);
    assert_eq!(made["spec"]["podCIDRs"], json!(["10.1.0.0/24"]));
    let other = json!({"spec": {"podCIDR": "10.2.0.0/24"}});
    let refused = rest.patch("/api/v1/nodes/n", "merge", &other).await;
    assert_eq!(refused.expect(422)["details"]["causes"][0]["field"], "spec.podCIDRs");
    let bad = json!({"metadata": {"name": "m"}, "spec": {"podCIDR": "x"}});
    rest.post("/api/v1/nodes", &bad).await.expect(422);
    server.stop().await;
}

/// Each plugin that changes objects, and whether it acts on creations and updates as upstream's
/// `NewHandler(admission.Create, admission.Update)` says.
#[tokio::test]
async fn plugins_act_on_the_operations_of_upstream() {
    struct Row {
        plugin: &'static str,
        path: &'static str,
        object: Value,
        /// What the plugin sets.
        pointer: &'static str,
        on_update: bool,
    }
    let server = Server::start().await;
    server.default_account("default").await;
    let rest = server.admin();
    let class = json!({"metadata": {"name": "usual"}, "value": 7, "globalDefault": true, "preemptionPolicy": "Never"});
    rest.post("/apis/scheduling.k8s.io/v1/priorityclasses", &class).await.expect(201);
    let class = json!({"metadata": {"name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "p"});
    rest.post("/apis/storage.k8s.io/v1/storageclasses", &class).await.expect(201);
    rest.get("/apis/storage.k8s.io/v1/storageclasses").await.expect(200);
    let bare = json!({"automountServiceAccountToken": false, "serviceAccountName": "default", "priorityClassName": "usual"});
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}});
    let mut unset = claim.clone();
    unset["spec"].as_object_mut().unwrap().remove("storageClassName");
    let pods = "/api/v1/namespaces/default/pods";
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let row = |plugin, path, object: &Value, pointer, on_update| Row {
        plugin,
        path,
        object: object.clone(),
        pointer,
        on_update,
    };
    let plain = pod("p", bare);
    for row in [
        row("DefaultTolerationSeconds", pods, &plain, "/spec/tolerations", true),
        row("Priority", pods, &plain, "/spec/priority", true),
        row("Priority", pods, &plain, "/spec/preemptionPolicy", true),
        row("StorageObjectInUseProtection", claims, &claim, "/metadata/finalizers", false),
        row("DefaultStorageClass", claims, &unset, "/spec/storageClassName", false),
        row(
            "TaintNodesByCondition",
            "/api/v1/nodes",
            &json!({"metadata": {"name": "n"}}),
            "/spec/taints",
            false,
        ),
    ] {
        let made = rest.post(row.path, &row.object).await.expect(201);
        let set = made.pointer(row.pointer).cloned();
        assert!(set.is_some(), "{}: {made}", row.plugin);
        let name = row.object["metadata"]["name"].as_str().unwrap();
        let path = format!("{}/{name}", row.path);
        let mut put = row.object.clone();
        put["metadata"]["labels"] = json!({"a": "b"});
        let answer = rest.send("PUT", &path, &put).await;
        if row.on_update {
            let updated = answer.expect(200);
            assert_eq!(updated.pointer(row.pointer).cloned(), set, "{}", row.plugin);
            assert_eq!(updated["metadata"]["labels"]["a"], "b");
        } else if answer.code == 200 {
            assert_eq!(answer.body.pointer(row.pointer), None, "{}", row.plugin);
        } else {
            assert_eq!(answer.code, 422, "{}: {}", row.plugin, answer.text);
        }
        rest.patch(&path, "merge", &json!({"metadata": {"finalizers": null}})).await.expect(200);
        rest.delete(&format!("{path}?gracePeriodSeconds=0")).await.expect(200);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_claim_grows_if_its_class_lets_it() {
    let server = Server::start().await;
    let rest = server.admin();
    for (name, expands) in [("fixed", false), ("growing", true)] {
        let class = json!({"metadata": {"name": name}, "provisioner": "p", "allowVolumeExpansion": expands});
        rest.post("/apis/storage.k8s.io/v1/storageclasses", &class).await.expect(201);
    }
    let claims = format!("{NAMESPACE}/persistentvolumeclaims");
    let more = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let only = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
    for (name, class, message) in
        [("a", "fixed", only), ("b", "growing", ""), ("c", "gone", only), ("d", "", only)]
    {
        let claim = json!({"metadata": {"name": name}, "spec": {"storageClassName": class, "volumeName": "v",
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        rest.post(&claims, &claim).await.expect(201);
        let path = format!("{claims}/{name}");
        let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
        rest.patch(&format!("{path}/status"), "merge", &bound).await.expect(200);
        let answer = rest.patch(&path, "merge", &more).await;
        if message.is_empty() {
            answer.expect(200);
            continue;
        }
        let refused = answer.expect(403)["message"].as_str().unwrap().to_owned();
        assert_eq!(refused, format!("persistentvolumeclaims \"{name}\" is forbidden: {message}"));
        let kept = rest.get(&path).await.expect(200);
        assert_eq!(kept["spec"]["resources"]["requests"]["storage"], "1Gi");
    }
    server.stop().await;
}
