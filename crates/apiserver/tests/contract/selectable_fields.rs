//! Field selectors of custom resources, whose fields differ between the versions of a definition.

use rpc::api_v1 as pb;
use serde_json::{Value, json};
use testkit::webhook::Reply;

use crate::conversion;
use crate::custom::{DEFINITIONS, WIDGETS, define, definition, widget};
use crate::server::{Rest, Server};

const V1: &str = WIDGETS;
const V2: &str = "/apis/example.com/v2/namespaces/default/widgets";

/// The names of what a list selects through both front ends, or the message of its refusal.
async fn selected(server: &Server, path: &str, selector: &str) -> Result<Vec<String>, String> {
    let rest = server.admin();
    let escaped = selector.replace('=', "%3D").replace('!', "%21");
    let answer = rest.get(&format!("{path}?fieldSelector={escaped}")).await;
    let found = match answer.code {
        200 => Ok(names(&answer.expect(200))),
        _ => Err(answer.expect(400)["message"].as_str().unwrap().to_owned()),
    };
    let version = path.split('/').nth(3).unwrap();
    let target = pb::Target {
        group: "example.com".into(),
        version: version.into(),
        resource: "widgets".into(),
        namespace: "default".into(),
        ..pb::Target::default()
    };
    let request = pb::ListRequest {
        target: Some(target),
        field_selector: selector.to_owned(),
        ..pb::ListRequest::default()
    };
    let also = match server.grpc().list(request).await {
        Ok(pages) => {
            let mut pages = pages.into_inner();
            let mut names = Vec::new();
            while let Some(page) = pages.message().await.unwrap() {
                names.extend(page.items.into_iter().map(|item| item.name));
            }
            Ok(names)
        }
        Err(status) => Err(status.message().to_owned()),
    };
    assert_eq!(also, found, "{path} {selector}");
    found
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap().iter();
    items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// Sets the selectable fields of both versions.
async fn select_by(rest: &Rest, first: &str, second: &str) {
    let fields = |path: &str| json!([{"jsonPath": path}, {"jsonPath": ".spec.color"}]);
    let change = json!([
        {"op": "add", "path": "/spec/versions/0/selectableFields", "value": fields(first)},
        {"op": "add", "path": "/spec/versions/1/selectableFields", "value": fields(second)}]);
    let name = format!("{DEFINITIONS}/widgets.example.com");
    rest.patch(&name, "json", &change).await.expect(200);
}

#[tokio::test]
async fn fields_have_the_values_of_the_version_of_the_request() {
    let (server, rest, _webhook) = conversion::start().await;
    select_by(&rest, ".spec.size", ".spec.width").await;
    for (name, size) in [("a", 3), ("b", 4), ("c", 3), ("d", 3)] {
        rest.post(V1, &widget(name, json!({"size": size}))).await.expect(201);
    }
    let refused = |field: &str| Err(format!("field label not supported: {field}"));
    let found = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect());
    let cases = [
        (V1, "spec.size=3", found(&["a", "c", "d"])),
        (V1, "spec.size!=3", found(&["b"])),
        (V1, "spec.width=30", refused("spec.width")),
        (V2, "spec.width=30", found(&["a", "c", "d"])),
        (V2, "spec.width!=30", found(&["b"])),
        (V2, "spec.width=3", found(&[])),
        (V2, "spec.width=30,metadata.name=c", found(&["c"])),
        (V2, "spec.width=30,spec.color=blue", found(&[])),
        (V2, "spec.size=3", refused("spec.size")),
    ];
    // Also when what is stored is in the other version.
    for stored in ["v1", "v2"] {
        for (path, selector, expected) in &cases {
            let found = selected(&server, path, selector).await;
            assert_eq!(found, *expected, "{path} {selector}, stored in {stored}");
        }
        let swap = json!([{"op": "replace", "path": "/spec/versions/0/storage", "value": false},
            {"op": "replace", "path": "/spec/versions/1/storage", "value": true}]);
        let name = format!("{DEFINITIONS}/widgets.example.com");
        rest.patch(&name, "json", &swap).await.expect(200);
        rest.patch(&format!("{V1}/d"), "merge", &json!({"metadata": {"labels": {"moved": "yes"}}}))
            .await
            .expect(200);
    }
    // Pages are full, and continue where they ended.
    let path = format!("{V2}?fieldSelector=spec.width%3D30&limit=2");
    let first = rest.get(&path).await.expect(200);
    assert_eq!(names(&first), ["a", "c"]);
    let next = first["metadata"]["continue"].as_str().unwrap();
    let second = rest.get(&format!("{path}&continue={next}")).await.expect(200);
    assert_eq!((names(&second), second["metadata"].get("continue")), (vec!["d".to_owned()], None));
    let exact = first["metadata"]["resourceVersion"].as_str().unwrap();
    let exact = format!("{path}&resourceVersion={exact}&resourceVersionMatch=Exact");
    assert_eq!(names(&rest.get(&exact).await.expect(200)), ["a", "c"]);
    rest.delete(&format!("{V2}?fieldSelector=spec.width%3D30")).await.expect(200);
    assert_eq!(names(&rest.get(V1).await.expect(200)), ["b"]);
    server.stop().await;
}

