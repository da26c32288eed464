//! Who may be somebody else, and who they are then.

use serde_json::{Value, json};

use crate::server::{Answer, Rest, Server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// Lets users of their roles' names do what the roles say.
async fn grant(server: &Server, roles: &[(&str, Value)]) {
    let admin = server.admin();
    for (name, rules) in roles {
        let role = json!({"metadata": {"name": name}, "rules": rules});
        admin.post(&format!("{RBAC}/clusterroles"), &role).await.expect(201);
        let bound = json!({"metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "User", "name": name, "apiGroup": "rbac.authorization.k8s.io"}]});
        admin.post(&format!("{RBAC}/clusterrolebindings"), &bound).await.expect(201);
    }
    admin.get(&format!("{RBAC}/clusterrolebindings")).await.expect(200);
}

async fn who(rest: &Rest, headers: &[(&str, &str)]) -> Answer {
    let mut all = vec![("content-type", "application/json")];
    all.extend(headers);
    rest.ask("POST", WHO, &all, b"{}".to_vec()).await
}

#[tokio::test]
async fn somebody_else_has_the_groups_that_upstream_gives_them() {
    let server = Server::start().await;
    let admin = server.admin();
    // Everybody may ask, also who is not authenticated.
    let bound = json!({"metadata": {"name": "ask"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:basic-user"},
        "subjects": [{"kind": "Group", "name": "system:unauthenticated", "apiGroup": "rbac.authorization.k8s.io"}]});
    admin.post(&format!("{RBAC}/clusterrolebindings"), &bound).await.expect(201);
    admin.get(&format!("{RBAC}/clusterrolebindings")).await.expect(200);
    let user = |name| ("impersonate-user", name);
    let group = |name| ("impersonate-group", name);
    let (auth, unauth) = ("system:authenticated", "system:unauthenticated");
    let table: &[(&[(&str, &str)], Value)] = &[
        (&[user("bob")], json!([auth])),
        (&[user("bob"), group("g")], json!(["g", auth])),
        (&[user("bob"), group(auth)], json!([auth])),
        (&[user("bob"), group(unauth)], json!([unauth])),
        (&[user("bob"), group("system:masters")], json!(["system:masters", auth])),
        (&[user("system:anonymous")], json!([unauth])),
        (&[user("system:anonymous"), group("g")], json!(["g", unauth])),
        (
            &[user("system:serviceaccount:a:b")],
            json!(["system:serviceaccounts", "system:serviceaccounts:a", auth]),
        ),
        (&[user("system:serviceaccount:a:b"), group("g")], json!(["g", auth])),
        (&[user("system:node:n1")], json!(["system:nodes", auth])),
        (&[user("system:node:n1"), group("g")], json!(["g", auth])),
    ];
    for (headers, groups) in table {
        let answer = who(&admin, headers).await.expect(201);
        assert_eq!(answer["status"]["userInfo"]["groups"], *groups, "{headers:?}");
    }
    let all = [
        user("system:anonymous"),
        ("impersonate-uid", "7"),
        ("impersonate-extra-example.com%2fk", "v"),
    ];
    let answer = who(&admin, &all).await.expect(201);
    let info = &answer["status"]["userInfo"];
    assert_eq!((&info["uid"], &info["extra"]), (&json!("7"), &json!({"example.com/k": ["v"]})));
    let refused = who(&admin, &[group("g")]).await.expect(400);
    assert_eq!(
        refused["message"],
        "requested &user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"g\"}, Extra:map[string][]string(nil)} \
         without impersonating a user name"
    );
    server.stop().await;
}

/// The right to be somebody, and that to do something as somebody else, count together.
#[tokio::test]
async fn constrained_impersonation_is_for_some_requests() {
    let server = Server::start().await;
    let be = |mode: &str, resource: &str, names: Value| {
        json!({"apiGroups": ["authentication.k8s.io"], "resources": [resource],
            "resourceNames": names, "verbs": [format!("impersonate:{mode}")]})
    };
    let on = |mode: &str, verb: &str| {
        json!({"apiGroups": [""], "resources": ["configmaps"],
            "verbs": [format!("impersonate-on:{mode}:{verb}")]})
    };
    let info = "user-info";
    let groups = be(info, "groups", json!(["g"]));
    let roles = [
        ("both", json!([be(info, "users", json!(["target"])), on(info, "list"), groups])),
        ("only-be", json!([be(info, "users", json!(["target"]))])),
        ("only-on", json!([on(info, "list")])),
        (
            "nodes",
            json!([be("arbitrary-node", "nodes", json!(["n1"])), on("arbitrary-node", "list")]),
        ),
        (
            "legacy",
            json!([{"apiGroups": [""], "resources": ["users"], "resourceNames": ["target"],
                "verbs": ["impersonate"]}]),
        ),
        (
            "target",
            json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "create"]}]),
        ),
    ];
    grant(&server, &roles).await;
    let on_request = "User \"only-be\" cannot impersonate-on:user-info:list resource \"configmaps\" in API group \"\" in the namespace \"default\"";
    let on_user = "User \"only-on\" cannot impersonate:user-info resource \"users\" in API group \"authentication.k8s.io\" at the cluster scope";
    let on_group = "User \"both\" cannot impersonate:user-info resource \"groups\" in API group \"authentication.k8s.io\" at the cluster scope";
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let table: &[(&str, Headers<'_>, u16, &str)] = &[
        ("both", &[("impersonate-user", "target")], 200, ""),
        ("both", &[("impersonate-user", "target"), ("impersonate-group", "g")], 200, ""),
        ("both", &[("impersonate-user", "target"), ("impersonate-group", "h")], 403, on_group),
        (
            "both",
            &[("impersonate-user", "target"), ("impersonate-group", "system:masters")],
            403,
            "impersonating the system:masters group is not allowed",
        ),
        ("both", &[("impersonate-user", "other")], 403, "users.authentication.k8s.io \"other\""),
        ("only-be", &[("impersonate-user", "target")], 403, on_request),
        ("only-on", &[("impersonate-user", "target")], 403, on_user),
        ("legacy", &[("impersonate-user", "target")], 200, ""),
        (
            "nodes",
            &[("impersonate-user", "system:node:n2")],
            403,
            "nodes.authentication.k8s.io \"n2\"",
        ),
        // It is the node then, which may not list all of them.
        (
            "nodes",
            &[("impersonate-user", "system:node:n1")],
            403,
            "User \"system:node:n1\" cannot list",
        ),
    ];
    for (user, headers, code, message) in table {
        let rest = server.rest_as(user, &[]);
        let answer = rest.ask("GET", MAPS, headers, Vec::new()).await;
        let text = answer.body["message"].as_str().unwrap_or_default();
        assert!(
            answer.code == *code && text.contains(message),
            "{user} {headers:?}: {}",
            answer.text
        );
    }
    // Another request than the one that it is for.
    let map = json!({"metadata": {"name": "m"}}).to_string().into_bytes();
    for (user, code) in [("both", 403), ("legacy", 201)] {
        let headers = [("impersonate-user", "target"), ("content-type", "application/json")];
        let answer = server.rest_as(user, &[]).ask("POST", MAPS, &headers, map.clone()).await;
        assert_eq!(answer.code, code, "{user}: {}", answer.text);
    }
    server.stop().await;
}

/// A certificate's user has a uid, if the subject has one, and says which certificate it was.
#[tokio::test]
async fn a_certificate_is_known_by_its_digest() {
    let server = Server::start().await;
    let answer = who(&server.rest_as("bob", &["devs"]), &[]).await.expect(201);
    let info = &answer["status"]["userInfo"];
    let ids = info["extra"]["authentication.kubernetes.io/credential-id"].as_array().unwrap();
    let hex = ids[0].as_str().unwrap().strip_prefix("X509SHA256=").unwrap();
    assert!(ids.len() == 1 && hex.len() == 64, "{ids:?}");
    assert!(hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{hex}");
    assert_eq!(info["uid"], Value::Null);
    server.stop().await;
}
