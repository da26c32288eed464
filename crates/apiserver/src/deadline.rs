//! How long a request may take: as its `timeout` says, at most as long as upstream's
//! `--request-timeout`. Watches, sessions, logs and profiles last as long as they last.

use std::sync::Arc;
use std::time::Duration;

use api::ApiError;
use tokio::time::{Instant, timeout_at};
use tower::Service;

use crate::core::Core;
use crate::request::{Request, Subject};
use crate::response::Response;

/// The longest time from the head of a request to the beginning of its answer.
pub const LIMIT: Duration = Duration::from_secs(60);

/// When the answer to a request is due; `None`: it lasts.
pub fn of(request: &Request) -> Option<Instant> {
    let limit = request.options.time_limit.filter(|limit| !limit.is_zero());
    (!request.subject.is_long_running())
        .then(|| request.arrived + limit.unwrap_or(LIMIT).min(LIMIT))
}

/// The error after a body, or a read, that has taken too long.
pub fn exceeded() -> ApiError {
    ApiError::timeout("Timeout: request did not complete within the allotted timeout")
}

/// Ends a request when its time is over: the innermost step of the pipeline.
///
/// A write goes on all the same, as upstream's does, and also when its client has gone: it ends
/// with what it has charged and allocated.
///
/// # Errors
/// 504 when the time is over.
pub async fn keep<S>(_core: Arc<Core>, request: Request, mut inner: S) -> Result<Response, ApiError>
where
    S: Service<Request, Response = Response, Error = ApiError>,
    S::Future: Send + 'static,
{
    let Some(due) = of(&request) else {
        return inner.call(request).await;
    };
    if !matches!(&request.subject, Subject::Resource { verb, .. } if !verb.is_read()) {
        return timeout_at(due, inner.call(request)).await.unwrap_or_else(|_| Err(exceeded()));
    }
    match timeout_at(due, tokio::spawn(inner.call(request))).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(ended)) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ApiError::service_unavailable("the apiserver is shutting down")),
        },
        Err(_) => Err(ApiError::timeout(
            "Timeout: request did not complete within requested timeout - context deadline exceeded",
        )),
    }
}
