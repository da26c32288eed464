//! Custom resources: defined, served and removed while the server runs, through both front ends.

use std::time::Duration;

use rpc::api_v1 as pb;
use serde_json::{Value, json};

use crate::server::{Rest, Server};

pub const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

/// A namespaced kind with a schema, a status, a scale, columns and two versions.
pub fn definition() -> Value {
    let schema = json!({"type": "object", "required": ["spec"], "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 10},
            "color": {"type": "string", "enum": ["red", "blue"], "default": "red"},
            "replicas": {"type": "integer"},
            "parts": {"type": "array", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"],
                    "properties": {"name": {"type": "string"}, "count": {"type": "integer"}}}},
            "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }},
        "status": {"type": "object", "properties": {
            "phase": {"type": "string"}, "replicas": {"type": "integer"},
            "selector": {"type": "string"}}},
    }});
    let version = |name: &str, storage: bool| {
        json!({
            "name": name, "served": true, "storage": storage,
            "schema": {"openAPIV3Schema": schema},
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
            "selectableFields": [{"jsonPath": ".spec.color"}],
            "additionalPrinterColumns": [
                {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}],
        })
    };
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"],
                "categories": ["all"]},
            "versions": [version("v1", true), version("v1beta1", false)]}})
}

fn condition(definition: &Value, type_: &str) -> String {
    let conditions = definition["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == type_);
    found.map_or_else(String::new, |found| found["status"].as_str().unwrap().to_owned())
}

/// Creates a definition, and waits until it is established.
pub async fn define(rest: &Rest, definition: &Value) {
    let name = definition["metadata"]["name"].as_str().unwrap();
    let created = rest.post(DEFINITIONS, definition).await.expect(201);
    let version = created["metadata"]["resourceVersion"].as_str().unwrap();
    let path = format!(
        "{DEFINITIONS}?watch=1&resourceVersion={version}&fieldSelector=metadata.name%3D{name}"
    );
    let mut changes = rest.watch(&path).await;
    while let Some(event) = changes.next().await {
        if condition(&event["object"], "Established") == "True" {
            return;
        }
    }
    panic!("{name} was not established");
}

pub fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn a_kind_is_served_as_soon_as_it_is_established() {
    let server = Server::start().await;
    let rest = server.admin();
    rest.get(WIDGETS).await.expect(404);
    define(&rest, &definition()).await;
    let made = rest.post(WIDGETS, &widget("a", json!({"size": 3}))).await.expect(201);
    assert_eq!(made["spec"], json!({"size": 3, "color": "red"}));
    assert_eq!(made["metadata"]["generation"], 1);
    assert!(made["metadata"]["managedFields"].is_array());
    let list = rest.get(WIDGETS).await.expect(200);
    assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("WidgetList"), 1));
    let group = rest.get("/apis/example.com").await.expect(200);
    assert_eq!(group["preferredVersion"]["version"], "v1");
    assert_eq!(group["versions"].as_array().unwrap().len(), 2);
    let resources = rest.get("/apis/example.com/v1").await.expect(200);
    let names: Vec<&str> = resources["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["widgets", "widgets/status", "widgets/scale"]);
    assert_eq!(resources["resources"][0]["shortNames"], json!(["wd"]));
    // Through gRPC, with no code of its own.
    let target = pb::Target {
        group: "example.com".into(),
        version: "v1".into(),
        resource: "widgets".into(),
        namespace: "default".into(),
        name: "a".into(),
        ..pb::Target::default()
    };
    let request = pb::GetRequest { target: Some(target), ..pb::GetRequest::default() };
    let object = server.grpc().get(request).await.unwrap().into_inner();
    let object: Value = serde_json::from_slice(&object.json).unwrap();
    assert_eq!(object["spec"], made["spec"]);
    server.stop().await;
}

