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
    if is_subset(object, attributes.old_object()) {
        return Ok(());
    }
    Err(attributes.forbidden(object, "Use of external IPs is denied by admission control"))
}

fn is_subset(new: &dyn Object, old: Option<&dyn Object>) -> bool {
    let old = old.map(addresses).unwrap_or_default();
    addresses(new).iter().all(|address| old.contains(address))
}

fn addresses(object: &dyn Object) -> &[String] {
    let spec = object.downcast_ref::<Service>().and_then(|service| service.spec.as_ref());
    spec.and_then(|spec| spec.external_ips.as_deref()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_may_stay() {
        let service = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| (*address).to_owned()).collect();
            let mut service = Service::default();
            service.spec.get_or_insert_default().external_ips = Some(addresses);
            service
        };
        for (new, old, expected) in [
            (&[][..], None, true),
            (&["192.0.2.1"], None, false),
            (&["192.0.2.1"], Some(&["192.0.2.1", "192.0.2.2"][..]), true),
            (&["192.0.2.2", "192.0.2.1"], Some(&["192.0.2.1", "192.0.2.2"]), true),
            (&["192.0.2.1", "192.0.2.3"], Some(&["192.0.2.1", "192.0.2.2"]), false),
            (&[], Some(&["192.0.2.1"]), true),
        ] {
            let old = old.map(service);
            let old = old.as_ref().map(|old| old as &dyn Object);
            assert_eq!(is_subset(&service(new), old), expected, "{new:?}");
        }
    }
}
