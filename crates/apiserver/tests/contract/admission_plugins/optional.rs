//! The plugins that have to be enabled.

use super::*;

const PLUGINS: &str = "--enable-admission-plugins=NamespaceExists,LimitPodHardAntiAffinityTopology,\
    AlwaysPullImages,PodNodeSelector,PodTolerationRestriction,ExtendedResourceToleration,\
    OwnerReferencesPermissionEnforcement,DenyServiceExternalIPs";
const CONFIGURATION: &str = "- name: PodNodeSelector
  configuration:
    podNodeSelectorPluginConfig: {clusterDefaultNodeSelector: 'pool=main', default: 'pool=main,disk=ssd'}
- name: PodTolerationRestriction
  configuration:
    apiVersion: podtolerationrestriction.admission.k8s.io/v1alpha1
    kind: Configuration
    default: [{key: pool, operator: Exists}]
    whitelist: [{operator: Exists, effect: NoExecute}, {key: pool, operator: Exists}, {operator: Exists, effect: NoSchedule}]
";

/// A namespace whose pods have tolerations and nodes of their own.
async fn prepare(server: &Server) {
    server.default_account("default").await;
    let annotations = json!({
        "scheduler.alpha.kubernetes.io/node-selector": "pool=own",
        "scheduler.alpha.kubernetes.io/defaultTolerations": "[{\"key\":\"own\",\"operator\":\"Exists\"}]",
        "scheduler.alpha.kubernetes.io/tolerationsWhitelist": "[{\"key\":\"own\",\"operator\":\"Exists\"},{\"operator\":\"Exists\",\"effect\":\"NoExecute\"}]",
    });
    let rest = server.admin();
    let namespace = json!({"metadata": {"name": "own", "annotations": annotations}});
    rest.post("/api/v1/namespaces", &namespace).await.expect(201);
    server.default_account("own").await;
    let broken = json!({"scheduler.alpha.kubernetes.io/node-selector": "a"});
    let namespace = json!({"metadata": {"name": "broken", "annotations": broken}});
    rest.post("/api/v1/namespaces", &namespace).await.expect(201);
    server.default_account("broken").await;
    rest.get("/api/v1/namespaces").await.expect(200);
}

