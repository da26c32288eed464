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

use crate::connect::Stream;
use crate::core::Core;
use crate::request::{Request, Subject, Verb};
use crate::response::Response;
use crate::user::MASTERS;

/// Passes on what RBAC or the node authorizer allows: the authorization step of the pipeline. A
/// session needs the right to `create` it, by whichever method it is requested.
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
    let trail = &request.options.trail;
    if !node::selects_own(&request) {
        let attributes = of_request(&request);
        let decided = core.rbac.authorize(&core.cache, &request.user, &attributes);
        if trail.is_kept() {
            let allowed = if decided.is_ok() { "allow" } else { "forbid" };
            trail.annotate("authorization.k8s.io/decision", allowed);
            let masters = request.user.in_group(MASTERS);
            let reason = core.rbac.reason(&core.cache, &request.user, &attributes);
            let reason = reason.filter(|_| decided.is_ok() && !masters);
            trail.annotate("authorization.k8s.io/reason", reason.unwrap_or_default());
        }
        decided?;
    } else {
        trail.annotate("authorization.k8s.io/decision", "allow");
        trail.annotate("authorization.k8s.io/reason", "");
    }
    if let Subject::Resource { verb: Verb::Connect { authorized_as: "get" }, target } =
        &request.subject
        && Stream::of(target).is_some_and(Stream::is_session)
    {
        authorize_creation(&core, &request)?;
    }
    inner.call(request).await
}

/// Whether the user may also create what the request is about: an update or an apply of what is not
/// there creates it.
///
/// # Errors
/// 403 otherwise.
pub fn authorize_creation(core: &Core, request: &Request) -> Result<(), ApiError> {
    let attributes = of_request(request).with_verb(Verb::Create.as_str());
    core.rbac.authorize(&core.cache, &request.user, &attributes)
}
