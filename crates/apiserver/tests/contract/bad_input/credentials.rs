//! Invalid credentials: 401 with a Status, whatever is wrong with them.

use apiserver::authn::{Claims, KubernetesClaims};
use rpc::api_v1 as pb;
use serde_json::json;

use crate::server::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Adds unexpected answers to `wrong`.
pub async fn ask_all(server: &Server, wrong: &mut Vec<String>) {
    let untrusted_authority = server.untrusted_authority();
    let anonymous = server.rest_anonymous();
    let clients = [
        ("another authority", untrusted_authority.rest(server), String::new()),
        ("expired", server.rest_expired(), String::new()),
        ("garbage", anonymous.clone(), "Bearer garbage".to_owned()),
        ("three parts of it", anonymous.clone(), "Bearer a.b.c".to_owned()),
        ("empty", anonymous.clone(), "Bearer ".to_owned()),
        ("basic", anonymous.clone(), "Basic YTpi".to_owned()),
        ("long", anonymous.clone(), format!("Bearer {}", "x".repeat(20_000))),
        ("of old", anonymous.clone(), token(server, -7_200, "", "default").await),
        ("not yet", anonymous.clone(), token(server, 7_200, "", "default").await),
        ("for another audience", anonymous.clone(), token(server, 0, "elsewhere", "default").await),
        ("of nobody", anonymous.clone(), token(server, 0, "", "nobody").await),
    ];
    for (what, client, bearer) in clients {
        let headers: Vec<(&str, &str)> = match bearer.as_str() {
            "" => Vec::new(),
            bearer => vec![("authorization", bearer)],
        };
        let answer = client.ask("GET", MAPS, &headers, Vec::new()).await;
        let message = match what {
            // Of the same name as the trusted one.
            "another authority" => {
                "Unauthorized: the client certificate is not valid: its signature does not match"
            }
            "expired" => "Unauthorized: the client certificate is not valid: it has expired",
            _ => "Unauthorized",
        };
        let wanted = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": "Unauthorized", "code": 401,
        });
        if answer.code != 401 || answer.body != wanted {
            wrong.push(format!("{what}: {} {}", answer.code, answer.text));
        }
        if bearer.is_empty() {
            continue;
        }
        let mut request = tonic::Request::new(pb::GetRequest {
            target: Some(pb::Target {
                version: "v1".into(),
                resource: "configmaps".into(),
                namespace: "default".into(),
                name: "plain".into(),
                ..pb::Target::default()
            }),
            ..pb::GetRequest::default()
        });
        let value = bearer.parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        let refused = server.grpc_anonymous().get(request).await.map(|_| ());
        match refused {
            Err(status) if status.code() == tonic::Code::Unauthenticated => {}
            other => wrong.push(format!("{what}: gRPC {other:?}")),
        }
    }
    // A valid credential is enough: a token counts although the certificate is invalid.
    let good = token(server, 0, "", "default").await;
    let answer = untrusted_authority
        .rest(server)
        .ask("GET", MAPS, &[("authorization", good.as_str())], Vec::new())
        .await;
    if answer.code != 403 {
        wrong.push(format!("a good token: {} {}", answer.code, answer.text));
    }
}

/// A token signed by the cluster's own key: valid for an hour, starting `later` seconds from now.
async fn token(server: &Server, later: i64, audience: &str, account: &str) -> String {
    let core = server.core();
    let tokens = core.tokens.as_ref().unwrap();
    let start = core.clock.now().as_second() + later;
    let path = format!("/api/v1/namespaces/default/serviceaccounts/{account}");
    let found = server.admin().get(&path).await;
    let uid = found.body["metadata"]["uid"].as_str().unwrap_or("u");
    let audience = match audience {
        "" => tokens.issuer(),
        audience => audience,
    };
    let json = json!({"namespace": "default", "serviceaccount": {"name": account, "uid": uid}});
    let kubernetes: KubernetesClaims = serde_json::from_value(json).unwrap();
    let claims = Claims {
        aud: vec![audience.to_owned()],
        iat: start,
        nbf: start,
        exp: start + 3_600,
        iss: tokens.issuer().to_owned(),
        jti: "j".to_owned(),
        sub: format!("system:serviceaccount:default:{account}"),
        kubernetes,
    };
    format!("Bearer {}", tokens.sign(&claims).unwrap())
}
