//! ResourceQuota: what may only be used where a quota covers it, and quotas by class.

use super::*;

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const LIMITED: &str = "- name: ResourceQuota
  configuration:
    apiVersion: apiserver.config.k8s.io/v1
    kind: ResourceQuotaConfiguration
    limitedResources:
    - resource: persistentvolumeclaims
      matchContains: ['.storageclass.storage.k8s.io/requests.storage']
    - resource: pods
      matchScopes: [{scopeName: PriorityClass, operator: In, values: [urgent]}]
";

async fn quota(rest: &Rest, name: &str, spec: Value) {
    let object = json!({"metadata": {"name": name}, "spec": spec});
    rest.post(QUOTAS, &object).await.expect(201);
    let none = |hard: &Value| -> Value {
        hard.as_object().unwrap().keys().map(|name| (name.clone(), json!("0"))).collect()
    };
    let status = json!({"status": {"hard": spec["hard"], "used": none(&spec["hard"])}});
    rest.patch(&format!("{QUOTAS}/{name}/status"), "merge", &status).await.expect(200);
    rest.get(&format!("{QUOTAS}/{name}")).await.expect(200);
}

fn claim(name: &str, class: &str, attributes: Option<&str>) -> Value {
    let mut claim = json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
        "storageClassName": class, "resources": {"requests": {"storage": "2Gi"}}}});
    if let Some(attributes) = attributes {
        claim["spec"]["volumeAttributesClassName"] = attributes.into();
    }
    claim
}

#[tokio::test]
async fn what_is_limited_needs_a_quota() {
    let plain = Server::start().await;
    let server = configured(&[], LIMITED).await;
    for server in [&plain, &server] {
        server.default_account("default").await;
        let class = json!({"metadata": {"name": "urgent"}, "value": 10});
        let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
        server.admin().post(classes, &class).await.expect(201);
    }
    let urgent = |name: &str| pod(name, json!({"priorityClassName": "urgent"}));
    plain.admin().post(CLAIMS, &claim("a", "gold", None)).await.expect(201);
    plain.admin().post(PODS, &urgent("a")).await.expect(201);
    plain.stop().await;
    let rest = server.admin();
    let refused = rest.post(CLAIMS, &claim("a", "gold", None)).await.expect(403);
    assert_eq!(refused["reason"], "Forbidden");
    assert_eq!(
        refused["message"],
        "persistentvolumeclaims \"a\" is forbidden: insufficient quota to consume: gold.storageclass.storage.k8s.io/requests.storage"
    );
    rest.post(CLAIMS, &claim("b", "", None)).await.expect(201);
    let refused = rest.post(PODS, &urgent("a")).await.expect(500);
    assert_eq!(
        refused["message"],
        "insufficient quota to match these scopes: [{PriorityClass In [urgent]}]"
    );
    rest.post(PODS, &pod("b", json!({}))).await.expect(201);
    let gold = json!({"hard": {"gold.storageclass.storage.k8s.io/requests.storage": "3Gi"}});
    quota(&rest, "gold", gold).await;
    rest.post(CLAIMS, &claim("a", "gold", None)).await.expect(201);
    let refused = rest.post(CLAIMS, &claim("c", "gold", None)).await.expect(403);
    assert_eq!(
        refused["message"],
        "persistentvolumeclaims \"c\" is forbidden: exceeded quota: gold, requested: gold.storageclass.storage.k8s.io/requests.storage=2Gi, used: gold.storageclass.storage.k8s.io/requests.storage=2Gi, limited: gold.storageclass.storage.k8s.io/requests.storage=3Gi"
    );
    let selector = json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["urgent"]}]});
    quota(&rest, "urgent", json!({"hard": {"pods": "1"}, "scopeSelector": selector})).await;
    rest.post(PODS, &urgent("a")).await.expect(201);
    let refused = rest.post(PODS, &urgent("c")).await.expect(403);
    assert_eq!(
        refused["message"],
        "pods \"c\" is forbidden: exceeded quota: urgent, requested: pods=1, used: pods=1, limited: pods=1"
    );
    rest.post(PODS, &pod("c", json!({}))).await.expect(201);
    server.stop().await;
}

#[tokio::test]
async fn quotas_are_about_classes() {
    let server = Server::start().await;
    let rest = server.admin();
    quota(
        &rest,
        "silver",
        json!({"hard": {"silver.storageclass.storage.k8s.io/persistentvolumeclaims": "1"}}),
    )
    .await;
    let scoped = json!({"matchExpressions": [{"scopeName": "VolumeAttributesClass", "operator": "In", "values": ["fast"]}]});
    quota(&rest, "fast", json!({"hard": {"persistentvolumeclaims": "1"}, "scopeSelector": scoped}))
        .await;
    for (name, class, attributes, refusal) in [
        ("a", "silver", None, ""),
        (
            "b",
            "silver",
            None,
            "exceeded quota: silver, requested: silver.storageclass.storage.k8s.io/persistentvolumeclaims=1, used: silver.storageclass.storage.k8s.io/persistentvolumeclaims=1, limited: silver.storageclass.storage.k8s.io/persistentvolumeclaims=1",
        ),
        ("c", "gold", None, ""),
        ("d", "gold", Some("fast"), ""),
        ("e", "gold", Some("slow"), ""),
        (
            "f",
            "gold",
            Some("fast"),
            "exceeded quota: fast, requested: persistentvolumeclaims=1, used: persistentvolumeclaims=1, limited: persistentvolumeclaims=1",
        ),
    ] {
        let answer = rest.post(CLAIMS, &claim(name, class, attributes)).await;
        if refusal.is_empty() {
            assert_eq!(answer.code, 201, "{name}: {}", answer.text);
        } else {
            let message = format!("persistentvolumeclaims \"{name}\" is forbidden: {refusal}");
            assert_eq!(answer.expect(403)["message"], message);
        }
    }
    server.stop().await;
}
