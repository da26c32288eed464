//! Definitions as large, as deep and with the same features as those that widely used projects
//! publish: they are installed, their objects written, and nothing changes the second time.

#[path = "published/rows.rs"]
mod rows;
#[path = "published/schemas.rs"]
mod schemas;

use std::time::Duration;

use serde_json::{Value, json};

use crate::custom::DEFINITIONS;
use crate::server::{Answer, Rest, Server};
pub use rows::{Row, rows};
pub use schemas::{definition, object};

/// How long a definition may take until it is served.
const PATIENCE: Duration = Duration::from_secs(60);

async fn apply(rest: &Rest, path: &str, body: &Value) -> Answer {
    // Forced: what lists that are owned as a whole lack of their defaults is a conflict.
    let path = format!("{path}?fieldManager=installer&force=true");
    let headers = [("content-type", "application/apply-patch+yaml")];
    rest.ask("PATCH", &path, &headers, body.to_string().into_bytes()).await
}

/// Waits until a definition is established, and returns it.
async fn established(rest: &Rest, row: &Row) -> Value {
    let path = format!("{DEFINITIONS}/{}", row.resource);
    let until = clock::instant() + PATIENCE;
    loop {
        // A busy server may take its time with a large schema.
        let answer = rest.get(&path).await;
        let found: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let holds =
            |condition: &Value| condition["type"] == "Established" && condition["status"] == "True";
        if conditions.iter().any(holds) && rest.get(&row.path("v1")).await.code == 200 {
            return found;
        }
        assert!(
            clock::instant() < until,
            "{} is not established: {}",
            row.resource,
            found["status"]
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn revision(object: &Value) -> &Value {
    &object["metadata"]["resourceVersion"]
}

/// Installs the definitions of a project, and uses them.
async fn install(project: &str) {
    let server = Server::start().await;
    let rest = server.admin();
    for row in rows().into_iter().filter(|row| row.project == project) {
        let what = format!("{} of {}", row.resource, row.project);
        let defined = definition(&row);
        let path = format!("{DEFINITIONS}/{}", row.resource);
        let answer = apply(&rest, &path, &defined).await;
        assert_eq!(answer.code, 201, "{what}: {:.2000}", answer.text);
        let before = established(&rest, &row).await;
        let again = apply(&rest, &path, &defined).await.expect(200);
        assert_eq!(revision(&again), revision(&before), "{what}: applied again");
        objects(&rest, &row, &defined, &what).await;
        explained(&rest, &row, &defined, &what).await;
    }
    server.stop().await;
}

macro_rules! projects {
    ($($test:ident: $project:literal)*) => {
        const PROJECTS: &[&str] = &[$($project),*];
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            install($project).await;
        })*
    };
}

projects! {
    argo_cd: "Argo-CD"
    calico: "Calico"
    cert_manager: "cert-manager"
    gateway_api: "Gateway-API"
    gateway_api_experimental: "Gateway-API-experimental"
    knative: "Knative"
    longhorn: "Longhorn"
    metallb: "MetalLB"
    prometheus_operator: "Prometheus-operator"
    strimzi: "Strimzi"
}

#[test]
fn every_project_is_installed() {
    assert!(rows().iter().all(|row| PROJECTS.contains(&row.project)));
}

/// Writes objects of a kind, and reads them as tables.
async fn objects(rest: &Rest, row: &Row, defined: &Value, what: &str) {
    let path = row.path("v1");
    let strict = format!("{path}?fieldValidation=Strict");
    let mut made = Value::Null;
    for name in ["one", "two", "three"] {
        let object = object(row, defined, name);
        let answer = rest.post(&strict, &object).await;
        assert_eq!(answer.code, 201, "{what}: {:.2000}", answer.text);
        made = answer.expect(201);
        // Unchanged, by whichever way, is no change.
        let own = format!("{path}/{name}");
        let same = rest.send("PUT", &own, &made).await;
        assert_eq!(same.code, 200, "{what}: {:.2000}", same.text);
        assert!(same.expect(200) == made, "{what}: updated unchanged");
        let first = apply(rest, &own, &object).await.expect(200);
        let second = apply(rest, &own, &object).await.expect(200);
        assert!(first == second, "{what}: applied again");
    }
    let mut wrong = object(row, defined, "wrong");
    wrong["spec"]["level"] = 11.into();
    let refused = rest.post(&path, &wrong).await.expect(422);
    let expected = match row.count("rule") {
        0 => "spec.level: Invalid value: 11: spec.level in body should be less than or equal to 10",
        _ => schemas::MESSAGE,
    };
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains(expected), "{what}: {message:.500}");
    if row.count("selectable") > 0 {
        let found = rest.get(&format!("{path}?fieldSelector=spec.level%3D5")).await.expect(200);
        assert_eq!(found["items"].as_array().unwrap().len(), 3, "{what}");
    }
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    for version in schemas::VERSIONS.iter().take(row.count("served")) {
        let path = row.path(version);
        let table = rest.ask("GET", &path, &table, Vec::new()).await.expect(200);
        // Without columns of its own a kind has its age.
        let columns = row.count("columns").max(1) + 1;
        assert_eq!(table["columnDefinitions"].as_array().unwrap().len(), columns, "{what}");
        assert_eq!(table["rows"].as_array().unwrap().len(), 3, "{what}");
        let one = rest.get(&format!("{path}/three")).await.expect(200);
        assert!(one["spec"] == made["spec"], "{what}: {version}");
    }
    if row.has("subresources", "scale") {
        let scale = rest.get(&format!("{path}/one/scale")).await.expect(200);
        assert_eq!(scale["spec"]["replicas"], 10, "{what}");
    }
}

