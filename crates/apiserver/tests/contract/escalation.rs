//! Nobody grants rights that they do not have, by whichever write.

use rpc::api_v1 as pb;
use serde_json::{Value, json};

use crate::server::Server;

const GROUP: &str = "rbac.authorization.k8s.io";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const ALL: [&str; 4] = ["clusterroles", "roles", "clusterrolebindings", "rolebindings"];

/// Users who may write roles and bindings: `writer` has no other right, `reader` those of the role `small`,
/// `escalator` and `binder` what their names say.
async fn setup() -> Server {
    let server = Server::start().await;
    let admin = server.admin();
    let config = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]});
    let write = json!({"apiGroups": [GROUP], "resources": ALL,
        "verbs": ["get", "create", "update", "patch"]});
    let may = |verb: &str| json!({"apiGroups": [GROUP], "resources": ["roles", "clusterroles"], "verbs": [verb]});
    let roles = [
        ("writer", json!([write])),
        ("reader", json!([write, config])),
        ("escalator", json!([write, may("escalate")])),
        ("binder", json!([write, may("bind")])),
        ("small", json!([config])),
        ("big", json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}])),
    ];
    for (name, rules) in roles {
        let role = json!({"metadata": {"name": name}, "rules": rules});
        admin.post(&format!("{RBAC}/clusterroles"), &role).await.expect(201);
        admin.post(&format!("{RBAC}/namespaces/default/roles"), &role).await.expect(201);
        let bound = json!({"metadata": {"name": name},
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "User", "name": name, "apiGroup": GROUP}]});
        admin.post(&format!("{RBAC}/clusterrolebindings"), &bound).await.expect(201);
        admin.post(&format!("{RBAC}/namespaces/default/rolebindings"), &bound).await.expect(201);
    }
    let gather = json!({"metadata": {"name": "gather"},
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"gather": "x"}}]}});
    admin.post(&format!("{RBAC}/clusterroles"), &gather).await.expect(201);
    admin.get(&format!("{RBAC}/clusterrolebindings")).await.expect(200);
    server
}

fn path(resource: &str, name: &str) -> String {
    let namespace = if resource.starts_with("cluster") { "" } else { "namespaces/default/" };
    format!("{RBAC}/{namespace}{resource}/{name}")
}

/// The codes of a change of an object's metadata, by every way to change it.
async fn changed(
    server: &Server,
    user: &str,
    (resource, name): (&str, &str),
    metadata: &Value,
) -> Vec<(&'static str, u16)> {
    let (rest, mut grpc) = (server.rest_as(user, &[]), server.grpc_as(user, &[]));
    let path = path(resource, name);
    let mut codes = Vec::new();
    let patch = json!({"metadata": metadata});
    codes.push(("merge", rest.patch(&path, "merge", &patch).await.code));
    codes.push(("strategic", rest.patch(&path, "strategic-merge", &patch).await.code));
    let of = if resource.starts_with("cluster") { "" } else { "default" };
    let target = pb::Target {
        group: GROUP.into(),
        version: "v1".into(),
        resource: resource.into(),
        namespace: of.into(),
        name: name.into(),
        ..Default::default()
    };
    let request = pb::PatchRequest {
        target: Some(target.clone()),
        r#type: pb::PatchType::MergePatch.into(),
        patch: patch.to_string().into(),
        options: None,
    };
    let code = |status: tonic::Status| rpc::status::from_grpc(&status).map_or(0, |it| it.code());
    let answer = grpc.patch(request).await;
    codes.push(("gRPC merge", answer.map_or_else(code, |_| 200)));
    let mut whole = rest.get(&path).await.expect(200);
    for (field, value) in metadata.as_object().unwrap() {
        whole["metadata"][field] = value.clone();
    }
    codes.push(("PUT", rest.send("PUT", &path, &whole).await.code));
    let update =
        pb::UpdateRequest { target: Some(target), json: whole.to_string().into(), options: None };
    codes.push(("gRPC update", grpc.update(update).await.map_or_else(code, |_| 200)));
    let mut applied = json!({"apiVersion": whole["apiVersion"], "kind": whole["kind"],
        "metadata": metadata});
    applied["metadata"]["name"] = name.into();
    if let Some(reference) = whole.get("roleRef") {
        applied["roleRef"] = reference.clone();
    }
    let headers = [("content-type", "application/apply-patch+yaml")];
    let apply = format!("{path}?fieldManager=m");
    let body = applied.to_string().into_bytes();
    codes.push(("apply", rest.ask("PATCH", &apply, &headers, body).await.code));
    codes
}

