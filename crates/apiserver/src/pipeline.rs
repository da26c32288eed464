//! The one stack that both doors call: metrics, authentication, authorization, then the handler.

use std::sync::Arc;
use std::task::{Context, Poll};

use api::ApiError;
use futures::future::BoxFuture;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder};

use crate::authn::AuthnLayer;
use crate::authz::AuthzLayer;
use crate::core::{Call, Core};
use crate::metrics::MetricsLayer;
use crate::request::{Request, Subject};
use crate::response::Response;
use crate::{paths, verbs};

/// The stack. Clone it per request.
pub type Pipeline = BoxCloneSyncService<Request, Response, ApiError>;

/// Builds the stack.
pub fn pipeline(core: Arc<Core>) -> Pipeline {
    let stack = ServiceBuilder::new()
        .layer(MetricsLayer(core.clone()))
        .layer(AuthnLayer(core.clone()))
        .layer(AuthzLayer(core.clone()))
        .service(Handler(core));
    BoxCloneSyncService::new(stack)
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
