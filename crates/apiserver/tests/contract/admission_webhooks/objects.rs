//! Objects that are written and deleted.

use rpc::api_v1 as pb;
use serde_json::{Value, json};

use super::{MAPS, REGISTRATION, Set, allow, answer, deny, map, patch, rule, touch};

#[tokio::test]
async fn every_write_is_changed() {
    let set = Set::start(touch).await;
    let rest = &set.rest;
    set.mutating("m", &[set.hook("touch")]).await;
    let made = rest.post(&format!("{MAPS}?fieldManager=me"), &map("one")).await.expect(201);
    assert_eq!(made["data"]["touched"], "yes");
    // What webhooks add to a new object belongs to nobody.
    let owners = made["metadata"]["managedFields"].to_string();
    assert!(owners.contains("f:a") && !owners.contains("f:touched"), "{owners}");
    let review = &set.reviews()[0];
    assert_eq!(
        (&review["kind"], &review["apiVersion"]),
        (&"AdmissionReview".into(), &"admission.k8s.io/v1".into())
    );
    let request = &review["request"];
    let object = &request["object"];
    assert_eq!(object["data"], json!({"a": "b"}));
    assert!(object["metadata"].get("uid").is_none(), "{object}");
    for (name, expected) in [
        ("kind", json!({"group": "", "version": "v1", "kind": "ConfigMap"})),
        ("resource", json!({"group": "", "version": "v1", "resource": "configmaps"})),
        ("requestKind", json!({"group": "", "version": "v1", "kind": "ConfigMap"})),
        ("requestResource", json!({"group": "", "version": "v1", "resource": "configmaps"})),
        ("name", "one".into()),
        ("namespace", "default".into()),
        ("operation", "CREATE".into()),
        ("oldObject", Value::Null),
        ("dryRun", false.into()),
        (
            "options",
            json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "me"}),
        ),
    ] {
        assert_eq!(request[name], expected, "{name}");
    }
    assert_eq!(request["userInfo"]["username"], "kubernetes-admin");
    assert_eq!(request["userInfo"]["groups"], json!(["system:masters", "system:authenticated"]));

    let one = format!("{MAPS}/one");
    let put = rest.send("PUT", &one, &map("one")).await.expect(200);
    assert_eq!(put["data"]["touched"], "yes");
    let request = &set.reviews()[0]["request"];
    assert_eq!(
        (&request["operation"], &request["options"]["kind"]),
        (&"UPDATE".into(), &"UpdateOptions".into())
    );
    assert_eq!(request["oldObject"]["data"]["touched"], "yes");
    assert_eq!(request["oldObject"]["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(
        request["oldObject"]["metadata"]["resourceVersion"],
        made["metadata"]["resourceVersion"]
    );

    for (kind, body) in [
        ("merge", json!({"data": {"touched": "no", "c": "d"}})),
        ("json", json!([{"op": "replace", "path": "/data/touched", "value": "no"}])),
        ("strategic-merge", json!({"data": {"touched": "no"}})),
    ] {
        let patched = rest.patch(&one, kind, &body).await.expect(200);
        assert_eq!(patched["data"]["touched"], "yes", "{kind}");
    }
    let apply = [("content-type", "application/apply-patch+yaml")];
    for (name, code) in [("one", 200), ("two", 201)] {
        let path = format!("{MAPS}/{name}?fieldManager=applier&force=true");
        let mut applied = map(name);
        applied["data"]["e"] = "f".into();
        let applied = applied.to_string().into_bytes();
        let applied = rest.ask("PATCH", &path, &apply, applied).await.expect(code);
        assert_eq!(applied["data"]["touched"], "yes", "{name}");
    }
    let operations: Vec<_> =
        set.reviews().iter().map(|review| review["request"]["operation"].clone()).collect();
    assert_eq!(operations, ["UPDATE", "UPDATE", "UPDATE", "UPDATE", "CREATE"]);
    // The other front end walks the same path.
    let target = pb::Target {
        version: "v1".to_owned(),
        resource: "configmaps".to_owned(),
        namespace: "default".to_owned(),
        ..pb::Target::default()
    };
    let request = pb::CreateRequest {
        target: Some(target),
        json: map("grpc").to_string().into(),
        ..pb::CreateRequest::default()
    };
    let made = set.server.grpc().create(request).await.unwrap().into_inner();
    let made: Value = serde_json::from_slice(&made.json).unwrap();
    assert_eq!(made["data"]["touched"], "yes");
    set.server.stop().await;
}