#[tokio::test]
async fn objects_are_checked_pruned_and_changed_by_their_schema() {
    let server = Server::start().await;
    let rest = server.admin();
    define(&rest, &definition()).await;
    let refused = rest.post(WIDGETS, &widget("a", json!({"size": 11, "color": "green"}))).await;
    let refused = refused.expect(422);
    let causes = refused["details"]["causes"].as_array().unwrap();
    let fields: Vec<&str> = causes.iter().map(|cause| cause["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["spec.color", "spec.size"], "{refused}");
    let strict = format!("{WIDGETS}?fieldValidation=Strict");
    let unknown = widget("a", json!({"size": 1, "other": true, "any": {"x": 1}}));
    let message = rest.post(&strict, &unknown).await.expect(400);
    let message = message["message"].as_str().unwrap();
    assert!(message.contains("strict decoding error: unknown field \"spec.other\""), "{message}");
    let made = rest.post(WIDGETS, &unknown).await.expect(201);
    assert_eq!(made["spec"], json!({"size": 1, "color": "red", "any": {"x": 1}}));
    let path = format!("{WIDGETS}/a");
    // Only the status changes through its subresource, and it does not count.
    let status = json!({"spec": {"size": 7}, "status": {"phase": "Up", "replicas": 2}});
    let changed = rest.patch(&format!("{path}/status"), "merge", &status).await.expect(200);
    assert_eq!((&changed["spec"]["size"], &changed["status"]["phase"]), (&json!(1), &json!("Up")));
    assert_eq!(changed["metadata"]["generation"], 1);
    let changed = rest
        .patch(&path, "merge", &json!({"spec": {"size": 2, "replicas": 4}, "status": null}))
        .await
        .expect(200);
    assert_eq!(
        (&changed["metadata"]["generation"], &changed["status"]["phase"]),
        (&json!(2), &json!("Up"))
    );
    rest.patch(&path, "strategic-merge", &json!({"spec": {"size": 2}})).await.expect(415);
    let scale = rest.get(&format!("{path}/scale")).await.expect(200);
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["replicas"]), (&json!(4), &json!(2)));
    rest.patch(&format!("{path}/scale"), "merge", &json!({"spec": {"replicas": 9}}))
        .await
        .expect(200);
    assert_eq!(rest.get(&path).await.expect(200)["spec"]["replicas"], 9);
    let selected = |color: &str| format!("{WIDGETS}?fieldSelector=spec.color%3D{color}");
    let count = |list: Value| list["items"].as_array().unwrap().len();
    assert_eq!(count(rest.get(&selected("red")).await.expect(200)), 1);
    assert_eq!(count(rest.get(&selected("blue")).await.expect(200)), 0);
    rest.get(&format!("{WIDGETS}?fieldSelector=spec.size%3D1")).await.expect(400);
    server.stop().await;
}

/// Each part gets a default of its own; together they may be as large as the largest request.
#[tokio::test]
async fn defaults_do_not_multiply_without_bound() {
    let server = Server::start().await;
    let rest = server.admin();
    let mut definition = definition();
    for version in definition["spec"]["versions"].as_array_mut().unwrap() {
        let spec = &mut version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        spec["parts"]["items"]["properties"]["text"] =
            json!({"type": "string", "default": "x".repeat(100 << 10)});
    }
    define(&rest, &definition).await;
    let of = |name: &str, count: usize| {
        let parts: Vec<Value> = (0..count).map(|n| json!({"name": n.to_string()})).collect();
        widget(name, json!({"size": 1, "parts": parts}))
    };
    let refused = rest.post(WIDGETS, &of("large", 1000)).await.expect(422);
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.contains("the defaults of its schema have more than 3145728 bytes"),
        "{message}"
    );
    let made = rest.post(WIDGETS, &of("small", 3)).await.expect(201);
    assert_eq!(made["spec"]["parts"][2]["text"].as_str().map(str::len), Some(100 << 10));
    server.stop().await;
}

