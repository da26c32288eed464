//! Admin access to devices, which others may be using: only in namespaces that an administrator has
//! labelled (`k8s.io/kubernetes/pkg/registry/resource`). Upstream's strategy refuses others, as
//! invalid.

use api::object::Object;
use api::status::FieldError;
use api::{ApiError, Kind};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::resource::v1::{
    DeviceRequest, ResourceClaim, ResourceClaimSpec, ResourceClaimTemplate,
};

use super::attributes::typed;
use crate::core::Call;

/// The label of such a namespace.
const LABEL: &str = "resource.kubernetes.io/admin-access";

/// # Errors
/// 422 when a namespace is not labelled.
pub async fn check_admin_access(
    call: Call<'_>,
    object: &dyn Object,
    old: Option<&dyn Object>,
) -> Result<(), ApiError> {
    let Some(field) = asking(object, old) else { return Ok(()) };
    let namespace = call.core.find(Namespace::ROW, &call.target.namespace).await?;
    let labels = namespace.as_ref().and_then(|namespace| namespace.labels.as_ref());
    if labels.and_then(|labels| labels.get(LABEL)).is_some_and(|value| value == "true") {
        return Ok(());
    }
    let problem = format!(
        "admin access to devices requires the `{LABEL}: true` label on the containing namespace"
    );
    let name = object.metadata().name.as_deref().unwrap_or_default();
    Err(ApiError::invalid(call.row(), name, &[FieldError::forbidden(field, problem)]))
}

/// The first field that asks for it, and did not before. A spec cannot change.
fn asking(object: &dyn Object, old: Option<&dyn Object>) -> Option<String> {
    if let (Some(new), Some(old)) = (typed::<ResourceClaim>(Some(object)), typed(old)) {
        return if allocated(old).is_some() { None } else { allocated(new) };
    }
    if old.is_some() {
        return None;
    }
    match (typed::<ResourceClaim>(Some(object)), typed::<ResourceClaimTemplate>(Some(object))) {
        (Some(claim), _) => requested(claim.spec.as_ref()?),
        (_, Some(template)) => requested(template.spec.as_ref()?.spec.as_ref()?),
        _ => None,
    }
}

fn requested(spec: &ResourceClaimSpec) -> Option<String> {
    let mut requests = spec.devices.iter().flat_map(|devices| devices.requests.iter().flatten());
    let is_admin = |request: &DeviceRequest| {
        request.exactly.as_ref().is_some_and(|exactly| exactly.admin_access == Some(true))
    };
    let index = requests.position(is_admin)?;
    Some(format!("spec.devices.requests[{index}].adminAccess"))
}

fn allocated(claim: &ResourceClaim) -> Option<String> {
    let devices = claim.status.as_ref()?.allocation.as_ref()?.devices.as_ref()?;
    let mut results = devices.results.iter().flatten();
    let index = results.position(|result| result.admin_access == Some(true))?;
    Some(format!("status.allocation.devices.results[{index}].adminAccess"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_asks_for_admin_access() {
        let claim = |admin: Value, allocated: Value| -> ResourceClaim {
            let request = |admin: &Value| json!({"name": "r", "exactly": {"deviceClassName": "c", "adminAccess": admin}});
            let result = |admin: &Value| json!({"request": "r", "driver": "d", "pool": "p", "device": "x", "adminAccess": admin});
            let object = json!({"metadata": {}, "spec": {"devices": {"requests": [request(&Value::Null), request(&admin)]}},
                "status": {"allocation": {"devices": {"results": [result(&allocated)]}}}});
            serde_json::from_value(object).unwrap()
        };
        let (yes, no) = (json!(true), json!(false));
        let asks = claim(yes.clone(), Value::Null);
        let has = claim(yes, json!(true));
        let plain = claim(no.clone(), no);
        let (spec, status) = (
            Some("spec.devices.requests[1].adminAccess".to_owned()),
            Some("status.allocation.devices.results[0].adminAccess".to_owned()),
        );
        assert_eq!(asking(&asks, None), spec);
        assert_eq!(asking(&plain, None), None);
        assert_eq!(asking(&has, Some(&asks)), status);
        assert_eq!(asking(&has, Some(&has)), None);
        assert_eq!(asking(&plain, Some(&asks)), None);
        let template: ResourceClaimTemplate =
            serde_json::from_value(json!({"metadata": {}, "spec": {"spec": asks.spec}})).unwrap();
        assert_eq!(asking(&template, None), spec);
        assert_eq!(asking(&template, Some(&template)), None);
    }
}
