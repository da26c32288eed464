//! NamespaceAutoProvision and NamespaceExists
//! (`k8s.io/kubernetes/plugin/pkg/admission/namespace/{autoprovision,exists}`).

use api::{ApiError, Kind};
use k8s_openapi::api::core::v1::Namespace;

use super::attributes::Attributes;
use crate::bootstrap::create_missing;
use crate::core::Call;

/// Creates the namespace of a request if it is missing.
///
/// # Errors
/// 403 when it cannot be created.
pub async fn provide(attributes: &Attributes<'_>) -> Result<(), ApiError> {
    let Some(name) = attributes.namespace() else {
        return Ok(());
    };
    let call = attributes.call;
    if is_there(call, name).await? || call.options.dry_run {
        return Ok(());
    }
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.to_owned());
    let created = create_missing(call.core, Box::new(namespace)).await;
    created.map_err(|error| attributes.refused(None, error))
}

/// Requires that the namespace of a request exists.
///
/// # Errors
/// 404 when it does not.
pub async fn require(attributes: &Attributes<'_>) -> Result<(), ApiError> {
    match attributes.namespace() {
        Some(name) if !is_there(attributes.call, name).await? => {
            Err(ApiError::not_found(Namespace::ROW, name))
        }
        _ => Ok(()),
    }
}

async fn is_there(call: Call<'_>, name: &str) -> Result<bool, ApiError> {
    Ok(call.core.find(Namespace::ROW, name).await?.is_some())
}
