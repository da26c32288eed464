//! Checks of single values, in Kubernetes' words (`k8s.io/apimachinery/pkg/util/validation` and
//! `pkg/apis/core/validation`). Each adds its errors to a list.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::names;
use api::quantity::Quantity;
use api::status::FieldError;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::path::Path;

/// The errors found so far.
pub type Errors = Vec<FieldError>;

/// Message for a change of any immutable field.
pub const IMMUTABLE: &str = "field is immutable";
pub const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
/// Bytes of a malformed value that its error shows.
const SHOWN_BYTES_MAX: usize = 1_024;
pub const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// The text of an optional field, empty when unset.
pub fn text(field: &Option<String>) -> &str {
    field.as_deref().unwrap_or_default()
}

/// Adds each problem as an invalid value.
pub fn invalid(problems: Vec<String>, value: &str, path: &Path, errors: &mut Errors) {
    errors.extend(problems.into_iter().map(|problem| FieldError::invalid(path, value, problem)));
}

/// An error about a whole object, whose value is not shown.
pub fn invalid_whole(problem: &str, path: &Path, errors: &mut Errors) {
    errors.push(FieldError { value: String::new(), ..FieldError::invalid(path, "", problem) });
}

/// Bytes as Go prints them.
pub fn shown(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    let mut all: Vec<String> = start.iter().map(|byte| format!("{byte:#x}")).collect();
    if start.len() < bytes.len() {
        all.push("...".to_owned());
    }
    format!("[]byte{{{}}}", all.join(", "))
}

/// `acme.io/foo`
pub fn domain_prefixed_path(value: &str, path: &Path, errors: &mut Errors) {
    if value.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    match value.split_once('/') {
        Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {
            invalid(names::dns_subdomain(domain), domain, path, errors);
            let allowed =
                |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
            if !rest.bytes().all(allowed) {
                let problem = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
                errors.push(FieldError::invalid(path, rest, problem));
            }
        }
        _ => {
            let problem = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.push(FieldError::invalid(path, value, problem));
        }
    }
}

pub fn required(value: &str, path: &Path, errors: &mut Errors) {
    if value.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
}

pub fn dns_label(value: &str, path: &Path, errors: &mut Errors) {
    invalid(names::dns_label(value), value, path, errors);
}

pub fn dns_subdomain(value: &str, path: &Path, errors: &mut Errors) {
    invalid(names::dns_subdomain(value), value, path, errors);
}

pub fn qualified_name(value: &str, path: &Path, errors: &mut Errors) {
    invalid(names::qualified_name(value), value, path, errors);
}

/// `value` must be one of `supported`, which is printed in the order given; unset is `Required`.
pub fn one_of(value: &str, supported: &[&str], path: &Path, errors: &mut Errors) {
    if value.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if !supported.contains(&value) {
        errors.push(FieldError::not_supported(path, value, supported));
    }
}

/// As [`one_of`], but the field may be unset.
pub fn one_of_or_unset(
    value: &Option<String>,
    supported: &[&str],
    path: &Path,
    errors: &mut Errors,
) {
    if let Some(value) = value
        && !supported.contains(&value.as_str())
    {
        errors.push(FieldError::not_supported(path, value, supported));
    }
}

pub fn not_negative(value: impl Into<i64>, path: &Path, errors: &mut Errors) {
    let value = value.into();
    if value < 0 {
        errors.push(FieldError::invalid(path, value, NOT_NEGATIVE));
    }
}

/// `low` and `high` are included.
pub fn in_range(value: i64, low: i64, high: i64, path: &Path, errors: &mut Errors) {
    if !(low..=high).contains(&value) {
        errors.push(FieldError::invalid(
            path,
            value,
            format!("must be between {low} and {high}, inclusive"),
        ));
    }
}

pub fn port_number(port: i32, path: &Path, errors: &mut Errors) {
    in_range(port.into(), 1, 65_535, path, errors);
}

/// What is wrong with the name of a port (RFC 6335).
pub fn port_name(name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if name.len() > 15 {
        problems.push("must be no more than 15 bytes".to_owned());
    }
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !name.bytes().all(allowed) || name.is_empty() {
        problems.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        problems.push("must contain at least one letter (a-z)".to_owned());
    }
    if name.contains("--") {
        problems.push("must not contain consecutive hyphens".to_owned());
    }
    if name.starts_with('-') || name.ends_with('-') {
        problems.push("must not begin or end with a hyphen".to_owned());
    }
    problems
}

pub fn port(port: &IntOrString, path: &Path, errors: &mut Errors) {
    match port {
        IntOrString::Int(number) => port_number(*number, path, errors),
        IntOrString::String(name) => invalid(port_name(name), name, path, errors),
    }
}

pub fn ip(value: &str, path: &Path, errors: &mut Errors) {
    if value.parse::<IpAddr>().is_err() {
        let problem = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(FieldError::invalid(path, value, problem));
    }
}

pub fn cidr(value: &str, path: &Path, errors: &mut Errors) {
    if value.parse::<ipnet::IpNet>().is_err() {
        let problem = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        errors.push(FieldError::invalid(path, value, problem));
    }
}

