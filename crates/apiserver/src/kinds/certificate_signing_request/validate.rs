//! Validation of CertificateSigningRequests (`k8s.io/kubernetes/pkg/apis/certificates/validation`).

use api::certificates::{self, APPROVED, CERTIFICATE_LABEL, DENIED, FAILED, LEGACY_SIGNER, USAGES};
use api::pem;
use api::status::FieldError;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::conditions;
use crate::kinds::check::{self, Errors, Unique};
use crate::kinds::path::Path;
use crate::kinds::signer_name;

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
pub fn spec(request: &CertificateSigningRequest) -> Errors {
    let (spec, path, mut errors) = (&request.spec, Path::new("spec"), Errors::new());
    if let Err(problem) = certificates::parse(&spec.request.0) {
        let error = FieldError::invalid(path.child("request"), "", problem.to_string());
        errors.push(FieldError { value: check::shown(&spec.request.0), ..error });
    }
    usages(spec.usages.as_deref().unwrap_or_default(), &path.child("usages"), &mut errors);
    let signer = path.child("signerName");
    if spec.signer_name == LEGACY_SIGNER {
        let problem = "the legacy signerName is not allowed via this API version";
        errors.push(FieldError::invalid(signer, &spec.signer_name, problem));
    } else {
        signer_name::check(&spec.signer_name, &signer, &mut errors);
    }
    if let Some(seconds) = spec.expiration_seconds.filter(|it| *it < EXPIRATION_MIN_SECONDS) {
        let problem = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(FieldError::invalid(path.child("expirationSeconds"), seconds, problem));
    }
    errors
}

fn usages(usages: &[String], path: &Path, errors: &mut Errors) {
    if usages.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    let known: Vec<&str> = USAGES.iter().map(|(name, _)| *name).collect();
    for (index, usage) in usages.iter().enumerate() {
        check::one_of_or_unset(&Some(usage.clone()), &known, &path.index(index), errors);
    }
    let mut seen = Unique::default();
    for (index, usage) in usages.iter().enumerate() {
        seen.insert(usage, &path.index(index), errors);
    }
}

/// What approvers and signers say of it, and what a write may change of that.
pub fn status(
    new: &CertificateSigningRequest,
    old: &CertificateSigningRequest,
    door: Door,
) -> Errors {
    let (path, mut errors) = (Path::new("status").child("conditions"), Errors::new());
    for_themselves(conditions(new), &path, &mut errors);
    let issued = |request| certificates::issued(request).unwrap_or_default();
    let certificate = Path::new("status").child("certificate");
    let changed = issued(new) != issued(old);
    if changed && let Some(problem) = problem_of_chain(issued(new)) {
        errors.push(FieldError::invalid(&certificate, "<certificate data>", problem));
    }
    let of = |request, type_: &str| -> Vec<CertificateSigningRequestCondition> {
        let all = conditions(request).iter();
        all.filter(|condition| condition.type_ == type_).cloned().collect()
    };
    for type_ in [APPROVED, DENIED, FAILED] {
        if of(new, type_).len() < of(old, type_).len() {
            let problem = format!("updates may not remove a condition of type {type_:?}");
            errors.push(FieldError::forbidden(&path, problem));
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
        let problem = format!("updates may not {what} a condition of type {type_:?}");
        errors.push(FieldError::forbidden(&path, problem));
    }
    if changed && door != Door::Status {
        let problem = "updates may not set certificate content";
        errors.push(FieldError::forbidden(certificate, problem));
    } else if changed && !issued(old).is_empty() {
        let problem = "updates may not modify existing certificate content";
        errors.push(FieldError::forbidden(certificate, problem));
    }
    errors
}

fn for_themselves(
    conditions: &[CertificateSigningRequestCondition],
    path: &Path,
    errors: &mut Errors,
) {
    let mut seen = Unique::default();
    for (index, condition) in conditions.iter().enumerate() {
        let at = path.index(index);
        let type_ = condition.type_.as_str();
        check::required(type_, &at.child("type"), errors);
        let only_true = [APPROVED, DENIED, FAILED].contains(&type_);
        let supported = if only_true { &["True"] } else { STATUSES };
        check::one_of(&condition.status, supported, &at.child("status"), errors);
        let earlier = &conditions[..index];
        let has = |other: &str| earlier.iter().any(|condition| condition.type_ == other);
        if type_ == APPROVED && has(DENIED) || type_ == DENIED && has(APPROVED) {
            let problem = "Approved and Denied conditions are mutually exclusive";
            errors.push(FieldError::invalid(path, type_, problem));
        }
        seen.insert(type_, &at.child("type"), errors);
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
