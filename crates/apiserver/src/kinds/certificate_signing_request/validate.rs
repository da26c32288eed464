//! Validation of CertificateSigningRequests (`k8s.io/kubernetes/pkg/apis/certificates/validation`).

use api::certificates::{self, APPROVED, CERTIFICATE_LABEL, DENIED, FAILED, LEGACY_SIGNER, USAGES};
use api::pem;
use api::status::FieldError;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::conditions;
use crate::kinds::at::At;
use crate::kinds::check::{self, Unique};

/// The shortest validity that a request may ask for, in seconds.
const EXPIRATION_MIN_SECONDS: i32 = 600;
const STATUSES: &[&str] = &["False", "True", "Unknown"];

/// What a write goes through: each may change something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Object,
    Status,
    Approval,
}

/// What is asked for.
pub fn spec(spec: &CertificateSigningRequestSpec, at: &At<'_>) {
    if let Err(problem) = certificates::parse(&spec.request.0) {
        let path = at.child("request").to_string();
        let error = FieldError::invalid(path, "", problem.to_string());
        at.error(FieldError { value: check::shown(&spec.request.0), ..error });
    }
    usages(spec.usages.as_deref().unwrap_or_default(), &at.child("usages"));
    let signer = at.child("signerName");
    if spec.signer_name == LEGACY_SIGNER {
        let problem = "the legacy signerName is not allowed via this API version";
        signer.invalid(&spec.signer_name, problem);
    } else {
        signer.signer_name(&spec.signer_name);
    }
    if let Some(seconds) = spec.expiration_seconds.filter(|it| *it < EXPIRATION_MIN_SECONDS) {
        let problem = "may not specify a duration less than 600 seconds (10 minutes)";
        at.child("expirationSeconds").invalid(seconds, problem);
    }
}

fn usages(usages: &[String], at: &At<'_>) {
    if usages.is_empty() {
        at.required("");
    }
    let known: Vec<&str> = USAGES.iter().map(|(name, _)| *name).collect();
    for (index, usage) in usages.iter().enumerate() {
        if !known.contains(&usage.as_str()) {
            at.index(index).not_supported(usage, &known);
        }
    }
    let mut seen = Unique::default();
    for (index, usage) in usages.iter().enumerate() {
        seen.add(usage, &at.index(index));
    }
}

/// What approvers and signers say of it, and what a write may change of that.
pub fn status(
    new: &CertificateSigningRequest,
    old: &CertificateSigningRequest,
    door: Door,
    at: &At<'_>,
) {
    let all = at.child("conditions");
    for_themselves(conditions(new), &all);
    let issued = |request| certificates::issued(request).unwrap_or_default();
    let certificate = at.child("certificate");
    let changed = issued(new) != issued(old);
    if changed && let Some(problem) = problem_of_chain(issued(new)) {
        certificate.invalid("<certificate data>", problem);
    }
    let of = |request, type_: &str| -> Vec<CertificateSigningRequestCondition> {
        let all = conditions(request).iter();
        all.filter(|condition| condition.type_ == type_).cloned().collect()
    };
    for type_ in [APPROVED, DENIED, FAILED] {
        if of(new, type_).len() < of(old, type_).len() {
            all.forbidden(format!("updates may not remove a condition of type {type_:?}"));
        }
    }
    for type_ in [APPROVED, DENIED].into_iter().filter(|_| door != Door::Approval) {
        let (now, before) = (of(new, type_), of(old, type_));
        let what = match now.len().cmp(&before.len()) {
            std::cmp::Ordering::Less => continue,
            std::cmp::Ordering::Greater => "add",
            std::cmp::Ordering::Equal if now == before => continue,
            std::cmp::Ordering::Equal => "modify",
        };
        all.forbidden(format!("updates may not {what} a condition of type {type_:?}"));
    }
    if changed && door != Door::Status {
        certificate.forbidden("updates may not set certificate content");
    } else if changed && !issued(old).is_empty() {
        certificate.forbidden("updates may not modify existing certificate content");
    }
}

fn for_themselves(conditions: &[CertificateSigningRequestCondition], at: &At<'_>) {
    let mut seen = Unique::default();
    for (index, condition) in conditions.iter().enumerate() {
        let own = at.index(index);
        let type_ = condition.type_.as_str();
        own.child("type").not_empty(type_);
        let only_true = [APPROVED, DENIED, FAILED].contains(&type_);
        let supported = if only_true { &["True"] } else { STATUSES };
        own.child("status").one_of(&condition.status, supported);
        let earlier = &conditions[..index];
        let has = |other: &str| earlier.iter().any(|condition| condition.type_ == other);
        if type_ == APPROVED && has(DENIED) || type_ == DENIED && has(APPROVED) {
            at.invalid(type_, "Approved and Denied conditions are mutually exclusive");
        }
        seen.add(type_, &own.child("type"));
    }
}

/// What is wrong with the certificate that a signer has issued, if it is not empty.
fn problem_of_chain(text: &[u8]) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    let mut empty = true;
    for block in pem::blocks(text) {
        empty = false;
        if block.label != CERTIFICATE_LABEL {
            let label = block.label;
            return Some(format!("only CERTIFICATE PEM blocks are allowed, found {label:?}"));
        }
        if block.has_headers {
            return Some("no PEM block headers are permitted".to_owned());
        }
        if block.der.is_empty() {
            return Some("found CERTIFICATE PEM block containing 0 certificates".to_owned());
        }
        let mut rest = block.der.as_slice();
        while !rest.is_empty() {
            match X509Certificate::from_der(rest) {
                Ok((after, _)) => rest = after,
                Err(_) => return Some("x509: malformed certificate".to_owned()),
            }
        }
    }
    empty.then(|| "must contain at least one CERTIFICATE PEM block".to_owned())
}