/// Keys and values of labels, or of a node selector.
pub fn labels(labels: Option<&BTreeMap<String, String>>, path: &Path, errors: &mut Errors) {
    for (key, value) in labels.into_iter().flatten() {
        qualified_name(key, path, errors);
        invalid(names::label_value(value), value, path, errors);
    }
}

pub fn annotations(
    annotations: Option<&BTreeMap<String, String>>,
    path: &Path,
    errors: &mut Errors,
) {
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        invalid(names::qualified_name(&key.to_lowercase()), key, path, errors);
        size += key.len() + value.len();
    }
    if size > names::ANNOTATIONS_MAX_BYTES {
        errors.push(FieldError::too_long(path, names::ANNOTATIONS_MAX_BYTES));
    }
}

/// As [`annotations`], where every key has a domain.
pub fn domain_prefixed_annotations(
    annotations: Option<&BTreeMap<String, String>>,
    path: &Path,
    errors: &mut Errors,
) {
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        let problems = names::qualified_name(&key.to_lowercase());
        if key.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else if !problems.is_empty() {
            invalid(problems, key, path, errors);
        } else if !key.contains('/') {
            let problem = "must be a domain-prefixed key (such as \"acme.io/foo\")";
            errors.push(FieldError::invalid(path, key, problem));
        }
        size += key.len() + value.len();
    }
    if size > names::ANNOTATIONS_MAX_BYTES {
        errors.push(FieldError::too_long(path, names::ANNOTATIONS_MAX_BYTES));
    }
}

pub fn label_selector(selector: Option<&LabelSelector>, path: &Path, errors: &mut Errors) {
    let Some(selector) = selector else { return };
    labels(selector.match_labels.as_ref(), &path.child("matchLabels"), errors);
    for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
        let path = path.child("matchExpressions").index(index);
        let values = expression.values.as_deref().unwrap_or_default();
        match expression.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
                path.child("values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
                path.child("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                let problem = "not a valid selector operator";
                errors.push(FieldError::invalid(path.child("operator"), other, problem));
            }
        }
        qualified_name(&expression.key, &path.child("key"), errors);
        for (index, value) in values.iter().enumerate() {
            invalid(names::label_value(value), value, &path.child("values").index(index), errors);
        }
    }
}

/// A quantity that must be valid and not negative.
pub fn amount(text: &Text, path: &Path, errors: &mut Errors) -> Option<Quantity> {
    match text.0.parse::<Quantity>() {
        Ok(amount) => {
            if amount.is_negative() {
                errors.push(FieldError::invalid(path, &text.0, NOT_NEGATIVE));
            }
            Some(amount)
        }
        Err(error) => {
            errors.push(FieldError::invalid(path, &text.0, error.to_string()));
            None
        }
    }
}

/// A number or a percentage, as in `maxUnavailable`.
pub fn number_or_percent(value: &IntOrString, path: &Path, errors: &mut Errors) {
    match value {
        IntOrString::Int(number) => not_negative(*number, path, errors),
        IntOrString::String(text) => {
            if percent(value).is_none() {
                let problem = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                errors.push(FieldError::invalid(path, text, problem));
            }
        }
    }
}

/// The number before `%`.
pub fn percent(value: &IntOrString) -> Option<i64> {
    let IntOrString::String(text) = value else {
        return None;
    };
    let digits = text.strip_suffix('%')?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// Refuses a percentage above 100.
pub fn not_more_than_all(value: &IntOrString, path: &Path, errors: &mut Errors) {
    if percent(value).is_some_and(|percent| percent > 100) {
        errors.push(FieldError::invalid(path, printed(value), "must not be greater than 100%"));
    }
}

/// Zero or zero percent.
pub fn is_zero(value: Option<&IntOrString>) -> bool {
    match value {
        None => true,
        Some(IntOrString::Int(number)) => *number == 0,
        Some(value) => percent(value) == Some(0),
    }
}

/// As an error prints it: a number or a quoted text.
pub fn printed(value: &IntOrString) -> serde_json::Value {
    match value {
        IntOrString::Int(number) => (*number).into(),
        IntOrString::String(text) => text.as_str().into(),
    }
}

/// Refuses the second and later occurrence of a value.
#[derive(Default)]
pub struct Unique(BTreeSet<String>);

impl Unique {
    /// False, and an error, for a value seen before.
    pub fn insert(&mut self, value: &str, path: &Path, errors: &mut Errors) -> bool {
        let new = self.0.insert(value.to_owned());
        if !new {
            errors.push(FieldError::duplicate(path, value));
        }
        new
    }
}

/// A path below a volume: relative, without `..`.
pub fn local_descending_path(value: &str, path: &Path, errors: &mut Errors) {
    if value.starts_with('/') {
        errors.push(FieldError::invalid(path, value, "must be a relative path"));
    }
    no_backsteps(value, path, errors);
}

pub fn no_backsteps(value: &str, path: &Path, errors: &mut Errors) {
    if value.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, value, "must not contain '..'"));
    }
}

/// As [`local_descending_path`], and not starting with two dots, which the atomic writer uses.
pub fn local_non_reserved_path(value: &str, path: &Path, errors: &mut Errors) {
    local_descending_path(value, path, errors);
    if value.starts_with("..") && !value.starts_with("../") {
        errors.push(FieldError::invalid(path, value, "must not start with '..'"));
    }
}
