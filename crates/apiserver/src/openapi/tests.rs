use serde_json::Value;

use super::*;

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn every_document_is_whole() {
    let index = parsed(&index());
    for (path, entry) in index["paths"].as_object().unwrap() {
        let (group, version) = match path.strip_prefix("apis/") {
            Some(rest) => rest.split_once('/').unwrap(),
            None => ("", path.strip_prefix("api/").unwrap()),
        };
        let bytes = document(group, version).unwrap();
        let url = entry["serverRelativeURL"].as_str().unwrap();
        assert_eq!(url, format!("/openapi/v3/{path}?hash={}", hash(&bytes)));
        let document = parsed(&bytes);
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        for link in text.split("#/components/schemas/").skip(1) {
            let name = link.split('"').next().unwrap();
            assert!(
                schemas.get(name).is_some_and(Value::is_object),
                "{path}: {name}"
            );
        }
    }
    assert!(document("nonsense", "v1").is_none());
}

#[test]
fn kubectl_finds_what_it_looks_for() {
    let document = parsed(&document("apps", "v1").unwrap());
    let schemas = &document["components"]["schemas"];
    let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(
        deployment["x-kubernetes-group-version-kind"][0]["kind"],
        "Deployment"
    );
    assert!(
        deployment["description"]
            .as_str()
            .unwrap()
            .starts_with("Deployment enables")
    );
    let ports = &schemas["io.k8s.api.core.v1.Container"]["properties"]["ports"];
    assert_eq!(ports["x-kubernetes-patch-merge-key"], "containerPort");
    assert_eq!(ports["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(
        ports["x-kubernetes-list-map-keys"],
        serde_json::json!(["containerPort", "protocol"])
    );
    let patch =
        &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"]["kind"],
        "Deployment"
    );
    assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
    let parameters = patch["parameters"].as_array().unwrap();
    assert!(
        parameters
            .iter()
            .any(|parameter| parameter["name"] == "fieldValidation")
    );
}

#[test]
fn the_old_form_holds_all_definitions() {
    let swagger = parsed(&swagger());
    assert!(swagger["definitions"]["io.k8s.api.core.v1.PodList"].is_object());
    assert!(swagger["definitions"]["io.k8s.api.batch.v1.CronJob"].is_object());
}
