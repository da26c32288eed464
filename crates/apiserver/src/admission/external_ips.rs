//! DenyServiceExternalIPs: whoever writes a Service does not attract other addresses' connections
//! (`k8s.io/kubernetes/plugin/pkg/admission/network/denyserviceexternalips`).

use api::ApiError;
use api::object::Object;
use k8s_openapi::api::core::v1::Service;

use super::attributes::Attributes;

/// An update may keep the external addresses that a Service has.
///
/// # Errors
/// 403 for others.
pub fn check(attributes: &Attributes<'_>, object: &dyn Object) -> Result<(), ApiError> {
    let old = attributes.old_object().map(addresses).unwrap_or_default();
    if addresses(object).iter().all(|address| old.contains(address)) {
        return Ok(());
    }
    Err(attributes.forbidden(object, "Use of external IPs is denied by admission control"))
}

fn addresses(object: &dyn Object) -> &[String] {
    let spec = object.downcast_ref::<Service>().and_then(|service| service.spec.as_ref());
    spec.and_then(|spec| spec.external_ips.as_deref()).unwrap_or_default()
}
