//! The one stack that both doors call: metrics, authentication, authorization, then the handler.

use std::sync::Arc;
use std::task::{Context, Poll};

use api::ApiError;
use futures::future::BoxFuture;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder};

use crate::core::{Call, Core};
use crate::request::{Request, Subject};
use crate::response::Response;
use crate::{authn, authz, metrics, paths, verbs};

/// The stack. Clone it per request.
pub type Pipeline = BoxCloneSyncService<Request, Response, ApiError>;

/// Builds the stack.
pub fn pipeline(core: Arc<Core>) -> Pipeline {
    let stack = ServiceBuilder::new()
        .layer_fn(|inner| Middleware::new(&core, metrics::count, inner))
        .layer_fn(|inner| Middleware::new(&core, authn::authenticate, inner))
        .layer_fn(|inner| Middleware::new(&core, authz::authorize, inner))
        .service(Handler(core.clone()));
    BoxCloneSyncService::new(stack)
}

/// An async function around the rest of the stack, which it is given.
#[derive(Clone)]
struct Middleware<F, S> {
    core: Arc<Core>,
    run: F,
    inner: S,
}

impl<F, S, R> Middleware<F, S>
where
    F: Fn(Arc<Core>, Request, S) -> R,
{
    fn new(core: &Arc<Core>, run: F, inner: S) -> Self {
        Self { core: core.clone(), run, inner }
    }
}

impl<F, S, R> Service<Request> for Middleware<F, S>
where
    F: Fn(Arc<Core>, Request, S) -> R,
    S: Service<Request, Response = Response, Error = ApiError> + Clone,
    R: Future<Output = Result<Response, ApiError>> + Send + 'static,
{
    type Response = Response;
    type Error = ApiError;
    type Future = BoxFuture<'static, Result<Response, ApiError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ApiError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let inner = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, inner);
        Box::pin((self.run)(self.core.clone(), request, ready))
    }
}

/// The innermost service: routes by what the request is about.
#[derive(Clone)]
struct Handler(Arc<Core>);

impl Service<Request> for Handler {
    type Response = Response;
    type Error = ApiError;
    type Future = BoxFuture<'static, Result<Response, ApiError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ApiError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let core = self.0.clone();
        Box::pin(async move {
            match &request.subject {
                Subject::Resource { verb, target } => {
                    let call = Call {
                        core: &core,
                        user: &request.user,
                        verb: *verb,
                        target,
                        options: &request.options,
                    };
                    verbs::handle(call, &request).await
                }
                Subject::Path { path, accept, .. } => paths::answer(&core, path, accept, &request),
            }
        })
    }
}
