//! CertificateSigningRequests: approved, signed, and removed again
//! (`k8s.io/kubernetes/pkg/controller/certificates`).

pub mod approve;
pub mod authority;
pub mod clean;
pub mod clean_pods;
pub mod serving;
pub mod sign;

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

#[cfg(test)]
mod tests;
