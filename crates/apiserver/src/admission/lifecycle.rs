//! NamespaceLifecycle: nothing is created in a namespace that does not exist or is terminating, and
//! the system's namespaces cannot be deleted.
//!
//! The namespace is judged by the cache; the store then creates the object only if the namespace has
//! not changed since ([`create`](crate::verbs::create)). So nothing is left behind in a namespace
//! whose content has been deleted, whichever apiserver it comes through.

use api::object::Object;
use api::{ApiError, Kind};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;

use crate::cache::Version;
use crate::core::Call;
use crate::scan;

const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

/// Checks the namespace of an object that is about to be created.
///
/// # Errors
/// 404 when it is missing, 403 when it is terminating.
pub async fn check(call: Call<'_>, object: &dyn Object) -> Result<(), ApiError> {
    let Some(namespace) = object.metadata().namespace.as_deref() else {
        return Ok(());
    };
    let found = call.core.find(Namespace::ROW, namespace).await?;
    if judge(call, object, namespace, found.as_deref()).is_err() {
        let found = call.core.stored(Namespace::ROW, namespace).await?;
        return judge(call, object, namespace, found.as_deref());
    }
    Ok(())
}

/// Whether an object may be created in a namespace, given the namespace's version.
///
/// # Errors
/// 404 when it is missing, 403 when it is terminating.
pub fn judge(
    call: Call<'_>,
    object: &dyn Object,
    namespace: &str,
    found: Option<&Version>,
) -> Result<(), ApiError> {
    let Some(version) = found else {
        return Err(ApiError::not_found(Namespace::ROW, namespace));
    };
    if scan::at_path(&version.json, "metadata.deletionTimestamp").is_none() {
        return Ok(());
    }
    let name = object.metadata().name.as_deref().unwrap_or_default();
    let mut error = ApiError::forbidden(
        call.row(),
        name,
        format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        ),
    );
    error.status_mut().details.get_or_insert_default().causes = Some(vec![StatusCause {
        reason: Some("NamespaceTerminating".to_owned()),
        message: Some(format!("namespace {namespace} is being terminated")),
        field: Some("metadata.namespace".to_owned()),
    }]);
    Err(error)
}

/// Checks a deletion.
///
/// # Errors
/// 403 for a namespace that the system needs.
pub fn check_delete(call: Call<'_>, object: &dyn Object) -> Result<(), ApiError> {
    let name = object.metadata().name.as_deref().unwrap_or_default();
    if object.row() == Namespace::ROW && IMMORTAL.contains(&name) {
        return Err(ApiError::forbidden(call.row(), name, "this namespace may not be deleted"));
    }
    Ok(())
}