/// What a webhook changes in an update belongs to nobody new.
#[tokio::test]
async fn changes_of_updates_have_no_owner() {
    let set = Set::start(touch).await;
    let rest = &set.rest;
    set.mutating("m", &[set.hook("touch")]).await;
    rest.post(&format!("{MAPS}?fieldManager=first"), &map("one")).await.expect(201);
    set.webhook.behave(|review| {
        patch(review, &json!([{"op": "add", "path": "/data/touched", "value": "again"}]))
    });
    let one = format!("{MAPS}/one?fieldManager=second");
    let patched = rest.patch(&one, "merge", &json!({"data": {"c": "d"}})).await.expect(200);
    assert_eq!(patched["data"]["touched"], "again");
    let owners = patched["metadata"]["managedFields"].as_array().unwrap();
    let second = owners.iter().find(|owner| owner["manager"] == "second").unwrap();
    assert_eq!(second["fieldsV1"], json!({"f:data": {"f:c": {}}}));
    // What is no list of owners is not taken over.
    set.webhook.behave(|review| {
        let wrong = json!([{"manager": "m", "operation": "Guess"}]);
        patch(review, &json!([{"op": "add", "path": "/metadata/managedFields", "value": wrong}]))
    });
    let warned = rest.patch(&one, "merge", &json!({"data": {"e": "f"}})).await;
    let text = warned.headers.get("warning").unwrap().to_str().unwrap().to_owned();
    assert!(text.contains("managedFields was in an invalid state after admission"), "{text}");
    let owners = warned.expect(200)["metadata"]["managedFields"].to_string();
    assert!(owners.contains("second") && !owners.contains("Guess"), "{owners}");
    set.server.stop().await;
}

/// Writers that meet are all asked about, each with the object that it is applied to.
#[tokio::test]
async fn a_write_that_is_repeated_is_asked_about_again() {
    let set = Set::start(touch).await;
    let rest = &set.rest;
    rest.post(MAPS, &map("one")).await.expect(201);
    set.mutating("m", &[set.hook("touch")]).await;
    let one = format!("{MAPS}/one");
    let writes = (0..8).map(|number| {
        let (one, number) = (&one, format!("n{number}"));
        async move {
            rest.patch(one, "merge", &json!({"data": {number: "x"}})).await.expect(200);
        }
    });
    futures::future::join_all(writes).await;
    let data = rest.get(&one).await.expect(200)["data"].clone();
    assert_eq!(data.as_object().unwrap().len(), 10, "{data}");
    let reviews = set.reviews();
    assert!(reviews.len() >= 8);
    for review in &reviews {
        let count = |name: &str| review["request"][name]["data"].as_object().unwrap().len();
        assert_eq!(count("object"), count("oldObject") + 1, "{review}");
    }
    set.server.stop().await;
}

#[tokio::test]
async fn names_and_defaults_are_completed_after_a_change() {
    let set = Set::start(|review: &Value| {
        assert_eq!(review["request"]["name"], Value::Null);
        let object = &review["request"]["object"];
        assert!(object["metadata"].get("name").is_none(), "{object}");
        patch(
            review,
            &json!([{"op": "add", "path": "/spec/ports/-", "value": {"port": 8080, "name": "b"}}]),
        )
    })
    .await;
    let mut hook = set.hook("ports");
    hook["rules"] = json!([rule(&["*"], "", "v1", &["services"])]);
    set.mutating("m", &[hook]).await;
    let service =
        json!({"metadata": {"generateName": "s-"}, "spec": {"ports": [{"port": 80, "name": "a"}]}});
    let made = set.rest.post("/api/v1/namespaces/default/services", &service).await.expect(201);
    assert!(made["metadata"]["name"].as_str().unwrap().starts_with("s-"));
    assert_eq!(
        made["spec"]["ports"][1],
        json!({"port": 8080, "name": "b", "protocol": "TCP", "targetPort": 8080})
    );
    set.server.stop().await;
}

