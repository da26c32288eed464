//! One object, whatever the form in which a client sends it; and who owns its fields.

use rpc::api_v1 as pb;
use serde_json::{Value, json};

use crate::server::{Rest, Server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// As a person writes it.
fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
            "containers": [{"name": "web", "image": "nginx", "ports": [{"containerPort": 80}]}],
            "volumes": [{"name": "v", "emptyDir": {}}],
        }},
    }})
}

/// As a program in Go writes it: every field that is not a pointer.
fn written_out(name: &str) -> Value {
    let mut object = deployment(name);
    let spec = &mut object["spec"];
    spec["paused"] = false.into();
    spec["minReadySeconds"] = 0.into();
    spec["strategy"] = json!({"type": ""});
    let pod = &mut spec["template"]["spec"];
    pod["hostPID"] = false.into();
    pod["nodeName"] = "".into();
    pod["tolerations"] = json!([]);
    pod["nodeSelector"] = json!({});
    pod["containers"][0]["stdin"] = false.into();
    pod["containers"][0]["resources"] = json!({"limits": {}});
    pod["containers"][0]["ports"][0]["hostPort"] = 0.into();
    spec["template"]["metadata"]["generation"] = 0.into();
    spec["template"]["metadata"]["creationTimestamp"] = Value::Null;
    object["status"] = json!({"replicas": 0});
    object
}

/// Without what differs from one object to the next.
fn content(mut object: Value) -> Value {
    let metadata = object["metadata"].as_object_mut().unwrap();
    for field in ["name", "uid", "resourceVersion", "creationTimestamp", "managedFields"] {
        metadata.remove(field);
    }
    object
}

async fn send(
    rest: &Rest,
    method: &str,
    path: &str,
    media: &str,
    body: Vec<u8>,
    code: u16,
) -> Value {
    let headers = [("content-type", media), ("accept", "application/json")];
    rest.ask(method, path, &headers, body).await.expect(code)
}

#[tokio::test]
async fn one_object_whatever_the_form() {
    let server = Server::start().await;
    let (rest, mut grpc) = (server.admin(), server.grpc());
    let first = content(rest.post(DEPLOYMENTS, &deployment("json")).await.expect(201));
    assert_eq!(first["spec"]["template"]["spec"]["volumes"][0]["emptyDir"], json!({}));
    let mut all = Vec::new();
    for (number, object) in [deployment, written_out].into_iter().enumerate() {
        let json = object(&format!("json{number}")).to_string().into_bytes();
        all.push(send(&rest, "POST", DEPLOYMENTS, "application/json", json, 201).await);
        let yaml = object(&format!("yaml{number}")).to_string().into_bytes();
        all.push(send(&rest, "POST", DEPLOYMENTS, "application/yaml", yaml, 201).await);
        let bytes = api::protobuf::from_json(&object(&format!("proto{number}"))).unwrap();
        let media = "application/vnd.kubernetes.protobuf";
        all.push(send(&rest, "POST", DEPLOYMENTS, media, bytes, 201).await);
        let name = format!("apply{number}");
        let path = format!("{DEPLOYMENTS}/{name}?fieldManager=me");
        let mut config = object(&name);
        config["spec"]["template"]["metadata"].as_object_mut().unwrap().remove("creationTimestamp");
        let media = "application/apply-patch+yaml";
        let config = config.to_string().into_bytes();
        let applied = send(&rest, "PATCH", &path, media, config.clone(), 201).await;
        let again = send(&rest, "PATCH", &path, media, config, 200).await;
        assert_eq!(again, applied, "applying the same again changes nothing");
        all.push(applied);
        let target = pb::Target {
            group: "apps".into(),
            version: "v1".into(),
            resource: "deployments".into(),
            namespace: "default".into(),
            ..pb::Target::default()
        };
        let json = object(&format!("grpc{number}")).to_string().into();
        let request = pb::CreateRequest { target: Some(target), json, options: None };
        let created = grpc.create(request).await.unwrap().into_inner();
        all.push(serde_json::from_slice(&created.json).unwrap());
    }
    for object in all {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        assert_eq!(content(object.clone()), first, "{name}");
        // Replaced by the same, in another form, it stays as it is.
        let bytes = api::protobuf::from_json(&written_out(&name)).unwrap();
        let path = format!("{DEPLOYMENTS}/{name}");
        let media = "application/vnd.kubernetes.protobuf";
        let replaced = send(&rest, "PUT", &path, media, bytes, 200).await;
        assert_eq!(replaced["metadata"]["generation"], 1, "{name}");
        assert_eq!(content(replaced), first, "{name}");
    }
    server.stop().await;
}

