//! Quotas hold, however many writers there are and whichever front end they come through.

use futures::future::join_all;
use rpc::api_v1 as pb;
use serde_json::{Value, json};

use crate::server::{Rest, Server};

const NAMESPACE: &str = "/api/v1/namespaces/default";

/// Creates a quota and the status that its controller would set.
async fn quota(rest: &Rest, name: &str, spec: Value, used: Value) {
    let path = format!("{NAMESPACE}/resourcequotas");
    let object = json!({"metadata": {"name": name}, "spec": spec});
    rest.post(&path, &object).await.expect(201);
    let status = json!({"status": {"hard": spec["hard"], "used": used}});
    rest.patch(&format!("{path}/{name}/status"), "merge", &status).await.expect(200);
    // Admission uses the cache, which follows the store.
    rest.get(&format!("{path}/{name}")).await.expect(200);
}

async fn used(rest: &Rest, name: &str) -> Value {
    let path = format!("{NAMESPACE}/resourcequotas/{name}");
    rest.get(&path).await.expect(200)["status"]["used"].clone()
}

fn pod(name: &str, requests: &Value) -> Value {
    let container = json!({"name": "c", "image": "i", "resources": {"requests": requests}});
    json!({"metadata": {"name": name}, "spec": {"containers": [container]}})
}

#[tokio::test]
async fn both_front_ends_refuse_what_exceeds_a_quota() {
    let server = Server::start().await;
    server.default_account("default").await;
    let (rest, mut grpc) = (server.admin(), server.grpc());
    let hard = json!({"pods": "2", "requests.cpu": "1"});
    quota(&rest, "compute", json!({"hard": hard}), json!({"pods": "0", "requests.cpu": "0"})).await;
    let pods = format!("{NAMESPACE}/pods");
    let refused = rest.post(&pods, &pod("a", &json!({}))).await.expect(403);
    assert_eq!(
        refused["message"],
        "pods \"a\" is forbidden: failed quota: compute: must specify requests.cpu for: c"
    );
    let small = json!({"cpu": "300m"});
    rest.post(&pods, &pod("a", &small)).await.expect(201);
    let rehearsed = rest.post(&format!("{pods}?dryRun=All"), &pod("b", &small)).await;
    rehearsed.expect(201);
    rest.post(&pods, &pod("a", &small)).await.expect(409);
    assert_eq!(
        used(&rest, "compute").await,
        json!({"pods": "1", "requests.cpu": "300m"}),
        "neither a rehearsal nor a write that failed is charged"
    );
    let big = pod("b", &json!({"cpu": "800m"}));
    let refused = rest.post(&pods, &big).await.expect(403);
    assert_eq!(
        refused["message"],
        "pods \"b\" is forbidden: exceeded quota: compute, requested: requests.cpu=800m, \
         used: requests.cpu=300m, limited: requests.cpu=1"
    );
    let create = pb::CreateRequest {
        target: Some(pb::Target {
            version: "v1".into(),
            resource: "pods".into(),
            namespace: "default".into(),
            ..pb::Target::default()
        }),
        json: big.to_string().into(),
        options: None,
    };
    let status = grpc.create(create).await.unwrap_err();
    let error = rpc::status::from_grpc(&status).unwrap();
    assert_eq!(refused["message"], error.message());
    let resized =
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]}});
    let refused =
        rest.patch(&format!("{pods}/a/resize"), "strategic-merge", &resized).await.expect(403);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("exceeded quota: compute, requested: requests.cpu=1700m"),
        "{refused}"
    );
    server.stop().await;
}

#[tokio::test]
async fn concurrent_writers_never_exceed_a_quota() {
    let server = Server::start().await;
    server.default_account("default").await;
    let rest = server.admin();
    quota(
        &rest,
        "count",
        json!({"hard": {"count/configmaps": "5"}}),
        json!({"count/configmaps": "0"}),
    )
    .await;
    let writers = (0..24).map(|number| {
        let rest = rest.clone();
        async move {
            let object = json!({"metadata": {"name": format!("m{number}")}});
            rest.post(&format!("{NAMESPACE}/configmaps"), &object).await.code
        }
    });
    let codes = join_all(writers).await;
    let made = codes.iter().filter(|code| **code == 201).count();
    assert_eq!(made, 5, "{codes:?}");
    assert!(codes.iter().all(|code| matches!(code, 201 | 403)), "{codes:?}");
    assert_eq!(used(&rest, "count").await, json!({"count/configmaps": "5"}));
    server.stop().await;
}

