//! What is served: the step of the pipeline after which a request has a verb that its target has.
//!
//! Both front ends pass through it, once it is known that the sender may ask: the answers 404, 405,
//! 406, 414, 415 and those to bad options tell nobody more than their rights allow.

use std::sync::Arc;

use api::ApiError;
use tower::Service;

use crate::core::Core;
use crate::paths::discovery;
use crate::request::{Request, Subject, Target, Verb};
use crate::response::Response;

/// Passes on what is served.
///
/// # Errors
/// 405 for a verb that the target does not have, and what is wrong with the head of the request.
pub async fn check<S>(
    _core: Arc<Core>,
    mut request: Request,
    mut inner: S,
) -> Result<Response, ApiError>
where
    S: Service<Request, Response = Response, Error = ApiError>,
{
    if let Subject::Resource { verb, target } = &request.subject {
        check_target(*verb, target)?;
    }
    match request.refused.take() {
        Some(error) => Err(error),
        None => inner.call(request).await,
    }
}

/// Whether a kind, or a subresource of it, has the verb; of one object or of a collection, as the
/// target says.
fn check_target(verb: Verb, target: &Target) -> Result<(), ApiError> {
    let Target { row, subresource, namespace, name, .. } = target;
    let verbs = match subresource.as_str() {
        "" => discovery::verbs(row),
        subresource => discovery::subresource(row, subresource).verbs,
    };
    // A proxied server has methods that RBAC has no verb for.
    let proxies = subresource == "proxy" && matches!(verb, Verb::Connect { .. });
    if !proxies && !verbs.contains(&verb.as_str()) {
        return Err(match row.custom.is_some() && !row.computed {
            true => ApiError::method_not_allowed(row, verb.as_str()),
            false => ApiError::unknown_method(),
        });
    }
    let named = !name.is_empty();
    let fits = match verb {
        Verb::Get | Verb::Update | Verb::Patch | Verb::Delete | Verb::Connect { .. } => named,
        Verb::List | Verb::DeleteCollection => !named,
        // An object gets its name from its body, but a subresource is one of an object.
        Verb::Create => named != subresource.is_empty(),
        Verb::Watch => true,
    };
    // All namespaces together can only be read.
    let everywhere = row.namespaced() && namespace.is_empty();
    let collective = !named && verb.is_read();
    match fits && (!everywhere || collective) {
        true => Ok(()),
        false => Err(ApiError::unknown_method()),
    }
}