/// What client-go sends of structs that it never filled in.
#[tokio::test]
async fn null_is_gos_zero_value() {
    let server = Server::start().await;
    server.default_account("default").await;
    let rest = server.admin();
    let pod = json!({"metadata": {"name": "p", "creationTimestamp": null}, "status": {}, "spec": {
        "containers": [{"name": "c", "image": "i", "resources": {}}], "volumes": null}});
    rest.post("/api/v1/namespaces/default/pods", &pod).await.expect(201);
    let path = "/api/v1/namespaces/default/pods/p/status";
    let status = json!({"metadata": {"name": "p", "creationTimestamp": null}, "spec": {"containers": null}, "status": {
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": null, "lastProbeTime": null}],
        "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 1, "startedAt": null, "finishedAt": null}},
            "lastState": {}, "ready": null, "restartCount": null, "image": "i", "imageID": ""}],
        "startTime": null}});
    let stored = rest.send("PUT", path, &status).await.expect(200);
    let own = &stored["status"]["containerStatuses"][0];
    assert_eq!((&own["ready"], &own["restartCount"]), (&json!(false), &json!(0)));
    assert_eq!(own["state"], json!({"terminated": {"exitCode": 1}}));
    assert_eq!(stored["spec"]["containers"][0]["name"], "c");
    rest.patch(path, "merge", &json!({"status": {"conditions": [null]}})).await.expect(200);

    // A condition of `meta.v1` cannot be without a time in Rust.
    let budget = json!({"metadata": {"name": "b"}, "spec": {"selector": {}}});
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    rest.post(budgets, &budget).await.expect(201);
    let status = json!({"metadata": {"name": "b"}, "status": {"conditions": [{"type": "T", "status": "True", "reason": "R", "message": "",
        "lastTransitionTime": null}], "disruptionsAllowed": 0}});
    rest.send("PUT", &format!("{budgets}/b/status"), &status).await.expect(200);

    // What is missing, validation says.
    for (path, object, field) in [
        (
            "/api/v1/namespaces/default/pods",
            json!({"metadata": {"name": "q"}, "spec": {"containers": null}}),
            "spec.containers",
        ),
        ("/api/v1/namespaces/default/pods", json!({"metadata": {"name": "q"}}), "spec.containers"),
        (
            "/api/v1/namespaces/default/pods",
            json!({"metadata": {"name": "q"}, "spec": {"containers": [null]}}),
            "spec.containers[0].name",
        ),
        (DEPLOYMENTS, json!({"metadata": {"name": "q"}, "spec": null}), "spec.selector"),
        (
            DEPLOYMENTS,
            json!({"metadata": {"name": "q"}, "spec": {"selector": null, "template": null}}),
            "spec.selector",
        ),
        (
            "/api/v1/namespaces/default/services",
            json!({"metadata": {"name": "q"}, "spec": {"ports": [{"port": null}]}}),
            "spec.ports[0].port",
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            json!({"metadata": {"name": "q"}, "roleRef": null}),
            "roleRef.kind",
        ),
        (
            "/apis/storage.k8s.io/v1/storageclasses",
            json!({"metadata": {"name": "q"}, "provisioner": null}),
            "provisioner",
        ),
        (MAPS, json!({"metadata": null}), "metadata.name"),
    ] {
        let refused = rest.post(path, &object).await.expect(422);
        let causes = refused["details"]["causes"].as_array().unwrap();
        assert!(causes.iter().any(|cause| cause["field"] == field), "{object}: {refused}");
    }
    server.stop().await;
}

fn owners(object: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let entry =
        |own: &Value| (text(&own["manager"]), text(&own["operation"]), text(&own["subresource"]));
    all.iter().map(entry).collect()
}