/// Validating webhooks see what will be stored, with its name and address.
#[tokio::test]
async fn what_is_stored_is_judged() {
    let set = Set::start(allow).await;
    let mut hook = set.hook("judge");
    hook["rules"] = json!([rule(&["*"], "", "v1", &["services"])]);
    set.validating("v", &[hook]).await;
    let service = json!({"metadata": {"generateName": "s-"}, "spec": {"ports": [{"port": 80}]}});
    let made = set.rest.post("/api/v1/namespaces/default/services", &service).await.expect(201);
    let seen = &set.reviews()[0]["request"]["object"];
    assert_eq!(seen["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(seen["metadata"]["name"], made["metadata"]["name"]);
    assert_eq!(seen["spec"]["clusterIP"], made["spec"]["clusterIP"]);
    // A denial gives the address back.
    set.webhook.behave(deny);
    let mut fixed = service.clone();
    fixed["spec"]["clusterIP"] = "10.96.0.77".into();
    set.rest.post("/api/v1/namespaces/default/services", &fixed).await.expect(400);
    set.webhook.behave(allow);
    set.rest.post("/api/v1/namespaces/default/services", &fixed).await.expect(201);
    set.server.stop().await;
}

#[tokio::test]
async fn denials_are_passed_on() {
    let set = Set::start(allow).await;
    let rest = &set.rest;
    let mut hook = set.hook("guard");
    hook["rules"] = json!([rule(&["*"], "", "v1", &["configmaps"])]);
    set.validating("v", &[hook]).await;
    for name in ["one", "two"] {
        rest.post(MAPS, &map(name)).await.expect(201);
    }
    let status = json!({"message": "keep it", "reason": "Teapot", "code": 418,
        "details": {"retryAfterSeconds": 7}});
    set.webhook.behave(move |review| {
        answer(
            review,
            &json!({"allowed": false, "status": status, "warnings": ["careful", "careful"]}),
        )
    });
    let one = format!("{MAPS}/one");
    let text = "admission webhook \"guard.example.com\" denied the request: keep it";
    let refused = [
        rest.post(MAPS, &map("three")).await,
        rest.send("PUT", &one, &json!({"metadata": {"name": "one"}, "data": {"x": "y"}})).await,
        rest.patch(&one, "merge", &json!({"data": {"x": "y"}})).await,
        rest.delete(&one).await,
        rest.delete(MAPS).await,
    ];
    for refused in refused {
        assert_eq!(refused.body["message"], text);
        assert_eq!((refused.code, &refused.body["reason"]), (418, &"Teapot".into()));
        assert_eq!(refused.body["details"]["retryAfterSeconds"], 7);
        let warnings: Vec<_> = refused.headers.get_all("warning").iter().collect();
        assert_eq!(warnings, ["299 - \"careful\""]);
    }
    let reviews = set.reviews();
    let deletion = &reviews[reviews.len() - 2]["request"];
    assert_eq!((&deletion["object"], &deletion["operation"]), (&Value::Null, &"DELETE".into()));
    assert_eq!(deletion["oldObject"]["metadata"]["name"].as_str().map(|name| name.len()), Some(3));
    assert_eq!(deletion["options"]["kind"], "DeleteOptions");
    let names: Vec<_> =
        reviews[2..].iter().map(|review| review["request"]["name"].clone()).collect();
    // Of what is deleted together, the request names nothing.
    assert_eq!(names.first(), Some(&json!("three")));
    assert_eq!(names.last(), Some(&Value::Null));
    let target = pb::Target {
        version: "v1".to_owned(),
        resource: "configmaps".to_owned(),
        namespace: "default".to_owned(),
        name: "one".to_owned(),
        ..pb::Target::default()
    };
    let request = pb::DeleteRequest { target: Some(target), ..pb::DeleteRequest::default() };
    let error = set.server.grpc().delete(request).await.unwrap_err();
    assert!(error.message().contains(text), "{error:?}");
    rest.get(&one).await.expect(200);
    set.webhook.behave(|review| answer(review, &json!({"warnings": ["mind", "the gap"]})));
    let warned = rest.post(MAPS, &map("four")).await;
    assert_eq!((warned.code, warned.headers.get_all("warning").iter().count()), (201, 2));
    let metrics = rest.get("/metrics").await.text;
    for line in [
        "apiserver_admission_webhook_rejection_count{error_type=\"no_error\",name=\"guard.example.com\",operation=\"DELETE\",rejection_code=\"418\",type=\"validating\"}",
        "apiserver_admission_webhook_admission_duration_seconds_count{name=\"guard.example.com\",operation=\"CREATE\",rejected=\"true\",type=\"validating\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    set.server.stop().await;
}

/// Whatever webhooks say, their configurations can be repaired.
#[tokio::test]
async fn configurations_are_exempt() {
    let set = Set::start(deny).await;
    let mut hook = set.hook("all");
    hook["rules"] = json!([rule(&["*"], "*", "*", &["*/*"])]);
    set.mutating("m", &[hook.clone()]).await;
    set.validating("v", &[hook]).await;
    set.rest.post(MAPS, &map("one")).await.expect(400);
    for (kind, name) in [("mutating", "m"), ("validating", "v")] {
        let path = format!("{REGISTRATION}/{kind}webhookconfigurations/{name}");
        let label = json!({"metadata": {"labels": {"a": "b"}}});
        set.rest.patch(&path, "merge", &label).await.expect(200);
        set.rest.delete(&path).await.expect(200);
    }
    set.until(<[String]>::is_empty).await;
    set.rest.post(MAPS, &map("one")).await.expect(201);
    set.server.stop().await;
}

/// The server's own controllers go on, and so does what they do for a definition.
#[tokio::test]
async fn the_server_asks_nobody_about_itself() {
    let set = Set::start(deny).await;
    let mut hook = set.hook("all");
    hook["rules"] = json!([rule(&["UPDATE", "DELETE"], "*", "*", &["*/*"])]);
    set.validating("v", &[hook]).await;
    crate::custom::define(&set.rest, &crate::custom::definition()).await;
    set.server.stop().await;
}
