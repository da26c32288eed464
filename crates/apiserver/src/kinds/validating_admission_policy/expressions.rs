//! The expressions of a validating policy.

use api::cel::Environment;
use api::names;
use api::status::FieldError;
use k8s_openapi::api::admissionregistration::v1::{
    AuditAnnotation, ValidatingAdmissionPolicySpec, Validation,
};

use crate::kinds::admission_policy::expressions::environment;
use crate::kinds::check::{self, Errors};
use crate::kinds::path::Path;

/// Audit annotations of one policy.
const ANNOTATIONS_MAX: usize = 20;
/// Bytes of the expression of an audit annotation.
const ANNOTATION_BYTES: usize = 5 << 10;
const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];

pub fn validate(
    name: &str,
    spec: &ValidatingAdmissionPolicySpec,
    old: Option<&ValidatingAdmissionPolicySpec>,
    path: &Path,
    errors: &mut Errors,
) {
    let has_params = spec.param_kind.is_some();
    let is_same = old.is_some_and(|old| {
        old.match_conditions == spec.match_conditions && old.param_kind == spec.param_kind
    });
    let conditions = spec.match_conditions.as_deref().filter(|_| !is_same);
    let variables = spec.variables.as_deref().unwrap_or_default();
    let environment = environment(has_params, conditions, variables, path, errors);
    let count = |length: Option<usize>| length.unwrap_or_default();
    let validations = count(spec.validations.as_ref().map(Vec::len));
    let annotations = count(spec.audit_annotations.as_ref().map(Vec::len));
    if validations == 0 && annotations == 0 {
        let why = "validations or auditAnnotations must contain at least one item";
        for name in ["validations", "auditAnnotations"] {
            errors.push(FieldError::required(path.child(name), why));
        }
    }
    for (index, validation) in spec.validations.iter().flatten().enumerate() {
        let path = path.child("validations").index(index);
        validate_rule(validation, &environment, &path, errors);
    }
    let at = path.child("auditAnnotations");
    if annotations > ANNOTATIONS_MAX {
        let why = format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations");
        errors.push(FieldError::invalid(&at, &spec.audit_annotations, why));
    }
    let mut keys = check::Unique::default();
    for (index, annotation) in spec.audit_annotations.iter().flatten().enumerate() {
        let at = at.index(index);
        validate_annotation(name, annotation, &environment, &at, errors);
        keys.insert(&annotation.key, &at.child("key"), errors);
    }
}

fn validate_rule(
    validation: &Validation,
    environment: &Environment,
    path: &Path,
    errors: &mut Errors,
) {
    let at = path.child("expression");
    if validation.expression.trim().is_empty() {
        errors.push(FieldError::required(at, "expression is not specified"));
    } else if let Err(why) = environment.condition(&validation.expression) {
        errors.push(FieldError::invalid(at, &validation.expression, why));
    }
    let source = check::text(&validation.message_expression);
    let at = path.child("messageExpression");
    if !source.is_empty() && source.trim().is_empty() {
        errors.push(FieldError::invalid(at, source, "must be non-empty if specified"));
    } else if !source.is_empty()
        && let Err(why) = environment.without_authorizer().compile(source, &["string"])
    {
        errors.push(FieldError::invalid(at, source, why));
    }
    let message = check::text(&validation.message);
    let at = path.child("message");
    if !message.is_empty() && message.trim().is_empty() {
        let why = "message must be non-empty if specified";
        errors.push(FieldError::invalid(at, message, why));
    } else if message.trim().contains(['\n', '\r']) {
        errors.push(FieldError::invalid(at, message, "message must not contain line breaks"));
    }
    check::one_of_or_unset(&validation.reason, &REASONS, &path.child("reason"), errors);
}

fn validate_annotation(
    name: &str,
    annotation: &AuditAnnotation,
    environment: &Environment,
    path: &Path,
    errors: &mut Errors,
) {
    let key = path.child("key");
    if name.is_empty() {
        let why = "requires metadata.name be non-empty";
        errors.push(FieldError::invalid(key, &annotation.key, why));
    } else {
        let full = format!("{name}/{}", annotation.key);
        check::invalid(names::qualified_name(&full), &full, &key, errors);
    }
    let (at, source) = (path.child("valueExpression"), annotation.value_expression.trim());
    if source.is_empty() {
        errors.push(FieldError::required(at, "valueExpression is not specified"));
    } else if source.len() > ANNOTATION_BYTES {
        let why = format!("must not exceed {ANNOTATION_BYTES} bytes in length");
        errors.push(FieldError::required(at, why));
    } else if let Err(why) = environment.compile(source, &["string", "null_type"]) {
        errors.push(FieldError::invalid(at, &annotation.value_expression, why));
    }
}