fn owner(manager: &str, operation: &str, subresource: &str) -> (String, String, String) {
    (manager.to_owned(), operation.to_owned(), subresource.to_owned())
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
}

async fn apply(rest: &Rest, path: &str, body: &Value) -> crate::server::Answer {
    let headers = [("content-type", "application/apply-patch+yaml")];
    rest.ask("PATCH", path, &headers, body.to_string().into_bytes()).await
}

/// Whoever loses the race to create an object applies to what the winner created.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_applies_of_a_missing_object_all_succeed() {
    const MANAGERS: usize = 16;
    let server = Server::start().await;
    let rest = server.admin();
    for round in 0..5 {
        let name = format!("raced{round}");
        let applies = (0..MANAGERS).map(|manager| {
            let (rest, name) = (server.admin(), name.clone());
            tokio::spawn(async move {
                let path = format!("{MAPS}/{name}?fieldManager=m{manager}");
                let mut config = map(json!({(format!("k{manager}")): "v"}));
                config["metadata"]["name"] = name.into();
                apply(&rest, &path, &config).await.code
            })
        });
        let codes = futures::future::try_join_all(applies).await.unwrap();
        let of = |code: u16| codes.iter().filter(|one| **one == code).count();
        assert_eq!((of(201), of(200)), (1, MANAGERS - 1), "{codes:?}");
        let applied = rest.get(&format!("{MAPS}/{name}")).await.expect(200);
        assert_eq!(applied["data"].as_object().unwrap().len(), MANAGERS);
        assert_eq!(applied["metadata"]["managedFields"].as_array().unwrap().len(), MANAGERS);
    }
    server.stop().await;
}

#[tokio::test]
async fn every_write_is_somebodys() {
    let server = Server::start().await;
    let rest = server.admin();
    let path = format!("{MAPS}?fieldManager=kubectl-create");
    let made = rest.post(&path, &map(json!({"a": "1", "b": "1"}))).await.expect(201);
    assert_eq!(owners(&made), [owner("kubectl-create", "Update", "")]);
    let own = &made["metadata"]["managedFields"][0];
    assert_eq!(own["fieldsV1"], json!({"f:data": {".": {}, "f:a": {}, "f:b": {}}}));
    assert_eq!((&own["apiVersion"], &own["fieldsType"]), (&json!("v1"), &json!("FieldsV1")));
    let one = format!("{MAPS}/m");
    let refused = apply(&rest, &format!("{one}?fieldManager=me"), &map(json!({"a": "2"}))).await;
    let text = refused.expect(409)["message"].as_str().unwrap().to_owned();
    assert!(
        text.starts_with(
            "Apply failed with 1 conflict: conflict with \"kubectl-create\" using v1 at "
        ),
        "{text}"
    );
    let patch = json!({"data": {"b": "2", "c": "1"}});
    let edited =
        rest.patch(&format!("{one}?fieldManager=kubectl-edit"), "merge", &patch).await.expect(200);
    assert_eq!(owners(&edited).len(), 2);
    let of = |object: &Value, manager: &str| {
        let all = object["metadata"]["managedFields"].as_array().unwrap().clone();
        all.into_iter().find(|own| own["manager"] == manager).unwrap()["fieldsV1"].clone()
    };
    assert_eq!(of(&edited, "kubectl-create"), json!({"f:data": {".": {}, "f:a": {}}}));
    assert_eq!(of(&edited, "kubectl-edit"), json!({"f:data": {"f:b": {}, "f:c": {}}}));
    // A client that does not know managed fields keeps them; what changes nothing is nobody's.
    let mut whole = edited.clone();
    whole["metadata"].as_object_mut().unwrap().remove("managedFields");
    let same = rest.send("PUT", &format!("{one}?fieldManager=third"), &whole).await.expect(200);
    assert_eq!(same, edited);
    // They may be replaced, cleared, and are left alone if they are nonsense.
    let mut taken = edited.clone();
    taken["metadata"]["managedFields"][0]["manager"] = "renamed".into();
    let taken = rest.send("PUT", &one, &taken).await.expect(200);
    assert!(owners(&taken).contains(&owner("renamed", "Update", "")), "{taken}");
    let nonsense =
        json!([{"op": "replace", "path": "/metadata/managedFields", "value": [{"manager": "x"}]}]);
    let kept = rest.patch(&one, "json", &nonsense).await.expect(200);
    assert_eq!(kept, taken);
    let clear = json!([{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}]);
    let cleared = rest.patch(&one, "json", &clear).await.expect(200);
    assert_eq!(cleared["metadata"].get("managedFields"), None);
    let untracked = rest.patch(&one, "merge", &json!({"data": {"d": "1"}})).await.expect(200);
    assert_eq!(untracked["metadata"].get("managedFields"), None);
    let refused = apply(&rest, &format!("{one}?fieldManager=me"), &map(json!({"d": "2"}))).await;
    assert!(refused.expect(409)["message"].as_str().unwrap().contains("before-first-apply"));
    let mut emptied = map(json!({"d": "1"}));
    emptied["metadata"]["managedFields"] = json!([]);
    apply(&rest, &format!("{one}?fieldManager=me"), &emptied).await.expect(400);
    server.stop().await;
}