#[tokio::test]
async fn every_served_version_shows_the_same_objects() {
    let server = Server::start().await;
    let rest = server.admin();
    define(&rest, &definition()).await;
    let beta = WIDGETS.replace("/v1/", "/v1beta1/");
    let mut watch = rest.watch(&format!("{beta}?watch=1&resourceVersion=0")).await;
    rest.post(WIDGETS, &widget("a", json!({"size": 3}))).await.expect(201);
    let seen = watch.next().await.unwrap();
    assert_eq!(seen["object"]["apiVersion"], "example.com/v1beta1");
    let mut other = widget("b", json!({"size": 4}));
    other["apiVersion"] = "example.com/v1beta1".into();
    let made = rest.post(&beta, &other).await.expect(201);
    assert_eq!(made["apiVersion"], "example.com/v1beta1");
    for (path, version) in [(WIDGETS, "example.com/v1"), (&beta, "example.com/v1beta1")] {
        let list = rest.get(path).await.expect(200);
        assert_eq!(list["apiVersion"], version);
        let items = list["items"].as_array().unwrap();
        assert_eq!(items.len(), 2);
        assert!(items.iter().all(|item| item["apiVersion"] == version), "{list}");
        let one = rest.get(&format!("{path}/a")).await.expect(200);
        assert_eq!(one["apiVersion"], version);
    }
    // Not served any more, but what was stored stays.
    let without = json!([{"op": "replace", "path": "/spec/versions/1/served", "value": false}]);
    let name = format!("{DEFINITIONS}/widgets.example.com");
    rest.patch(&name, "json", &without).await.expect(200);
    rest.get(&beta).await.expect(404);
    assert_eq!(rest.get(WIDGETS).await.expect(200)["items"].as_array().unwrap().len(), 2);
    server.stop().await;
}

