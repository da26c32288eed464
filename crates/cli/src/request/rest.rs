//! The server's REST API, over the same kind of connection that gRPC uses: HTTP/2 with mutual TLS.

use anyhow::{Context, bail};
use api::ApiError;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode};
use tonic::client::GrpcService;

use crate::request::Connection;

/// The authentication and impersonation headers.
pub fn credentials(connection: &Connection) -> anyhow::Result<Vec<(&'static str, HeaderValue)>> {
    let mut headers = connection.headers();
    if let Some(token) = &connection.config()?.token {
        headers.push(("authorization", format!("Bearer {token}")));
    }
    headers
        .into_iter()
        .map(|(name, value)| Ok((name, value.parse().with_context(|| name)?)))
        .collect()
}

/// The body of a GET of `path` (with its query).
///
/// # Errors
/// The server's Status when it rejects the request.
pub async fn get(connection: &Connection, path: &str) -> anyhow::Result<Bytes> {
    let mut request = axum::http::Request::get(path).body(tonic::body::Body::empty())?;
    for (name, value) in credentials(connection)? {
        request.headers_mut().append(name, value);
    }
    let mut channel = rpc::tls::channel(&connection.config()?.dial)?;
    std::future::poll_fn(|context| GrpcService::poll_ready(&mut channel, context)).await?;
    let answer = GrpcService::call(&mut channel, request).await?;
    let status = answer.status();
    let body = axum::body::to_bytes(Body::new(answer.into_body()), usize::MAX).await?;
    if status.is_success() {
        return Ok(body);
    }
    let error = match api::status::decode_status(&body) {
        Ok(status) => ApiError::from_status(status),
        Err(_) if status == StatusCode::NOT_FOUND => ApiError::no_such_resource(),
        Err(_) => bail!("the server answered {status}: {}", String::from_utf8_lossy(&body)),
    };
    Err(client::Error::Api(error).into())
}
