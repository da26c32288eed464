//! Custom resources from their definition to its end, and rules of metadata that differ by kind.

use serde_json::{Value, json};

use crate::custom::{DEFINITIONS, WIDGETS, define, definition, widget};
use crate::server::{Answer, Rest, Server};

const DEFINITION: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, metadata: Value) -> Value {
    let mut object =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {}});
    for (field, value) in metadata.as_object().unwrap() {
        object["metadata"][field] = value.clone();
    }
    object
}

fn warnings(answer: &Answer) -> Vec<String> {
    let all = answer.headers.get_all("warning").iter();
    all.map(|value| value.to_str().unwrap().to_owned()).collect()
}

fn message(answer: Answer, code: u16) -> String {
    answer.expect(code)["message"].as_str().unwrap().to_owned()
}

/// The reason of a condition, once it is one of those wanted.
async fn reason(rest: &Rest, path: &str, type_: &str, wanted: &str) -> Value {
    let (folder, name) = path.rsplit_once('/').unwrap();
    let watch = format!(
        "{folder}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&fieldSelector=metadata.name%3D{name}"
    );
    let mut changes = rest.watch(&watch).await;
    loop {
        let event = changes.next().await.unwrap();
        let conditions = event["object"]["status"]["conditions"].as_array().cloned();
        let found = conditions
            .into_iter()
            .flatten()
            .find(|found| found["type"] == type_ && found["reason"] == wanted);
        if found.is_some() {
            return event["object"].clone();
        }
    }
}

/// Operators of old have finalizers without a path; core kinds do not take them.
#[tokio::test]
async fn finalizers_without_a_domain_are_warned_about_or_refused() {
    let server = Server::start().await;
    let rest = server.admin();
    define(&rest, &definition()).await;
    rest.post(WIDGETS, &widget("a", json!({"size": 1}))).await.expect(201);
    let path = format!("{WIDGETS}/a");
    for (finalizer, warned) in [
        ("resources-finalizer.argocd.argoproj.io", " including a path (/)"),
        ("bare", ""),
        ("foregroundDeletion", "-"),
        ("example.com/whole", "-"),
    ] {
        let patch = json!({"metadata": {"finalizers": [finalizer]}});
        let answer = rest.patch(&path, "merge", &patch).await;
        let expected = format!(
            "299 - \"metadata.finalizers: \\\"{finalizer}\\\": prefer a domain-qualified finalizer name{warned} to avoid accidental conflicts with other finalizer writers\""
        );
        let expected = if warned == "-" { Vec::new() } else { vec![expected] };
        assert_eq!(warnings(&answer), expected);
        answer.expect(200);
        // What was there already is not warned about again.
        let again = rest.patch(&path, "merge", &json!({"spec": {"size": 2}})).await;
        assert!(warnings(&again).is_empty());
    }
    let refused = rest.post(MAPS, &map("a", json!({"finalizers": ["bare.example.com"]}))).await;
    assert!(message(refused, 422).contains("metadata.finalizers[0]: Invalid value: \"bare.example.com\": name is neither a standard finalizer name nor is it fully qualified"));
    // A definition has one itself while its objects go, and can be changed meanwhile.
    rest.delete(DEFINITION).await.expect(200);
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    rest.patch(DEFINITION, "merge", &labels).await.expect(200);
    server.stop().await;
}

