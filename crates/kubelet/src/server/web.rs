//! What upstream's kubelet serves over HTTP, for monitoring and, through the apiserver's node proxy,
//! for administrators: metrics, statistics, pods, the configuration, logs. Sessions are gRPC only.
//!
//! Clients authenticate with a client certificate, or with a bearer token that the apiserver
//! reviews; the apiserver also authorizes them (Kubernetes: kubelet authentication and
//! authorization).

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures::TryStreamExt;
use http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, Uri};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use rpc::kubelet_v1::{ContainerRef, LogsRequest, MetricsPage};
use rpc::tls::CertificateIdentity;
use tonic::{Code, Status};

use super::identity::{certificate, is_trusted};
use super::service::Service;
use super::system_logs;

const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
pub(super) const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// What upstream's kubelet serves at `/logs/`.
const SYSTEM_LOGS: &str = "/var/log";

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
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

/// A refusal, as plain text.
pub(super) type Refusal = (StatusCode, String);

/// Paths of upstream's kubelet that are not served: sessions are gRPC calls here, and there is no
/// CRI.
const WITHOUT: [&str; 7] = ["attach", "checkpoint", "cri", "debug", "exec", "portForward", "run"];

impl Service {
    async fn read(&self, request: &Parts) -> Result<Response, Refusal> {
        let path = request.uri.path();
        self.admit(request, path).await?;
        if !matches!(request.method, Method::GET | Method::HEAD) {
            let text = "the kubelet only answers GET and HEAD";
            return Err((StatusCode::METHOD_NOT_ALLOWED, text.to_owned()));
        }
        let words: Vec<&str> = path.split('/').skip(1).collect();
        let text = |kind: &'static str, body: String| ([(CONTENT_TYPE, kind)], body);
        let answer = match words[..] {
            ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] => {
                text(PLAIN, "ok".to_owned()).into_response()
            }
            ["stats", "summary"] => {
                let json = self.summary().await.map_err(|status| failed(&status))?;
                text(JSON, json).into_response()
            }
            ["metrics"] | ["metrics", "cadvisor" | "resource"] => {
                let page = match words.last() {
                    Some(&"cadvisor") => MetricsPage::Cadvisor,
                    Some(&"resource") => MetricsPage::Resource,
                    _ => MetricsPage::Kubelet,
                };
                let metrics = self.metrics_text(page).await.map_err(|status| failed(&status))?;
                text(METRICS, metrics).into_response()
            }
            ["pods"] => text(JSON, self.pod_list()).into_response(),
            ["runningpods", ""] => {
                let json = self.running_pods().await.map_err(|status| failed(&status))?;
                text(JSON, json).into_response()
            }
            ["runningpods"] | ["logs"] => moved(path),
            ["configz"] => text(JSON, self.configuration.to_string()).into_response(),
            ["logs", ..] => system_logs::answer(SYSTEM_LOGS.as_ref(), &words[1..]).await?,
            ["containerLogs", namespace, pod, container] => {
                self.container_log(namespace, pod, container, &request.uri).await?
            }
            ["serviceproxy", "tables"] => match &self.service_proxy {
                Some(proxy) => proxy.tables(request.uri.query()).await?,
                None => {
                    let text = "this kubelet knows no service proxy: it has no --proxy-socket";
                    return Err((StatusCode::NOT_IMPLEMENTED, text.to_owned()));
                }
            },
            [first, ..] if WITHOUT.contains(&first) => {
                let text = format!("this kubelet does not serve /{first} over HTTP");
                return Err((StatusCode::NOT_IMPLEMENTED, text));
            }
            _ => return Err((StatusCode::NOT_FOUND, "404 page not found".to_owned())),
        };
        Ok(answer)
    }

    /// A container's log, with the parameters of `pods/log`.
    async fn container_log(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        uri: &Uri,
    ) -> Result<Response, Refusal> {
        let container = ContainerRef {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            container: container.to_owned(),
            uid: String::new(),
        };
        let request = log_request(container, uri)?;
        let chunks = self.read_logs(request).await.map_err(|status| failed(&status))?;
        let body = Body::from_stream(chunks.map_ok(|chunk| chunk.data));
        Ok(([(CONTENT_TYPE, PLAIN)], body).into_response())
    }

    /// 401 without valid credentials, 403 if the user may not read `path`.
    async fn admit(&self, request: &Parts, path: &str) -> Result<(), Refusal> {
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
        let (verb, subresources) = (verb(&request.method), subresources(path));
        for subresource in subresources {
            if self.may(&user, verb, subresource).await.map_err(unreachable)? {
                return Ok(());
            }
        }
        let refusal = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])",
            user.name,
            subresources.join(" ")
        );
        Err((StatusCode::FORBIDDEN, refusal))
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

    async fn may(&self, user: &User, verb: &str, subresource: &str) -> Result<bool, client::Error> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                groups: Some(user.groups.clone()),
                uid: user.uid.clone(),
                extra: user.extra.clone(),
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

