//! PersistentVolumeClaimResize: a claim grows only if its class lets it
//! (`k8s.io/kubernetes/plugin/pkg/admission/storage/persistentvolume/resize`).

use api::object::Object;
use api::quantity::Quantity;
use api::{ApiError, Kind, storage_class};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;

use super::attributes::{Attributes, typed};
use crate::core::Call;

/// Checks an update of a claim that asks for more.
///
/// # Errors
/// 403 when the claim is not bound, or its class does not allow it.
pub async fn check(
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
) -> Result<(), ApiError> {
    let claims = (typed::<PersistentVolumeClaim>(object), attributes.old());
    let (Some(new), Some(old)) = claims else {
        return Ok(());
    };
    if size(new) <= size(old) {
        return Ok(());
    }
    let call = attributes.call;
    let refuse = |why: &str| Err(attributes.forbidden(new, why));
    let phase = old.status.as_ref().and_then(|status| status.phase.as_deref());
    if phase != Some("Bound") {
        return refuse("Only bound persistent volume claims can be expanded");
    }
    let (class, was) = (storage_class::of_claim(new), storage_class::of_claim(old));
    if !class.is_empty() && class == was && allows_expansion(call, class).await? {
        return Ok(());
    }
    refuse(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
    )
}

async fn allows_expansion(call: Call<'_>, class: &str) -> Result<bool, ApiError> {
    let Some(version) = call.core.find(StorageClass::ROW, class).await? else {
        return Ok(false);
    };
    let class = StorageClass::decode(&version.json).map_err(ApiError::internal)?;
    Ok(class.allow_volume_expansion == Some(true))
}

fn size(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    requests.get("storage").map(Quantity::of)
}
