//! `metrics.k8s.io`, from the figures of a kubelet that is none.

use api::quantity::Quantity;
use serde_json::{Value, json};

use crate::server::Server;
use crate::streams::{NODE, prepare};

const GROUP: &str = "/apis/metrics.k8s.io/v1beta1";

fn millis(usage: &Value) -> i64 {
    usage["cpu"].as_str().unwrap().parse::<Quantity>().unwrap().millis()
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_of_nodes_and_pods_is_served_when_somebody_asks() {
    let server = Server::start().await;
    let record = prepare(&server).await;
    let admin = server.admin();
    // A node without a kubelet, and a pod that is not there for it.
    admin.post("/api/v1/nodes", &json!({"metadata": {"name": "mute"}})).await.expect(201);
    let labels = json!({"metadata": {"labels": {"app": "web"}}});
    admin.patch("/api/v1/namespaces/default/pods/p", "merge", &labels).await.expect(200);
    assert_eq!(record.take(), Vec::<&str>::new(), "nobody has asked");

    let nodes = admin.get(&format!("{GROUP}/nodes")).await.expect(200);
    assert_eq!(record.take(), ["stats"; 2]);
    assert_eq!((&nodes["kind"], &nodes["metadata"]), (&json!("NodeMetricsList"), &json!({})));
    assert_eq!(names(&nodes), [NODE], "a node that does not answer is left out");
    let node = &nodes["items"][0];
    assert!((249..=251).contains(&millis(&node["usage"])), "{node}");
    assert_eq!(node["usage"]["memory"], "3Mi");
    assert!(node["timestamp"].is_string() && node["window"].as_str().unwrap().starts_with("1."));

    for path in ["/pods", "/namespaces/default/pods", "/pods?labelSelector=app%3Dweb"] {
        let pods = admin.get(&format!("{GROUP}{path}")).await.expect(200);
        assert_eq!(names(&pods), ["p"], "{path}");
        let containers = pods["items"][0]["containers"].as_array().unwrap();
        assert_eq!((containers.len(), &containers[0]["name"]), (1, &json!("c")));
        assert!((249..=251).contains(&millis(&containers[0]["usage"])), "{pods}");
    }
    for path in ["/namespaces/other/pods", "/pods?labelSelector=app%21%3Dweb"] {
        let pods = admin.get(&format!("{GROUP}{path}")).await.expect(200);
        assert_eq!(names(&pods), Vec::<&str>::new(), "{path}");
    }
    let pod = admin.get(&format!("{GROUP}/namespaces/default/pods/p")).await.expect(200);
    assert_eq!(
        (&pod["kind"], &pod["metadata"]["labels"]["app"]),
        (&json!("PodMetrics"), &json!("web"))
    );
    let missing = [
        ("nodes/none", "nodes \"none\" not found"),
        ("nodes/mute", "nodemetrics.metrics.k8s.io \"mute\" not found"),
        ("namespaces/default/pods/none", "pods \"none\" not found"),
    ];
    for (path, message) in missing {
        let answer = admin.get(&format!("{GROUP}/{path}")).await.expect(404);
        assert_eq!(answer["message"], message);
    }
    assert!(record.take().len() <= 1, "questions that follow are answered from what there is");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_can_be_read_and_nothing_else() {
    let server = Server::start().await;
    let record = prepare(&server).await;
    let admin = server.admin();
    let object = json!({"apiVersion": "metrics.k8s.io/v1beta1", "kind": "NodeMetrics",
        "metadata": {"name": NODE}});
    let (all, one) = (format!("{GROUP}/nodes"), format!("{GROUP}/nodes/{NODE}"));
    let refused =
        [("POST", &all), ("PUT", &one), ("PATCH", &one), ("DELETE", &one), ("DELETE", &all)];
    for (method, path) in refused {
        let headers = [("content-type", "application/merge-patch+json")];
        let headers = if method == "PATCH" { &headers[..] } else { &[] };
        let answer = admin.ask(method, path, headers, object.to_string().into_bytes()).await;
        assert_eq!(answer.code, 405, "{method} {path}: {}", answer.text);
    }
    admin.get(&format!("{all}?watch=1")).await.expect(405);
    let stranger = server.rest_as("stranger", &[]);
    stranger.get(&all).await.expect(403);
    assert_eq!(record.take(), Vec::<&str>::new(), "nothing of this is measured for");

    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = admin.ask("GET", &format!("{GROUP}/pods"), &table, Vec::new()).await.expect(200);
    let columns = table["columnDefinitions"].as_array().unwrap();
    let columns: Vec<_> = columns.iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["Name", "cpu", "memory", "Window"]);
    assert_eq!(
        (&table["rows"][0]["cells"][0], &table["rows"][0]["cells"][2]),
        (&json!("p"), &json!("3Mi"))
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_discovered_described_and_allowed() {
    let server = Server::start().await;
    let admin = server.admin();
    let list = admin.get(GROUP).await.expect(200);
    let read = json!(["get", "list"]);
    assert_eq!(
        list["resources"],
        json!([
            {"name": "nodes", "singularName": "", "namespaced": false, "kind": "NodeMetrics", "verbs": read},
            {"name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics", "verbs": read},
        ])
    );
    let groups = admin.get("/apis").await.expect(200);
    assert_eq!(groups["groups"].as_array().unwrap().last().unwrap()["name"], "metrics.k8s.io");
    let document = admin.get("/openapi/v3/apis/metrics.k8s.io/v1beta1").await.expect(200);
    let paths: Vec<_> = document["paths"].as_object().unwrap().keys().cloned().collect();
    let expected = [
        "/namespaces/{namespace}/pods",
        "/namespaces/{namespace}/pods/{name}",
        "/nodes",
        "/nodes/{name}",
        "/pods",
    ];
    assert_eq!(paths, expected.map(|path| format!("{GROUP}{path}")));
    let schema = &document["components"]["schemas"]["io.k8s.metrics.v1beta1.PodMetrics"];
    assert!(schema["properties"]["containers"].is_object(), "{schema}");
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:aggregated-metrics-reader";
    let role = admin.get(role).await.expect(200);
    for to in ["view", "edit", "admin"] {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{to}");
        assert_eq!(role["metadata"]["labels"][label], "true");
    }
    assert_eq!(role["rules"][0]["apiGroups"], json!(["metrics.k8s.io"]));
    server.stop().await;
}
