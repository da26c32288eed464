//! CertificateSigningRequests: approved, signed, and removed again
//! (`k8s.io/kubernetes/pkg/controller/certificates`).

pub mod approve;
pub mod authority;
pub mod clean;
pub mod clean_pods;
pub mod serving;
pub mod sign;

use std::sync::Arc;

use api::certificates::{KUBELET_SERVING_SIGNER, issued};
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Adds a condition that is true.
fn add_condition(
    request: &mut CertificateSigningRequest,
    type_: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    let conditions = request.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.push(CertificateSigningRequestCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: None,
    });
}

fn usages(request: &CertificateSigningRequest) -> &[String] {
    request.spec.usages.as_deref().unwrap_or_default()
}

/// The last request of a kubelet's user for a serving certificate that has one: what its node was
/// last approved for.
fn last_serving<'a>(
    requests: &'a [Arc<CertificateSigningRequest>],
    user: &str,
) -> Option<&'a CertificateSigningRequest> {
    let of_user = requests.iter().filter(|request| {
        request.spec.signer_name == KUBELET_SERVING_SIGNER
            && request.spec.username.as_deref() == Some(user)
            && issued(request).is_some()
    });
    let age = |request: &CertificateSigningRequest| {
        let created = request.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, request.metadata.name.clone())
    };
    of_user.map(|request| &**request).max_by_key(|request| age(request))
}

#[cfg(test)]
mod tests;
