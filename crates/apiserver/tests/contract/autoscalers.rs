//! HorizontalPodAutoscalers: two versions of the same objects.

use serde_json::{Value, json};

use crate::server::Server;

const V1: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
const V2: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";

fn autoscaler(name: &str, spec: Value) -> Value {
    let mut all = json!({"maxReplicas": 5, "scaleTargetRef":
        {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}});
    for (field, value) in spec.as_object().unwrap() {
        all[field] = value.clone();
    }
    json!({"metadata": {"name": name}, "spec": all})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_of_an_autoscaler_are_one_object() {
    let server = Server::start().await;
    let admin = server.admin();
    let older = autoscaler("a", json!({"targetCPUUtilizationPercentage": 60}));
    let older = admin.post(V1, &older).await.expect(201);
    assert_eq!(
        (&older["apiVersion"], &older["spec"]["minReplicas"]),
        (&json!("autoscaling/v1"), &json!(1))
    );
    let newer = admin.get(&format!("{V2}/a")).await.expect(200);
    assert_eq!(newer["metadata"]["uid"], older["metadata"]["uid"]);
    assert_eq!(
        newer["spec"]["metrics"],
        json!([{"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 60}}}])
    );
    // Of v2, with what v1 has no fields for.
    let behavior = json!({"scaleDown": {"stabilizationWindowSeconds": 5}});
    let change = json!({"spec": {"behavior": behavior, "metrics": [{"type": "Resource",
        "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}}]}});
    let newer = admin.patch(&format!("{V2}/a"), "merge", &change).await.expect(200);
    let filled = &newer["spec"]["behavior"];
    assert_eq!(filled["scaleUp"]["policies"].as_array().unwrap().len(), 2);
    assert_eq!(
        filled["scaleDown"]["policies"][0],
        json!({"type": "Percent", "value": 100, "periodSeconds": 15})
    );
    let older = admin.get(&format!("{V1}/a")).await.expect(200);
    assert!(older["spec"].get("targetCPUUtilizationPercentage").is_none());
    // Through v1, nothing of it is lost.
    let change = json!({"spec": {"maxReplicas": 9}, "metadata": {"labels": {"a": "b"}}});
    let older = admin.patch(&format!("{V1}/a"), "merge", &change).await.expect(200);
    assert_eq!(older["spec"]["maxReplicas"], 9);
    let again = admin.get(&format!("{V2}/a")).await.expect(200);
    assert_eq!(again["spec"]["behavior"], *filled);
    assert_eq!(again["spec"]["metrics"], newer["spec"]["metrics"]);
    assert!(again["metadata"].get("annotations").is_none(), "{again}");
    let list = admin.get(&format!("{V1}?labelSelector=a%3Db")).await.expect(200);
    assert_eq!(
        (&list["kind"], &list["items"][0]["metadata"]["name"]),
        (&json!("HorizontalPodAutoscalerList"), &json!("a"))
    );
    let status = json!({"status": {"currentReplicas": 2, "desiredReplicas": 3}});
    admin.patch(&format!("{V1}/a/status"), "merge", &status).await.expect(200);
    let again = admin.get(&format!("{V2}/a")).await.expect(200);
    assert_eq!(
        (&again["status"]["desiredReplicas"], &again["spec"]["maxReplicas"]),
        (&json!(3), &json!(9))
    );
    admin.delete(&format!("{V1}/a")).await.expect(200);
    let gone = admin.get(&format!("{V2}/a")).await.expect(404);
    assert_eq!(gone["message"], "horizontalpodautoscalers.autoscaling \"a\" not found");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_metrics_an_autoscaler_aims_at_the_processors() {
    let server = Server::start().await;
    let admin = server.admin();
    for (path, name) in [(V1, "a"), (V2, "b")] {
        admin.post(path, &autoscaler(name, json!({}))).await.expect(201);
        let older = admin.get(&format!("{V1}/{name}")).await.expect(200);
        assert_eq!(older["spec"]["targetCPUUtilizationPercentage"], 80, "{path}");
        let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
        for path in [V1, V2] {
            let path = format!("{path}/{name}");
            let table = admin.ask("GET", &path, &table, Vec::new()).await.expect(200);
            let cells = &table["rows"][0]["cells"].as_array().unwrap()[1..6];
            let expected = json!(["Deployment/web", "cpu: <unknown>/80%", "1", 5, 0]);
            assert_eq!(json!(cells), expected, "{path}");
        }
    }
    let groups = admin.get("/apis/autoscaling").await.expect(200);
    assert_eq!(groups["preferredVersion"]["version"], "v2");
    let applied = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "c"},
        "spec": {"maxReplicas": 4, "targetCPUUtilizationPercentage": 50, "scaleTargetRef": {"kind": "Deployment", "name": "web"}}});
    let headers = [("content-type", "application/apply-patch+yaml")];
    let path = format!("{V1}/c?fieldManager=m");
    let applied =
        admin.ask("PATCH", &path, &headers, applied.to_string().into_bytes()).await.expect(201);
    assert_eq!(applied["spec"]["targetCPUUtilizationPercentage"], 50);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_autoscalers_are_refused_in_upstreams_words() {
    let server = Server::start().await;
    let admin = server.admin();
    let target = |target: Value| json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
    let rules = |rules: Value| json!({"behavior": {"scaleUp": rules}});
    let policy = |kind: &str, value: i32, period: i32| json!({"policies": [{"type": kind, "value": value, "periodSeconds": period}]});
    let cases = [
        (
            json!({"minReplicas": 0}),
            "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
        ),
        (json!({"maxReplicas": 0}), "spec.maxReplicas: Invalid value: 0: must be greater than 0"),
        (
            json!({"minReplicas": 7}),
            "spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`",
        ),
        (
            json!({"scaleTargetRef": {"kind": "", "name": "a/b"}}),
            "spec.scaleTargetRef.kind: Required value",
        ),
        (
            json!({"scaleTargetRef": {"kind": "K", "name": "a/b"}}),
            "spec.scaleTargetRef.name: Invalid value: \"a/b\": may not contain '/'",
        ),
        (
            json!({"metrics": [{"type": "Resource"}]}),
            "spec.metrics[0].resource: Required value: must populate information for the given metric source",
        ),
        (json!({"metrics": [{"type": "Odd"}]}), "spec.metrics[0].type: Unsupported value: \"Odd\""),
        (
            json!({"metrics": target(json!({"type": "Utilization"}))}),
            "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
        ),
        (
            json!({"metrics": target(json!({"type": "Utilization", "averageUtilization": 0}))}),
            "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
        ),
        (
            json!({"metrics": target(json!({"type": "AverageValue", "averageValue": "-1"}))}),
            "spec.metrics[0].resource.target.averageValue: Invalid value: \"-1\": must be positive",
        ),
        (
            json!({"metrics": target(json!({"type": "Much", "averageValue": "1"}))}),
            "spec.metrics[0].resource.target.type: Invalid value: \"Much\": must be either Utilization, Value, or AverageValue",
        ),
        (
            rules(json!({"stabilizationWindowSeconds": 3601})),
            "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
        ),
        (
            rules(json!({"selectPolicy": "Odd"})),
            "spec.behavior.scaleUp.selectPolicy: Unsupported value: \"Odd\": supported values: \"Disabled\", \"Max\", \"Min\"",
        ),
        (
            rules(policy("Pods", 0, 15)),
            "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
        ),
        (
            rules(policy("Pods", 1, 1801)),
            "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
        ),
        (
            rules(json!({"tolerance": "-1"})),
            "spec.behavior.scaleUp.tolerance: Invalid value: \"-1\": must be greater than or equal to 0",
        ),
    ];
    for (spec, message) in cases {
        let answer = admin.post(V2, &autoscaler("a", spec.clone())).await.expect(422);
        let found = answer["message"].as_str().unwrap();
        assert!(found.contains(message), "{spec}: {found}");
    }
    let answer = admin.post(V1, &autoscaler("a", json!({"maxReplicas": 0}))).await.expect(422);
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .starts_with("HorizontalPodAutoscaler.autoscaling \"a\" is invalid")
    );
    server.stop().await;
}
