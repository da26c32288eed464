//! OwnerReferencesPermissionEnforcement: who may let an object be deleted with another one, and
//! delay that one's deletion (`k8s.io/kubernetes/plugin/pkg/admission/gc`).

use api::object::Object;
use api::{ApiError, Kind};
use k8s_openapi::api::admissionregistration::v1::ParamKind;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::attributes::Attributes;
use super::policies::row_of;
use crate::authz::{self, Question};

/// Checks the owners that a write adds or changes.
///
/// # Errors
/// 403.
pub async fn check(
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
) -> Result<(), ApiError> {
    let Some(object) = object else {
        return Ok(());
    };
    let call = attributes.call;
    // The status of a pod cannot change its owners.
    if call.row() == Pod::ROW && attributes.subresource == "status" {
        return Ok(());
    }
    let (new, old) = (owners(object), attributes.old_object().map(owners).unwrap_or_default());
    if new == old {
        return Ok(());
    }
    let (row, target) = (call.row(), call.target);
    let deletion = authz::Attributes::Resource {
        verb: "delete".to_owned(),
        group: row.group.to_string(),
        resource: row.plural.to_string(),
        subresource: attributes.subresource.to_owned(),
        namespace: target.namespace.clone(),
        name: target.name.clone(),
    };
    if let Err(reason) = may(attributes, &deletion).await {
        let why = format!("cannot set an ownerRef on a resource you can't delete: {reason}, <nil>");
        return Err(attributes.forbidden(object, why));
    }
    for owner in new.iter().filter(|owner| blocks(owner)) {
        if old.iter().any(|old| old.uid == owner.uid && blocks(old)) {
            continue;
        }
        let finalizers = finalizers_of(attributes, owner).map_err(|why| {
            let OwnerReference { api_version, kind, .. } = owner;
            let text = format!(
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {api_version} Kind {kind}: {why}"
            );
            attributes.forbidden(object, text)
        })?;
        if let Err(reason) = may(attributes, &finalizers).await {
            let why = format!(
                "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {reason}, <nil>"
            );
            return Err(attributes.forbidden(object, why));
        }
    }
    Ok(())
}

fn owners(object: &dyn Object) -> &[OwnerReference] {
    object.metadata().owner_references.as_deref().unwrap_or_default()
}

fn blocks(owner: &OwnerReference) -> bool {
    owner.block_owner_deletion == Some(true)
}

/// The right to change the finalizers of an owner.
fn finalizers_of(
    attributes: &Attributes<'_>,
    owner: &OwnerReference,
) -> Result<authz::Attributes, String> {
    let call = attributes.call;
    let OwnerReference { api_version, kind, name, .. } = owner;
    let asked = ParamKind { api_version: Some(api_version.clone()), kind: Some(kind.clone()) };
    let row = row_of(call.core, &asked)
        .ok_or_else(|| format!("no matches for kind {kind:?} in version {api_version:?}"))?;
    // An owner is in the namespace of what it owns, or in none.
    let namespace = if row.namespaced() { call.target.namespace.clone() } else { String::new() };
    Ok(authz::Attributes::Resource {
        verb: "update".to_owned(),
        group: row.group.to_string(),
        resource: row.plural.to_string(),
        subresource: "finalizers".to_owned(),
        namespace,
        name: name.clone(),
    })
}

/// # Errors
/// The reason that an authorizer gives, if any.
async fn may(attributes: &Attributes<'_>, asked: &authz::Attributes) -> Result<(), String> {
    let call = attributes.call;
    let verdict = call.core.authorizers.decide(call.core, Question::new(call.user, asked)).await;
    if verdict.is_allowed() { Ok(()) } else { Err(verdict.reason) }
}