fn cases() -> Vec<Case> {
    let own = "/api/v1/namespaces/own/pods";
    let apart = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        [{"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}}]}});
    let init = json!({"initContainers": [{"name": "i", "image": "i", "imagePullPolicy": "Never"}]});
    let device = json!({"containers": [{"name": "c", "image": "i", "resources":
        {"limits": {"example.com/device": "1"}, "requests": {"example.com/device": "1"}}}]});
    let sized = json!({"containers": [{"name": "c", "image": "i",
        "resources": {"requests": {"cpu": "1m"}}}]});
    let service = json!({"metadata": {"name": "s"}, "spec":
        {"ports": [{"port": 80}], "externalIPs": ["192.0.2.1"]}});
    let seconds = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
    let not_ready =
        [seconds("node.kubernetes.io/not-ready"), seconds("node.kubernetes.io/unreachable")];
    let toleration = |key: &str| json!({"tolerations": [{"key": key, "operator": "Exists"}]});
    vec![
        refused(
            "NamespaceExists",
            "/api/v1/namespaces/gone/configmaps",
            json!({"metadata": {"name": "m"}}),
            (404, "NotFound"),
            "namespaces \"gone\" not found",
        ),
        forbidden(
            "LimitPodHardAntiAffinityTopology",
            PODS,
            pod("p", json!({"affinity": apart})),
            "pods \"p\" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey zone but only key kubernetes.io/hostname is allowed",
        ),
        set(
            "AlwaysPullImages",
            PODS,
            pod("p", init),
            "/spec/initContainers/0/imagePullPolicy",
            "Always".into(),
        ),
        set(
            "PodNodeSelector",
            PODS,
            pod("p", json!({})),
            "/spec/nodeSelector",
            json!({"pool": "main"}),
        ),
        set(
            "PodNodeSelector",
            own,
            pod("p", json!({"nodeSelector": {"disk": "hdd"}})),
            "/spec/nodeSelector",
            json!({"pool": "own", "disk": "hdd"}),
        ),
        forbidden(
            "PodNodeSelector",
            own,
            pod("p", json!({"nodeSelector": {"pool": "main"}})),
            "pods \"p\" is forbidden: pod node label selector conflicts with its namespace node label selector",
        ),
        forbidden(
            "PodNodeSelector",
            PODS,
            pod("p", json!({"nodeSelector": {"disk": "hdd"}})),
            "pods \"p\" is forbidden: pod node label selector labels conflict with its namespace whitelist",
        ),
        refused(
            "PodNodeSelector",
            "/api/v1/namespaces/broken/pods",
            pod("p", json!({})),
            (500, ""),
            "invalid selector: [a]",
        ),
        set(
            "PodTolerationRestriction",
            PODS,
            pod("p", json!({})),
            "/spec/tolerations",
            json!([not_ready[0], not_ready[1], {"key": "pool", "operator": "Exists"}]),
        ),
        set(
            "PodTolerationRestriction",
            own,
            pod("p", json!({})),
            "/spec/tolerations",
            json!([not_ready[0], not_ready[1], {"key": "own", "operator": "Exists"}]),
        ),
        set(
            "PodTolerationRestriction",
            PODS,
            pod("p", sized),
            "/spec/tolerations/3",
            json!({"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"}),
        ),
        refused(
            "PodTolerationRestriction",
            own,
            pod("p", toleration("pool")),
            (500, ""),
            "pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist",
        ),
        refused(
            "PodTolerationRestriction",
            PODS,
            pod("p", toleration("other")),
            (500, ""),
            "pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist",
        ),
        set(
            "ExtendedResourceToleration",
            PODS,
            pod("p", device),
            "/spec/tolerations/3",
            json!({"key": "example.com/device", "operator": "Exists", "effect": "NoSchedule"}),
        ),
        forbidden(
            "DenyServiceExternalIPs",
            "/api/v1/namespaces/default/services",
            service,
            "services \"s\" is forbidden: Use of external IPs is denied by admission control",
        ),
    ]
}

#[tokio::test]
async fn each_does_its_work_where_it_is_enabled() {
    for enabled in [true, false] {
        // A namespace that does not exist is NamespaceLifecycle's business otherwise.
        let other = "--disable-admission-plugins=NamespaceLifecycle";
        let server = match enabled {
            true => configured(&[PLUGINS, other], CONFIGURATION).await,
            false => Server::start_with(&[other]).await,
        };
        prepare(&server).await;
        for case in &cases() {
            check(&server.admin(), case, enabled).await;
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn pods_that_have_an_image_keep_their_policy() {
    let server = Server::start_with(&["--enable-admission-plugins=AlwaysPullImages"]).await;
    server.default_account("default").await;
    let rest = server.admin();
    let made = rest.post(PODS, &pod("p", json!({}))).await.expect(201);
    assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Always");
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    rest.patch(&format!("{PODS}/p"), "merge", &labelled).await.expect(200);
    let image = json!({"spec": {"containers": [{"name": "c", "image": "j"}]}});
    rest.patch(&format!("{PODS}/p"), "strategic-merge", &image).await.expect(200);
    server.stop().await;
}

#[tokio::test]
async fn an_update_brings_no_external_address() {
    let server = Server::start_with(&["--enable-admission-plugins=DenyServiceExternalIPs"]).await;
    let rest = server.admin();
    let services = "/api/v1/namespaces/default/services";
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    rest.post(services, &service).await.expect(201);
    let path = format!("{services}/s");
    let given = json!({"spec": {"externalIPs": ["192.0.2.1"]}});
    let refused = rest.patch(&path, "merge", &given).await.expect(403);
    assert_eq!(
        refused["message"],
        "services \"s\" is forbidden: Use of external IPs is denied by admission control"
    );
    rest.patch(&path, "merge", &json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    server.stop().await;
}

#[tokio::test]
async fn a_namespace_is_made_for_what_is_created_in_it() {
    let server = Server::start_with(&["--enable-admission-plugins=NamespaceAutoProvision"]).await;
    let rest = server.admin();
    let map = json!({"metadata": {"name": "m"}});
    rest.post("/api/v1/namespaces/new/configmaps", &map).await.expect(201);
    let made = rest.get("/api/v1/namespaces/new").await.expect(200);
    assert_eq!(made["status"]["phase"], "Active");
    rest.post("/api/v1/namespaces/new/configmaps", &json!({"metadata": {"name": "n"}}))
        .await
        .expect(201);
    rest.post("/api/v1/namespaces/dry/configmaps?dryRun=All", &map).await.expect(404);
    rest.get("/api/v1/namespaces/dry").await.expect(404);
    server.stop().await;
}

#[tokio::test]
async fn owners_are_given_by_whoever_may_delete() {
    const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
    let plugin = "--enable-admission-plugins=OwnerReferencesPermissionEnforcement";
    for flags in [vec![plugin], vec![]] {
        let server = Server::start_with(&flags).await;
        let (admin, enabled) = (server.admin(), !flags.is_empty());
        let maps = format!("{NAMESPACE}/configmaps");
        for (user, rules) in [
            (
                "maker",
                json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]}]),
            ),
            (
                "deleter",
                json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "delete", "patch", "get"]}]),
            ),
            (
                "owner",
                json!([
                {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "delete"]},
                {"apiGroups": [""], "resources": ["secrets/finalizers"], "verbs": ["update"]}]),
            ),
        ] {
            let role = json!({"metadata": {"name": user}, "rules": rules});
            admin.post(&format!("{RBAC}/clusterroles"), &role).await.expect(201);
            let binding = json!({"metadata": {"name": user},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]});
            admin.post(&format!("{RBAC}/clusterrolebindings"), &binding).await.expect(201);
        }
        let owned = |name: &str, version: &str, kind: &str, blocks: bool| {
            let owner = json!({"apiVersion": version, "kind": kind, "name": "o", "uid": "u", "blockOwnerDeletion": blocks});
            json!({"metadata": {"name": name, "ownerReferences": [owner]}})
        };
        for (user, name, version, kind, blocks, problem) in [
            (
                "maker",
                "a",
                "v1",
                "Secret",
                false,
                "cannot set an ownerRef on a resource you can't delete: , <nil>",
            ),
            ("deleter", "b", "v1", "Secret", false, ""),
            (
                "deleter",
                "c",
                "v1",
                "Secret",
                true,
                "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>",
            ),
            (
                "deleter",
                "d",
                "a.b/v1",
                "Thing",
                true,
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion a.b/v1 Kind Thing: no matches for kind \"Thing\" in version \"a.b/v1\"",
            ),
            ("owner", "e", "v1", "Secret", true, ""),
        ] {
            let answer =
                server.rest_as(user, &[]).post(&maps, &owned(name, version, kind, blocks)).await;
            if problem.is_empty() || !enabled {
                assert_eq!(answer.code, 201, "{user} {name}: {}", answer.text);
            } else {
                let refused = answer.expect(403);
                assert_eq!(
                    refused["message"],
                    format!("configmaps \"{name}\" is forbidden: {problem}")
                );
            }
        }
        let data = json!({"data": {"a": "b"}});
        server
            .rest_as("deleter", &[])
            .patch(&format!("{maps}/b"), "merge", &data)
            .await
            .expect(200);
        server.stop().await;
    }
}

