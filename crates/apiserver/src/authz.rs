//! Authorization: RBAC, and the node authorizer, evaluated from the cache.

mod attributes;
mod escalation;
mod node;
mod rbac;

pub use attributes::{Attributes, impersonation_attributes, of_request};
pub use escalation::{check as check_escalation, not_covered};
pub use rbac::Rbac;

use std::sync::Arc;

use api::ApiError;
use tower::Service;

use crate::core::Core;
use crate::request::Request;
use crate::response::Response;

/// Passes on what RBAC or the node authorizer allows: the authorization step of the pipeline.
///
/// # Errors
/// 403 otherwise.
pub async fn authorize<S>(
    core: Arc<Core>,
    request: Request,
    mut inner: S,
) -> Result<Response, ApiError>
where
    S: Service<Request, Response = Response, Error = ApiError>,
{
    if !node::selects_own(&request) {
        core.rbac.authorize(&core.cache, &request.user, &of_request(&request))?;
    }
    inner.call(request).await
}
