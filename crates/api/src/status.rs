//! Kubernetes' `Status` errors: code, reason, message, causes with field paths.
//!
//! Messages follow `k8s.io/apimachinery/pkg/api/errors` and `.../util/validation/field`, since
//! clients match on them.

use std::collections::HashSet;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    ListMeta, Status, StatusCause, StatusDetails,
};

use crate::kind::KindRow;

/// Validation errors that are reported at a time; upstream reports any number.
const MAX_CAUSES: usize = 500;

/// An error for a client. Contains a whole `Status`.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError(Box<Status>);

impl std::error::Error for ApiError {}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

/// What is wrong with a field: `field.ErrorType` upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorType {
    Invalid,
    Required,
    Duplicate,
    Forbidden,
    NotSupported,
    NotFound,
    TooLong,
    TooMany,
    TypeInvalid,
    InternalError,
}

impl FieldErrorType {
    /// The machine-readable reason in `StatusCause`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Invalid => "FieldValueInvalid",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::NotSupported => "FieldValueNotSupported",
            Self::NotFound => "FieldValueNotFound",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::InternalError => "InternalError",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Invalid => "Invalid value",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::NotSupported => "Unsupported value",
            Self::NotFound => "Not found",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::TypeInvalid => "Invalid value",
            Self::InternalError => "Internal error",
        }
    }
}

/// One validation error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    pub kind: FieldErrorType,
    /// `spec.containers[0].image`
    pub field: String,
    /// The value as Kubernetes prints it (strings quoted); empty for Required, Forbidden, TooLong.
    pub value: String,
    pub detail: String,
}

impl FieldError {
    /// `value` is anything JSON-like: strings are printed quoted, the rest as JSON.
    pub fn invalid(
        field: impl Into<String>,
        value: impl serde::Serialize,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            kind: FieldErrorType::Invalid,
            field: field.into(),
            value: printed(value),
            detail: detail.into(),
        }
    }

    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            kind: FieldErrorType::Required,
            field: field.into(),
            value: String::new(),
            detail: detail.into(),
        }
    }

    pub fn duplicate(field: impl Into<String>, value: impl serde::Serialize) -> Self {
        Self {
            kind: FieldErrorType::Duplicate,
            field: field.into(),
            value: printed(value),
            detail: String::new(),
        }
    }

    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            kind: FieldErrorType::Forbidden,
            field: field.into(),
            value: String::new(),
            detail: detail.into(),
        }
    }

    /// `supported` is printed in the order given.
    pub fn not_supported(
        field: impl Into<String>,
        value: impl serde::Serialize,
        supported: &[&str],
    ) -> Self {
        let list: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        Self {
            kind: FieldErrorType::NotSupported,
            field: field.into(),
            value: printed(value),
            detail: format!("supported values: {}", list.join(", ")),
        }
    }

    pub fn not_found(field: impl Into<String>, value: impl serde::Serialize) -> Self {
        Self {
            kind: FieldErrorType::NotFound,
            field: field.into(),
            value: printed(value),
            detail: String::new(),
        }
    }

    pub fn too_long(field: impl Into<String>, max_bytes: usize) -> Self {
        Self {
            kind: FieldErrorType::TooLong,
            field: field.into(),
            value: String::new(),
            detail: format!("may not be more than {max_bytes} {}", plural(max_bytes, "byte")),
        }
    }

    pub fn too_many(field: impl Into<String>, actual: usize, max_items: usize) -> Self {
        Self {
            kind: FieldErrorType::TooMany,
            field: field.into(),
            value: actual.to_string(),
            detail: format!("must have at most {max_items} {}", plural(max_items, "item")),
        }
    }

    /// The message of the cause: without the field path.
    pub fn body(&self) -> String {
        let mut text = self.kind.text().to_owned();
        if !self.value.is_empty() {
            text.push_str(": ");
            text.push_str(&self.value);
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}

fn printed(value: impl serde::Serialize) -> String {
    serde_json::to_string(&value).unwrap_or_default()
}

impl ApiError {
    /// Any code, reason and message.
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self(Box::new(Status {
            metadata: ListMeta::default(),
            status: Some("Failure".into()),
            code: Some(i32::from(code)),
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            message: Some(message.into()),
            details: None,
        }))
    }

    pub fn from_status(status: Status) -> Self {
        Self(Box::new(status))
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// `message` without the resource prefix, which is added.
    pub fn forbidden(row: &KindRow, name: &str, message: impl fmt::Display) -> Self {
        let text = if name.is_empty() {
            format!("{} is forbidden: {message}", row.qualified_resource())
        } else {
            format!("{} {name:?} is forbidden: {message}", row.qualified_resource())
        };
        Self::new(403, "Forbidden", text).about(row, name)
    }

    pub fn not_found(row: &KindRow, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} {name:?} not found", row.qualified_resource()))
            .about(row, name)
    }

    /// No such path or resource type.
    pub fn no_such_resource() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// A path that does not have the method.
    pub fn unknown_method() -> Self {
        let text = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", text)
    }

    pub fn method_not_allowed(row: &KindRow, verb: &str) -> Self {
        let text = format!(
            "{verb} is not supported on resources of kind \"{}\"",
            row.qualified_resource()
        );
        Self::new(405, "MethodNotAllowed", text).about(row, "")
    }

    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(406, "NotAcceptable", message)
    }

    pub fn already_exists(row: &KindRow, name: &str) -> Self {
        Self::new(
            409,
            "AlreadyExists",
            format!("{} {name:?} already exists", row.qualified_resource()),
        )
        .about(row, name)
    }

    pub fn conflict(row: &KindRow, name: &str, message: impl fmt::Display) -> Self {
        let text = format!(
            "Operation cannot be fulfilled on {} {name:?}: {message}",
            row.qualified_resource()
        );
        Self::new(409, "Conflict", text).about(row, name)
    }

    /// The conflict of a write whose `resourceVersion` is outdated.
    pub fn modified(row: &KindRow, name: &str) -> Self {
        Self::conflict(
            row,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// A resource version or continue token that the server no longer has.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", message)
    }

    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// Validation found `errors` (at least one).
    pub fn invalid(row: &KindRow, name: &str, errors: &[FieldError]) -> Self {
        let mut error = Self::invalid_kind(&row.qualified_kind(), name, errors).about(row, name);
        error.details().kind = Some(row.kind.to_string());
        error
    }

    /// Invalid options of a verb: `CreateOptions` and the like.
    pub fn invalid_options(kind: &str, errors: &[FieldError]) -> Self {
        let mut error = Self::invalid_kind(&format!("{kind}.meta.k8s.io"), "", errors);
        error.details().group = Some("meta.k8s.io".to_owned());
        error.details().kind = Some(kind.to_owned());
        error
    }

    /// A patch whose result is not an object; the kind is unknown at that point, as upstream.
    pub fn invalid_patch(errors: &[FieldError]) -> Self {
        Self::invalid_kind("", "", errors)
    }

    /// Validation found `errors` in something that is not in the kind table, such as
    /// `PodLogOptions`.
    pub fn invalid_kind(qualified_kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let more = errors.len().saturating_sub(MAX_CAUSES);
        let errors = &errors[..errors.len() - more];
        let mut seen = HashSet::new();
        let mut texts: Vec<String> = errors
            .iter()
            .map(FieldError::to_string)
            .filter(|text| seen.insert(text.clone()))
            .collect();
        if more > 0 {
            texts.push(format!("and {more} more"));
        }
        let list =
            if texts.len() == 1 { texts[0].clone() } else { format!("[{}]", texts.join(", ")) };
        let message = format!("{qualified_kind} {name:?} is invalid: {list}");
        let mut error = Self::new(422, "Invalid", message);
        let causes = errors.iter().map(|error| StatusCause {
            field: Some(error.field.clone()),
            message: Some(error.body()),
            reason: Some(error.kind.reason().to_owned()),
        });
        error.details().causes = Some(causes.collect());
        error
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: i32) -> Self {
        let mut error = Self::new(429, "TooManyRequests", message);
        error.details().retry_after_seconds = Some(retry_after_seconds);
        error
    }

    /// The cause is for the log; clients get this message.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    /// A feature of Kubernetes that Skiff does not have.
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(501, "NotImplemented", message)
    }

    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(504, "Timeout", message)
    }

    /// Fills `details` with the resource and name the error is about.
    pub fn about(mut self, row: &KindRow, name: &str) -> Self {
        let details = self.details();
        details.group = (!row.group.is_empty()).then(|| row.group.to_string());
        details.kind = Some(row.plural.to_string());
        details.name = (!name.is_empty()).then(|| name.to_owned());
        self
    }

    fn details(&mut self) -> &mut StatusDetails {
        self.0.details.get_or_insert_default()
    }

    pub fn code(&self) -> u16 {
        self.0.code.and_then(|code| u16::try_from(code).ok()).unwrap_or(500)
    }

    pub fn reason(&self) -> &str {
        self.0.reason.as_deref().unwrap_or_default()
    }

    pub fn message(&self) -> &str {
        self.0.message.as_deref().unwrap_or_default()
    }

    pub fn status(&self) -> &Status {
        &self.0
    }

    pub fn status_mut(&mut self) -> &mut Status {
        &mut self.0
    }

    /// Encodes the `Status` as JSON.
    pub fn encode(&self) -> Vec<u8> {
        encode_status(&self.0)
    }

    pub fn is_not_found(&self) -> bool {
        self.code() == 404
    }

    pub fn is_already_exists(&self) -> bool {
        self.reason() == "AlreadyExists"
    }

    pub fn is_conflict(&self) -> bool {
        self.reason() == "Conflict"
    }

    pub fn is_expired(&self) -> bool {
        self.code() == 410
    }
}

