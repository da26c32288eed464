//! Authentication and authorization, and the messages of refusals.

use serde_json::json;

use crate::server::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn get_map() -> rpc::api_v1::GetRequest {
    rpc::api_v1::GetRequest {
        target: Some(rpc::api_v1::Target {
            version: "v1".into(),
            resource: "configmaps".into(),
            namespace: "default".into(),
            name: "m".into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[tokio::test]
async fn requests_without_credentials_are_those_of_the_anonymous_user() {
    let server = Server::start().await;
    let anonymous = server.rest_anonymous();
    let refused = anonymous.get(MAPS).await.expect(403);
    assert_eq!(
        refused["message"],
        "configmaps is forbidden: User \"system:anonymous\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
    for path in ["/metrics", "/api", "/apis", "/openapi/v3", "/healthz/ping", "/"] {
        let refused = anonymous.get(path).await.expect(403);
        let path = format!("forbidden: User \"system:anonymous\" cannot get path {path:?}");
        assert_eq!(refused["message"], path);
    }
    for path in ["/healthz", "/livez", "/readyz", "/version", "/version/"] {
        assert_eq!(anonymous.get(path).await.code, 200, "{path}");
    }
    let refused = server.grpc_anonymous().get(get_map()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    let impersonation = [("impersonate-user", "kubernetes-admin")];
    anonymous.ask("GET", "/version", &impersonation, Vec::new()).await.expect(403);
    // RBAC may give more.
    let admin = server.admin();
    let binding = json!({"metadata": {"name": "open"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "Group", "name": "system:unauthenticated", "apiGroup": "rbac.authorization.k8s.io"}]});
    admin.post(&format!("{RBAC}/clusterrolebindings"), &binding).await.expect(201);
    admin.get(&format!("{RBAC}/clusterrolebindings")).await.expect(200);
    anonymous.get(MAPS).await.expect(200);
    server.stop().await;
}

#[tokio::test]
async fn anonymous_requests_can_be_turned_off() {
    let server = Server::start_with(&["--anonymous-auth=false"]).await;
    let anonymous = server.rest_anonymous();
    for path in [MAPS, "/healthz", "/version", "/metrics"] {
        let refused = anonymous.get(path).await.expect(401);
        assert_eq!(refused["message"], "Unauthorized");
    }
    let refused = server.grpc_anonymous().get(get_map()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    server.admin().get(MAPS).await.expect(200);
    server.stop().await;
}

/// An impersonation that cannot be read is not a request of the impersonator's own.
#[tokio::test]
async fn an_impersonation_that_cannot_be_read_is_refused() {
    let server = Server::start().await;
    let mut grpc = server.grpc();
    for name in ["impersonate-user", "impersonate-group", "impersonate-uid", "impersonate-extra-a"]
    {
        let value = http::HeaderValue::from_bytes("bö".as_bytes()).unwrap();
        let headers = [("impersonate-user", "bob".parse().unwrap()), (name, value.clone())];
        let headers = if name == "impersonate-user" { &headers[1..] } else { &headers[..] };
        let answer = server.admin().ask_with(MAPS, headers).await;
        assert_eq!(answer.code, 400, "{name}: {}", answer.text);
        let mut request = tonic::Request::new(get_map());
        let mut metadata = request.metadata().clone().into_headers();
        metadata.extend(
            headers
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), value.clone())),
        );
        *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(metadata);
        let refused = grpc.get(request).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{name}: {refused}");
    }
    server.stop().await;
}

#[tokio::test]
async fn invalid_credentials_are_refused() {
    let server = Server::start().await;
    let anonymous = server.rest_anonymous();
    let bob = server.rest_as("bob", &["devs"]);
    let refused = bob.get(MAPS).await.expect(403);
    assert_eq!(
        refused["message"],
        "configmaps is forbidden: User \"bob\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
    let refused = bob.get("/api/v1/nodes/n").await.expect(403);
    assert_eq!(
        refused["message"],
        "nodes \"n\" is forbidden: User \"bob\" cannot get resource \"nodes\" in API group \"\" at the cluster scope"
    );
    bob.get("/apis").await.expect(200);
    bob.get("/metrics").await.expect(403);
    let bad = [("authorization", "Bearer not.a.token")];
    anonymous.ask("GET", MAPS, &bad, Vec::new()).await.expect(401);
    server.stop().await;
}

#[tokio::test]
async fn roles_grant_and_nobody_grants_more_than_they_have() {
    let server = Server::start().await;
    let (admin, bob) = (server.admin(), server.rest_as("bob", &["devs"]));
    let role = json!({"metadata": {"name": "reader"}, "rules": [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["create"]}]});
    admin.post(&format!("{RBAC}/namespaces/default/roles"), &role).await.expect(201);
    let binding = json!({"metadata": {"name": "devs"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "Group", "name": "devs", "apiGroup": "rbac.authorization.k8s.io"}]});
    admin.post(&format!("{RBAC}/namespaces/default/rolebindings"), &binding).await.expect(201);
    // A consistent read also brings the authorizer up to date.
    admin.get(&format!("{RBAC}/rolebindings")).await.expect(200);
    bob.get(MAPS).await.expect(200);
    bob.get("/api/v1/namespaces/kube-system/configmaps").await.expect(403);
    bob.post(MAPS, &json!({"metadata": {"name": "x"}})).await.expect(403);
    let rule = |resource: &str| json!({"metadata": {"name": resource}, "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]});
    let roles = format!("{RBAC}/namespaces/default/roles");
    bob.post(&roles, &rule("configmaps")).await.expect(201);
    let refused = bob.post(&roles, &rule("secrets")).await.expect(403);
    assert_eq!(
        refused["message"],
        "roles.rbac.authorization.k8s.io \"secrets\" is forbidden: user \"bob\" (groups=[\"devs\" \"system:authenticated\"]) \
         is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}"
    );
    let grab = json!({"metadata": {"name": "grab"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"}]});
    bob.post(&format!("{RBAC}/namespaces/default/rolebindings"), &grab).await.expect(403);
    let review = json!({"spec": {"user": "bob", "groups": ["devs"], "resourceAttributes": {"verb": "get", "resource": "configmaps", "namespace": "default"}}});
    let review =
        admin.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review).await.expect(201);
    let by = binding["metadata"]["name"].as_str().unwrap();
    let reason = review["status"]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with(&format!("RBAC: allowed by RoleBinding \"{by}/default\" of ")),
        "{reason}"
    );
    assert!(reason.ends_with(" to Group \"devs\""), "{reason}");
    // An aggregated role would gain rights later on.
    let writer = json!({"metadata": {"name": "role-writer"}, "rules": [{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["create"]}]});
    admin.post(&format!("{RBAC}/clusterroles"), &writer).await.expect(201);
    let bound = json!({"metadata": {"name": "role-writer"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "role-writer"},
        "subjects": [{"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"}]});
    admin.post(&format!("{RBAC}/clusterrolebindings"), &bound).await.expect(201);
    admin.get(&format!("{RBAC}/clusterrolebindings")).await.expect(200);
    let gather =
        json!({"metadata": {"name": "gather"}, "aggregationRule": {"clusterRoleSelectors": [{}]}});
    let refused = bob.post(&format!("{RBAC}/clusterroles"), &gather).await.expect(403);
    assert_eq!(
        refused["message"],
        "clusterroles.rbac.authorization.k8s.io \"gather\" is forbidden: must have cluster-admin privileges to use the aggregationRule"
    );
    server.stop().await;
}

#[tokio::test]
async fn reviews_and_impersonation_agree() {
    let server = Server::start().await;
    let (admin, bob) = (server.admin(), server.rest_as("bob", &["devs"]));
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let asked = |user: &str| json!({"spec": {"user": user, "resourceAttributes": {"verb": "list", "resource": "nodes"}}});
    for (user, allowed) in [("bob", false), ("system:kube-scheduler", true)] {
        let review = admin.post(path, &asked(user)).await.expect(201);
        assert_eq!(review["status"]["allowed"], allowed, "{user}");
        let headers = [("impersonate-user", user)];
        let answer = admin.ask("GET", "/api/v1/nodes", &headers, Vec::new()).await;
        assert_eq!(answer.code == 200, allowed, "{user}");
    }
    bob.ask(
        "GET",
        MAPS,
        &[("impersonate-user", "kubernetes-admin"), ("impersonate-group", "system:masters")],
        Vec::new(),
    )
    .await
    .expect(403);
    let who =
        bob.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &json!({})).await.expect(201);
    assert_eq!(who["status"]["userInfo"]["username"], "bob");
    assert_eq!(who["status"]["userInfo"]["groups"], json!(["devs", "system:authenticated"]));
    server.stop().await;
}

#[tokio::test]
async fn tokens_are_valid_while_their_account_exists() {
    let server = Server::start().await;
    let (admin, anonymous) = (server.admin(), server.rest_anonymous());
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    admin.post(accounts, &json!({"metadata": {"name": "robot"}})).await.expect(201);
    let token = |seconds: i64| json!({"spec": {"expirationSeconds": seconds}});
    admin.post(&format!("{accounts}/robot/token"), &token(1)).await.expect(422);
    let signed = admin.post(&format!("{accounts}/robot/token"), &token(600)).await.expect(201);
    let text = signed["status"]["token"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {text}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let who = anonymous.ask("POST", path, &headers, b"{}".to_vec()).await.expect(201);
    assert_eq!(who["status"]["userInfo"]["username"], "system:serviceaccount:default:robot");
    let review = json!({"spec": {"token": text}});
    let reviewed =
        admin.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.expect(201);
    assert_eq!(reviewed["status"]["authenticated"], true);
    let review = json!({"spec": {"token": text, "audiences": ["elsewhere"]}});
    let reviewed =
        admin.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.expect(201);
    assert_ne!(reviewed["status"]["authenticated"], true);
    let mut forged = text.clone();
    forged.replace_range(forged.len() - 4.., "AAAA");
    let bearer = format!("Bearer {forged}");
    let headers = [("authorization", bearer.as_str())];
    anonymous.ask("GET", MAPS, &headers, Vec::new()).await.expect(401);
    server.stop().await;
}

/// A TokenRequest may say which account and which object it means.
#[tokio::test]
async fn a_token_is_of_the_account_that_its_request_means() {
    let server = Server::start().await;
    let admin = server.admin();
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = admin.post(accounts, &json!({"metadata": {"name": "robot"}})).await.expect(201);
    let uid = account["metadata"]["uid"].as_str().unwrap();
    let secret = json!({"metadata": {"name": "s"}});
    admin.post("/api/v1/namespaces/default/secrets", &secret).await.expect(201);
    let bound = |api_version: &str, kind: &str, uid: &str| json!({"spec": {"boundObjectRef": {"apiVersion": api_version, "kind": kind, "name": "s", "uid": uid}}});
    let table = [
        (json!({}), 201, String::new()),
        (json!({"metadata": {"name": "robot", "namespace": "default", "uid": uid}}), 201, String::new()),
        (
            json!({"metadata": {"uid": "1"}}),
            409,
            format!("Operation cannot be fulfilled on TokenRequest.authentication.k8s.io \"robot\": the UID in the token request (1) does not match the UID of the service account ({uid})"),
        ),
        (
            json!({"metadata": {"name": "other"}}),
            422,
            "TokenRequest.authentication.k8s.io \"robot\" is invalid: metadata.name: Invalid value: \"other\": must match the service account name if specified".to_owned(),
        ),
        (
            json!({"metadata": {"namespace": "other"}}),
            400,
            "the namespace of the provided object does not match the namespace sent on the request".to_owned(),
        ),
        (bound("v1", "Secret", ""), 201, String::new()),
        (bound("", "Secret", ""), 201, String::new()),
        (
            bound("apps/v1", "Secret", ""),
            400,
            "cannot bind token to object of type apps/v1, Kind=Secret".to_owned(),
        ),
        (
            bound("v1", "ConfigMap", ""),
            400,
            "cannot bind token to object of type /v1, Kind=ConfigMap".to_owned(),
        ),
        (
            bound("v1", "Secret", "1"),
            409,
            "Operation cannot be fulfilled on Secret \"s\": the UID in the bound object reference (1) does not match the UID in record. The object might have been deleted and then recreated".to_owned(),
        ),
    ];
    for (request, code, message) in table {
        let answer = admin.post(&format!("{accounts}/robot/token"), &request).await.expect(code);
        if code == 201 {
            assert_eq!(answer["metadata"]["uid"], uid, "{request}");
        } else {
            assert_eq!(answer["message"], message, "{request}");
        }
    }
    server.stop().await;
}

/// Writes an object with an earlier deletionTimestamp, as if it had been waiting for its finalizer.
async fn backdate(server: &Server, key: &str, seconds: i64) {
    let core = server.core();
    let key = bytes::Bytes::from(format!("/registry/{key}"));
    let entry = core.store.get(key.clone()).await.unwrap().entry.unwrap();
    let mut object: serde_json::Value = serde_json::from_slice(&entry.value).unwrap();
    let at = core.clock.now() - jiff::SignedDuration::from_secs(seconds);
    let at = jiff::Timestamp::from_second(at.as_second()).unwrap();
    assert!(object["metadata"]["deletionTimestamp"].is_string(), "{object}");
    object["metadata"]["deletionTimestamp"] = at.to_string().into();
    let value = bytes::Bytes::from(object.to_string());
    let written = core.store.update_with_lease(key, value, entry.mod_revision, None).await;
    assert!(matches!(written.unwrap(), store::Outcome::Written(_)));
}

/// A finalizer does not keep a token alive.
#[tokio::test]
async fn tokens_end_a_minute_after_what_they_are_bound_to_was_deleted() {
    let server = Server::start().await;
    let (admin, anonymous) = (server.admin(), server.rest_anonymous());
    let space = "/api/v1/namespaces/default";
    let kept = |name: &str| json!({"name": name, "finalizers": ["example.com/keep"]});
    let account = |name: &str| json!({"metadata": {"name": name}});
    admin.post(&format!("{space}/serviceaccounts"), &account("robot")).await.expect(201);
    let pod = json!({"metadata": kept("bound"), "spec": {"serviceAccountName": "robot",
        "containers": [{"name": "c", "image": "i"}]}});
    admin.post(&format!("{space}/pods"), &pod).await.expect(201);
    admin.post(&format!("{space}/secrets"), &json!({"metadata": kept("bound")})).await.expect(201);
    admin.post("/api/v1/nodes", &json!({"metadata": kept("bound")})).await.expect(201);
    let doomed = json!({"metadata": kept("doomed")});
    admin.post(&format!("{space}/serviceaccounts"), &doomed).await.expect(201);
    let table = [
        ("robot", Some("Pod"), format!("{space}/pods/bound"), "pods/default/bound"),
        ("robot", Some("Secret"), format!("{space}/secrets/bound"), "secrets/default/bound"),
        ("robot", Some("Node"), "/api/v1/nodes/bound".to_owned(), "nodes/bound"),
        (
            "doomed",
            None,
            format!("{space}/serviceaccounts/doomed"),
            "serviceaccounts/default/doomed",
        ),
    ];
    let whoami = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    for (name, kind, path, key) in table {
        let bound = kind.map(|kind| json!({"kind": kind, "apiVersion": "v1", "name": "bound"}));
        let wanted = json!({"spec": {"boundObjectRef": bound}});
        let mut tokens = Vec::new();
        for _ in 0..4 {
            let path = format!("{space}/serviceaccounts/{name}/token");
            let signed = admin.post(&path, &wanted).await.expect(201);
            tokens.push(format!("Bearer {}", signed["status"]["token"].as_str().unwrap()));
        }
        let ask = async |token: &str| {
            let headers = [("authorization", token), ("content-type", "application/json")];
            anonymous.ask("POST", whoami, &headers, b"{}".to_vec()).await.code
        };
        assert_eq!(ask(&tokens[0]).await, 201, "{path}");
        admin.delete(&format!("{path}?gracePeriodSeconds=0")).await.expect(200);
        assert_eq!(ask(&tokens[1]).await, 201, "{path} has just been deleted");
        for (seconds, token, code) in [(50, &tokens[2], 201), (62, &tokens[3], 401)] {
            backdate(&server, key, seconds).await;
            // A consistent read brings the cache up to date.
            admin.get(&path).await.expect(200);
            assert_eq!(ask(token).await, code, "{path} was deleted {seconds} s ago");
        }
    }
    server.stop().await;
}

/// Whoever may write one nameless object may not give out the right to all.
#[tokio::test]
async fn the_empty_name_does_not_stand_for_every_name() {
    let server = Server::start().await;
    let admin = server.admin();
    let role = json!({"metadata": {"name": "narrow"}, "rules": [
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [""], "verbs": ["get"]},
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["create"]}]});
    admin.post(&format!("{RBAC}/namespaces/default/roles"), &role).await.expect(201);
    let binding = json!({"metadata": {"name": "narrow"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "narrow"},
        "subjects": [{"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"}]});
    admin.post(&format!("{RBAC}/namespaces/default/rolebindings"), &binding).await.expect(201);
    admin.get(&format!("{RBAC}/rolebindings")).await.expect(200);
    let bob = server.rest_as("bob", &[]);
    let rule = |name: &str, names: serde_json::Value| {
        json!({"metadata": {"name": name}, "rules": [
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": names, "verbs": ["get"]}]})
    };
    let roles = format!("{RBAC}/namespaces/default/roles");
    bob.post(&roles, &rule("same", json!([""]))).await.expect(201);
    for names in [json!(null), json!([]), json!(["a"]), json!(["", "a"])] {
        bob.post(&roles, &rule("wider", names)).await.expect(403);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_kubelet_changes_only_its_own_objects() {
    let server = Server::start().await;
    server.default_account("default").await;
    let (admin, kubelet) = (server.admin(), server.rest_as("system:node:n1", &["system:nodes"]));
    let node = |name: &str| json!({"metadata": {"name": name}});
    kubelet.post("/api/v1/nodes", &node("n1")).await.expect(201);
    kubelet.post("/api/v1/nodes", &node("n2")).await.expect(403);
    let tainted = admin.get("/api/v1/nodes/n1").await.expect(200);
    assert_eq!(tainted["spec"]["taints"][0]["key"], "node.kubernetes.io/not-ready");
    let pods = "/api/v1/namespaces/default/pods";
    for (name, node) in [("mine", "n1"), ("other", "n2")] {
        let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}});
        admin.post(pods, &pod).await.expect(201);
    }
    let status = json!({"status": {"phase": "Running"}});
    kubelet.patch(&format!("{pods}/mine/status"), "merge", &status).await.expect(200);
    kubelet.patch(&format!("{pods}/other/status"), "merge", &status).await.expect(403);
    kubelet.delete(&format!("{pods}/other")).await.expect(403);
    kubelet.delete(&format!("{pods}/mine?gracePeriodSeconds=0")).await.expect(200);
    server.stop().await;
}

#[tokio::test]
async fn a_kubelet_reads_what_its_pods_refer_to() {
    let server = Server::start().await;
    server.default_account("default").await;
    let admin = server.admin();
    let kubelet = server.rest_as("system:node:n1", &["system:nodes"]);
    let base = "/api/v1/namespaces/default";
    for kind in ["secrets", "configmaps"] {
        for name in ["mine", "other", "loose"] {
            let object = json!({"metadata": {"name": name}});
            admin.post(&format!("{base}/{kind}"), &object).await.expect(201);
        }
    }
    let volume = json!({"metadata": {"name": "disk"}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/d"},
        "claimRef": {"namespace": "default", "name": "mine"}}});
    let volumes = "/api/v1/persistentvolumes";
    admin.post(volumes, &volume).await.expect(201);
    let claim = json!({"metadata": {"name": "mine"}, "spec": {"volumeName": "disk",
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let claims = format!("{base}/persistentvolumeclaims");
    admin.post(&claims, &claim).await.expect(201);
    kubelet.get(&format!("{base}/secrets/mine")).await.expect(403);
    for (name, node) in [("mine", "n1"), ("other", "n2")] {
        let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": node,
            "containers": [{"name": "c", "image": "i", "envFrom": [{"configMapRef": {"name": name}}]}],
            "volumes": [{"name": "s", "secret": {"secretName": name}},
                {"name": "d", "persistentVolumeClaim": {"claimName": name}}]}});
        admin.post(&format!("{base}/pods"), &pod).await.expect(201);
    }
    for kind in ["secrets", "configmaps"] {
        let all = format!("{base}/{kind}");
        kubelet.get(&format!("{all}/mine")).await.expect(200);
        let mine = format!("{all}?fieldSelector=metadata.name%3Dmine");
        let listed = kubelet.get(&mine).await.expect(200);
        assert_eq!(listed["items"].as_array().unwrap().len(), 1);
        for name in ["other", "loose"] {
            kubelet.get(&format!("{all}/{name}")).await.expect(403);
            let other = format!("{all}?fieldSelector=metadata.name%3D{name}");
            kubelet.get(&other).await.expect(403);
        }
        kubelet.get(&all).await.expect(403);
        kubelet.delete(&format!("{all}/mine")).await.expect(403);
    }
    kubelet.get(&format!("{claims}/mine")).await.expect(200);
    kubelet.get(&format!("{claims}/other")).await.expect(403);
    kubelet.get(&format!("{volumes}/disk")).await.expect(200);
    kubelet.get(volumes).await.expect(403);
    server.stop().await;
}

#[tokio::test]
async fn a_kubelet_reports_on_the_volumes_that_it_keeps() {
    let server = Server::start().await;
    let admin = server.admin();
    let kubelet = server.rest_as("system:node:n1", &["system:nodes"]);
    let volumes = "/api/v1/persistentvolumes";
    let volume = |name: &str, node: &str| {
        json!({"metadata": {"name": name, "labels": {"skiff.dev/node": node}, "finalizers": ["skiff.dev/local-path"]},
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "standard",
                "csi": {"driver": "skiff.dev/local-path", "volumeHandle": name}}})
    };
    for (name, node) in [("mine", "n1"), ("other", "n2")] {
        admin.post(volumes, &volume(name, node)).await.expect(201);
    }
    admin.get(volumes).await.expect(200);
    let selected = |selector: &str| format!("{volumes}?labelSelector={selector}");
    let listed = kubelet.get(&selected("skiff.dev/node%3Dn1")).await.expect(200);
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    for refused in [
        volumes.to_owned(),
        selected("skiff.dev/node%3Dn2"),
        selected("skiff.dev/node"),
        selected("skiff.dev/node%20in%20(n1,n2)"),
        selected("a%3Db"),
    ] {
        kubelet.get(&refused).await.expect(403);
    }
    let made = json!({"metadata": {"annotations": {"skiff.dev/volume-made": "true"}}});
    let done = json!({"metadata": {"finalizers": ["kubernetes.io/pv-protection"]}});
    let larger = json!({"spec": {"capacity": {"storage": "2Gi"}}});
    let mine = format!("{volumes}/mine");
    kubelet.patch(&format!("{volumes}/other"), "merge", &made).await.expect(403);
    kubelet.patch(&mine, "merge", &larger).await.expect(403);
    kubelet.patch(&mine, "merge", &done).await.expect(403);
    kubelet.patch(&mine, "merge", &made).await.expect(200);
    kubelet.post(volumes, &volume("new", "n1")).await.expect(403);
    kubelet.delete(&mine).await.expect(403);
    admin.delete(&mine).await.expect(200);
    kubelet.patch(&mine, "merge", &done).await.expect(200);
    server.stop().await;
}

#[tokio::test]
async fn a_kubelet_sees_its_own_csi_node_and_attachments() {
    let server = Server::start().await;
    let admin = server.admin();
    let kubelet = server.rest_as("system:node:n1", &["system:nodes"]);
    let storage = "/apis/storage.k8s.io/v1";
    let (nodes, attachments) =
        (format!("{storage}/csinodes"), format!("{storage}/volumeattachments"));
    let node = |name: &str| json!({"metadata": {"name": name}, "spec": {"drivers": []}});
    for (name, node) in [("mine", "n1"), ("other", "n2")] {
        let attachment = json!({"metadata": {"name": name}, "spec": {"attacher": "csi.example.com", "nodeName": node,
            "source": {"persistentVolumeName": "v"}}, "status": {"attached": true}});
        let created = admin.post(&attachments, &attachment).await.expect(201);
        assert_eq!(created.get("status"), Some(&json!({"attached": false})), "{created}");
    }
    admin.post(&nodes, &node("n2")).await.expect(201);
    admin.get(&attachments).await.expect(200);
    kubelet.post(&nodes, &node("n1")).await.expect(201);
    let refused = kubelet.post(&nodes, &node("n3")).await.expect(403);
    assert_eq!(
        refused["message"],
        "csinodes.storage.k8s.io \"n3\" is forbidden: can only access CSINode with the same name as the requesting node"
    );
    for (path, code) in [
        (format!("{nodes}/n1"), 200),
        (format!("{nodes}/n2"), 403),
        (nodes.clone(), 403),
        (format!("{attachments}/mine"), 200),
        (format!("{attachments}/other"), 403),
        (format!("{attachments}/none"), 403),
        (format!("{attachments}/mine/status"), 403),
        (attachments.clone(), 403),
        (format!("{storage}/csidrivers"), 200),
        (format!("{storage}/volumeattributesclasses"), 403),
    ] {
        let answer = kubelet.ask("GET", &path, &[], Vec::new()).await;
        assert_eq!(answer.code, code, "{path}: {}", answer.text);
    }
    let attached = json!({"status": {"attached": true}, "spec": {"nodeName": "n2"}});
    let mine = format!("{attachments}/mine");
    let changed = admin.patch(&format!("{mine}/status"), "merge", &attached).await.expect(200);
    assert_eq!(
        (&changed["status"]["attached"], &changed["spec"]["nodeName"]),
        (&json!(true), &json!("n1"))
    );
    let long = json!({"status": {"attachError": {"message": "x".repeat(1025)}}});
    admin.patch(&format!("{mine}/status"), "merge", &long).await.expect(422);
    kubelet.patch(&format!("{mine}/status"), "merge", &attached).await.expect(403);
    kubelet.delete(&format!("{nodes}/n2")).await.expect(403);
    kubelet.delete(&format!("{nodes}/n1")).await.expect(200);
    server.stop().await;
}

#[tokio::test]
async fn a_kubelet_sees_its_own_slices_and_the_claims_of_its_pods() {
    let server = Server::start().await;
    server.default_account("default").await;
    let admin = server.admin();
    let kubelet = server.rest_as("system:node:n1", &["system:nodes"]);
    let slices = "/apis/resource.k8s.io/v1/resourceslices";
    let claims = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
    let slice = |name: &str, node: &str| {
        json!({"metadata": {"name": name}, "spec": {"driver": "d.example.com", "nodeName": node,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1}}})
    };
    admin.post(slices, &slice("other", "n2")).await.expect(201);
    kubelet.post(slices, &slice("mine", "n1")).await.expect(201);
    let refused = kubelet.post(slices, &slice("wrong", "n2")).await.expect(403);
    assert!(
        refused["message"].as_str().unwrap().ends_with(
            "can only create ResourceSlice with the same NodeName as the requesting node"
        ),
        "{refused}"
    );
    for name in ["mine", "other"] {
        admin
            .post(claims, &json!({"metadata": {"name": name}, "spec": {"devices": {}}}))
            .await
            .expect(201);
    }
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}],
        "resourceClaims": [{"name": "x", "resourceClaimName": "mine"}]}});
    admin.post("/api/v1/namespaces/default/pods", &pod).await.expect(201);
    admin.get("/api/v1/pods").await.expect(200);
    admin.get(slices).await.expect(200);
    for (path, code) in [
        (format!("{slices}/mine"), 200),
        (format!("{slices}/other"), 403),
        (slices.to_owned(), 403),
        (format!("{slices}?fieldSelector=spec.nodeName%3Dn1"), 200),
        (format!("{slices}?fieldSelector=spec.nodeName%3Dn2"), 403),
        (format!("{claims}/mine"), 200),
        (format!("{claims}/other"), 403),
        (claims.to_owned(), 403),
    ] {
        let answer = kubelet.ask("GET", &path, &[], Vec::new()).await;
        assert_eq!(answer.code, code, "{path}: {}", answer.text);
    }
    kubelet.delete(&format!("{slices}/other")).await.expect(403);
    kubelet.delete(&format!("{slices}/mine")).await.expect(200);
    server.stop().await;
}

