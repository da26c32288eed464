//! When an APIService is available, and that this is said only when it changes.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::extension::Reply;

use super::{NAME, SERVICES, THINGS, condition, extension, registered, service, until_condition};
use crate::server::Server;

const OWN: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

fn cluster_service(port: u16) -> Value {
    json!({"metadata": {"name": "extension"}, "spec": {"ports": [{"name": "https", "port": port}]}})
}

fn slice(ready: bool) -> Value {
    json!({"metadata": {"name": "extension-1",
        "labels": {"kubernetes.io/service-name": "extension"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.0.2.7"], "conditions": {"ready": ready},
            "targetRef": {"kind": "Pod", "namespace": "default", "name": "p"}}],
        "ports": [{"name": "https", "port": 8443}]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reason_follows_the_service_and_its_endpoints() {
    let server = Server::start().await;
    let (rest, extension) = (server.admin(), extension(&server, |seen| THINGS.answer(seen)).await);
    let port = extension.port;
    server.default_account("default").await;
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    rest.post("/api/v1/namespaces/default/pods", &pod).await.expect(201);
    rest.post(SERVICES, &registered(&extension)).await.expect(201);
    let expect = async |reason: &str, message: &str| {
        let service = until_condition(&rest, NAME, "False", reason).await;
        assert!(condition(&service)[2].starts_with(message), "{service}");
    };
    expect("ServiceNotFound", "service/extension in \"default\" is not present").await;
    rest.post(OWN, &cluster_service(port - 1)).await.expect(201);
    let text = format!("service/extension in \"default\" is not listening on port {port}");
    expect("ServicePortError", &text).await;
    let ports = json!({"spec": {"ports": [{"name": "https", "port": port}]}});
    rest.patch(&format!("{OWN}/extension"), "merge", &ports).await.expect(200);
    let text = "cannot find endpointslices for service/extension in \"default\"";
    expect("EndpointsNotFound", text).await;
    rest.post(SLICES, &slice(false)).await.expect(201);
    let text = "endpointslices for service/extension in \"default\" have no addresses with port \
                name \"https\"";
    expect("MissingEndpoints", text).await;
    let ready = json!({"endpoints": slice(true)["endpoints"]});
    rest.patch(&format!("{SLICES}/extension-1"), "merge", &ready).await.expect(200);
    // It is found by its EndpointSlices alone, which lead to a pod that does not run.
    expect(
        "FailedDiscoveryCheck",
        "failing or missing response from https://extension.default.svc:",
    )
    .await;
    let seen = rest.get(&format!("{SERVICES}/{NAME}")).await.expect(200);
    assert!(condition(&seen)[2].ends_with("pod p has no address yet"), "{seen}");
    rest.delete(&format!("{OWN}/extension")).await.expect(200);
    expect("ServiceNotFound", "").await;
    rest.post(OWN, &service()).await.expect(201);
    let service = until_condition(&rest, NAME, "True", "Passed").await;
    assert_eq!(condition(&service)[2], "all checks passed");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_while_nothing_changes() {
    let server = Server::start().await;
    let (rest, extension) = (server.admin(), extension(&server, |seen| THINGS.answer(seen)).await);
    rest.post(OWN, &service()).await.expect(201);
    rest.post(SERVICES, &registered(&extension)).await.expect(201);
    let before = until_condition(&rest, NAME, "True", "Passed").await;
    let asked = extension.take("").len();
    assert!(asked > 0);
    // Each of these makes the server be asked again.
    for round in 0..5 {
        let labels = json!({"metadata": {"labels": {"round": round.to_string()}}});
        rest.patch(&format!("{OWN}/extension"), "merge", &labels).await.expect(200);
        let waiting = async {
            while extension.take("/v1").is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(super::SOON, waiting).await.expect("it is asked");
    }
    let after = rest.get(&format!("{SERVICES}/{NAME}")).await.expect(200);
    assert_eq!(after["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
    for seen in extension.take("") {
        assert_eq!(seen.all("x-remote-user"), ["system:kube-aggregator"]);
        assert_eq!(seen.all("x-remote-group"), ["system:masters"]);
    }
    // One of several attempts is enough.
    extension.behave(|seen| match seen.path.as_str() {
        super::PATH if rand::random_range(0..3) > 0 => Reply::Status(500, "sometimes"),
        _ => THINGS.answer(seen),
    });
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_is_that_of_upstream() {
    let server = Server::start().await;
    let (rest, extension) = (server.admin(), extension(&server, |seen| THINGS.answer(seen)).await);
    rest.post(SERVICES, &registered(&extension)).await.expect(201);
    until_condition(&rest, NAME, "False", "ServiceNotFound").await;
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = rest.ask("GET", SERVICES, &accept, Vec::new()).await.expect(200);
    let columns = table["columnDefinitions"].as_array().unwrap().iter();
    let columns: Vec<_> = columns.map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["Name", "Service", "Available", "Age"]);
    let rows = table["rows"].as_array().unwrap();
    let cells = |name: &str| {
        let row = rows.iter().find(|row| row["cells"][0] == name).unwrap();
        [row["cells"][1].clone(), row["cells"][2].clone()]
    };
    assert_eq!(cells(NAME), ["default/extension", "False (ServiceNotFound)"]);
    assert_eq!(cells("v1.apps"), ["Local", "True"]);
    server.stop().await;
}
