//! The authentication layer of the pipeline.

use std::sync::Arc;
use std::task::{Context, Poll};

use api::ApiError;
use futures::future::BoxFuture;
use tower::{Layer, Service};

use crate::authz::{Attributes, impersonation_attributes};
use crate::core::Core;
use crate::request::{Request, Subject};
use crate::response::Response;
use crate::user::User;

/// Paths that answer without credentials, as `system:public-info-viewer` and health checks need.
const OPEN: &[&str] = &["/healthz", "/livez", "/readyz", "/version"];

/// Puts [`AuthnService`] around a service.
#[derive(Clone)]
pub struct AuthnLayer(pub Arc<Core>);

impl<S> Layer<S> for AuthnLayer {
    type Service = AuthnService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AuthnService { core: self.0.clone(), inner }
    }
}

/// Replaces a request's anonymous user by the one its credentials prove.
#[derive(Clone)]
pub struct AuthnService<S> {
    core: Arc<Core>,
    inner: S,
}

impl<S> Service<Request> for AuthnService<S>
where
    S: Service<Request, Response = Response, Error = ApiError> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = ApiError;
    type Future = BoxFuture<'static, Result<Response, ApiError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ApiError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let core = self.core.clone();
        let inner = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, inner);
        Box::pin(async move {
            request.user = authenticate(&core, &mut request).await?;
            inner.call(request).await
        })
    }
}

async fn authenticate(core: &Core, request: &mut Request) -> Result<Arc<User>, ApiError> {
    let own = match (&request.credentials.bearer, &request.credentials.certificate) {
        (_, Some(user)) => user.clone(),
        (Some(token), None) => {
            let tokens = core.tokens.as_ref().ok_or_else(ApiError::unauthorized)?;
            tokens.authenticate(core, token).await.map_err(|error| {
                tracing::debug!(%error, "bearer token refused");
                ApiError::unauthorized()
            })?
        }
        (None, None) => return anonymous(request),
    };
    let Some(other) = request.credentials.impersonate.take() else {
        return Ok(own);
    };
    for attributes in impersonation_attributes(&other) {
        permit(core, &own, &attributes)?;
    }
    let mut other = other;
    if other.groups.is_empty()
        && let Some(account) = other.name.strip_prefix("system:serviceaccount:")
        && let Some((namespace, _)) = account.split_once(':')
    {
        other.groups = vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
        ];
    }
    if other.is_anonymous() {
        return Ok(Arc::new(User::anonymous()));
    }
    let mut user = User::authenticated(other.name, other.groups);
    user.uid = other.uid;
    user.extra = other.extra;
    Ok(Arc::new(user))
}

fn permit(core: &Core, user: &User, attributes: &Attributes) -> Result<(), ApiError> {
    core.rbac.authorize(&core.cache, user, attributes)
}

fn anonymous(request: &Request) -> Result<Arc<User>, ApiError> {
    let open = match &request.subject {
        Subject::Path { path, .. } => OPEN.iter().any(|open| {
            path.strip_prefix(open).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }),
        Subject::Resource { .. } => false,
    };
    if open { Ok(Arc::new(User::anonymous())) } else { Err(ApiError::unauthorized()) }
}