#[tokio::test]
async fn a_kubelet_sees_its_own_node_and_pods() {
    let server = Server::start().await;
    server.default_account("default").await;
    let admin = server.admin();
    let kubelet = server.rest_as("system:node:n1", &["system:nodes"]);
    let pods = "/api/v1/namespaces/default/pods";
    for (name, node) in [("mine", "n1"), ("other", "n2")] {
        admin.post("/api/v1/nodes", &json!({"metadata": {"name": node}})).await.expect(201);
        let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}});
        admin.post(pods, &pod).await.expect(201);
    }
    admin.post(pods, &json!({"metadata": {"name": "loose"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})).await.expect(201);
    admin.get(pods).await.expect(200);
    let field =
        |path: &str, key: &str, value: &str| format!("{path}?fieldSelector={key}%3D{value}");
    let watched = |path: String| format!("{path}&watch=1&timeoutSeconds=1&resourceVersion=0");
    for (path, code) in [
        (format!("{pods}/mine"), 200),
        (format!("{pods}/other"), 403),
        (format!("{pods}/loose"), 403),
        (pods.to_owned(), 403),
        ("/api/v1/pods".to_owned(), 403),
        (field("/api/v1/pods", "spec.nodeName", "n1"), 200),
        (field(pods, "spec.nodeName", "n1"), 200),
        (field("/api/v1/pods", "spec.nodeName", "n2"), 403),
        (field("/api/v1/pods", "spec.nodeName", ""), 403),
        (field("/api/v1/pods", "spec.nodeName!", "n1"), 403),
        (field("/api/v1/pods", "status.phase", "Running"), 403),
        (watched(field("/api/v1/pods", "spec.nodeName", "n1")), 200),
        (watched(field("/api/v1/pods", "spec.nodeName", "n2")), 403),
        (field(pods, "metadata.name", "mine"), 200),
        (field(pods, "metadata.name", "other"), 403),
        ("/api/v1/nodes/n1".to_owned(), 200),
        ("/api/v1/nodes/n2".to_owned(), 403),
        ("/api/v1/nodes".to_owned(), 403),
        (field("/api/v1/nodes", "metadata.name", "n1"), 200),
        (watched(field("/api/v1/nodes", "metadata.name", "n1")), 200),
        (field("/api/v1/nodes", "metadata.name", "n2"), 403),
        ("/api/v1/services".to_owned(), 200),
        ("/apis/node.k8s.io/v1/runtimeclasses".to_owned(), 200),
        ("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases".to_owned(), 403),
        ("/api/v1/namespaces/default/secrets".to_owned(), 403),
        ("/api/v1/namespaces".to_owned(), 403),
    ] {
        let answer = kubelet.ask("GET", &path, &[], Vec::new()).await;
        assert_eq!(answer.code, code, "{path}: {}", answer.text);
    }
    kubelet.delete("/api/v1/nodes/n1").await.expect(403);
    kubelet.delete(&field(pods, "spec.nodeName", "n1")).await.expect(403);
    for nameless in ["system:node:", "system:node"] {
        let nobody = server.rest_as(nameless, &["system:nodes"]);
        nobody.get("/api/v1/services").await.expect(403);
        nobody.get(&field("/api/v1/pods", "spec.nodeName", "")).await.expect(403);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_kubelet_reads_no_secret_through_a_mirror_pod() {
    let server = Server::start().await;
    let admin = server.admin();
    let kubelet = server.rest_as("system:node:n1", &["system:nodes"]);
    let made = admin.post("/api/v1/nodes", &json!({"metadata": {"name": "n1"}})).await.expect(201);
    let base = "/api/v1/namespaces/kube-system";
    admin
        .post(&format!("{base}/secrets"), &json!({"metadata": {"name": "target"}}))
        .await
        .expect(201);
    let reference = json!({"name": "target"});
    for volume in [
        json!({"csi": {"driver": "d", "nodePublishSecretRef": reference}}),
        json!({"flexVolume": {"driver": "d/e", "secretRef": reference}}),
        json!({"rbd": {"monitors": ["m"], "image": "i", "secretRef": reference}}),
        json!({"azureFile": {"secretName": "target", "shareName": "s"}}),
        json!({"iscsi": {"targetPortal": "p", "iqn": "iqn.2001-04.com.example:a", "lun": 0, "secretRef": reference}}),
        json!({"cephfs": {"monitors": ["m"], "secretRef": reference}}),
        json!({"cinder": {"volumeID": "v", "secretRef": reference}}),
        json!({"scaleIO": {"gateway": "g", "system": "s", "volumeName": "v", "secretRef": reference}}),
        json!({"storageos": {"volumeName": "v", "secretRef": reference}}),
        json!({"secret": {"secretName": "target"}}),
        json!({"projected": {"sources": [{"secret": reference}]}}),
        json!({"ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}}}),
        json!({"csi": {"driver": "d"}}),
    ] {
        let mut named = volume.clone();
        named["name"] = "v".into();
        let pod = json!({
            "metadata": {
                "name": "m-n1", "annotations": {"kubernetes.io/config.mirror": "x"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": made["metadata"]["uid"], "controller": true}],
            },
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}], "volumes": [named]},
        });
        let refused = kubelet.post(&format!("{base}/pods"), &pod).await;
        assert_eq!(refused.code, 403, "{volume}: {}", refused.text);
        kubelet.get(&format!("{base}/secrets/target")).await.expect(403);
        kubelet.get(&format!("{base}/pods/m-n1")).await.expect(403);
    }
    server.stop().await;
}

#[tokio::test]
async fn metrics_count_requests_as_kubernetes_does() {
    let server = Server::start().await;
    let admin = server.admin();
    let map = json!({"metadata": {"name": "counted"}});
    admin.post(MAPS, &map).await.expect(201);
    admin.post(MAPS, &map).await.expect(409);
    admin.get(MAPS).await.expect(200);
    let nobody = server.rest_as("nobody", &[]);
    nobody.delete(&format!("{MAPS}/counted")).await.expect(403);
    let text = admin.get("/metrics").await.text;
    let count = |code: u16, verb: &str, scope: &str| {
        let labels = format!(
            "apiserver_request_total{{code=\"{code}\",component=\"apiserver\",dry_run=\"\",group=\"\",\
             resource=\"configmaps\",scope=\"{scope}\",subresource=\"\",verb=\"{verb}\",version=\"v1\"}} "
        );
        let line = text.lines().find_map(|line| line.strip_prefix(&labels));
        line.map(str::to_owned)
    };
    assert_eq!(count(201, "POST", "resource").as_deref(), Some("1"));
    assert_eq!(count(409, "POST", "resource").as_deref(), Some("1"));
    assert_eq!(count(403, "DELETE", "resource").as_deref(), Some("1"));
    assert!(count(200, "LIST", "namespace").is_some(), "{text}");
    for part in [
        "apiserver_request_duration_seconds_bucket{le=\"0.005\",component=\"apiserver\"",
        "apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1",
        "apiserver_storage_objects{resource=\"configmaps\"} ",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    server.stop().await;
}

/// A connection does not outlive the certificate that it was opened with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_expires_on_an_open_connection() {
    let server = Server::start().await;
    let now = server.core().clock.now().as_second();
    let rest = server.rest_until(now + 6);
    rest.get(MAPS).await.expect(200);
    let expired = async {
        while rest.get(MAPS).await.code == 200 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let limit = std::time::Duration::from_secs(30);
    tokio::time::timeout(limit, expired).await.unwrap();
    rest.get(MAPS).await.expect(401);
    server.stop().await;
}