#[tokio::test]
async fn a_watch_sees_objects_come_and_go_by_their_converted_fields() {
    let (server, rest, webhook) = conversion::start().await;
    select_by(&rest, ".spec.size", ".spec.width").await;
    for (name, size) in [("a", 3), ("b", 4)] {
        rest.post(V1, &widget(name, json!({"size": size}))).await.expect(201);
    }
    let from = rest.get(V1).await.expect(200)["metadata"]["resourceVersion"].clone();
    let path = format!("{V2}?watch=1&fieldSelector=spec.width%3D30");
    let mut watches = [
        rest.watch(&path).await,
        rest.watch(&format!("{path}&resourceVersion={}", from.as_str().unwrap())).await,
    ];
    assert_eq!(watches[0].next_change().await, ("ADDED".to_owned(), "a".to_owned()));
    let size = |size: i32| json!({"spec": {"size": size}});
    for (name, change, expected) in [
        ("b", size(3), Some("ADDED")),
        ("b", json!({"spec": {"replicas": 1}}), Some("MODIFIED")),
        ("a", size(5), Some("DELETED")),
        ("a", size(6), None),
        ("b", size(4), Some("DELETED")),
        ("a", size(3), Some("ADDED")),
    ] {
        rest.patch(&format!("{V1}/{name}"), "merge", &change).await.expect(200);
        let Some(expected) = expected else { continue };
        for watch in &mut watches {
            let event = watch.next().await.unwrap();
            assert_eq!(
                (&event["type"], &event["object"]["metadata"]["name"]),
                (&expected.into(), &name.into())
            );
            assert_eq!(event["object"]["apiVersion"], "example.com/v2");
        }
    }
    // What cannot be converted cannot be judged.
    webhook.behave(|_| Reply::Status(500, "out of order"));
    rest.patch(&format!("{V1}/b"), "merge", &size(9)).await.expect(200);
    for watch in &mut watches {
        assert_eq!(watch.next().await.unwrap()["type"], "ERROR");
    }
    let refused = rest.get(&format!("{V2}?fieldSelector=spec.width%3D30")).await.expect(500);
    assert!(refused["message"].as_str().unwrap().contains("out of order"), "{refused}");
    server.stop().await;
}

/// Without a converter versions have the same fields, but not the same defaults.
#[tokio::test]
async fn each_version_has_its_own_defaults() {
    let server = Server::start().await;
    let rest = server.admin();
    let mut defined = definition();
    let schema = "schema/openAPIV3Schema/properties/spec/properties/color";
    for (version, default) in [(0, Value::Null), (1, "blue".into())] {
        let color = defined.pointer_mut(&format!("/spec/versions/{version}/{schema}")).unwrap();
        *color = match default {
            Value::Null => json!({"type": "string"}),
            default => json!({"type": "string", "default": default}),
        };
    }
    // Like in Kubernetes they cannot be the same where the schemas are not.
    let fields = &mut defined["spec"]["versions"][1]["selectableFields"];
    fields.as_array_mut().unwrap().push(json!({"jsonPath": ".spec.size"}));
    define(&rest, &defined).await;
    rest.post(V1, &widget("plain", json!({"size": 3}))).await.expect(201);
    rest.post(V1, &widget("red", json!({"size": 3, "color": "red"}))).await.expect(201);
    let beta = V1.replace("/v1/", "/v1beta1/");
    for (path, color, expected) in [
        (V1, "", vec!["plain"]),
        (V1, "red", vec!["red"]),
        (V1, "blue", vec![]),
        (&*beta, "", vec![]),
        (&*beta, "red", vec!["red"]),
        (&*beta, "blue", vec!["plain"]),
    ] {
        let found = selected(&server, path, &format!("spec.color={color}")).await.unwrap();
        assert_eq!(found, expected, "{path} {color}");
    }
    let mut watch = rest.watch(&format!("{beta}?watch=1&fieldSelector=spec.color%3Dblue")).await;
    assert_eq!(watch.next_change().await, ("ADDED".to_owned(), "plain".to_owned()));
    rest.patch(&format!("{V1}/plain"), "merge", &json!({"spec": {"color": "red"}}))
        .await
        .expect(200);
    assert_eq!(watch.next_change().await, ("DELETED".to_owned(), "plain".to_owned()));
    server.stop().await;
}