/// The subresources of nodes, any of which gives access to a path, as in upstream's kubelet
/// (<https://kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz/>).
fn subresources(path: &str) -> &'static [&'static str] {
    const ROOTS: [(&str, &[&str]); 9] = [
        ("/stats", &["stats"]),
        ("/metrics", &["metrics"]),
        ("/logs", &["log"]),
        ("/checkpoint", &["checkpoint"]),
        ("/pods", &["pods", "proxy"]),
        ("/runningpods", &["pods", "proxy"]),
        ("/healthz", &["healthz", "proxy"]),
        ("/configz", &["configz", "proxy"]),
        ("/statusz", &["statusz", "proxy"]),
    ];
    let below = |root: &str| {
        path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    ROOTS.iter().find(|(root, _)| below(root)).map_or(&["proxy"], |(_, found)| found)
}

/// Relative links need the trailing slash.
pub(super) fn moved(path: &str) -> Response {
    let name = path.rsplit('/').next().unwrap_or_default();
    (StatusCode::MOVED_PERMANENTLY, [(LOCATION, format!("{name}/"))]).into_response()
}

fn log_request(container: ContainerRef, uri: &Uri) -> Result<LogsRequest, Refusal> {
    let bad = |text: String| (StatusCode::BAD_REQUEST, text);
    let url = reqwest::Url::parse(&format!("http://kubelet/?{}", uri.query().unwrap_or_default()));
    let url = url.map_err(|error| bad(error.to_string()))?;
    let value = |name: &str| {
        url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    };
    let number = |name: &str| {
        let parsed = value(name).map(|text| text.parse::<i64>()).transpose();
        parsed.map_err(|error| bad(format!("{name}: {error}")))
    };
    let flag = |name: &str| value(name).is_some_and(|value| !matches!(&*value, "false" | "0"));
    Ok(LogsRequest {
        container: Some(container),
        follow: flag("follow"),
        previous: flag("previous"),
        timestamps: flag("timestamps"),
        since_seconds: number("sinceSeconds")?,
        since_time: value("sinceTime"),
        tail_lines: number("tailLines")?,
        limit_bytes: number("limitBytes")?,
        stream: value("stream").unwrap_or_default(),
    })
}

fn failed(status: &Status) -> Refusal {
    let code = match status.code() {
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (code, status.message().to_owned())
}

/// Without the apiserver, access cannot be decided.
fn unreachable(error: client::Error) -> Refusal {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot reach the apiserver: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_for_a_path() {
        for (path, expected) in [
            ("/metrics", &["metrics"][..]),
            ("/metrics/cadvisor", &["metrics"]),
            ("/metricsx", &["proxy"]),
            ("/stats/summary", &["stats"]),
            ("/logs/", &["log"]),
            ("/logs/journal/x", &["log"]),
            ("/healthz", &["healthz", "proxy"]),
            ("/pods", &["pods", "proxy"]),
            ("/runningpods/", &["pods", "proxy"]),
            ("/configz", &["configz", "proxy"]),
            ("/containerLogs/n/p/c", &["proxy"]),
            ("/exec/n/p/c", &["proxy"]),
            ("/serviceproxy/tables", &["proxy"]),
            ("/", &["proxy"]),
        ] {
            assert_eq!(subresources(path), expected, "{path}");
        }
    }

    #[test]
    fn parameters_of_a_log() {
        let uri = |query: &str| format!("/containerLogs/n/p/c{query}").parse::<Uri>().unwrap();
        let query = "?follow=true&tailLines=3&sinceTime=2026-01-01T00%3A00%3A00Z&previous=false";
        let request = log_request(ContainerRef::default(), &uri(query)).unwrap();
        assert!(request.follow && !request.previous && !request.timestamps);
        assert_eq!(request.tail_lines, Some(3));
        assert_eq!(request.since_time.as_deref(), Some("2026-01-01T00:00:00Z"));
        assert!(log_request(ContainerRef::default(), &uri("")).unwrap().since_time.is_none());
        let refused = log_request(ContainerRef::default(), &uri("?tailLines=x")).unwrap_err();
        assert_eq!(refused.0, StatusCode::BAD_REQUEST);
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
