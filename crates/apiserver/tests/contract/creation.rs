//! Creation by other verbs: an update or an apply of what is not there creates it, which needs the
//! right to create.

use api::KindRow;
use rpc::api_v1 as pb;
use serde_json::{Value, json};

use crate::server::{Rest, Server};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// Binds a user to verbs on everything.
async fn grant(admin: &Rest, user: &str, verbs: &[&str]) {
    let role = json!({"metadata": {"name": user},
        "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": verbs}]});
    admin.post(&format!("{RBAC}/clusterroles"), &role).await.expect(201);
    let binding = json!({"metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]});
    admin.post(&format!("{RBAC}/clusterrolebindings"), &binding).await.expect(201);
    // A consistent read also brings the authorizer up to date.
    admin.get(&format!("{RBAC}/clusterrolebindings")).await.expect(200);
}

fn path(row: &KindRow, name: &str) -> String {
    let root = if row.group.is_empty() { "api".to_owned() } else { format!("apis/{}", row.group) };
    let namespace = if row.namespaced() { "namespaces/default/" } else { "" };
    format!("/{root}/{}/{namespace}{}/{name}", row.version, row.plural)
}

fn object(row: &KindRow, name: &str) -> Value {
    let mut object = json!({"apiVersion": row.api_version(), "kind": row.kind,
        "metadata": {"name": name}});
    if row.namespaced() {
        object["metadata"]["namespace"] = "default".into();
    }
    object
}

fn target(row: &KindRow, name: &str) -> Option<pb::Target> {
    Some(pb::Target {
        group: row.group.to_string(),
        version: row.version.to_string(),
        resource: row.plural.to_string(),
        namespace: if row.namespaced() { "default".into() } else { String::new() },
        name: name.into(),
        ..pb::Target::default()
    })
}

/// What both front ends answer to a PUT and an apply of an object that does not exist: code and
/// message.
async fn upsert(
    server: &Server,
    user: &str,
    row: &'static KindRow,
) -> Vec<(&'static str, u16, String)> {
    let (rest, mut grpc) = (server.rest_as(user, &[]), server.grpc_as(user, &[]));
    let (name, mut answers) = ("new", Vec::new());
    let (path, object) = (path(row, name), object(row, name));
    let answer = rest.send("PUT", &path, &object).await;
    answers.push(("PUT", answer.code, answer.text));
    let headers = [("content-type", "application/apply-patch+yaml")];
    let applied = format!("{path}?fieldManager=m");
    let answer = rest.ask("PATCH", &applied, &headers, object.to_string().into_bytes()).await;
    answers.push(("apply", answer.code, answer.text));
    let code = |answer: Result<tonic::Response<pb::Object>, tonic::Status>| match answer {
        Ok(_) => (200, String::new()),
        Err(status) => match rpc::status::from_grpc(&status) {
            Some(error) => (error.code(), error.message().to_owned()),
            None => (0, status.to_string()),
        },
    };
    let json = bytes::Bytes::from(object.to_string());
    let update = pb::UpdateRequest { target: target(row, name), json: json.clone(), options: None };
    let (number, text) = code(grpc.update(update).await);
    answers.push(("gRPC update", number, text));
    let patch = pb::PatchRequest {
        target: target(row, name),
        r#type: pb::PatchType::ApplyPatch.into(),
        patch: json,
        options: Some(pb::WriteOptions { field_manager: "m".into(), ..Default::default() }),
    };
    let (number, text) = code(grpc.patch(patch).await);
    answers.push(("gRPC apply", number, text));
    answers
}

/// Every stored kind, on both front ends, whether its PUT creates or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_created_without_the_right_to_create() {
    let server = Server::start().await;
    let admin = server.admin();
    grant(&admin, "changer", &["get", "update", "patch"]).await;
    grant(&admin, "creator", &["get", "update", "patch", "create"]).await;
    let (mut wrong, mut refused_puts) = (Vec::new(), 0);
    for row in api::kind::KINDS.iter().copied().filter(|row| row.stored) {
        for (how, code, text) in upsert(&server, "changer", row).await {
            // REST's text is JSON.
            let text = text.replace("\\\"", "\"");
            let refused = text.contains(&format!("cannot create resource \"{}\"", row.plural));
            refused_puts += u32::from(how == "PUT" && code == 403);
            let put = how.ends_with("PUT") || how.ends_with("update");
            // A kind that PUT does not create is not found.
            if !(code == 403 && refused || put && matches!(code, 404 | 422)) {
                wrong.push(format!("{how} of {}: {code} {text}", row.plural));
            }
        }
        let there = admin.get(&path(row, "new")).await;
        if there.code != 404 {
            wrong.push(format!("{} exists: {}", row.plural, there.text));
        }
        for (how, code, text) in upsert(&server, "creator", row).await {
            if code == 403 && text.contains("cannot create") {
                wrong.push(format!("{how} of {} with the right: {code} {text}", row.plural));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(refused_puts >= 9, "only {refused_puts} kinds are created by PUT");
    server.stop().await;
}

#[tokio::test]
async fn the_refusal_is_that_of_a_creation() {
    let server = Server::start().await;
    let admin = server.admin();
    grant(&admin, "bob", &["get", "update", "patch"]).await;
    let bob = server.rest_as("bob", &[]);
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease = json!({"metadata": {"name": "new"}, "spec": {}});
    let refused = bob.send("PUT", &format!("{leases}/new"), &lease).await.expect(403);
    assert_eq!(
        refused["message"],
        "leases.coordination.k8s.io \"new\" is forbidden: User \"bob\" cannot create resource \
         \"leases\" in API group \"coordination.k8s.io\" in the namespace \"default\""
    );
    assert_eq!(refused["details"]["name"], "new");
    // What is there is updated with the right to update.
    let created = admin.post(leases, &lease).await.expect(201);
    bob.send("PUT", &format!("{leases}/new"), &created).await.expect(200);
    // A right to create by name is enough, as the name is known.
    let role = json!({"metadata": {"name": "named"}, "rules": [{"verbs": ["create"],
        "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["mine"]}]});
    admin.post(&format!("{RBAC}/clusterroles"), &role).await.expect(201);
    let binding = json!({"metadata": {"name": "named"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "named"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bob"}]});
    admin.post(&format!("{RBAC}/clusterrolebindings"), &binding).await.expect(201);
    admin.get(&format!("{RBAC}/clusterrolebindings")).await.expect(200);
    let named = |name: &str| json!({"metadata": {"name": name}, "spec": {}});
    bob.send("PUT", &format!("{leases}/mine"), &named("mine")).await.expect(201);
    bob.send("PUT", &format!("{leases}/other"), &named("other")).await.expect(403);
    server.stop().await;
}

/// Kinds that are defined at run time are no exception.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_custom_object_is_created_without_the_right_to_create() {
    let server = Server::start().await;
    let admin = server.admin();
    grant(&admin, "changer", &["get", "update", "patch"]).await;
    grant(&admin, "creator", &["get", "update", "patch", "create"]).await;
    let definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    admin.post(definitions, &definition).await.expect(201);
    let widgets = "/apis/example.com/v1/namespaces/default/widgets";
    while admin.get(widgets).await.code != 200 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let widget =
        json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "new"}});
    let path = format!("{widgets}/new");
    let headers = [("content-type", "application/apply-patch+yaml")];
    let apply = async |user: &str| {
        let rest = server.rest_as(user, &[]);
        let (path, body) = (format!("{path}?fieldManager=m"), widget.to_string().into_bytes());
        rest.ask("PATCH", &path, &headers, body).await
    };
    let put = server.rest_as("changer", &[]).send("PUT", &path, &widget).await;
    assert!(matches!(put.code, 403 | 404), "{}", put.text);
    let refused = apply("changer").await.expect(403);
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("cannot create resource \"widgets\""), "{message}");
    let patch = pb::PatchRequest {
        target: Some(pb::Target {
            group: "example.com".into(),
            version: "v1".into(),
            resource: "widgets".into(),
            namespace: "default".into(),
            name: "new".into(),
            ..pb::Target::default()
        }),
        r#type: pb::PatchType::ApplyPatch.into(),
        patch: widget.to_string().into(),
        options: Some(pb::WriteOptions { field_manager: "m".into(), ..Default::default() }),
    };
    let refused = server.grpc_as("changer", &[]).patch(patch).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused}");
    admin.get(&path).await.expect(404);
    apply("creator").await.expect(201);
    server.stop().await;
}
