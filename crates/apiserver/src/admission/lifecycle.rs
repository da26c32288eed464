//! NamespaceLifecycle: nothing is created in a namespace that does not exist or is terminating, and
//! the system's namespaces cannot be deleted.
//!
//! The namespace is judged by the cache; the store then creates the object only if the namespace has
//! not changed since ([`create`](crate::verbs::create)), unless this plugin is disabled. So nothing is left behind in a namespace
//! whose content has been deleted, whichever apiserver it comes through.

use api::object::Object;
use api::{ApiError, Kind, KindRow};
use k8s_openapi::api::authorization::v1::LocalSubjectAccessReview;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;

use super::attributes::Attributes;
use super::webhooks::Operation;
use crate::cache::Version;
use crate::core::Call;
use crate::scan;

/// As the table of plugins has it.
pub const NAME: &str = "NamespaceLifecycle";
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];
const ACCESS_REVIEWS: &KindRow = LocalSubjectAccessReview::ROW;

/// Checks the namespace that something is created in, and which namespace is deleted.
///
/// # Errors
/// 404 when it is missing, 403 when it is terminating, or must stay.
pub async fn check(
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
) -> Result<(), ApiError> {
    let call = attributes.call;
    match (attributes.operation, attributes.namespace(), object) {
        (Operation::Delete, ..) => check_delete(attributes),
        // Whether a namespace exists is not for everybody to know.
        (Operation::Create, Some(name), Some(object)) if call.row() != ACCESS_REVIEWS => {
            let found = call.core.find(Namespace::ROW, name).await?;
            if judge(attributes, object, name, found.as_deref()).is_ok() {
                return Ok(());
            }
            let found = call.core.stored(Namespace::ROW, name).await?;
            judge(attributes, object, name, found.as_deref())
        }
        _ => Ok(()),
    }
}

/// Judges by the stored namespace whether an object may be created in it.
///
/// # Errors
/// 404 when it is missing, 403 when it is terminating.
pub fn judge_stored(
    call: Call<'_>,
    object: &dyn Object,
    namespace: &str,
    found: Option<&Version>,
) -> Result<(), ApiError> {
    judge(&Attributes::of_write(call, None), object, namespace, found)
}

fn judge(
    attributes: &Attributes<'_>,
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
    let mut error = attributes.forbidden(
        object,
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

fn check_delete(attributes: &Attributes<'_>) -> Result<(), ApiError> {
    let Some(namespace) = attributes.old_object().filter(|old| old.row() == Namespace::ROW) else {
        return Ok(());
    };
    let name = namespace.metadata().name.as_deref().unwrap_or_default();
    if IMMORTAL.contains(&name) {
        return Err(attributes.forbidden(namespace, "this namespace may not be deleted"));
    }
    Ok(())
}