/// Who takes the finalizer of a definition away leaves its objects behind, to be found by the next.
#[tokio::test]
async fn objects_that_a_definition_has_left_are_served_by_the_next() {
    let server = Server::start().await;
    let rest = server.admin();
    define(&rest, &definition()).await;
    let mut held = widget("held", json!({"size": 3}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    let held = rest.post(WIDGETS, &held).await.expect(201);
    rest.delete(DEFINITION).await.expect(200);
    reason(&rest, DEFINITION, "Terminating", "InstanceDeletionInProgress").await;
    let refused = rest.post(WIDGETS, &widget("late", json!({"size": 1}))).await;
    let refused = refused.expect(403);
    assert_eq!(refused["reason"], "Forbidden");
    let patch = json!({"metadata": {"finalizers": null}});
    let kept = json!({"metadata": {"finalizers": ["example.com/kept"]}});
    rest.patch(DEFINITION, "merge", &patch).await.expect(200);
    rest.get(DEFINITION).await.expect(404);
    rest.get(&format!("{WIDGETS}/held")).await.expect(404);
    define(&rest, &definition()).await;
    let list = rest.get(WIDGETS).await.expect(200);
    assert_eq!(list["items"][0]["metadata"]["uid"], held["metadata"]["uid"], "{list}");
    rest.get(&format!("{WIDGETS}/held")).await.expect(200);
    let again = rest.post(WIDGETS, &widget("held", json!({"size": 1}))).await.expect(409);
    assert_eq!(again["reason"], "AlreadyExists");
    rest.patch(&format!("{WIDGETS}/held"), "merge", &patch).await.expect(200);
    rest.get(&format!("{WIDGETS}/held")).await.expect(404);
    // A definition that somebody else holds says how the deletion of its objects ended.
    rest.patch(DEFINITION, "merge", &kept).await.expect(200);
    rest.delete(DEFINITION).await.expect(200);
    let ended = reason(&rest, DEFINITION, "Terminating", "InstanceDeletionCompleted").await;
    assert_eq!(ended["metadata"]["finalizers"], json!(["example.com/kept"]));
    rest.patch(DEFINITION, "merge", &patch).await.expect(200);
    server.stop().await;
}

#[tokio::test]
async fn a_definition_with_an_unreadable_authority_is_not_established() {
    let server = Server::start().await;
    let rest = server.admin();
    let mut own = definition();
    let broken = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCmEKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=";
    own["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "conversionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://127.0.0.1:1/", "caBundle": broken}}});
    rest.post(DEFINITIONS, &own).await.expect(201);
    reason(&rest, DEFINITION, "Established", "InvalidCABundle").await;
    rest.get(WIDGETS).await.expect(404);
    let mended = json!({"spec": {"conversion": {"webhook": {"clientConfig": {"caBundle": null}}}}});
    rest.patch(DEFINITION, "merge", &mended).await.expect(200);
    reason(&rest, DEFINITION, "Established", "InitialNamesAccepted").await;
    rest.get(WIDGETS).await.expect(200);
    server.stop().await;
}

/// What is ignored in a schema is warned about once.
#[tokio::test]
async fn schemas_that_promise_too_much_are_warned_about() {
    let server = Server::start().await;
    let rest = server.admin();
    let mut own = definition();
    let spec = |version: usize| {
        format!("/spec/versions/{version}/schema/openAPIV3Schema/properties/spec/properties")
    };
    for version in [0, 1] {
        let fields = own.pointer_mut(&spec(version)).unwrap();
        fields["odd"] = json!({"type": "string", "format": "odd"});
        fields["time"] = json!({"type": "string", "format": "date-time"});
        fields["wide"] = json!({"type": "string", "format": "int32"});
        fields["set"] = json!({"type": "array", "x-kubernetes-list-type": "set", "items":
            {"type": "array", "x-kubernetes-list-type": "atomic", "items": {"type": "integer"}}});
    }
    let made = rest.post(DEFINITIONS, &own).await;
    let expected = [
        "299 - \"unrecognized format \\\"int32\\\"\"",
        "299 - \"unrecognized format \\\"odd\\\"\"",
        "299 - \"x-kubernetes-list-type: set for items of type \\\"array\\\" is not supported by server-side apply or CEL validation rules\"",
    ];
    assert_eq!(
        (made.code, warnings(&made)),
        (201, expected.map(str::to_owned).to_vec()),
        "{}",
        made.text
    );
    let newer = json!({"type": "string", "format": "newer"});
    let add =
        |version| json!({"op": "add", "path": format!("{}/new", spec(version)), "value": newer});
    let more = json!([add(0), add(1)]);
    let patched = rest.patch(DEFINITION, "json", &more).await;
    assert_eq!(warnings(&patched), ["299 - \"unrecognized format \\\"newer\\\"\""]);
    server.stop().await;
}

#[tokio::test]
async fn times_of_the_server_are_kept_whatever_a_client_sends() {
    let server = Server::start().await;
    let rest = server.admin();
    define(&rest, &definition()).await;
    let old = json!("2020-01-01T00:00:00Z");
    for (folder, object) in
        [(MAPS, map("a", json!({}))), (WIDGETS, widget("a", json!({"size": 1})))]
    {
        let made = rest.post(folder, &object).await.expect(201);
        let path = format!("{folder}/a");
        let mut sent = made.clone();
        sent["metadata"]["creationTimestamp"] = old.clone();
        let put = rest.send("PUT", &path, &sent).await.expect(200);
        let times = json!({"metadata": {"creationTimestamp": old, "deletionTimestamp": null}});
        let patched = rest.patch(&path, "merge", &times).await.expect(200);
        for answer in [put, patched] {
            assert_eq!(
                answer["metadata"]["creationTimestamp"],
                made["metadata"]["creationTimestamp"]
            );
        }
    }
    server.stop().await;
}

/// Kinds that have to be updated conditionally cannot be fooled by what parses as no version.
#[tokio::test]
async fn revision_zero_is_no_precondition() {
    let server = Server::start().await;
    let rest = server.admin();
    define(&rest, &definition()).await;
    let made = rest.post(WIDGETS, &widget("a", json!({"size": 1}))).await.expect(201);
    let path = format!("{WIDGETS}/a");
    for version in [json!("0"), json!(""), Value::Null] {
        let mut sent = made.clone();
        sent["metadata"]["resourceVersion"] = version.clone();
        let expected =
            "metadata.resourceVersion: Invalid value: 0: must be specified for an update";
        assert!(message(rest.send("PUT", &path, &sent).await, 422).contains(expected));
        let patch = json!({"metadata": {"resourceVersion": version, "labels": {"a": "b"}}});
        assert!(message(rest.patch(&path, "merge", &patch).await, 422).contains(expected));
    }
    rest.patch(&path, "merge", &json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    rest.patch(&format!("{path}/status"), "merge", &json!({"status": {"phase": "x"}}))
        .await
        .expect(200);
    // Those that need no version take it as none.
    rest.post(MAPS, &map("a", json!({}))).await.expect(201);
    let zero = map("a", json!({"resourceVersion": "0"}));
    rest.send("PUT", &format!("{MAPS}/a"), &zero).await.expect(200);
    server.stop().await;
}

#[tokio::test]
async fn numbers_that_scale_shows_are_judged() {
    let server = Server::start().await;
    let rest = server.admin();
    define(&rest, &definition()).await;
    let spec = |replicas: Value| widget("bad", json!({"size": 1, "replicas": replicas}));
    let refused = message(rest.post(WIDGETS, &spec(json!(-1))).await, 422);
    assert!(
        refused.contains(".spec.replicas: Invalid value: -1: should be a non-negative integer"),
        "{refused}"
    );
    let refused = message(rest.post(WIDGETS, &spec(json!(2_147_483_648_u64))).await, 422);
    assert!(refused.contains("should be less than or equal to 2147483647"), "{refused}");
    rest.post(WIDGETS, &widget("a", json!({"size": 1}))).await.expect(201);
    let path = format!("{WIDGETS}/a");
    for (subresource, patch) in
        [("", json!({"spec": {"replicas": -1}})), ("/status", json!({"status": {"replicas": -1}}))]
    {
        rest.patch(&format!("{path}{subresource}"), "merge", &patch).await.expect(422);
    }
    // There is nothing to show, but something to set.
    let scale = format!("{path}/scale");
    rest.get(&scale).await.expect(500);
    let empty = message(rest.patch(&scale, "merge", &json!({"metadata": {}})).await, 400);
    assert_eq!(empty, "the spec replicas field \".spec.replicas\" cannot be empty");
    let set = rest.patch(&scale, "merge", &json!({"spec": {"replicas": 3}})).await.expect(200);
    assert_eq!(set["spec"]["replicas"], 3);
    assert_eq!(rest.get(&path).await.expect(200)["spec"]["replicas"], 3);
    let whole = json!({"apiVersion": "autoscaling/v1", "kind": "Scale",
        "metadata": {"name": "a", "namespace": "default"}, "spec": {"replicas": 4}});
    rest.send("PUT", &scale, &whole).await.expect(200);
    server.stop().await;
}

#[tokio::test]
async fn a_body_of_another_kind_or_version_is_named() {
    let server = Server::start().await;
    let rest = server.admin();
    define(&rest, &definition()).await;
    let mut other = widget("a", json!({"size": 1}));
    other["apiVersion"] = "example.com/v2".into();
    assert_eq!(
        message(rest.post(WIDGETS, &other).await, 400),
        "the API version in the data (example.com/v2) does not match the expected API version (example.com/v1)"
    );
    let mut other = widget("a", json!({"size": 1}));
    other["kind"] = "Gadget".into();
    assert_eq!(
        message(rest.post(WIDGETS, &other).await, 422),
        "Gadget.example.com \"a\" is invalid: kind: Invalid value: \"Gadget\": must be Widget"
    );
    server.stop().await;
}

#[tokio::test]
async fn owners_that_are_equal_are_kept_once() {
    let server = Server::start().await;
    let rest = server.admin();
    let owner = |uid: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid});
    let other = json!({"apiVersion": "v1", "kind": "Pod", "name": "q", "uid": "u"});
    let owners = json!([owner("u"), owner("v"), owner("u"), other]);
    let made = rest.post(MAPS, &map("a", json!({"ownerReferences": owners}))).await;
    let warned = |when: &str| {
        format!(
            "299 - \".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: u\""
        )
    };
    assert_eq!(warnings(&made), [warned("")]);
    let kept = json!([owner("u"), owner("v"), other]);
    assert_eq!(made.expect(201)["metadata"]["ownerReferences"], kept);
    let patch = json!([{"op": "add", "path": "/metadata/ownerReferences/-", "value": owner("u")}]);
    let patched = rest.patch(&format!("{MAPS}/a"), "json", &patch).await;
    assert_eq!(warnings(&patched), [warned(" after mutating admission happens")]);
    assert_eq!(patched.expect(200)["metadata"]["ownerReferences"], kept);
    for (field, value, expected) in [
        ("apiVersion", "", "apiVersion: Required value: must not be empty"),
        (
            "apiVersion",
            "a/b/c",
            "apiVersion: Invalid value: \"a/b/c\": must be <group>/<version> or <version>",
        ),
        (
            "apiVersion",
            "a/",
            "apiVersion: Invalid value: \"a/\": must be <group>/<version> or <version>",
        ),
        ("uid", "", "uid: Required value: must not be empty"),
    ] {
        let mut wrong = owner("u");
        wrong[field] = value.into();
        let refused = rest.post(MAPS, &map("b", json!({"ownerReferences": [wrong]}))).await;
        let refused = message(refused, 422);
        assert!(refused.ends_with(&format!("metadata.ownerReferences[0].{expected}")), "{refused}");
    }
    server.stop().await;
}

/// With a limit, a list at a revision is of that revision; at none in particular it is whole.
#[tokio::test]
async fn limited_lists_are_of_the_revision_that_is_asked_for() {
    let server = Server::start().await;
    let rest = server.admin();
    for name in ["a", "b"] {
        rest.post(MAPS, &map(name, json!({}))).await.expect(201);
    }
    let before = rest.get(MAPS).await.expect(200)["metadata"]["resourceVersion"].clone();
    let before = before.as_str().unwrap();
    rest.delete(&format!("{MAPS}/a")).await.expect(200);
    let first = async |query: &str| {
        let list = rest.get(&format!("{MAPS}?{query}")).await.expect(200);
        (list["items"][0]["metadata"]["name"].clone(), list["metadata"]["resourceVersion"].clone())
    };
    let exact = first(&format!("limit=1&resourceVersion={before}")).await;
    assert_eq!(exact, (json!("a"), json!(before)));
    let newer = format!("limit=1&resourceVersion={before}&resourceVersionMatch=NotOlderThan");
    assert_eq!(first(&newer).await.0, "b");
    assert_eq!(first(&format!("resourceVersion={before}")).await.0, "b");
    rest.post(MAPS, &map("c", json!({}))).await.expect(201);
    let whole = rest.get(&format!("{MAPS}?limit=1&resourceVersion=0")).await.expect(200);
    let rest_of = whole["metadata"].get("continue").and_then(Value::as_str).unwrap_or_default();
    assert!(whole["items"].as_array().unwrap().len() >= 2 && rest_of.is_empty(), "{whole}");
    server.stop().await;
}
