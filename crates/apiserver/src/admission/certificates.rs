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

use super::attributes::{Attributes, typed};
use crate::authz;
use crate::core::Call;
use crate::user::MASTERS;

/// CertificateApproval: who approves and denies requests to a signer.
///
/// # Errors
/// 403.
pub async fn approve(
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
) -> Result<(), ApiError> {
    let (Some(_), Some(old)) = requests(attributes, object) else {
        return Ok(());
    };
    require(attributes, old, "approve", "approve requests with", &old.spec.signer_name).await
}

/// CertificateSigning: who issues certificates as a signer.
///
/// # Errors
/// 403.
pub async fn sign(
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
) -> Result<(), ApiError> {
    match requests(attributes, object) {
        (Some(new), Some(old)) if new.status != old.status => {
            require(attributes, old, "sign", "sign requests with", &old.spec.signer_name).await
        }
        _ => Ok(()),
    }
}

/// ClusterTrustBundleAttest: who says which authorities a signer has.
///
/// # Errors
/// 403.
pub async fn attest(
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
) -> Result<(), ApiError> {
    let Some(new) = typed::<ClusterTrustBundle>(object) else {
        return Ok(());
    };
    let old = attributes.old::<ClusterTrustBundle>();
    if old.is_some_and(|old| old.spec == new.spec) {
        return Ok(());
    }
    match new.spec.signer_name.as_deref().filter(|signer| !signer.is_empty()) {
        None => Ok(()),
        Some(signer) => require(attributes, new, "attest", "attest for", signer).await,
    }
}

/// CertificateSubjectRestriction: nobody is made an administrator by a certificate.
///
/// # Errors
/// 403.
pub fn check_subject(attributes: &Attributes<'_>, object: &dyn Object) -> Result<(), ApiError> {
    let request = object.downcast_ref::<CertificateSigningRequest>();
    let problem = request.and_then(problem_of_subject);
    problem.map_or(Ok(()), |problem| Err(attributes.forbidden(object, problem)))
}

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

/// An update of a request: the new state, and the one before.
fn requests<'a, 'o>(
    attributes: &Attributes<'a>,
    object: Option<&'o dyn Object>,
) -> (Option<&'o CertificateSigningRequest>, Option<&'a CertificateSigningRequest>) {
    (typed(object), attributes.old())
}

/// Only signers answer PodCertificateRequests. Upstream's strategy refuses others, as invalid.
///
/// # Errors
/// 422.
pub async fn check_answer(
    call: Call<'_>,
    object: &dyn Object,
    old: Option<&dyn Object>,
) -> Result<(), ApiError> {
    let (Some(new), Some(old)) =
        (typed::<PodCertificateRequest>(Some(object)), typed::<PodCertificateRequest>(old))
    else {
        return Ok(());
    };
    let signer = &old.spec.signer_name;
    if call.target.subresource != "status"
        || new.status == old.status
        || may_for(call, "sign", signer).await
    {
        return Ok(());
    }
    let user = &call.user.name;
    let problem = format!("User {user:?} is not permitted to \"sign\" for signer {signer:?}");
    let error = FieldError::forbidden("spec.signerName", problem);
    Err(ApiError::invalid(call.row(), &call.target.name, &[error]))
}

/// Requires the right to do something for a signer, or for all of its domain.
async fn require(
    attributes: &Attributes<'_>,
    object: &dyn Object,
    verb: &str,
    what: &str,
    signer: &str,
) -> Result<(), ApiError> {
    if may_for(attributes.call, verb, signer).await {
        return Ok(());
    }
    let why = format!("user not permitted to {what} signerName {signer:?}");
    Err(attributes.forbidden(object, why))
}

/// Whether the user may do something for a signer, or for all of its domain.
async fn may_for(call: Call<'_>, verb: &str, signer: &str) -> bool {
    let may = async |name: &str| {
        let asked = authz::Attributes::Resource {
            verb: verb.to_owned(),
            group: GROUP.to_owned(),
            resource: "signers".to_owned(),
            subresource: String::new(),
            namespace: String::new(),
            name: name.to_owned(),
        };
        call.core.authorizers.allows(call.core, call.user, &asked).await
    };
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    may(signer).await || may(&format!("{domain}/*")).await
}
