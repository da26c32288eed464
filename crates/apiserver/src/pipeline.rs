//! The one stack that both front ends call: metrics, authentication, audit, impersonation,
//! authorization, a seat, whether there is such a thing, the body, then the handler, until its time is over.

use std::sync::Arc;
use std::task::{Context, Poll};

use api::ApiError;
use futures::future::BoxFuture;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder};

use crate::aggregation::Forward;
use crate::connect::Connection;
use crate::core::{Call, Core};
use crate::registry::Registry;
use crate::request::{Origin, Request, Subject, Verb};
use crate::response::Response;
use crate::{audit, authn, authz, deadline, incoming, inflight, metrics, paths, served, verbs};

/// A stack of steps. Clone it per request.
pub type Pipeline = BoxCloneSyncService<Request, Response, ApiError>;

/// The whole stack, and its first steps alone, by which a front end decides whether to receive a
/// message at all.
#[derive(Clone)]
pub struct Pipelines {
    pub whole: Pipeline,
    /// Authentication. Answers nothing.
    pub identify: Pipeline,
    /// Authentication, authorization and a seat. Answers nothing.
    pub admit: Pipeline,
    /// What a request can be about.
    pub registry: Arc<Registry>,
}

impl Pipelines {
    pub fn new(core: &Arc<Core>) -> Self {
        let whole = ServiceBuilder::new()
            .layer_fn(|inner| Middleware::new(core, metrics::count, inner))
            .layer_fn(|inner| Middleware::new(core, authn::authenticate, inner))
            .layer_fn(|inner| Middleware::new(core, audit::record, inner))
            .layer_fn(|inner| Middleware::new(core, authn::impersonate, inner))
            .layer_fn(|inner| Middleware::new(core, authz::authorize, inner))
            .layer_fn(|inner| Middleware::new(core, inflight::admit, inner))
            .layer_fn(|inner| Middleware::new(core, served::check, inner))
            .layer_fn(|inner| Middleware::new(core, incoming::receive, inner))
            .layer_fn(|inner| Middleware::new(core, deadline::keep, inner))
            .service(Handler(core.clone()));
        let identify = ServiceBuilder::new()
            .layer_fn(|inner| Middleware::new(core, authn::authenticate, inner))
            .layer_fn(|inner| Middleware::new(core, authn::impersonate, inner))
            .service(Accepted);
        let admit = ServiceBuilder::new()
            .layer_fn(|inner| Middleware::new(core, authn::authenticate, inner))
            .layer_fn(|inner| Middleware::new(core, audit::record_refusal, inner))
            .layer_fn(|inner| Middleware::new(core, authn::impersonate, inner))
            .layer_fn(|inner| Middleware::new(core, authz::authorize, inner))
            .layer_fn(|inner| Middleware::new(core, inflight::admit, inner))
            .layer_fn(|inner| Middleware::new(core, served::check, inner))
            .service(Accepted);
        Self {
            whole: BoxCloneSyncService::new(whole),
            identify: BoxCloneSyncService::new(identify),
            admit: BoxCloneSyncService::new(admit),
            registry: core.cache.registry.clone(),
        }
    }
}

/// The innermost service of the first steps: they have accepted the request.
#[derive(Clone)]
struct Accepted;

impl Service<Request> for Accepted {
    type Response = Response;
    type Error = ApiError;
    type Future = std::future::Ready<Result<Response, ApiError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ApiError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        let body = bytes::Bytes::new();
        let nothing = Response::Raw { code: 204, content_type: String::new(), body };
        std::future::ready(Ok(nothing))
    }
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

/// No object is written by an older definition than the one that its writer may have seen, through
/// whichever apiserver.
async fn with_latest_kind(core: &Core, mut request: Request) -> Result<Request, ApiError> {
    if let Subject::Resource { verb, target } = &mut request.subject
        && target.row.custom.is_some()
        && matches!(verb, Verb::Create | Verb::Update | Verb::Patch)
        && core.learn_kinds().await?
    {
        let row = &target.row;
        let latest = core.cache.registry.by_resource(&row.group, &row.version, &row.plural);
        target.row = latest.ok_or_else(ApiError::no_such_resource)?;
    }
    Ok(request)
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
            let mut request = with_latest_kind(&core, request).await?;
            request.options.origin = Origin::Client;
            request.options.due = deadline::of(&request);
            request.options.trail.received(&request);
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
                Subject::Path { path, accept, .. } => {
                    paths::answer(&core, path, accept, &request).await
                }
                Subject::Unserved(_) => Err(ApiError::no_such_resource()),
                Subject::Delegated(delegated) => {
                    let forward = Forward {
                        core: core.clone(),
                        user: request.user.clone(),
                        delegated: delegated.clone(),
                        due: request.options.due,
                    };
                    Ok(Response::Connect(Box::new(Connection::Delegated(Box::new(forward)))))
                }
            }
        })
    }
}
