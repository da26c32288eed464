//! What the tables of this node's service proxy contain: passed on from the proxy's Unix socket, as
//! it is.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};

use super::web::{PLAIN, Refusal};

/// How long the proxy may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The service proxy of this node.
pub(super) struct ServiceProxy {
    client: reqwest::Client,
}

impl ServiceProxy {
    /// # Errors
    /// If no client can be created.
    pub(super) fn new(socket: &Path) -> anyhow::Result<Self> {
        // No idle connections: after a restart they would lead to the proxy before it.
        let client = reqwest::Client::builder().unix_socket(socket).pool_max_idle_per_host(0);
        let client = client.timeout(TIMEOUT).build();
        Ok(Self { client: client.context("create a client of the service proxy")? })
    }

    /// The elements that the query asks for, as JSON.
    ///
    /// # Errors
    /// The proxy's refusal; 503 if it does not answer.
    pub(super) async fn tables(&self, query: Option<&str>) -> Result<Response, Refusal> {
        let url = format!("http://proxy/tables?{}", query.unwrap_or_default());
        let answer = self.client.get(url).send().await.map_err(|error| {
            let reason = runtime::errors::root_cause(&error);
            let text = format!("the service proxy of this node does not answer: {reason}");
            (StatusCode::SERVICE_UNAVAILABLE, text)
        })?;
        let kind = answer.headers().get(CONTENT_TYPE).cloned();
        let kind = kind.unwrap_or(HeaderValue::from_static(PLAIN));
        let status = answer.status();
        let body = Body::from_stream(answer.bytes_stream());
        Ok((status, [(CONTENT_TYPE, kind)], body).into_response())
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::RawQuery;
    use axum::routing::get;
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn answers_and_refusals_are_passed_on() {
        rustls::crypto::ring::default_provider().install_default().ok();
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("proxy.sock");
        let proxy = ServiceProxy::new(&socket).unwrap();
        let refused = proxy.tables(None).await.unwrap_err();
        assert_eq!(refused.0, StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.1.contains("does not answer"), "{}", refused.1);

        let answer = |RawQuery(query): RawQuery| async move {
            match query.as_deref() {
                Some("ports=80") => (StatusCode::OK, "{}"),
                _ => (StatusCode::BAD_REQUEST, "no"),
            }
        };
        let router = Router::new().route("/tables", get(answer));
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        for (query, code) in [("ports=80", StatusCode::OK), ("x", StatusCode::BAD_REQUEST)] {
            assert_eq!(proxy.tables(Some(query)).await.unwrap().status(), code, "{query}");
        }
    }
}
