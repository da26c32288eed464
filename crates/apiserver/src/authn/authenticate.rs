//! The authentication step of the pipeline.

use std::sync::Arc;

use api::ApiError;
use tower::Service;

use crate::authz::{Attributes, impersonation_attributes};
use crate::core::Core;
use crate::request::{Request, Subject};
use crate::response::Response;
use crate::user::User;

/// Paths that need no credentials, as `system:public-info-viewer` and health checks require.
const OPEN: &[&str] = &["/healthz", "/livez", "/readyz", "/version"];

/// Replaces a request's anonymous user by the one that its credentials prove.
///
/// # Errors
/// 401 for invalid credentials, 403 for an impersonation that is not allowed.
pub async fn authenticate<S>(
    core: Arc<Core>,
    mut request: Request,
    mut inner: S,
) -> Result<Response, ApiError>
where
    S: Service<Request, Response = Response, Error = ApiError>,
{
    request.user = user(&core, &mut request).await?;
    inner.call(request).await
}

async fn user(core: &Core, request: &mut Request) -> Result<Arc<User>, ApiError> {
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
    let Some(mut other) = request.credentials.impersonate.take() else {
        return Ok(own);
    };
    for attributes in impersonation_attributes(&other) {
        permit(core, &own, &attributes)?;
    }
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
