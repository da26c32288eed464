//! The kubelet's own pages: metrics, statistics, pods, logs, its configuration.
//!
//! The kubelet trusts the apiserver, which has authorized the client for `nodes/proxy`.

use api::ApiError;
use http::header::{ACCEPT, RANGE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Request, Response};
use http_body_util::BodyExt;
use tonic::transport::Channel;
use tower::ServiceExt;

use super::backend::unreachable;
use crate::rest::Body;

/// Forwards a request, without its body: pages are only read.
///
/// # Errors
/// 503 if the kubelet does not answer.
pub async fn answer(
    kubelet: Channel,
    parts: &Parts,
    path: &PathAndQuery,
) -> Result<Response<Body>, ApiError> {
    let mut request = Request::new(tonic::body::Body::empty());
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = path.clone().into();
    for name in [ACCEPT, RANGE] {
        if let Some(value) = parts.headers.get(&name) {
            request.headers_mut().insert(name, value.clone());
        }
    }
    let answered = kubelet.oneshot(request).await;
    let response = answered.map_err(|error| unreachable(&error))?;
    Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
}