#[tokio::test]
async fn events_are_limited() {
    let limits = "- name: EventRateLimit\n  configuration:\n    apiVersion: eventratelimit.admission.k8s.io/v1alpha1\n    kind: Configuration\n    limits: [{type: Namespace, qps: 1, burst: 2}, {type: User, qps: 1, burst: 2}]\n";
    let server = configured(&["--enable-admission-plugins=EventRateLimit"], limits).await;
    let rest = server.admin();
    let event = |name: &str| {
        json!({"metadata": {"name": name}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
            "reason": "R", "type": "Normal"})
    };
    let events = format!("{NAMESPACE}/events");
    for name in ["a", "b"] {
        rest.post(&format!("{events}?dryRun=All"), &event(name)).await.expect(201);
        rest.post(&events, &event(name)).await.expect(201);
    }
    let mut refused = rest.post(&events, &event("c")).await;
    for name in ["d", "e"] {
        if refused.code == 201 {
            refused = rest.post(&events, &event(name)).await;
        }
    }
    let refused = refused.expect(429);
    assert_eq!(refused["reason"], "TooManyRequests");
    assert_eq!(
        refused["message"],
        "Too many requests: [limit reached on type Namespace for key default, limit reached on type User for key kubernetes-admin]"
    );
    rest.post(&format!("{NAMESPACE}/configmaps"), &json!({"metadata": {"name": "m"}}))
        .await
        .expect(201);
    server.stop().await;
}