/// Encodes a `Status` as JSON, `kind` and `apiVersion` first.
pub fn encode_status(status: &Status) -> Vec<u8> {
    serde_json::to_vec(status).expect("Status always serializes to JSON")
}

/// Decodes a `Status` from JSON.
pub fn decode_status(json: &[u8]) -> Result<Status, serde_json::Error> {
    serde_json::from_slice(json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use k8s_openapi::api::apps::v1::Deployment;

    #[test]
    fn invalid_lists_causes_as_kubernetes_does() {
        let errors = [
            FieldError::required("spec.selector", ""),
            FieldError::invalid("spec.replicas", -1, "must be greater than or equal to 0"),
        ];
        let error = ApiError::invalid(Deployment::ROW, "web", &errors);
        assert_eq!(
            error.message(),
            "Deployment.apps \"web\" is invalid: [spec.selector: Required value, spec.replicas: Invalid value: -1: must be greater than or equal to 0]"
        );
        assert_eq!((error.code(), error.reason()), (422, "Invalid"));
        let details = error.status().details.as_ref().unwrap();
        assert_eq!(details.group.as_deref(), Some("apps"));
        assert_eq!(details.kind.as_deref(), Some("Deployment"));
        assert_eq!(details.causes.as_ref().unwrap()[0].message.as_deref(), Some("Required value"));
    }

    #[test]
    fn a_status_survives_the_wire() {
        let error = ApiError::not_found(Deployment::ROW, "web");
        let decoded = ApiError::from_status(decode_status(&error.encode()).unwrap());
        assert_eq!(decoded, error);
        assert_eq!(decoded.message(), "deployments.apps \"web\" not found");
    }
}
