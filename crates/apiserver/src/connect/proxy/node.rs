//! What Kubernetes' kubelet serves over HTTP, answered from our kubelet's gRPC: metrics, the
//! statistics summary, containers' logs, health.

use api::ApiError;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Response};
use rpc::kubelet_v1 as pb;
use rpc::kubelet_v1::kubelet_client::KubeletClient;
use tonic::transport::Channel;

use crate::connect::{kubelet_error, log};
use crate::rest::{Body, full, parse_query};

/// Paths of Kubernetes' kubelet that ours does not serve.
const WITHOUT: &[&str] = &[
    "attach",
    "checkpoint",
    "configz",
    "cri",
    "debug",
    "exec",
    "logs",
    "pods",
    "portForward",
    "run",
    "runningpods",
];

/// Answers a request to the kubelet.
///
/// # Errors
/// 404 for an unknown path, 405 for a method that changes something, 501 for what only Kubernetes'
/// kubelet serves.
pub async fn answer(
    mut kubelet: KubeletClient<Channel>,
    parts: &Parts,
    path: &PathAndQuery,
) -> Result<Response<Body>, ApiError> {
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(ApiError::new(
            405,
            "MethodNotAllowed",
            "the kubelet only answers GET and HEAD",
        ));
    }
    let words: Vec<&str> = path.path().trim_matches('/').split('/').collect();
    let failed = |status: tonic::Status| kubelet_error(&status);
    match words[..] {
        ["metrics"] | ["metrics", "cadvisor" | "resource"] => {
            let page = match words.last() {
                Some(&"cadvisor") => pb::MetricsPage::Cadvisor,
                Some(&"resource") => pb::MetricsPage::Resource,
                _ => pb::MetricsPage::Kubelet,
            };
            let answer = kubelet.metrics(pb::MetricsRequest { page: page.into() }).await;
            let text = answer.map_err(failed)?.into_inner().text;
            Ok(typed("text/plain; version=0.0.4; charset=utf-8", text))
        }
        ["stats", "summary"] => {
            let answer = kubelet.stats(pb::StatsRequest {}).await;
            let json = answer.map_err(failed)?.into_inner().json;
            Ok(typed("application/json", json))
        }
        ["healthz"] => {
            // It is healthy if it answers.
            let answer = kubelet.stats(pb::StatsRequest {}).await;
            answer.map_err(failed)?;
            Ok(typed("text/plain; charset=utf-8", Bytes::from_static(b"ok")))
        }
        ["containerLogs", namespace, pod, container] => {
            let container = pb::ContainerRef {
                namespace: namespace.to_owned(),
                pod: pod.to_owned(),
                container: container.to_owned(),
                uid: String::new(),
            };
            let request = log_request(container, path.query().unwrap_or_default())?;
            let chunks = kubelet.logs(request).await.map_err(failed)?;
            Ok(log::response(Some(chunks.into_inner())))
        }
        [first, ..] if WITHOUT.contains(&first) => Err(ApiError::not_implemented(format!(
            "this kubelet does not serve /{first}: it speaks gRPC, and serves /metrics, \
             /metrics/cadvisor, /metrics/resource, /stats/summary, /containerLogs and /healthz here"
        ))),
        _ => Err(ApiError::new(404, "NotFound", "404 page not found")),
    }
}

fn log_request(container: pb::ContainerRef, query: &str) -> Result<pb::LogsRequest, ApiError> {
    let query = parse_query(query);
    let value = |name: &str| {
        let mut found = query.iter().filter(|(key, _)| key == name);
        found.next().map(|(_, value)| value.as_str())
    };
    let number = |name: &str| {
        value(name)
            .map(|text| text.parse::<i64>())
            .transpose()
            .map_err(|error| ApiError::bad_request(format!("{name}: {error}")))
    };
    let flag = |name: &str| value(name).is_some_and(|value| !matches!(value, "false" | "0"));
    Ok(pb::LogsRequest {
        container: Some(container),
        follow: flag("follow"),
        previous: flag("previous"),
        timestamps: flag("timestamps"),
        since_seconds: number("sinceSeconds")?,
        since_time: value("sinceTime").map(str::to_owned),
        tail_lines: number("tailLines")?,
        limit_bytes: number("limitBytes")?,
        stream: value("stream").unwrap_or_default().to_owned(),
    })
}

fn typed(content_type: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(full(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
