//! Nobody is let past rules that cannot be read: what decides about requests may be stored encrypted, and
//! its key missing. Upstream's plugins say the same while their informers have not read everything.

use api::{ApiError, Kind, KindRow};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, MutatingWebhookConfiguration,
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};

use super::webhooks::is_exempt;
use crate::cache::Filter;
use crate::core::Call;
use crate::request::Origin;

/// # Errors
/// 403 while a rule that may be about the call cannot be read.
pub fn check(call: Call<'_>) -> Result<(), ApiError> {
    let row = call.row();
    if call.options.origin != Origin::Client || is_exempt(row) {
        return Ok(());
    }
    let cluster: [&'static KindRow; 6] = [
        MutatingAdmissionPolicy::ROW,
        MutatingAdmissionPolicyBinding::ROW,
        MutatingWebhookConfiguration::ROW,
        ValidatingWebhookConfiguration::ROW,
        ValidatingAdmissionPolicy::ROW,
        ValidatingAdmissionPolicyBinding::ROW,
    ];
    let namespaced: [&'static KindRow; 2] = [LimitRange::ROW, ResourceQuota::ROW];
    let cache = &call.core.cache;
    let missing = |rule: &'static KindRow| cache.resource(rule).unreadable_count() > 0;
    let missing_here = |rule: &'static KindRow| {
        let filter = Filter::everything(rule, &call.target.namespace);
        missing(rule) && cache.resource(rule).unreadable(&filter).is_some()
    };
    if cluster.into_iter().any(missing)
        || (row.namespaced() && namespaced.into_iter().any(missing_here))
    {
        return Err(ApiError::forbidden(row, &call.target.name, "not yet ready to handle request"));
    }
    Ok(())
}
