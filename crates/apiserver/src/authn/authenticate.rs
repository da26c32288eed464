//! The authentication step of the pipeline.

use std::sync::Arc;

use api::ApiError;
use tower::Service;

use super::bootstrap;
use super::impersonation::{Impersonated, impersonated};
use super::structured::Foreigner;
use crate::audit;
use crate::core::Core;
use crate::request::Request;
use crate::response::Response;
use crate::user::{ClientCertificate, Credentials, User};

/// Replaces a request's anonymous user by the one that its credentials prove.
///
/// # Errors
/// 401 for invalid credentials.
pub async fn authenticate<S>(
    core: Arc<Core>,
    mut request: Request,
    mut inner: S,
) -> Result<Response, ApiError>
where
    S: Service<Request, Response = Response, Error = ApiError>,
{
    match own_user(&core, &request).await {
        Ok(user) => {
            if !user.is_anonymous() {
                request.credentials.proof.give(&user);
            }
            request.user = user;
        }
        Err(error) => {
            audit::record_unauthenticated(&core, &request).await;
            return Err(error);
        }
    }
    inner.call(request).await
}

/// Replaces the user by the one whom the request is to be carried out as.
///
/// # Errors
/// 403 if that is not allowed; 400 and 500 if it is not said who that is.
pub async fn impersonate<S>(
    core: Arc<Core>,
    mut request: Request,
    mut inner: S,
) -> Result<Response, ApiError>
where
    S: Service<Request, Response = Response, Error = ApiError>,
{
    if let Some(wanted) = request.credentials.impersonate.take() {
        let Impersonated { user, constraint } = impersonated(&core, &request, &wanted?).await?;
        request.user = Arc::new(user);
        request.options.trail.impersonates(&request.user, constraint);
    }
    inner.call(request).await
}

/// The user that the credentials prove: any valid one is enough, and nobody whose credentials are
/// all invalid is taken for one without.
async fn own_user(core: &Core, request: &Request) -> Result<Arc<User>, ApiError> {
    let Credentials { certificate, bearer, .. } = &request.credentials;
    match (certificate, bearer) {
        (ClientCertificate::Valid(user), _) => Ok(user.clone()),
        (certificate, Some(token)) => {
            token_user(core, token).await.ok_or_else(|| refusal(certificate))
        }
        (ClientCertificate::Absent, None)
            if core.authentication.admits_anonymous(&request.subject) =>
        {
            Ok(Arc::new(User::anonymous()))
        }
        (certificate, None) => Err(refusal(certificate)),
    }
}

/// The user of a token for the apiserver itself, whoever has issued it.
async fn token_user(core: &Core, token: &str) -> Option<Arc<User>> {
    if let Some(tokens) = &core.tokens {
        match tokens.authenticate(core, token).await {
            Ok(user) => return Some(user),
            Err(error) => tracing::debug!(%error, "bearer token refused"),
        }
    }
    foreigner(core, token, &[]).await.map(|(user, _)| user)
}

/// The user of a token that is not of a ServiceAccount, and which of the audiences it is for; none: the
/// apiserver's.
pub async fn foreigner(core: &Core, token: &str, audiences: &[String]) -> Option<Foreigner> {
    if let Some(user) = bootstrap::authenticate(core, token) {
        let own = core.authentication.audience().to_owned();
        let is_for = audiences.is_empty() || audiences.contains(&own);
        return is_for.then(|| (user, vec![own]));
    }
    match core.authentication.foreigner(core.clock.now(), token, audiences).await {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!(error, "bearer token refused");
            None
        }
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
