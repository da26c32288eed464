//! What tokens a kubelet may ask for.

use api::{ApiError, Kind};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::CSIDriver;

use crate::admission::attributes::Attributes;
use crate::authz;
use crate::core::Call;
use crate::scan;

/// Checks a kubelet's request for a token: it must be bound to a pod of its node.
///
/// # Errors
/// 403; 404 for a pod that does not exist.
pub async fn check(
    attributes: &Attributes<'_>,
    own: &str,
    request: &TokenRequest,
) -> Result<(), ApiError> {
    let call = attributes.call;
    let asked = request.spec.clone().unwrap_or_default();
    let bound = asked.bound_object_ref.as_ref();
    let refuse = |why: &str| Err(attributes.forbidden(request, why));
    let text = |field: &'_ Option<String>| field.clone().unwrap_or_default();
    let bound = bound.filter(|bound| text(&bound.kind) == "Pod" && !text(&bound.name).is_empty());
    let Some(bound) = bound.filter(|bound| matches!(text(&bound.api_version).as_str(), "v1"))
    else {
        return refuse("node requested token not bound to a pod");
    };
    if text(&bound.uid).is_empty() {
        return refuse("node requested token with a pod binding without a uid");
    }
    let key = format!("{}/{}", call.target.namespace, text(&bound.name));
    let Some(pod) = call.core.find(Pod::ROW, &key).await? else {
        return Err(ApiError::not_found(Pod::ROW, &text(&bound.name)));
    };
    if *pod.uid != text(&bound.uid) {
        return refuse(&format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            text(&bound.uid)
        ));
    }
    let node = scan::at_path(&pod.json, "spec.nodeName").map(scan::scalar);
    if node.as_deref() != Some(own) {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    let audience = match asked.audiences.as_deref().unwrap_or_default() {
        [] => "",
        [one] => one.as_str(),
        _ => return refuse("node may only request 0 or 1 audiences"),
    };
    let pod = Pod::decode(&pod.json).map_err(ApiError::internal)?;
    if uses_audience(&pod, audience)
        || drivers_use_audience(call, &pod, audience).await?
        || may_request_audience(call, audience).await
    {
        return Ok(());
    }
    refuse(&format!(
        "audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
        call.user.name
    ))
}

/// Whether a volume of the pod has a token for the audience; the empty one is the apiserver.
fn uses_audience(pod: &Pod, audience: &str) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter_map(|volume| volume.projected.as_ref())
        .flat_map(|projected| projected.sources.iter().flatten())
        .filter_map(|source| source.service_account_token.as_ref())
        .any(|token| token.audience.as_deref().unwrap_or_default() == audience)
}

/// Whether the driver of a volume of the pod asks for tokens for the audience.
async fn drivers_use_audience(call: Call<'_>, pod: &Pod, audience: &str) -> Result<bool, ApiError> {
    let (namespace, name) = (&call.target.namespace, pod.metadata.name.as_deref());
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let claim = volume.persistent_volume_claim.as_ref().map(|source| source.claim_name.clone());
        let own = || Some(format!("{}-{}", name.unwrap_or_default(), volume.name));
        let claim = claim.or_else(|| volume.ephemeral.as_ref().and_then(|_| own()));
        let driver = match (&volume.csi, claim) {
            (Some(source), _) => Some(source.driver.clone()),
            (None, Some(claim)) => driver_of(call, &format!("{namespace}/{claim}")).await?,
            (None, None) => None,
        };
        let Some(driver) = driver else { continue };
        let Some(driver) = call.core.find(CSIDriver::ROW, &driver).await? else { continue };
        let driver = CSIDriver::decode(&driver.json).map_err(ApiError::internal)?;
        if driver.spec.token_requests.iter().flatten().any(|own| own.audience == audience) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The driver of the volume that a claim is bound to.
async fn driver_of(call: Call<'_>, claim: &str) -> Result<Option<String>, ApiError> {
    let at = |json: &[u8], path: &str| scan::at_path(json, path).map(scan::scalar);
    let Some(claim) = call.core.find(PersistentVolumeClaim::ROW, claim).await? else {
        return Ok(None);
    };
    let Some(volume) = at(&claim.json, "spec.volumeName") else { return Ok(None) };
    let volume = call.core.find(PersistentVolume::ROW, &volume).await?;
    Ok(volume.and_then(|volume| at(&volume.json, "spec.csi.driver")))
}

/// Whether an administrator has granted the node this audience of the account's tokens.
async fn may_request_audience(call: Call<'_>, audience: &str) -> bool {
    let attributes = authz::Attributes::Resource {
        verb: "request-serviceaccounts-token-audience".to_owned(),
        group: String::new(),
        resource: audience.to_owned(),
        subresource: String::new(),
        namespace: call.target.namespace.clone(),
        name: call.target.name.clone(),
    };
    call.core.authorizers.allows(call.core, call.user, &attributes).await
}
