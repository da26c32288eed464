//! Deletion: grace, finalizers, preconditions, collections, namespaces.

use serde_json::{Value, json};

use crate::server::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

#[tokio::test]
async fn finalizers_delay_a_deletion() {
    let server = Server::start().await;
    let rest = server.admin();
    let map = json!({"metadata": {"name": "a", "finalizers": ["example.com/hold"]}});
    let created = rest.post(MAPS, &map).await.expect(201);
    let uid = json!({"preconditions": {"uid": "other"}});
    rest.send("DELETE", &format!("{MAPS}/a"), &uid).await.expect(409);
    let uid = json!({"preconditions": {"uid": created["metadata"]["uid"]}});
    let held = rest.send("DELETE", &format!("{MAPS}/a"), &uid).await.expect(200);
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    let more = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
    let refused = rest.patch(&format!("{MAPS}/a"), "merge", &more).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("no new finalizers can be added"));
    let none = json!({"metadata": {"finalizers": null}});
    rest.patch(&format!("{MAPS}/a"), "merge", &none).await.expect(200);
    rest.get(&format!("{MAPS}/a")).await.expect(404);

    rest.post(MAPS, &json!({"metadata": {"name": "b"}})).await.expect(201);
    let held = rest.delete(&format!("{MAPS}/b?propagationPolicy=Foreground")).await.expect(200);
    assert_eq!(held["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    rest.delete(&format!("{MAPS}/b?propagationPolicy=Sideways")).await.expect(422);
    server.stop().await;
}

#[tokio::test]
async fn bound_pods_get_a_grace_period() {
    let server = Server::start().await;
    server.default_account("default").await;
    let rest = server.admin();
    rest.post(PODS, &pod("pending")).await.expect(201);
    rest.delete(&format!("{PODS}/pending")).await.expect(200);
    rest.get(&format!("{PODS}/pending")).await.expect(404);
    rest.post(PODS, &pod("bound")).await.expect(201);
    let binding = json!({"target": {"kind": "Node", "name": "n"}});
    rest.post(&format!("{PODS}/bound/binding"), &binding).await.expect(201);
    let going = rest.delete(&format!("{PODS}/bound")).await.expect(200);
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    let shorter = rest.delete(&format!("{PODS}/bound?gracePeriodSeconds=5")).await.expect(200);
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    let longer = rest.delete(&format!("{PODS}/bound?gracePeriodSeconds=60")).await.expect(200);
    assert_eq!(longer["metadata"]["deletionGracePeriodSeconds"], 5);
    rest.delete(&format!("{PODS}/bound?gracePeriodSeconds=0")).await.expect(200);
    rest.get(&format!("{PODS}/bound")).await.expect(404);
    server.stop().await;
}

#[tokio::test]
async fn a_binding_does_not_change_the_generation() {
    let server = Server::start().await;
    server.default_account("default").await;
    let rest = server.admin();
    rest.post(PODS, &pod("p")).await.expect(201);
    let binding = json!({
        "metadata": {"labels": {"zone": "z"}, "annotations": {"why": "room"}},
        "target": {"kind": "Node", "name": "n"},
    });
    rest.post(&format!("{PODS}/p/binding"), &binding).await.expect(201);
    let path = format!("{PODS}/p");
    let bound = rest.get(&path).await.expect(200);
    assert_eq!(bound["spec"]["nodeName"], "n");
    assert_eq!(bound["metadata"]["generation"], 1);
    assert_eq!(bound["metadata"]["labels"]["zone"], "z");
    assert_eq!(bound["metadata"]["annotations"]["why"], "room");
    let condition = &bound["status"]["conditions"][0];
    assert_eq!(condition["type"], "PodScheduled");
    assert_eq!(condition["observedGeneration"], 1);
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    let same = rest.patch(&path, "merge", &labelled).await.expect(200);
    assert_eq!(same["metadata"]["generation"], 1);
    let limited = json!({"spec": {"activeDeadlineSeconds": 60}});
    let next = rest.patch(&path, "merge", &limited).await.expect(200);
    assert_eq!(next["metadata"]["generation"], 2);
    let going = rest.delete(&path).await.expect(200);
    assert_eq!(going["metadata"]["generation"], 3);
    server.stop().await;
}

#[tokio::test]
async fn collections_and_namespaces_are_deleted() {
    let server = Server::start().await;
    let rest = server.admin();
    for (name, keep) in [("a", "no"), ("b", "no"), ("c", "yes")] {
        rest.post(MAPS, &json!({"metadata": {"name": name, "labels": {"keep": keep}}}))
            .await
            .expect(201);
    }
    let gone = rest.delete(&format!("{MAPS}?labelSelector=keep%3Dno")).await.expect(200);
    assert_eq!(gone["items"].as_array().unwrap().len(), 2);
    assert_eq!(rest.get(MAPS).await.expect(200)["items"].as_array().unwrap().len(), 1);

    rest.post("/api/v1/namespaces", &json!({"metadata": {"name": "x"}})).await.expect(201);
    for name in ["default", "kube-system", "kube-public"] {
        rest.delete(&format!("/api/v1/namespaces/{name}")).await.expect(403);
    }
    let going = rest.delete("/api/v1/namespaces/x").await.expect(200);
    assert_eq!(going["status"]["phase"], "Terminating");
    let late = rest
        .post("/api/v1/namespaces/x/configmaps", &json!({"metadata": {"name": "l"}}))
        .await
        .expect(403);
    assert_eq!(late["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut finalized = going;
    finalized["spec"]["finalizers"] = json!([]);
    rest.send("PUT", "/api/v1/namespaces/x/finalize", &finalized).await.expect(200);
    rest.get("/api/v1/namespaces/x").await.expect(404);
    rest.post("/api/v1/namespaces/x/configmaps", &json!({"metadata": {"name": "l"}}))
        .await
        .expect(404);
    server.stop().await;
}

#[tokio::test]
async fn evictions_respect_budgets() {
    let server = Server::start().await;
    server.default_account("default").await;
    let rest = server.admin();
    let mut labelled = pod("p");
    labelled["metadata"]["labels"] = json!({"app": "web"});
    rest.post(PODS, &labelled).await.expect(201);
    rest.post(&format!("{PODS}/p/binding"), &json!({"target": {"name": "n"}})).await.expect(201);
    let running = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    rest.patch(&format!("{PODS}/p/status"), "strategic-merge", &running).await.expect(200);
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    rest.post(budgets, &budget).await.expect(201);
    let eviction = json!({"metadata": {"name": "p", "namespace": "default"}});
    let status = |allowed: i32| json!({"status": {"observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}});
    rest.patch(&format!("{budgets}/b/status"), "merge", &status(0)).await.expect(200);
    let refused = rest.post(&format!("{PODS}/p/eviction"), &eviction).await.expect(429);
    assert_eq!(refused["details"]["causes"][0]["reason"], "DisruptionBudget");
    rest.patch(&format!("{budgets}/b/status"), "merge", &status(1)).await.expect(200);
    // An old client's version; of others, only the kind is known.
    let mut old = eviction.clone();
    old["kind"] = "Eviction".into();
    for (version, code, message) in [
        (
            "policy/v2",
            400,
            "Eviction in version \"v2\" cannot be handled as a Eviction: no kind \"Eviction\" is registered for version \"policy/v2\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
        ),
        (
            "v1",
            400,
            "Eviction in version \"v1\" cannot be handled as a Eviction: no kind \"Eviction\" is registered for version \"v1\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
        ),
        ("policy/v1beta1", 201, ""),
    ] {
        old["apiVersion"] = version.into();
        let answer = rest.post(&format!("{PODS}/p/eviction"), &old).await.expect(code);
        assert_eq!(answer["message"].as_str().unwrap_or_default(), message);
    }
    let after = rest.get(&format!("{budgets}/b")).await.expect(200);
    assert_eq!(after["status"]["disruptionsAllowed"], 0);
    assert!(after["status"]["disruptedPods"]["p"].is_string());
    server.stop().await;
}

#[tokio::test]
async fn an_eviction_says_why_the_pod_ends() {
    let server = Server::start().await;
    server.default_account("default").await;
    let rest = server.admin();
    for (name, phase) in [("a", "Running"), ("b", "Pending")] {
        rest.post(PODS, &pod(name)).await.expect(201);
        let path = format!("{PODS}/{name}");
        rest.post(&format!("{path}/binding"), &json!({"target": {"name": "n"}})).await.expect(201);
        let status = json!({"status": {"phase": phase, "conditions": [{"type": "Ready", "status": "True"}]}});
        rest.patch(&format!("{path}/status"), "strategic-merge", &status).await.expect(200);
        let dry = json!({"metadata": {"name": name}, "deleteOptions": {"dryRun": ["All"]}});
        rest.post(&format!("{path}/eviction"), &dry).await.expect(201);
        let old = json!({"metadata": {"name": name}, "deleteOptions": {"preconditions": {"uid": "other"}}});
        rest.post(&format!("{path}/eviction"), &old).await.expect(409);
        let untouched = rest.get(&path).await.expect(200);
        assert!(!untouched.to_string().contains("DisruptionTarget"), "{untouched}");
        let version = untouched["metadata"]["resourceVersion"].as_str().unwrap();
        let now = json!({"metadata": {"name": name}, "deleteOptions": {"preconditions": {"resourceVersion": version}}});
        rest.post(&format!("{path}/eviction"), &now).await.expect(201);
        let evicted = rest.get(&path).await.expect(200);
        assert!(evicted["metadata"]["deletionTimestamp"].is_string());
        let conditions = evicted["status"]["conditions"].as_array().unwrap().clone();
        let target = conditions.iter().find(|one| one["type"] == "DisruptionTarget").unwrap();
        assert_eq!(target["status"], "True");
        assert_eq!(target["reason"], "EvictionByEvictionAPI");
        assert_eq!(target["message"], "Eviction API: evicting");
        assert!(target["lastTransitionTime"].is_string());
        assert!(conditions.iter().any(|one| one["type"] == "Ready"));
        // Again: the condition stays as it was.
        let again = json!({"metadata": {"name": name}});
        rest.post(&format!("{path}/eviction"), &again).await.expect(201);
        let after = rest.get(&path).await.expect(200);
        let again = after["status"]["conditions"].as_array().unwrap();
        assert_eq!(again.len(), conditions.len());
        let again = again.iter().find(|one| one["type"] == "DisruptionTarget").unwrap();
        assert_eq!(again["lastTransitionTime"], target["lastTransitionTime"]);
    }
    server.stop().await;
}

#[tokio::test]
async fn what_the_system_needs_is_protected_or_restored() {
    let server = Server::start().await;
    let rest = server.admin();
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    for name in ["system-node-critical", "system-cluster-critical"] {
        let refused = rest.delete(&format!("{classes}/{name}")).await.expect(403);
        assert_eq!(
            refused["message"],
            format!(
                "priorityclasses.scheduling.k8s.io \"{name}\" is forbidden: this is a system priority class and cannot be deleted"
            )
        );
    }
    rest.delete(classes).await.expect(403);
    rest.get(&format!("{classes}/system-node-critical")).await.expect(200);
    let own = "/api/v1/namespaces/default";
    let paths = [
        format!("{own}/services/kubernetes"),
        format!("{own}/endpoints/kubernetes"),
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes".to_owned(),
        "/api/v1/namespaces/kube-node-lease".to_owned(),
    ];
    let mut before = Vec::new();
    for path in &paths {
        before.push(rest.get(path).await.expect(200));
        rest.delete(path).await;
    }
    // Nobody empties the namespace here, so that its finalizer is removed by hand.
    let finalized = json!({"metadata": {"name": "kube-node-lease"}, "spec": {"finalizers": []}});
    rest.send("PUT", &format!("{}/finalize", paths[3]), &finalized).await.expect(200);
    let deadline = clock::instant() + std::time::Duration::from_secs(10);
    for (path, before) in paths.iter().zip(before) {
        let back = tokio::time::timeout_at(deadline, async {
            loop {
                let answer = rest.get(path).await;
                if answer.code == 200 {
                    return answer.body;
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        });
        let back = back.await.unwrap_or_else(|_| panic!("{path} is not back within 10 s"));
        assert_ne!(back["metadata"]["uid"], before["metadata"]["uid"], "{path}");
        assert_eq!(back["spec"]["clusterIP"], before["spec"]["clusterIP"], "{path}");
        assert_eq!(back["subsets"], before["subsets"], "{path}");
    }
    // What is there is not written again.
    let version = |object: Value| object["metadata"]["resourceVersion"].clone();
    let first = version(rest.get(&paths[1]).await.expect(200));
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert_eq!(version(rest.get(&paths[1]).await.expect(200)), first);
    server.stop().await;
}