/// A label makes an aggregated role gather the rights of a role, so that it is a grant like others.
#[tokio::test]
async fn labels_do_not_grant_what_one_does_not_have() {
    let server = setup().await;
    let labels = json!({"labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}});
    let bindings = ["clusterrolebindings", "rolebindings"];
    let mut table = vec![
        ("writer", "clusterroles", "gather", 403),
        ("reader", "clusterroles", "gather", 403),
        ("escalator", "clusterroles", "gather", 200),
        ("writer", "clusterroles", "cluster-admin", 403),
    ];
    for resource in ["clusterroles", "roles"] {
        table.extend([
            ("writer", resource, "small", 403),
            ("reader", resource, "small", 200),
            ("reader", resource, "big", 403),
            ("binder", resource, "big", 403),
            ("escalator", resource, "big", 200),
        ]);
    }
    for resource in bindings {
        table.extend([
            ("writer", resource, "small", 403),
            ("reader", resource, "small", 200),
            ("reader", resource, "big", 403),
            ("escalator", resource, "big", 403),
            ("binder", resource, "big", 200),
        ]);
    }
    for (user, resource, name, code) in table {
        let codes = changed(&server, user, (resource, name), &labels).await;
        // What is there already changes nothing, and is not refused either.
        let wrong: Vec<_> = codes.iter().filter(|(_, found)| *found != code).collect();
        assert!(wrong.is_empty(), "{user} {resource}/{name}: {wrong:?}, expected {code}");
        let admin = server.admin();
        let none = json!({"metadata": {"labels": null}});
        let removed = admin.patch(&path(resource, name), "merge", &none).await;
        removed.expect(200);
    }
    server.stop().await;
}

/// What the garbage collector changes is left to whoever may write the object.
#[tokio::test]
async fn finalizers_and_owners_grant_nothing() {
    let server = setup().await;
    let owner = json!([{"apiVersion": "v1", "kind": "Namespace", "name": "default", "uid": "1"}]);
    for resource in ALL {
        for metadata in [
            json!({"finalizers": ["example.com/f"]}),
            json!({"ownerReferences": owner}),
            json!({"finalizers": null, "ownerReferences": null}),
        ] {
            let mut codes = changed(&server, "writer", (resource, "big"), &metadata).await;
            // An apply adds what it manages, and a list of none nothing.
            codes.retain(|(how, _)| *how != "apply");
            let wrong: Vec<_> = codes.iter().filter(|(_, code)| *code != 200).collect();
            assert!(wrong.is_empty(), "{resource} {metadata}: {wrong:?}");
        }
    }
    server.stop().await;
}

/// As upstream: the request that creates a role is about no name.
#[tokio::test]
async fn the_right_to_escalate_one_role_creates_none() {
    let server = setup().await;
    let admin = server.admin();
    let role = json!({"metadata": {"name": "named"}, "rules": [
        {"apiGroups": [GROUP], "resources": ["clusterroles"], "verbs": ["get", "create", "update", "patch"]},
        {"apiGroups": [GROUP], "resources": ["clusterroles"], "resourceNames": ["mine"], "verbs": ["escalate"]}]});
    admin.post(&format!("{RBAC}/clusterroles"), &role).await.expect(201);
    let bound = json!({"metadata": {"name": "named"},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "named"},
        "subjects": [{"kind": "User", "name": "named", "apiGroup": GROUP}]});
    admin.post(&format!("{RBAC}/clusterrolebindings"), &bound).await.expect(201);
    admin.get(&format!("{RBAC}/clusterrolebindings")).await.expect(200);
    let named = server.rest_as("named", &[]);
    let mine = json!({"metadata": {"name": "mine"},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]});
    named.post(&format!("{RBAC}/clusterroles"), &mine).await.expect(403);
    named.send("PUT", &path("clusterroles", "mine"), &mine).await.expect(201);
    server.stop().await;
}