/// A server that is killed at any moment of a definition's life goes on where it was.
#[tokio::test]
async fn a_killed_server_goes_on_with_its_definitions() {
    let mut server = Server::spawn(&[]).await;
    let name = format!("{DEFINITIONS}/widgets.example.com");
    // Before it can be established.
    server.admin().post(DEFINITIONS, &definition()).await.expect(201);
    server.restart().await;
    let rest = server.admin();
    let until = clock::instant() + Duration::from_secs(10);
    while rest.post(WIDGETS, &widget("a", json!({"size": 3}))).await.code != 201 {
        assert!(clock::instant() < until, "it is not established");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Between the establishment and the next object.
    server.restart().await;
    let rest = server.admin();
    rest.post(WIDGETS, &widget("b", json!({"size": 3}))).await.expect(201);
    rest.post(WIDGETS, &widget("c", json!({"size": 11}))).await.expect(422);
    assert_eq!(rest.get(WIDGETS).await.expect(200)["items"].as_array().unwrap().len(), 2);
    // Before its objects are deleted with it.
    rest.delete(&name).await.expect(200);
    server.restart().await;
    let rest = server.admin();
    while rest.get(&name).await.code != 404 {
        assert!(clock::instant() < until, "it is not deleted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    define(&rest, &definition()).await;
    assert_eq!(rest.get(WIDGETS).await.expect(200)["items"], json!([]));
}

/// What a schema does not have is hidden, not lost: an object that was not written since shows it
/// again with the next schema.
#[tokio::test]
async fn a_field_comes_back_with_its_schema() {
    let server = Server::start().await;
    let rest = server.admin();
    define(&rest, &definition()).await;
    rest.post(WIDGETS, &widget("a", json!({"size": 3, "replicas": 7}))).await.expect(201);
    let name = format!("{DEFINITIONS}/widgets.example.com");
    let change = async |operation: &str| {
        let at = |version: usize| {
            json!({"op": operation, "value": {"type": "integer"}, "path": format!(
                "/spec/versions/{version}/schema/openAPIV3Schema/properties/spec/properties/replicas")})
        };
        rest.patch(&name, "json", &json!([at(0), at(1)])).await.expect(200);
        rest.get(&format!("{WIDGETS}/a")).await.expect(200)
    };
    assert!(change("remove").await["spec"].get("replicas").is_none());
    assert_eq!(change("add").await["spec"]["replicas"], 7);
    server.stop().await;
}

#[tokio::test]
async fn a_definition_takes_its_objects_with_it() {
    let server = Server::start().await;
    let rest = server.admin();
    define(&rest, &definition()).await;
    let mut held = widget("held", json!({"size": 1}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    rest.post(WIDGETS, &held).await.expect(201);
    rest.post(WIDGETS, &widget("free", json!({"size": 1}))).await.expect(201);
    let name = format!("{DEFINITIONS}/widgets.example.com");
    let mut gone = rest.watch(&format!("{DEFINITIONS}?watch=1&resourceVersion=0")).await;
    assert_eq!(gone.next().await.unwrap()["type"], "ADDED");
    let deleted = rest.delete(&name).await.expect(200);
    assert_eq!(condition(&deleted, "Terminating"), "True");
    rest.post(WIDGETS, &widget("late", json!({"size": 1}))).await.expect(405);
    let mut objects = rest.watch(&format!("{WIDGETS}?watch=1&resourceVersion=0")).await;
    // The one without a finalizer goes at once, the other one when it is let go.
    loop {
        let list = rest.get(WIDGETS).await.expect(200);
        let names: Vec<_> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["metadata"]["name"].clone())
            .collect();
        if names == ["held"] {
            break;
        }
        objects.next().await.unwrap();
    }
    rest.patch(&format!("{WIDGETS}/held"), "merge", &json!({"metadata": {"finalizers": null}}))
        .await
        .expect(200);
    while gone.next().await.unwrap()["type"] != "DELETED" {}
    rest.get(WIDGETS).await.expect(404);
    // Another one by that name starts with nothing.
    define(&rest, &definition()).await;
    assert!(rest.get(WIDGETS).await.expect(200)["items"].as_array().unwrap().is_empty());
    server.stop().await;
}

async fn apply(rest: &Rest, manager: &str, spec: Value, code: u16) -> Value {
    let path = format!("{WIDGETS}/a?fieldManager={manager}");
    let headers = [("content-type", "application/apply-patch+yaml")];
    let body = widget("a", spec).to_string().into_bytes();
    rest.ask("PATCH", &path, &headers, body).await.expect(code)
}

#[tokio::test]
async fn apply_merges_lists_by_their_keys_and_tells_owners_apart() {
    let server = Server::start().await;
    let rest = server.admin();
    define(&rest, &definition()).await;
    let one = json!({"size": 1, "parts": [{"name": "x", "count": 1}]});
    apply(&rest, "one", one.clone(), 201).await;
    let both =
        apply(&rest, "two", json!({"size": 1, "parts": [{"name": "y", "count": 2}]}), 200).await;
    let names: Vec<_> =
        both["spec"]["parts"].as_array().unwrap().iter().map(|part| part["name"].clone()).collect();
    assert_eq!(names, ["x", "y"]);
    let conflict = apply(&rest, "two", json!({"size": 2}), 409).await;
    assert_eq!(conflict["details"]["causes"][0]["field"], ".spec.size");
    // What a manager leaves out goes, unless it is somebody else's.
    let less = apply(&rest, "two", json!({"size": 1}), 200).await;
    assert_eq!(less["spec"]["parts"], json!([{"name": "x", "count": 1}]));
    let message = apply(&rest, "one", json!({"size": 1, "nothing": 1}), 500).await;
    let message = message["message"].as_str().unwrap();
    assert!(message.contains(".spec.nothing: field not declared in schema"), "{message}");
    server.stop().await;
}

#[tokio::test]
async fn clients_get_tables_warnings_and_forms_that_there_are() {
    let server = Server::start().await;
    let rest = server.admin();
    let mut definition = definition();
    definition["spec"]["versions"][1]["deprecated"] = true.into();
    define(&rest, &definition).await;
    rest.post(WIDGETS, &widget("a", json!({"size": 3}))).await.expect(201);
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = rest.ask("GET", WIDGETS, &table, Vec::new()).await.expect(200);
    let names: Vec<_> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["name"].clone())
        .collect();
    assert_eq!(names, ["Name", "Size", "Age"]);
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert_eq!(table["rows"][0]["cells"][1], 3);
    let protobuf = "application/vnd.kubernetes.protobuf";
    rest.ask("GET", WIDGETS, &[("accept", protobuf)], Vec::new()).await.expect(406);
    let either = format!("{protobuf}, application/json");
    rest.ask("GET", WIDGETS, &[("accept", &either)], Vec::new()).await.expect(200);
    rest.ask("POST", WIDGETS, &[("content-type", protobuf)], b"k8s\0".to_vec()).await.expect(415);
    server.stop().await;
}

#[tokio::test]
async fn definitions_are_refused_and_conflict_as_in_kubernetes() {
    let server = Server::start().await;
    let rest = server.admin();
    let mut wrong = definition();
    wrong["metadata"]["name"] = "gadgets.example.com".into();
    let refused = rest.post(DEFINITIONS, &wrong).await.expect(422);
    assert_eq!(refused["details"]["causes"][0]["field"], "metadata.name");
    let mut none_stored = definition();
    none_stored["spec"]["versions"][0]["storage"] = false.into();
    rest.post(DEFINITIONS, &none_stored).await.expect(422);
    define(&rest, &definition()).await;
    let mut second = definition();
    second["metadata"]["name"] = "gadgets.example.com".into();
    second["spec"]["names"]["plural"] = "gadgets".into();
    second["spec"]["names"]["singular"] = "gadget".into();
    second["spec"]["names"]["shortNames"] = json!([]);
    let made = rest.post(DEFINITIONS, &second).await.expect(201);
    let version = made["metadata"]["resourceVersion"].as_str().unwrap();
    let mut changes = rest.watch(&format!("{DEFINITIONS}?watch=1&resourceVersion={version}")).await;
    let event = changes.next().await.unwrap();
    assert_eq!(condition(&event["object"], "NamesAccepted"), "False");
    assert_eq!(condition(&event["object"], "Established"), "False");
    rest.get("/apis/example.com/v1/namespaces/default/gadgets").await.expect(404);
    // The first one goes, and frees its names.
    rest.delete(&format!("{DEFINITIONS}/widgets.example.com")).await.expect(200);
    loop {
        let event = changes.next().await.unwrap();
        if event["object"]["metadata"]["name"] == "gadgets.example.com"
            && condition(&event["object"], "Established") == "True"
        {
            break;
        }
    }
    rest.get("/apis/example.com/v1/namespaces/default/gadgets").await.expect(200);
    server.stop().await;
}

#[tokio::test]
async fn schemas_are_published_and_rules_judged() {
    let server = Server::start().await;
    let rest = server.admin();
    let mut definition = definition();
    for version in definition["spec"]["versions"].as_array_mut().unwrap() {
        let schema = &mut version["schema"]["openAPIV3Schema"]["properties"]["spec"];
        schema["properties"]["size"]["description"] = "How large it is.".into();
        schema["x-kubernetes-validations"] = json!([
            {"rule": "self.color != 'blue' || self.size > 5", "message": "blue ones are large"},
            {"rule": "self.size >= oldSelf.size", "message": "it never shrinks"}]);
    }
    define(&rest, &definition).await;
    let index = rest.get("/openapi/v3").await.expect(200);
    let url = index["paths"]["apis/example.com/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = rest.get(url).await.expect(200);
    let kind = &document["components"]["schemas"]["com.example.v1.Widget"];
    let size = &kind["properties"]["spec"]["properties"]["size"];
    assert_eq!(size["description"], "How large it is.", "{kind}");
    assert_eq!(kind["x-kubernetes-group-version-kind"][0]["kind"], "Widget");
    let links = document.to_string();
    for link in links.split("#/components/schemas/").skip(1) {
        let name = link.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
    let refused = rest.post(WIDGETS, &widget("a", json!({"size": 2, "color": "blue"}))).await;
    let refused = refused.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("blue ones are large"), "{refused}");
    rest.post(WIDGETS, &widget("a", json!({"size": 7, "color": "blue"}))).await.expect(201);
    let shrunk = rest.patch(&format!("{WIDGETS}/a"), "merge", &json!({"spec": {"size": 6}})).await;
    assert!(shrunk.expect(422)["message"].as_str().unwrap().contains("it never shrinks"));
    rest.delete(&format!("{DEFINITIONS}/widgets.example.com")).await.expect(200);
    let mut gone = rest.watch(&format!("{DEFINITIONS}?watch=1&resourceVersion=0")).await;
    let list = rest.get(DEFINITIONS).await.expect(200);
    if !list["items"].as_array().unwrap().is_empty() {
        while gone.next().await.unwrap()["type"] != "DELETED" {}
    }
    let index = rest.get("/openapi/v3").await.expect(200);
    assert!(index["paths"]["apis/example.com/v1"].is_null());
    server.stop().await;
}