/// What is published of a schema: what `kubectl explain` shows.
async fn explained(rest: &Rest, row: &Row, defined: &Value, what: &str) {
    let until = clock::instant() + PATIENCE;
    let path = format!("/openapi/v3/apis/{}/v1", row.group());
    let found = loop {
        let document = rest.get(&path).await;
        let schemas: Value = serde_json::from_str(&document.text).unwrap_or_default();
        let all = schemas["components"]["schemas"].as_object().cloned().unwrap_or_default();
        let of_kind =
            |schema: &&Value| schema["x-kubernetes-group-version-kind"][0]["kind"] == row.kind();
        if let Some(found) = all.values().find(of_kind) {
            break found.clone();
        }
        assert!(clock::instant() < until, "{what} is not published");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let schema = &defined["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let names = |schema: &Value| -> Vec<String> {
        let spec = &schema["properties"]["spec"]["properties"];
        spec.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&found), names(schema), "{what}");
}

/// Largest definition that is installed once more, in thousands of bytes.
const INSTALLED_AGAIN_MAX: usize = 60;

/// As an older `kubectl apply` does: what was applied is kept in an annotation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_definitions_are_installed_by_clients() {
    const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let server = Server::start().await;
    let rest = server.admin();
    let mut too_large = 0;
    let fits = |row: &Row| row.count("kb") <= INSTALLED_AGAIN_MAX || row.count("kb") > 400;
    for row in rows().into_iter().filter(fits) {
        let what = format!("{} of {}", row.resource, row.project);
        let mut defined = definition(&row);
        let text = defined.to_string();
        defined["metadata"]["annotations"][LAST_APPLIED] = text.clone().into();
        let answer = rest.post(DEFINITIONS, &defined).await;
        if text.len() > 256 << 10 {
            too_large += 1;
            let message = answer.expect(422)["message"].as_str().unwrap().to_owned();
            assert!(message.contains("metadata.annotations: Too long"), "{what}: {message:.300}");
            continue;
        }
        assert_eq!(answer.code, 201, "{what}: {:.2000}", answer.text);
        let before = established(&rest, &row).await;
        let path = format!("{DEFINITIONS}/{}", row.resource);
        let change =
            json!({"metadata": {"annotations": {LAST_APPLIED: text}}, "spec": defined["spec"]});
        let again = rest.patch(&path, "merge", &change).await.expect(200);
        assert_eq!(revision(&again), revision(&before), "{what}: patched again");
        let replaced = rest.send("PUT", &path, &before).await.expect(200);
        assert_eq!(revision(&replaced), revision(&before), "{what}: replaced");
    }
    assert!(too_large > 0, "a definition that is too large for the annotation is missing");
    server.stop().await;
}