/// What kubectl does to move an object from client-side to server-side apply.
#[tokio::test]
async fn kubectl_migrates_to_server_side_apply() {
    let server = Server::start().await;
    let rest = server.admin();
    let mut first = map(json!({"key": "v", "legacy": "x"}));
    let text = first.to_string();
    first["metadata"]["annotations"] = json!({LAST_APPLIED: text});
    let path = format!("{MAPS}?fieldManager=kubectl-client-side-apply");
    let made = rest.post(&path, &first).await.expect(201);
    let one = format!("{MAPS}/m");
    let mut moved = made["metadata"]["managedFields"].clone();
    moved[0]["manager"] = "kubectl".into();
    moved[0]["operation"] = "Apply".into();
    let patch = json!([
        {"op": "replace", "path": "/metadata/managedFields", "value": moved},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": made["metadata"]["resourceVersion"]},
    ]);
    let migrated = rest.patch(&one, "json", &patch).await.expect(200);
    assert_eq!(owners(&migrated), [owner("kubectl", "Apply", "")]);
    let next = map(json!({"key": "w", "ssaKey": "y"}));
    let path = format!("{one}?fieldManager=kubectl");
    let applied = apply(&rest, &path, &next).await.expect(200);
    assert_eq!(applied["data"], json!({"key": "w", "ssaKey": "y"}));
    assert_eq!(applied["metadata"]["annotations"], Value::Null, "it is applied no longer");
    server.stop().await;
}