#[tokio::test]
async fn updates_of_services_and_claims_are_charged() {
    let server = Server::start().await;
    let rest = server.admin();
    let hard = json!({
        "services": "2", "services.nodeports": "1", "services.loadbalancers": "0",
        "requests.storage": "10Gi", "fast.storageclass.storage.k8s.io/requests.storage": "1Gi",
    });
    let none: Value = hard
        .as_object()
        .unwrap()
        .keys()
        .map(|name| (name.clone(), json!("0")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    quota(&rest, "all", json!({"hard": hard}), none).await;
    let services = format!("{NAMESPACE}/services");
    let service = |name: &str, type_: &str| json!({"metadata": {"name": name}, "spec": {"type": type_, "ports": [{"port": 80}]}});
    rest.post(&services, &service("a", "ClusterIP")).await.expect(201);
    let to_node_port = json!({"spec": {"type": "NodePort"}});
    rest.patch(&format!("{services}/a"), "merge", &to_node_port).await.expect(200);
    for (type_, resource) in
        [("NodePort", "services.nodeports"), ("LoadBalancer", "services.loadbalancers")]
    {
        let refused = rest.post(&services, &service("b", type_)).await.expect(403);
        let text = refused["message"].as_str().unwrap();
        assert!(
            text.starts_with(
                "services \"b\" is forbidden: exceeded quota: all, requested: services."
            ),
            "{text}"
        );
        assert!(text.contains(resource), "{text}");
    }
    let claims = format!("{NAMESPACE}/persistentvolumeclaims");
    let claim = |name: &str, class: &str, size: &str| {
        json!({"metadata": {"name": name}, "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}}}})
    };
    rest.post(&claims, &claim("a", "slow", "9Gi")).await.expect(201);
    let refused = rest.post(&claims, &claim("b", "fast", "2Gi")).await.expect(403);
    assert_eq!(
        refused["message"],
        "persistentvolumeclaims \"b\" is forbidden: exceeded quota: all, requested: \
         fast.storageclass.storage.k8s.io/requests.storage=2Gi,requests.storage=2Gi, used: \
         fast.storageclass.storage.k8s.io/requests.storage=0,requests.storage=9Gi, limited: \
         fast.storageclass.storage.k8s.io/requests.storage=1Gi,requests.storage=10Gi"
    );
    let sum = used(&rest, "all").await;
    assert_eq!(
        (&sum["services"], &sum["services.nodeports"], &sum["requests.storage"]),
        (&json!("1"), &json!("1"), &json!("9Gi"))
    );
    server.stop().await;
}

#[tokio::test]
async fn scopes_restrict_what_a_quota_matches() {
    let server = Server::start().await;
    server.default_account("default").await;
    let rest = server.admin();
    let none = json!({"pods": "0"});
    for (name, scope) in [("best", "BestEffort"), ("ending", "Terminating")] {
        quota(&rest, name, json!({"hard": {"pods": "0"}, "scopes": [scope]}), none.clone()).await;
    }
    let selector = json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["system-node-critical"]}]});
    quota(&rest, "critical", json!({"hard": {"pods": "0"}, "scopeSelector": selector}), none).await;
    let pods = format!("{NAMESPACE}/pods");
    let sized = json!({"cpu": "1m"});
    for (mut pod, change, quota) in [
        (pod("a", &json!({})), json!({}), Some("best")),
        (pod("b", &sized), json!({"activeDeadlineSeconds": 5}), Some("ending")),
        (pod("c", &sized), json!({"priorityClassName": "system-node-critical"}), Some("critical")),
        (pod("d", &sized), json!({}), None),
    ] {
        pod["spec"].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let answer = rest.post(&pods, &pod).await;
        match quota {
            Some(quota) => {
                let refused = answer.expect(403);
                let wanted = format!(
                    "exceeded quota: {quota}, requested: pods=1, used: pods=0, limited: pods=0"
                );
                assert!(refused["message"].as_str().unwrap().ends_with(&wanted), "{refused}");
            }
            None => {
                answer.expect(201);
            }
        }
    }
    server.stop().await;
}
