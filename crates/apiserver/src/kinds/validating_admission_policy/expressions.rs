//! The expressions of a validating policy.

use api::cel::Environment;
use k8s_openapi::api::admissionregistration::v1::{
    AuditAnnotation, ValidatingAdmissionPolicySpec, Validation,
};

use crate::kinds::admission_policy::expressions::environment;
use crate::kinds::at::At;
use crate::kinds::check;

/// Audit annotations of one policy.
const ANNOTATIONS_MAX: usize = 20;
/// Bytes of the expression of an audit annotation.
const ANNOTATION_BYTES: usize = 5 << 10;
const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];

pub fn validate(
    name: &str,
    spec: &ValidatingAdmissionPolicySpec,
    old: Option<&ValidatingAdmissionPolicySpec>,
    at: &At<'_>,
) {
    let has_params = spec.param_kind.is_some();
    let is_same = old.is_some_and(|old| {
        old.match_conditions == spec.match_conditions && old.param_kind == spec.param_kind
    });
    let conditions = spec.match_conditions.as_deref().filter(|_| !is_same);
    let environment = environment(has_params, conditions, spec.variables.as_ref(), at);
    let validations = spec.validations.as_deref().unwrap_or_default();
    let annotations = spec.audit_annotations.as_deref().unwrap_or_default();
    if validations.is_empty() && annotations.is_empty() {
        let why = "validations or auditAnnotations must contain at least one item";
        at.child("validations").required(why);
        at.child("auditAnnotations").required(why);
    }
    for (index, validation) in validations.iter().enumerate() {
        validate_rule(validation, &environment, &at.item("validations", index));
    }
    let at = at.child("auditAnnotations");
    if annotations.len() > ANNOTATIONS_MAX {
        let why = format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations");
        at.invalid(annotations, why);
    }
    let mut keys = check::Unique::default();
    for (index, annotation) in annotations.iter().enumerate() {
        let at = at.index(index);
        validate_annotation(name, annotation, &environment, &at);
        keys.add(&annotation.key, &at.child("key"));
    }
}

fn validate_rule(validation: &Validation, environment: &Environment, at: &At<'_>) {
    let expression = at.child("expression");
    if validation.expression.trim().is_empty() {
        expression.required("expression is not specified");
    } else if let Err(why) = environment.condition(&validation.expression) {
        expression.invalid(&validation.expression, why);
    }
    let source = check::text(&validation.message_expression);
    let expression = at.child("messageExpression");
    if !source.is_empty() && source.trim().is_empty() {
        expression.invalid(source, "must be non-empty if specified");
    } else if !source.is_empty()
        && let Err(why) = environment.without_authorizer().compile(source, &["string"])
    {
        expression.invalid(source, why);
    }
    let text = check::text(&validation.message);
    let message = at.child("message");
    if !text.is_empty() && text.trim().is_empty() {
        message.invalid(text, "message must be non-empty if specified");
    } else if text.trim().contains(['\n', '\r']) {
        message.invalid(text, "message must not contain line breaks");
    }
    at.child("reason").one_of_or_unset(&validation.reason, &REASONS);
}

fn validate_annotation(
    name: &str,
    annotation: &AuditAnnotation,
    environment: &Environment,
    at: &At<'_>,
) {
    let key = at.child("key");
    if name.is_empty() {
        key.invalid(&annotation.key, "requires metadata.name be non-empty");
    } else {
        let full = format!("{name}/{}", annotation.key);
        key.qualified_name(&full);
    }
    let (at, source) = (at.child("valueExpression"), annotation.value_expression.trim());
    if source.is_empty() {
        at.required("valueExpression is not specified");
    } else if source.len() > ANNOTATION_BYTES {
        at.required(format!("must not exceed {ANNOTATION_BYTES} bytes in length"));
    } else if let Err(why) = environment.compile(source, &["string", "null_type"]) {
        at.invalid(&annotation.value_expression, why);
    }
}
