//! Validation of PodCertificateRequests (`k8s.io/kubernetes/pkg/apis/certificates/validation`).

use api::certificates::pod::{self, ISSUED, Key, MIN_SECONDS, TERMINAL, max_seconds};
use api::certificates::{self, DENIED, FAILED, RequestError};
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{
    PodCertificateRequest, PodCertificateRequestSpec, PodCertificateRequestStatus,
};

use super::{chain, conditions};
use crate::kinds::check::{self, Errors};
use crate::kinds::path::Path;
use crate::kinds::{semantic, signer_name, status as statuses};

const UID_BYTES_MAX: usize = 128;
const REQUEST_BYTES_MAX: usize = 10 << 10;

/// What is asked for.
pub fn spec(request: &PodCertificateRequest) -> Errors {
    let (spec, path, mut errors) = (&request.spec, Path::new("spec"), Errors::new());
    signer_name::check(&spec.signer_name, &path.child("signerName"), &mut errors);
    check::domain_prefixed_annotations(
        spec.unverified_user_annotations.as_ref(),
        &path.child("unverifiedUserAnnotations"),
        &mut errors,
    );
    for (field, name, uid_field, uid) in [
        ("podName", &spec.pod_name, "podUID", &spec.pod_uid),
        (
            "serviceAccountName",
            &spec.service_account_name,
            "serviceAccountUID",
            &spec.service_account_uid,
        ),
        ("nodeName", &spec.node_name, "nodeUID", &spec.node_uid),
    ] {
        check::dns_subdomain(name, &path.child(field), &mut errors);
        let path = path.child(uid_field);
        if uid.is_empty() {
            errors.push(FieldError::invalid(&path, uid, "must not be empty"));
        }
        if uid.len() > UID_BYTES_MAX {
            errors.push(FieldError::too_long(&path, UID_BYTES_MAX));
        }
    }
    let seconds = spec.max_expiration_seconds.unwrap_or_default();
    let most = max_seconds(&spec.signer_name);
    if !(MIN_SECONDS..=most).contains(&seconds) {
        let problem = format!("must be in the range [{MIN_SECONDS}, {most}]");
        errors.push(FieldError::invalid(path.child("maxExpirationSeconds"), seconds, problem));
    }
    errors.extend(stub(spec, &path.child("stubPKCS10Request")));
    errors
}

/// The request must be signed by its key, which must be of a kind that pods may have.
fn stub(spec: &PodCertificateRequestSpec, path: &Path) -> Option<FieldError> {
    let der = &spec.stub_pkc_s10_request.0;
    if der.is_empty() {
        return Some(FieldError::required(path, ""));
    }
    if der.len() > REQUEST_BYTES_MAX {
        return Some(FieldError::too_long(path, REQUEST_BYTES_MAX));
    }
    let about = |value: String, problem: &str| {
        Some(FieldError { value, ..FieldError::invalid(path, "", problem) })
    };
    let parsed = match certificates::parse_der(der) {
        Ok(parsed) => parsed,
        Err(RequestError::Signature(_)) => {
            return about(String::new(), "could not verify the signature of the PKCS#10 request");
        }
        Err(_) => return about(check::shown(der), "must be a valid PKCS#10 request"),
    };
    match pod::key(&parsed.public_key) {
        Key::Ed25519 | Key::Curve | Key::Rsa(3072 | 4096) => None,
        Key::Rsa(bits) => {
            about(format!("\"{bits}-bit modulus\""), "RSA keys must have modulus size 3072 or 4096")
        }
        Key::OtherCurve(curve) => about(
            format!("\"curve {curve}\""),
            "elliptic public keys must use curve P256, P384, or P521",
        ),
        Key::Other => about(
            check::shown(der),
            "unknown public key type; supported types are Ed25519, ECDSA, and RSA",
        ),
    }
}

/// Nothing of what is asked for changes.
pub fn fixed_spec(new: &PodCertificateRequest, old: &PodCertificateRequest) -> Errors {
    let mut errors = Errors::new();
    if semantic::field(new, "spec") != semantic::field(old, "spec") {
        check::invalid_whole(check::IMMUTABLE, &Path::new("spec"), &mut errors);
    }
    errors
}

/// A signer issues, denies or fails once, and says nothing else.
pub fn status(new: &PodCertificateRequest, old: &PodCertificateRequest, now: Timestamp) -> Errors {
    let (path, mut errors) = (Path::new("status"), Errors::new());
    known_conditions(new, &path.child("conditions"), &mut errors);
    statuses::conditions(&semantic_conditions(new), &path.child("conditions"), &mut errors);
    if !errors.is_empty() {
        return errors;
    }
    let same = |one: &PodCertificateRequest, other: &PodCertificateRequest| {
        semantic::field(one, "status") == semantic::field(other, "status")
    };
    let problem = if pod::outcome(old).is_some() {
        let same = same(new, old);
        (!same).then_some("immutable after PodCertificateRequest is issued, denied, or failed")
    } else if [DENIED, FAILED].iter().any(|type_| pod::condition(new, type_).is_some()) {
        let only = PodCertificateRequestStatus {
            conditions: Some(conditions(new).to_vec()),
            ..Default::default()
        };
        let only = PodCertificateRequest { status: Some(only), ..new.clone() };
        (!same(new, &only)).then_some("non-condition status fields must be empty when denying or failing the PodCertificateRequest")
    } else if pod::condition(new, ISSUED).is_some() {
        return chain::issued(new, old, now).err().unwrap_or_default();
    } else {
        (!same(new, old)).then_some(
            "status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\"",
        )
    };
    if let Some(problem) = problem {
        check::invalid_whole(problem, &path, &mut errors);
    }
    errors
}

fn semantic_conditions(request: &PodCertificateRequest) -> serde_json::Value {
    let status = semantic::field(request, "status");
    status.get("conditions").cloned().unwrap_or_default()
}

/// One of the known conditions at most, and it holds.
fn known_conditions(request: &PodCertificateRequest, path: &Path, errors: &mut Errors) {
    let mut known = 0;
    for (index, condition) in conditions(request).iter().enumerate() {
        let (path, type_) = (path.index(index), condition.type_.as_str());
        if !TERMINAL.contains(&type_) {
            errors.push(FieldError::not_supported(path.child("type"), type_, &TERMINAL));
            continue;
        }
        known += 1;
        if known > 1 {
            let problem = "There may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\"";
            errors.push(FieldError::invalid(path.child("type"), type_, problem));
        }
        if condition.status != "True" {
            let status = condition.status.as_str();
            errors.push(FieldError::not_supported(path.child("status"), status, &["True"]));
        }
    }
}
