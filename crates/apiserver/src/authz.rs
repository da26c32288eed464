//! Authorization: by default RBAC and the node authorizer, evaluated from the cache; others as
//! [`chain`] is configured.

mod abac;
mod attributes;
mod chain;
mod configuration;
mod escalation;
mod metrics;
mod node;
mod rbac;
mod webhook;

pub use attributes::{Attributes, of_request};
pub use chain::{Authorizers, Decision, Question, Verdict, selected};
pub use escalation::{check as check_escalation, not_covered};
pub use metrics::AuthorizationMetrics;
pub use rbac::Rbac;

use std::sync::Arc;

use api::ApiError;
use tower::Service;

use crate::connect::Stream;
use crate::core::Core;
use crate::flowcontrol::classify::ResourceInfo;
use crate::request::{Request, Subject, Verb};
use crate::response::Response;
use crate::user::User;

/// Passes on what an authorizer allows: the authorization step of the pipeline. A
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
    let attributes = of_request(&request);
    let verdict =
        decide(&core, &request, &request.user, &attributes, node::selects_own(&request)).await;
    let trail = &request.options.trail;
    if trail.is_kept() {
        let allowed = verdict.is_allowed();
        let decision = if allowed { "allow" } else { "forbid" };
        trail.annotate("authorization.k8s.io/decision", decision);
        trail.annotate("authorization.k8s.io/reason", &verdict.reason);
    }
    verdict.permit(&request.user, &attributes)?;
    if let Subject::Resource { verb: Verb::Connect { authorized_as: "get" }, target } =
        &request.subject
        && Stream::of(target).is_some_and(Stream::is_session)
    {
        authorize_creation(&core, &request).await?;
    }
    inner.call(request).await
}

/// Whether the user may also create what the request is about: an update or an apply of what is not
/// there creates it.
///
/// # Errors
/// 403 otherwise.
pub async fn authorize_creation(core: &Core, request: &Request) -> Result<(), ApiError> {
    let attributes = of_request(request).with_verb(Verb::Create.as_str());
    let user = &request.user;
    decide(core, request, user, &attributes, false).await.permit(user, &attributes)
}

/// Whether `user` may make this request as somebody else, in a mode of constrained impersonation.
///
/// # Errors
/// 403 otherwise.
pub async fn authorize_impersonating(
    core: &Core,
    request: &Request,
    user: &User,
    mode: &str,
) -> Result<(), ApiError> {
    let attributes = of_request(request);
    let verb = format!("impersonate-on:{mode}:{}", attributes.verb());
    let attributes = attributes.with_verb(&verb);
    decide(core, request, user, &attributes, false).await.permit(user, &attributes)
}

async fn decide(
    core: &Core,
    request: &Request,
    user: &User,
    attributes: &Attributes,
    selects_own: bool,
) -> Verdict {
    let selectors = if core.authorizers.asks_others() { chain::selectors(request) } else { None };
    let info = ResourceInfo::of(&request.subject);
    let question = Question {
        version: info.as_ref().map_or("", |info| info.version),
        selectors: selectors.as_ref(),
        selects_own,
        ..Question::new(user, attributes)
    };
    core.authorizers.decide(core, question).await
}
