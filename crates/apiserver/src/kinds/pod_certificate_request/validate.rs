//! Validation of PodCertificateRequests (`k8s.io/kubernetes/pkg/apis/certificates/validation`).

use api::certificates::pod::{self, ISSUED, Key, MIN_SECONDS, TERMINAL, max_seconds};
use api::certificates::{self, DENIED, FAILED, RequestError};
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{
    PodCertificateRequest, PodCertificateRequestSpec, PodCertificateRequestStatus,
};

use super::{chain, conditions};
use crate::kinds::at::At;
use crate::kinds::{check, semantic, status as statuses};

const UID_BYTES_MAX: usize = 128;
const REQUEST_BYTES_MAX: usize = 10 << 10;

/// What is asked for.
pub fn spec(spec: &PodCertificateRequestSpec, at: &At<'_>) {
    let signer = &spec.signer_name;
    at.child("signerName").signer_name(signer);
    let annotations = spec.unverified_user_annotations.as_ref();
    at.child("unverifiedUserAnnotations").domain_prefixed_annotations(annotations);
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
        at.child(field).dns_subdomain(name);
        let at = at.child(uid_field);
        if uid.is_empty() {
            at.invalid(uid, "must not be empty");
        }
        at.max_bytes(uid.len(), UID_BYTES_MAX);
    }
    let seconds = spec.max_expiration_seconds.unwrap_or_default();
    let most = max_seconds(&spec.signer_name);
    if !(MIN_SECONDS..=most).contains(&seconds) {
        let problem = format!("must be in the range [{MIN_SECONDS}, {most}]");
        at.child("maxExpirationSeconds").invalid(seconds, problem);
    }
    signed_request(&spec.stub_pkc_s10_request.0, &at.child("stubPKCS10Request"));
}

/// The request must be signed by its key, which must be of a kind that pods may have.
fn signed_request(der: &[u8], at: &At<'_>) {
    if der.is_empty() {
        return at.required("");
    }
    if der.len() > REQUEST_BYTES_MAX {
        return at.too_long(REQUEST_BYTES_MAX);
    }
    let about = |value: String, problem: &str| {
        at.error(FieldError { value, ..FieldError::invalid(at.to_string(), "", problem) });
    };
    let parsed = match certificates::parse_der(der) {
        Ok(parsed) => parsed,
        Err(RequestError::Signature(_)) => {
            return about(String::new(), "could not verify the signature of the PKCS#10 request");
        }
        Err(_) => return about(check::shown(der), "must be a valid PKCS#10 request"),
    };
    match pod::key(&parsed.public_key) {
        Key::Ed25519 | Key::Curve | Key::Rsa(3072 | 4096) => {}
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

/// A signer issues, denies or fails once, and says nothing else.
pub fn status(
    new: &PodCertificateRequest,
    old: &PodCertificateRequest,
    now: Timestamp,
    object: &At<'_>,
) {
    let (at, before) = (object.child("status"), object.count());
    known_conditions(new, &at.child("conditions"));
    let status = semantic::field(new, "status");
    statuses::conditions(status.get("conditions").unwrap_or_default(), &at.child("conditions"));
    if object.count() > before {
        return;
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
        return at.errors(chain::issued(new, old, now).err().unwrap_or_default());
    } else {
        (!same(new, old)).then_some(
            "status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\"",
        )
    };
    if let Some(problem) = problem {
        at.invalid_whole(problem);
    }
}

/// One of the known conditions at most, and it holds.
fn known_conditions(request: &PodCertificateRequest, at: &At<'_>) {
    let mut known = 0;
    for (index, condition) in conditions(request).iter().enumerate() {
        let (at, type_) = (at.index(index), condition.type_.as_str());
        if !TERMINAL.contains(&type_) {
            at.child("type").not_supported(type_, &TERMINAL);
            continue;
        }
        known += 1;
        if known > 1 {
            at.child("type").invalid(type_, "There may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\"");
        }
        if condition.status != "True" {
            at.child("status").not_supported(condition.status.as_str(), &["True"]);
        }
    }
}
