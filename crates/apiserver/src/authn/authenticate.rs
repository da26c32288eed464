//! The authentication step of the pipeline.

use std::sync::Arc;

use api::ApiError;
use tower::Service;

use super::bootstrap;
use crate::authz::{Attributes, impersonation_attributes};
use crate::core::Core;
use crate::request::Request;
use crate::response::Response;
use crate::user::{ClientCertificate, Credentials, User};

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
    let own = own_user(core, &request.credentials).await?;
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

/// The user that the credentials prove: any valid one is enough, and nobody whose credentials are
/// all invalid is taken for one without.
async fn own_user(core: &Core, credentials: &Credentials) -> Result<Arc<User>, ApiError> {
    match (&credentials.certificate, &credentials.bearer) {
        (ClientCertificate::Valid(user), _) => Ok(user.clone()),
        (certificate, Some(token)) => {
            if let Some(user) = bootstrap::authenticate(core, token) {
                return Ok(user);
            }
            let tokens = core.tokens.as_ref().ok_or_else(|| refusal(certificate))?;
            tokens.authenticate(core, token).await.map_err(|error| {
                tracing::debug!(%error, "bearer token refused");
                refusal(certificate)
            })
        }
        (ClientCertificate::Absent, None) if core.anonymous_auth => Ok(Arc::new(User::anonymous())),
        (certificate, None) => Err(refusal(certificate)),
    }
}

/// 401, with what is wrong with the certificate.
fn refusal(certificate: &ClientCertificate) -> ApiError {
    match certificate {
        ClientCertificate::Invalid(reason) => ApiError::new(
            401,
            "Unauthorized",
            format!("Unauthorized: the client certificate is not valid: {reason}"),
        ),
        ClientCertificate::Absent | ClientCertificate::Valid(_) => ApiError::unauthorized(),
    }
}

fn permit(core: &Core, user: &User, attributes: &Attributes) -> Result<(), ApiError> {
    core.rbac.authorize(&core.cache, user, attributes)
}