#[tokio::test]
async fn an_apply_keeps_kubectls_annotation() {
    let server = Server::start().await;
    let rest = server.admin();
    let mut first = map(json!({"key": "v"}));
    first["metadata"]["annotations"] = json!({LAST_APPLIED: first.to_string()});
    let path = format!("{MAPS}?fieldManager=kubectl-client-side-apply");
    rest.post(&path, &first).await.expect(201);
    let next = map(json!({"key": "v", "ssaKey": "y"}));
    let path = format!("{MAPS}/m?fieldManager=kubectl");
    let applied = apply(&rest, &path, &next).await.expect(200);
    let text = applied["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), next);
    let again = apply(&rest, &path, &next).await.expect(200);
    assert_eq!(again, applied);
    // With its own changed value it does not conflict.
    let changed = map(json!({"key": "w", "ssaKey": "y"}));
    let applied = apply(&rest, &path, &changed).await.expect(200);
    assert_eq!(applied["data"]["key"], "w");
    server.stop().await;
}

#[tokio::test]
async fn a_scale_takes_the_replicas_over() {
    let server = Server::start().await;
    let rest = server.admin();
    let mut object = deployment("web");
    object["spec"]["replicas"] = 2.into();
    let path = format!("{DEPLOYMENTS}/web?fieldManager=me");
    apply(&rest, &path, &object).await.expect(201);
    let scale = format!("{DEPLOYMENTS}/web/scale?fieldManager=scaler");
    let patch = json!({"spec": {"replicas": 5}});
    rest.patch(&scale, "merge", &patch).await.expect(200);
    let whole = rest.get(&format!("{DEPLOYMENTS}/web")).await.expect(200);
    assert_eq!(owners(&whole), [owner("me", "Apply", ""), owner("scaler", "Update", "scale")]);
    let own = whole["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(own[0]["fieldsV1"]["f:spec"].get("f:replicas"), None);
    assert_eq!(own[1]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(own[1]["apiVersion"], "apps/v1");
    let refused = apply(&rest, &path, &object).await.expect(409);
    let text = refused["message"].as_str().unwrap();
    assert!(
        text.contains("conflict with \"scaler\" with subresource \"scale\" using apps/v1"),
        "{text}"
    );
    object["spec"].as_object_mut().unwrap().remove("replicas");
    let applied = apply(&rest, &path, &object).await.expect(200);
    assert_eq!(applied["spec"]["replicas"], 5);
    let whole = json!({"metadata": {"name": "web"}, "spec": {"replicas": 6}});
    rest.send("PUT", &scale, &whole).await.expect(200);
    let after = rest.get(&format!("{DEPLOYMENTS}/web")).await.expect(200);
    assert_eq!(owners(&after), [owner("me", "Apply", ""), owner("scaler", "Update", "scale")]);
    server.stop().await;
}

/// Live objects may have them, an applied configuration may not.
#[tokio::test]
async fn duplicates_do_not_stop_tracking() {
    let server = Server::start().await;
    let rest = server.admin();
    let mut object = deployment("web");
    let container = &mut object["spec"]["template"]["spec"]["containers"][0];
    container["env"] = json!([{"name": "X", "value": "1"}, {"name": "X", "value": "2"}]);
    container["ports"] =
        json!([{"containerPort": 80, "name": "a"}, {"containerPort": 80, "name": "b"}]);
    let made = rest.post(DEPLOYMENTS, &object).await.expect(201);
    let fields = &made["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:template"]["f:spec"]
        ["f:containers"];
    let web = &fields["k:{\"name\":\"web\"}"];
    assert_eq!(web["f:env"], json!({".": {}, "k:{\"name\":\"X\"}": {}}));
    let port = "k:{\"containerPort\":80,\"protocol\":\"TCP\"}";
    assert_eq!(web["f:ports"], json!({".": {}, port: {}}));
    let path = format!("{DEPLOYMENTS}/web");
    let paused = rest.patch(&path, "merge", &json!({"spec": {"paused": true}})).await.expect(200);
    assert!(paused["metadata"]["managedFields"].is_array());
    let refused = apply(&rest, &format!("{path}?fieldManager=me"), &object).await.expect(500);
    assert_eq!(
        refused["message"],
        "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): \
         .spec.template.spec.containers[name=\"web\"].env: duplicate entries for key [name=\"X\"]"
    );
    server.stop().await;
}

#[tokio::test]
async fn patches_are_refused_in_upstreams_words() {
    let server = Server::start().await;
    let rest = server.admin();
    rest.post(DEPLOYMENTS, &deployment("web")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/web");
    for (kind, patch, message) in [
        (
            "strategic-merge",
            json!({"metadata": {"labels": "invalid"}}),
            " \"\" is invalid: patch: Invalid value: \"map[metadata:map[labels:invalid]]\": cannot restore map from string",
        ),
        (
            "strategic-merge",
            json!({"spec": {"replicas": "x"}}),
            " \"\" is invalid: patch: Invalid value: \"map[spec:map[replicas:x]]\": unrecognized type: int32",
        ),
        (
            "strategic-merge",
            json!({"spec": {"replicas": 1.5}}),
            " \"\" is invalid: patch: Invalid value: \"map[spec:map[replicas:1.5]]\": cannot convert float64 to int32",
        ),
        (
            "strategic-merge",
            json!({"spec": {"template": [1]}}),
            " \"\" is invalid: patch: Invalid value: \"map[spec:map[template:[1]]]\": cannot restore struct from: slice",
        ),
        (
            "strategic-merge",
            json!({"metadata": {"finalizers": true}}),
            " \"\" is invalid: patch: Invalid value: \"map[metadata:map[finalizers:true]]\": cannot restore slice from bool",
        ),
        (
            "strategic-merge",
            json!({"metadata": {"annotations": {"a": 1}}}),
            " \"\" is invalid: patch: Invalid value: \"map[metadata:map[annotations:map[a:1]]]\": cannot convert int64 to string",
        ),
        (
            "merge",
            json!({"metadata": {"uid": "other"}}),
            "Deployment.apps \"web\" is invalid: metadata.uid: Invalid value: \"other\": field is immutable",
        ),
        (
            "json",
            json!([{"op": "fly", "path": "/spec"}]),
            "the server rejected our request due to an error in our request",
        ),
        (
            "json",
            json!([{"path": "/spec"}]),
            "the server rejected our request due to an error in our request",
        ),
        (
            "json",
            json!([{"op": "remove"}]),
            "the server rejected our request due to an error in our request",
        ),
        (
            "json",
            json!([{"op": "move", "path": "/spec"}]),
            "the server rejected our request due to an error in our request",
        ),
    ] {
        let refused = rest.patch(&path, kind, &patch).await;
        assert_eq!(refused.code, 422, "{patch}: {}", refused.text);
        assert_eq!(
            refused.body["message"].as_str().unwrap().trim_start(),
            message.trim_start(),
            "{patch}"
        );
    }
    let answer = rest.patch(&path, "json", &json!(["x"])).await;
    assert_eq!(
        (answer.code, answer.body["message"].as_str().unwrap()),
        (400, "json: cannot unmarshal string into Go value of type jsonpatch.Operation")
    );
    // A replacement with another uid is a failed precondition.
    let mut whole = rest.get(&path).await.expect(200);
    whole["metadata"]["uid"] = "other".into();
    rest.send("PUT", &path, &whole).await.expect(409);
    server.stop().await;
}

/// What a deletion without a policy does to the dependents, for every kind.
#[tokio::test]
async fn kinds_orphan_as_upstream_does() {
    let server = Server::start().await;
    server.default_account("default").await;
    let rest = server.admin();
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let mut forever = template.clone();
    forever["spec"]["restartPolicy"] = "Always".into();
    let spaced = "/namespaces/default/";
    let selector = json!({"matchLabels": {"a": "b"}});
    let warning = "299 - \"child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning\"";
    for (root, plural, spec, orphans, warns) in [
        (
            "/api/v1",
            "replicationcontrollers",
            json!({"selector": {"a": "b"}, "template": forever}),
            true,
            false,
        ),
        ("/apis/batch/v1", "jobs", json!({"template": template}), true, true),
        (
            "/apis/batch/v1",
            "cronjobs",
            json!({"schedule": "@daily", "jobTemplate": {"spec": {"template": template}}}),
            false,
            false,
        ),
        (
            "/apis/apps/v1",
            "deployments",
            json!({"selector": selector, "template": forever}),
            false,
            false,
        ),
        (
            "/apis/apps/v1",
            "replicasets",
            json!({"selector": selector, "template": forever}),
            false,
            false,
        ),
        (
            "/apis/apps/v1",
            "statefulsets",
            json!({"selector": selector, "template": forever, "serviceName": "s"}),
            false,
            false,
        ),
        (
            "/apis/apps/v1",
            "daemonsets",
            json!({"selector": selector, "template": forever}),
            false,
            false,
        ),
    ] {
        let path = format!("{root}{spaced}{plural}");
        for (query, finalizer) in [
            ("", orphans.then_some("orphan")),
            ("?propagationPolicy=Orphan", Some("orphan")),
            ("?propagationPolicy=Foreground", Some("foregroundDeletion")),
            ("?propagationPolicy=Background", None),
            ("?orphanDependents=false", None),
            ("?orphanDependents=true", Some("orphan")),
        ] {
            rest.post(&path, &json!({"metadata": {"name": "x"}, "spec": spec})).await.expect(201);
            let answer = rest.delete(&format!("{path}/x{query}")).await;
            let told = answer.headers.get("warning").map(|text| text.to_str().unwrap().to_owned());
            let expected = (warns && query.is_empty()).then(|| warning.to_owned());
            assert_eq!(told, expected, "{plural}{query}");
            let gone = answer.expect(200);
            match finalizer {
                None => assert_eq!(gone["kind"], "Status", "{plural}{query}: {gone}"),
                Some(finalizer) => {
                    assert_eq!(
                        gone["metadata"]["finalizers"],
                        json!([finalizer]),
                        "{plural}{query}"
                    );
                    let none = json!({"metadata": {"finalizers": null}});
                    rest.patch(&format!("{path}/x"), "merge", &none).await.expect(200);
                }
            }
            rest.get(&format!("{path}/x")).await.expect(404);
        }
    }
    let events = format!("/api/v1{spaced}events");
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"namespace": "default"}});
    rest.post(&events, &event).await.expect(201);
    let gone = rest.delete(&format!("{events}/e?propagationPolicy=Foreground")).await.expect(200);
    assert_eq!(gone["kind"], "Status");
    server.stop().await;
}

/// Objects of a kind in which one field is null, or has Go's zero value.
fn unset(row: &api::KindRow) -> Vec<Value> {
    use api::schema::{Ty, TypeRow};
    fn below(
        definition: &'static TypeRow,
        depth: usize,
        wrap: &dyn Fn(Value) -> Value,
        found: &mut Vec<Value>,
    ) {
        for field in definition.fields {
            let zero = match field.ty {
                Ty::String | Ty::Bytes => json!(""),
                Ty::Int32 | Ty::Int64 | Ty::Number | Ty::IntOrString => json!(0),
                Ty::Boolean => json!(false),
                Ty::Quantity => json!("0"),
                Ty::Array(_) => json!([null]),
                Ty::Map(_) | Ty::Ref(_) => json!({}),
                Ty::Time | Ty::MicroTime | Ty::Any => Value::Null,
            };
            found.push(wrap(json!({field.name: null})));
            found.push(wrap(json!({field.name: zero})));
            let (inner, list) = match field.ty {
                Ty::Array(element) => (element.definition(), true),
                ty => (ty.definition(), false),
            };
            if let Some(inner) = inner.filter(|_| depth > 0) {
                let wrap = |value: Value| {
                    wrap(json!({field.name: if list { json!([value]) } else { value }}))
                };
                below(inner, depth - 1, &wrap, found);
            }
        }
    }
    let mut found = Vec::new();
    let definition = row.schema().unwrap();
    below(definition, 2, &|value| value, &mut found);
    for object in &mut found {
        object["apiVersion"] = row.api_version().into();
        object["kind"] = row.kind.to_string().into();
        if object["metadata"]["name"].is_null() && object["metadata"].is_object()
            || object["metadata"].is_null()
        {
            let metadata = std::mem::take(&mut object["metadata"]);
            let mut metadata = metadata.as_object().cloned().unwrap_or_default();
            metadata.insert("name".to_owned(), "x".into());
            object["metadata"] = metadata.into();
        }
    }
    found
}

/// The decoder refuses nothing that Go would take for unset; validation says what is wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_unset_field_is_malformed() {
    let server = Server::start().await;
    server.default_account("default").await;
    let rest = server.admin();
    let mut wrong = Vec::new();
    for row in api::kind::KINDS.iter().filter(|row| row.has_objects()) {
        let root = if row.group.is_empty() { "api" } else { "apis" };
        let namespace = if row.namespaced() { "namespaces/default/" } else { "" };
        let path = format!("/{root}/{}/{namespace}{}", row.api_version(), row.plural);
        for (number, object) in unset(row).into_iter().enumerate() {
            let answer = rest.post(&format!("{path}?dryRun=All"), &object).await;
            if !matches!(answer.code, 201 | 403 | 409 | 422) {
                wrong.push(format!("create {object}: {} {}", answer.code, answer.text));
            }
            // An apply costs as much: every seventh will do.
            let owners = &object["metadata"]["managedFields"];
            if number % 7 == 0 && row.stored && owners.is_null() {
                let one = format!("{path}/x?dryRun=All&fieldManager=me");
                let answer = apply(&rest, &one, &object).await;
                if !matches!(answer.code, 201 | 403 | 409 | 422) {
                    wrong.push(format!("apply {object}: {} {}", answer.code, answer.text));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    server.stop().await;
}
