//! The authorization layer of the pipeline.

use std::sync::Arc;
use std::task::{Context, Poll};

use api::ApiError;
use futures::future::{BoxFuture, ready};
use tower::{Layer, Service};

use super::of_request;
use crate::core::Core;
use crate::request::Request;
use crate::response::Response;

/// Puts [`AuthzService`] around a service.
#[derive(Clone)]
pub struct AuthzLayer(pub Arc<Core>);

impl<S> Layer<S> for AuthzLayer {
    type Service = AuthzService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AuthzService { core: self.0.clone(), inner }
    }
}

/// Lets through what RBAC allows.
#[derive(Clone)]
pub struct AuthzService<S> {
    core: Arc<Core>,
    inner: S,
}

impl<S> Service<Request> for AuthzService<S>
where
    S: Service<Request, Response = Response, Error = ApiError>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = ApiError;
    type Future = BoxFuture<'static, Result<Response, ApiError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ApiError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let attributes = of_request(&request);
        match self.core.rbac.authorize(&self.core.cache, &request.user, &attributes) {
            Ok(()) => Box::pin(self.inner.call(request)),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }
}
