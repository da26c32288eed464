//! The plugins that are enabled by default.

use super::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{CertificateParams, DnType, KeyPair};

/// What the plugins look up.
async fn prepare(server: &Server) {
    let rest = server.admin();
    server.default_account("default").await;
    for (path, object) in [
        (
            "/api/v1/namespaces",
            json!({"metadata": {"name": "tight", "labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}),
        ),
        ("/api/v1/namespaces/tight/serviceaccounts", json!({"metadata": {"name": "default"}})),
        ("/api/v1/namespaces", json!({"metadata": {"name": "small"}})),
        (
            "/api/v1/namespaces/small/limitranges",
            json!({"metadata": {"name": "l"}, "spec": {"limits": [{"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}]}}),
        ),
        (
            "/apis/storage.k8s.io/v1/storageclasses",
            json!({"metadata": {"name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "p"}),
        ),
        (
            "/apis/networking.k8s.io/v1/ingressclasses",
            json!({"metadata": {"name": "nginx", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}}, "spec": {"controller": "a/b"}}),
        ),
        (
            "/api/v1/nodes",
            json!({"metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "z"}}}),
        ),
    ] {
        rest.post(path, &object).await.expect(201);
        rest.get(path).await.expect(200);
    }
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "0"}}});
    let path = "/api/v1/namespaces/small/resourcequotas";
    rest.post(path, &quota).await.expect(201);
    let status = json!({"status": {"hard": {"configmaps": "0"}, "used": {"configmaps": "0"}}});
    rest.patch(&format!("{path}/q/status"), "merge", &status).await.expect(200);
    rest.get(&format!("{path}/q")).await.expect(200);
}

fn masters() -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "me");
    params.distinguished_name.push(DnType::OrganizationName, "system:masters");
    let request = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
    BASE64.encode(request.pem().unwrap())
}

fn cases() -> Vec<Case> {
    let claim = |size: &str| {
        json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}}}})
    };
    let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/v"}}});
    let ingress = json!({"metadata": {"name": "i"}, "spec":
        {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}});
    let request = json!({"metadata": {"name": "r"}, "spec": {"request": masters(),
        "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}});
    let map = json!({"metadata": {"name": "m"}});
    let seconds = json!([
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]);
    vec![
        refused(
            "NamespaceLifecycle",
            "/api/v1/namespaces/gone/configmaps",
            map.clone(),
            (404, "NotFound"),
            "namespaces \"gone\" not found",
        ),
        forbidden(
            "LimitRanger",
            "/api/v1/namespaces/small/persistentvolumeclaims",
            claim("2Gi"),
            "persistentvolumeclaims \"c\" is forbidden: maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi",
        ),
        forbidden(
            "ServiceAccount",
            PODS,
            pod("p", json!({"serviceAccountName": "none"})),
            "pods \"p\" is forbidden: error looking up service account default/none: serviceaccount \"none\" not found",
        ),
        set(
            "ServiceAccount",
            PODS,
            pod("p", json!({})),
            "/spec/serviceAccountName",
            "default".into(),
        ),
        set(
            "TaintNodesByCondition",
            "/api/v1/nodes",
            json!({"metadata": {"name": "m"}}),
            "/spec/taints",
            json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]),
        ),
        forbidden(
            "PodSecurity",
            "/api/v1/namespaces/tight/pods",
            pod("p", json!({"hostNetwork": true})),
            "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)",
        ),
        forbidden(
            "Priority",
            PODS,
            pod("p", json!({"priorityClassName": "none"})),
            "pods \"p\" is forbidden: no PriorityClass with name none was found",
        ),
        set("DefaultTolerationSeconds", PODS, pod("p", json!({})), "/spec/tolerations", seconds),
        set("DefaultStorageClass", CLAIMS, claim("1Gi"), "/spec/storageClassName", "fast".into()),
        set(
            "StorageObjectInUseProtection",
            "/api/v1/persistentvolumes",
            volume,
            "/metadata/finalizers",
            json!(["kubernetes.io/pv-protection"]),
        ),
        forbidden(
            "RuntimeClass",
            PODS,
            pod("p", json!({"runtimeClassName": "none"})),
            "pods \"p\" is forbidden: pod rejected: RuntimeClass \"none\" not found",
        ),
        forbidden(
            "CertificateSubjectRestriction",
            "/apis/certificates.k8s.io/v1/certificatesigningrequests",
            request,
            "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed",
        ),
        set(
            "DefaultIngressClass",
            "/apis/networking.k8s.io/v1/namespaces/default/ingresses",
            ingress,
            "/spec/ingressClassName",
            "nginx".into(),
        ),
        set(
            "PodTopologyLabels",
            PODS,
            pod("p", json!({"nodeName": "n"})),
            "/metadata/labels",
            json!({"topology.kubernetes.io/zone": "z"}),
        ),
        forbidden(
            "ResourceQuota",
            "/api/v1/namespaces/small/configmaps",
            map,
            "configmaps \"m\" is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=0, limited: configmaps=0",
        ),
    ]
}

#[tokio::test]
async fn each_does_its_work_unless_it_is_disabled() {
    let cases = cases();
    let disable: Vec<&str> = cases.iter().map(|case| case.plugin).collect();
    let disable = format!("--disable-admission-plugins={}", disable.join(","));
    for (enabled, flags) in [(true, vec![]), (false, vec![disable.as_str()])] {
        let server = Server::start_with(&flags).await;
        prepare(&server).await;
        for case in &cases {
            check(&server.admin(), case, enabled).await;
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn an_object_without_a_name_is_refused_by_what_its_name_begins_with() {
    let server = Server::start().await;
    let mut unnamed = pod("", json!({"serviceAccountName": "none"}));
    unnamed["metadata"] = json!({"generateName": "web-"});
    let refused = server.admin().post(PODS, &unnamed).await.expect(403);
    assert_eq!(
        refused["message"],
        "pods \"web-\" is forbidden: error looking up service account default/none: serviceaccount \"none\" not found"
    );
    server.stop().await;
}

#[tokio::test]
async fn nothing_new_comes_into_a_namespace_that_is_going() {
    for enabled in [true, false] {
        let flags =
            if enabled { vec![] } else { vec!["--disable-admission-plugins=NamespaceLifecycle"] };
        let server = Server::start_with(&flags).await;
        let rest = server.admin();
        rest.post("/api/v1/namespaces", &json!({"metadata": {"name": "going"}})).await.expect(201);
        server.default_account("going").await;
        rest.delete("/api/v1/namespaces/going").await.expect(200);
        let map = json!({"metadata": {"name": "m"}});
        let made = rest.post("/api/v1/namespaces/going/configmaps", &map).await;
        let tokens = "/api/v1/namespaces/going/serviceaccounts/default/token";
        let token = rest.post(tokens, &json!({"spec": {}})).await;
        if enabled {
            let why = "is forbidden: unable to create new content in namespace going because it is being terminated";
            let refused = made.expect(403);
            assert_eq!(refused["message"], format!("configmaps \"m\" {why}"));
            assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating");
            let refused = token.expect(403);
            assert_eq!(refused["message"], format!("serviceaccounts \"default\" {why}"));
        } else {
            made.expect(201);
            token.expect(201);
        }
        let kept = rest.delete("/api/v1/namespaces/kube-system?dryRun=All").await;
        assert_eq!(kept.code, if enabled { 403 } else { 200 }, "{}", kept.text);
        server.stop().await;
    }
}

#[tokio::test]
async fn tolerations_last_as_long_as_flags_say() {
    let server = Server::start_with(&[
        "--default-not-ready-toleration-seconds=20",
        "--default-unreachable-toleration-seconds=30",
    ])
    .await;
    server.default_account("default").await;
    let made = server.admin().post(PODS, &pod("p", json!({}))).await.expect(201);
    let tolerations = made["spec"]["tolerations"].as_array().unwrap().iter();
    let seconds: Vec<&Value> = tolerations.map(|own| &own["tolerationSeconds"]).collect();
    assert_eq!(seconds, [20, 30]);
    server.stop().await;
}

#[tokio::test]
async fn a_pod_is_resized_to_what_its_node_has() {
    for enabled in [true, false] {
        let flags =
            if enabled { vec![] } else { vec!["--disable-admission-plugins=PodResizeValidator"] };
        let server = Server::start_with(&flags).await;
        server.default_account("default").await;
        let rest = server.admin();
        let node = json!({"metadata": {"name": "n", "labels": {"kubernetes.io/os": "linux"}}});
        rest.post("/api/v1/nodes", &node).await.expect(201);
        let status = json!({"status": {"allocatable": {"cpu": "1", "memory": "1Gi"}}});
        rest.patch("/api/v1/nodes/n/status", "merge", &status).await.expect(200);
        let container =
            json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m"}}});
        let object = pod("p", json!({"nodeName": "n", "containers": [container]}));
        rest.post(PODS, &object).await.expect(201);
        let resize = async |cpu: &str| {
            let containers = json!([{"name": "c", "resources": {"requests": {"cpu": cpu}}}]);
            let change = json!({"spec": {"containers": containers}});
            rest.patch(&format!("{PODS}/p/resize"), "strategic-merge", &change).await
        };
        resize("1").await.expect(200);
        let answer = resize("1100m").await;
        if enabled {
            assert_eq!(
                answer.expect(403)["message"],
                "pods \"p\" is forbidden: Node didn't have enough allocatable resources: cpu, requested: 1100, allocatable: 1000"
            );
        } else {
            answer.expect(200);
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn pod_security_is_configured_by_a_file() {
    let plugins = "- name: PodSecurity\n  configuration:\n    apiVersion: pod-security.admission.config.k8s.io/v1\n    kind: PodSecurityConfiguration\n    defaults: {enforce: baseline, enforce-version: v1.30, warn: restricted}\n    exemptions: {usernames: [], runtimeClasses: [], namespaces: [kube-system]}\n";
    let server = configured(&[], plugins).await;
    let rest = server.admin();
    for (namespace, code) in [("default", 403), ("kube-system", 201)] {
        server.default_account(namespace).await;
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let answer = rest.post(&path, &pod("p", json!({"hostPID": true}))).await;
        assert_eq!(answer.code, code, "{}", answer.text);
        if code == 403 {
            assert_eq!(
                answer.body["message"],
                "pods \"p\" is forbidden: violates PodSecurity \"baseline:v1.30\": host namespaces (hostPID=true)"
            );
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_binding_gives_a_pod_the_labels_of_its_node() {
    let server = Server::start().await;
    server.default_account("default").await;
    let rest = server.admin();
    let labels = json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "other": "x"});
    rest.post("/api/v1/nodes", &json!({"metadata": {"name": "n", "labels": labels}}))
        .await
        .expect(201);
    for (name, own, expected) in
        [("a", json!({}), "z"), ("b", json!({"topology.kubernetes.io/zone": "mine"}), "mine")]
    {
        rest.post(PODS, &pod(name, json!({}))).await.expect(201);
        let target = json!({"apiVersion": "v1", "kind": "Node", "name": "n"});
        let binding = json!({"metadata": {"name": name, "labels": own}, "target": target});
        rest.post(&format!("{PODS}/{name}/binding"), &binding).await.expect(201);
        let bound = rest.get(&format!("{PODS}/{name}")).await.expect(200);
        let expected =
            json!({"topology.kubernetes.io/zone": expected, "topology.kubernetes.io/region": "r"});
        assert_eq!(bound["metadata"]["labels"], expected);
    }
    server.stop().await;
}

/// An account may limit the secrets of its pods to its own; a token's volume is made once.
#[tokio::test]
async fn accounts_limit_secrets_and_tokens_have_one_volume() {
    let server = Server::start().await;
    let rest = server.admin();
    server.default_account("default").await;
    let account = json!({"metadata": {"name": "strict",
        "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}},
        "secrets": [{"name": "own"}]});
    rest.post("/api/v1/namespaces/default/serviceaccounts", &account).await.expect(201);
    let pod = |name: &str, secret: &str| {
        json!({"metadata": {"name": name}, "spec": {"serviceAccountName": "strict",
            "containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "s", "secret": {"secretName": secret}},
                {"name": "kube-api-access-mine", "emptyDir": {}}]}})
    };
    let refused = rest.post(PODS, &pod("p", "other")).await.expect(403);
    assert_eq!(
        refused["message"],
        "pods \"p\" is forbidden: volume with secret.secretName=\"other\" is not allowed because service account strict does not reference that secret"
    );
    let made = rest.post(PODS, &pod("p", "own")).await.expect(201);
    let names: Vec<_> = made["spec"]["volumes"].as_array().unwrap().iter().collect();
    assert_eq!(names.len(), 2, "{made}");
    assert_eq!(made["spec"]["containers"][0]["volumeMounts"][0]["name"], "kube-api-access-mine");
    let added = |secret: &str| {
        json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "i",
            "envFrom": [{"secretRef": {"name": secret}}]}]}})
    };
    let containers = format!("{PODS}/p/ephemeralcontainers");
    let refused = rest.patch(&containers, "strategic-merge", &added("other")).await.expect(403);
    assert_eq!(
        refused["message"],
        "pods \"p\" is forbidden: ephemeral container e with envFrom referencing secret.secretName=\"other\" is not allowed because service account strict does not reference that secret"
    );
    rest.patch(&containers, "strategic-merge", &added("own")).await.expect(200);
    server.stop().await;
}

/// Devices that others may be using are for namespaces that an administrator has labelled.
#[tokio::test]
async fn admin_access_to_devices_needs_a_label() {
    let server = Server::start().await;
    let rest = server.admin();
    let spec = json!({"devices": {"requests": [{"name": "r",
        "exactly": {"deviceClassName": "c", "adminAccess": true}}]}});
    let objects = "/apis/resource.k8s.io/v1/namespaces/default";
    let claim = json!({"metadata": {"name": "a"}, "spec": spec});
    let template = json!({"metadata": {"name": "a"}, "spec": {"spec": spec}});
    let why = "is invalid: spec.devices.requests[0].adminAccess: Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace";
    for (kinds, kind, object) in [
        ("resourceclaims", "ResourceClaim", &claim),
        ("resourceclaimtemplates", "ResourceClaimTemplate", &template),
    ] {
        let refused = rest.post(&format!("{objects}/{kinds}"), object).await.expect(422);
        assert_eq!(refused["message"], format!("{kind}.resource.k8s.io \"a\" {why}"));
    }
    let labels = json!({"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}});
    rest.patch("/api/v1/namespaces/default", "merge", &labels).await.expect(200);
    rest.post(&format!("{objects}/resourceclaims"), &claim).await.expect(201);
    rest.post(&format!("{objects}/resourceclaimtemplates"), &template).await.expect(201);
    server.stop().await;
}
