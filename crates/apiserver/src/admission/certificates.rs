//! Who may approve and sign for a signer, attest its certificates, and ask it for what: upstream's
//! CertificateApproval, CertificateSigning, ClusterTrustBundleAttest and
//! CertificateSubjectRestriction (`k8s.io/kubernetes/plugin/pkg/admission/certificates`).

use api::ApiError;
use api::certificates::{self, CLIENT_SIGNER, GROUP};
use api::object::Object;
use api::status::FieldError;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, ClusterTrustBundle, PodCertificateRequest,
};

use crate::authz::Attributes;
use crate::core::Call;
use crate::user::MASTERS;

/// Checks a write of a request or of a bundle; others pass.
///
/// # Errors
/// 403, and 422 for an answer of somebody who is no signer.
pub async fn check(
    call: Call<'_>,
    object: &dyn Object,
    old: Option<&dyn Object>,
) -> Result<(), ApiError> {
    let name = object.metadata().name.as_deref().unwrap_or_default();
    if let (Some(request), Some(old)) = (
        object.downcast_ref::<PodCertificateRequest>(),
        old.and_then(|old| old.downcast_ref::<PodCertificateRequest>()),
    ) && call.target.subresource == "status"
        && request.status != old.status
    {
        return check_answer(call, &old.spec.signer_name).await;
    }
    let problem = if let Some(request) = object.downcast_ref::<CertificateSigningRequest>() {
        problem_of_request(call, request, old.and_then(|old| old.downcast_ref())).await
    } else if let Some(bundle) = object.downcast_ref::<ClusterTrustBundle>() {
        problem_of_bundle(call, bundle, old.and_then(|old| old.downcast_ref())).await
    } else {
        None
    };
    problem.map_or(Ok(()), |problem| Err(ApiError::forbidden(call.row(), name, problem)))
}

async fn problem_of_request(
    call: Call<'_>,
    request: &CertificateSigningRequest,
    old: Option<&CertificateSigningRequest>,
) -> Option<String> {
    let signer = &old.unwrap_or(request).spec.signer_name;
    match (call.target.subresource.as_str(), old) {
        ("", None) => problem_of_subject(request),
        ("approval", Some(_)) => {
            problem_of_user(call, "approve", "approve requests with", signer).await
        }
        ("status", Some(old)) if request.status != old.status => {
            problem_of_user(call, "sign", "sign requests with", signer).await
        }
        _ => None,
    }
}

/// Nobody is made an administrator by a certificate.
fn problem_of_subject(request: &CertificateSigningRequest) -> Option<String> {
    if request.spec.signer_name != CLIENT_SIGNER {
        return None;
    }
    match certificates::parse(&request.spec.request.0) {
        Err(error) => Some(format!("failed to parse CSR: {error}")),
        Ok(parsed) => {
            parsed.organizations.iter().any(|group| group == MASTERS).then(|| {
                format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed")
            })
        }
    }
}

async fn problem_of_bundle(
    call: Call<'_>,
    bundle: &ClusterTrustBundle,
    old: Option<&ClusterTrustBundle>,
) -> Option<String> {
    if old.is_some_and(|old| old.spec == bundle.spec) {
        return None;
    }
    let signer = bundle.spec.signer_name.as_deref().filter(|signer| !signer.is_empty())?;
    problem_of_user(call, "attest", "attest for", signer).await
}

/// Only signers answer PodCertificateRequests. Upstream's strategy refuses others, as invalid.
async fn check_answer(call: Call<'_>, signer: &str) -> Result<(), ApiError> {
    if problem_of_user(call, "sign", "", signer).await.is_none() {
        return Ok(());
    }
    let user = &call.user.name;
    let problem = format!("User {user:?} is not permitted to \"sign\" for signer {signer:?}");
    let error = FieldError::forbidden("spec.signerName", problem);
    Err(ApiError::invalid(call.row(), &call.target.name, &[error]))
}

/// The right to do something for a signer, or for all of its domain.
async fn problem_of_user(call: Call<'_>, verb: &str, what: &str, signer: &str) -> Option<String> {
    let may = async |name: &str| {
        let attributes = Attributes::Resource {
            verb: verb.to_owned(),
            group: GROUP.to_owned(),
            resource: "signers".to_owned(),
            subresource: String::new(),
            namespace: String::new(),
            name: name.to_owned(),
        };
        call.core.authorizers.allows(call.core, call.user, &attributes).await
    };
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    let allowed = may(signer).await || may(&format!("{domain}/*")).await;
    (!allowed).then(|| format!("user not permitted to {what} signerName {signer:?}"))
}
