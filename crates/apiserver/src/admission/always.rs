//! AlwaysDeny (`k8s.io/kubernetes/plugin/pkg/admission/deny`).

use api::ApiError;
use api::object::Object;

use super::attributes::Attributes;
use crate::request::Origin;

/// Refuses everything but what the server itself needs in order to run.
///
/// # Errors
/// 403.
pub async fn deny(
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
) -> Result<(), ApiError> {
    match attributes.call.options.origin {
        Origin::Server => Ok(()),
        Origin::Client => {
            Err(attributes.refused(object, "admission control is denying all modifications"))
        }
    }
}
