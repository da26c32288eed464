//! Metrics and the statistics summary over HTTP, for monitoring.
//!
//! Clients authenticate with a client certificate, or with a bearer token that the apiserver
//! reviews; the apiserver also authorizes them (Kubernetes: kubelet authentication and
//! authorization).

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use rpc::kubelet_v1::MetricsPage;
use rpc::tls::CertificateIdentity;
use tonic::Status;

use super::identity::{certificate, is_trusted};
use super::service::Service;

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// An authenticated user.
#[derive(Default)]
struct User {
    name: String,
    groups: Vec<String>,
    uid: Option<String>,
    extra: Option<std::collections::BTreeMap<String, Vec<String>>>,
}

/// Answers requests that are not for a gRPC service.
pub(super) async fn answer(service: Arc<Service>, request: Parts) -> Response {
    let is_grpc = request
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        return Status::unimplemented("no such service").into_http::<Body>().into_response();
    }
    match service.read(&request).await {
        Ok((kind, body)) => ([(CONTENT_TYPE, kind)], body).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

impl Service {
    async fn read(&self, request: &Parts) -> Result<(&'static str, String), (StatusCode, String)> {
        let path = request.uri.path();
        self.admit(request, path).await?;
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return Err((
                StatusCode::METHOD_NOT_ALLOWED,
                "the kubelet only answers GET and HEAD".to_owned(),
            ));
        }
        let page = match path {
            "/healthz" => return Ok(("text/plain; charset=utf-8", "ok".to_owned())),
            "/stats/summary" => {
                let json = self.summary().await.map_err(|status| failed(&status))?;
                return Ok(("application/json", json));
            }
            "/metrics" => MetricsPage::Kubelet,
            "/metrics/cadvisor" => MetricsPage::Cadvisor,
            "/metrics/resource" => MetricsPage::Resource,
            _ => {
                return Err((
                    StatusCode::NOT_FOUND,
                    "404 page not found: this kubelet speaks gRPC, and serves /metrics, \
                     /metrics/cadvisor, /metrics/resource, /stats/summary and /healthz here"
                        .to_owned(),
                ));
            }
        };
        let text = self.metrics_text(page).await;
        Ok((TEXT, text.map_err(|status| failed(&status))?))
    }

    /// 401 without valid credentials, 403 if the user may not read `path`.
    async fn admit(&self, request: &Parts, path: &str) -> Result<(), (StatusCode, String)> {
        let unauthorized = || (StatusCode::UNAUTHORIZED, "Unauthorized".to_owned());
        let user = match certificate(&request.extensions, self.context.clock.now()) {
            Some(identity) if is_trusted(&identity) => return Ok(()),
            Some(CertificateIdentity { name, groups, .. }) => {
                User { name, groups, ..User::default() }
            }
            None => {
                let token = bearer_token(&request.headers).ok_or_else(unauthorized)?;
                let known = self.review_token(token).await;
                known.map_err(unreachable)?.ok_or_else(unauthorized)?
            }
        };
        let (verb, subresource) = (verb(&request.method), subresource(path));
        let refusal = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource={subresource})",
            user.name
        );
        let allowed = self.may(user, verb, subresource).await;
        if allowed.map_err(unreachable)? { Ok(()) } else { Err((StatusCode::FORBIDDEN, refusal)) }
    }

    async fn review_token(&self, token: &str) -> Result<Option<User>, client::Error> {
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), audiences: None },
            ..TokenReview::default()
        };
        let reviews = client::Api::<TokenReview>::all(&self.context.client);
        let status = reviews.create(&review).await?.status.unwrap_or_default();
        let user = status.user.unwrap_or_default();
        Ok((status.authenticated == Some(true)).then(|| User {
            name: user.username.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            uid: user.uid,
            extra: user.extra,
        }))
    }

    async fn may(&self, user: User, verb: &str, subresource: &str) -> Result<bool, client::Error> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name),
                groups: Some(user.groups),
                uid: user.uid,
                extra: user.extra,
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    version: Some("v1".to_owned()),
                    resource: Some("nodes".to_owned()),
                    subresource: Some(subresource.to_owned()),
                    name: Some(self.context.node.name.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews = client::Api::<SubjectAccessReview>::all(&self.context.client);
        let status = reviews.create(&review).await?.status;
        Ok(status.is_some_and(|status| status.allowed))
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then(|| token.trim())
}

/// The RBAC verb for an HTTP method.
fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// The subresource of nodes that a path belongs to.
fn subresource(path: &str) -> &'static str {
    let below = |root: &str| {
        path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if below("/metrics") {
        "metrics"
    } else if below("/stats") {
        "stats"
    } else if below("/healthz") {
        "healthz"
    } else {
        "proxy"
    }
}

fn failed(status: &Status) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, status.message().to_owned())
}

/// Without the apiserver, access cannot be decided.
fn unreachable(error: client::Error) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot reach the apiserver: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_for_a_path() {
        for (path, expected) in [
            ("/metrics", "metrics"),
            ("/metrics/cadvisor", "metrics"),
            ("/metricsx", "proxy"),
            ("/stats/summary", "stats"),
            ("/healthz", "healthz"),
            ("/pods", "proxy"),
        ] {
            assert_eq!(subresource(path), expected, "{path}");
        }
    }

    #[test]
    fn a_token_in_a_header() {
        for (value, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc", Some("abc")),
            ("Bearer ", None),
            ("Basic abc", None),
            ("abc", None),
        ] {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
            assert_eq!(bearer_token(&headers), expected, "{value}");
        }
        assert_eq!(bearer_token(&HeaderMap::new()), None);
    }
}
