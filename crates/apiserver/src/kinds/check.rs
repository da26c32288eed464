//! Checks of single values, in Kubernetes' words (`k8s.io/apimachinery/pkg/util/validation` and
//! `pkg/apis/core/validation`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::names;
use api::quantity::Quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::at::At;

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

/// Checks of the field's value. Those of texts come in three sorts: as they are, of optional
/// fields (`..._if_any`: neither unset nor empty ones are judged), and `Required` when empty
/// (`required_...`).
impl At<'_> {
    /// Adds each problem as an invalid value.
    pub fn texts(&self, problems: Vec<String>, value: &str) {
        problems.into_iter().for_each(|problem| self.invalid(value, problem));
    }

    pub fn not_empty(&self, value: &str) {
        if value.is_empty() {
            self.required("");
        }
    }

    /// An empty text is `Required`, others may have problems.
    pub fn required_text(&self, problems: fn(&str) -> Vec<String>, value: &str) {
        if value.is_empty() {
            self.required("");
        } else {
            self.texts(problems(value), value);
        }
    }

    pub fn dns_label(&self, value: &str) {
        self.texts(names::dns_label(value), value);
    }

    pub fn dns_subdomain(&self, value: &str) {
        self.texts(names::dns_subdomain(value), value);
    }

    pub fn qualified_name(&self, value: &str) {
        self.texts(names::qualified_name(value), value);
    }

    /// `acme.io/foo`
    pub fn domain_prefixed_path(&self, value: &str) {
        match value.split_once('/') {
            _ if value.is_empty() => self.required(""),
            Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {
                self.dns_subdomain(domain);
                let allowed = |byte: u8| {
                    byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte)
                };
                if !rest.bytes().all(allowed) {
                    let problem = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
                    self.invalid(rest, problem);
                }
            }
            _ => self.invalid(value, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
        }
    }

    /// `value` must be one of `supported`, which is printed in the order given; unset is `Required`.
    pub fn one_of(&self, value: &str, supported: &[&str]) {
        if value.is_empty() {
            self.required("");
        } else if !supported.contains(&value) {
            self.not_supported(value, supported);
        }
    }

    /// As [`one_of`](Self::one_of), but the field may be unset.
    pub fn one_of_or_unset(&self, value: &Option<String>, supported: &[&str]) {
        if let Some(value) = value
            && !supported.contains(&value.as_str())
        {
            self.not_supported(value, supported);
        }
    }

    pub fn not_negative(&self, value: impl Into<i64>) {
        let value = value.into();
        if value < 0 {
            self.invalid(value, NOT_NEGATIVE);
        }
    }

    /// Numbers of the field's members that may be unset but not negative.
    pub fn none_negative(&self, numbers: &[(&str, Option<i32>)]) {
        for (field, number) in numbers {
            self.child(field).not_negative(number.unwrap_or(0));
        }
    }

    /// `low` and `high` are included.
    pub fn in_range(&self, value: impl Into<i64>, low: i64, high: i64) {
        let value = value.into();
        if !(low..=high).contains(&value) {
            self.invalid(value, format!("must be between {low} and {high}, inclusive"));
        }
    }

    pub fn port_number(&self, port: i32) {
        self.in_range(port, 1, 65_535);
    }

    pub fn port(&self, port: &IntOrString) {
        match port {
            IntOrString::Int(number) => self.port_number(*number),
            IntOrString::String(name) => self.texts(port_name(name), name),
        }
    }

    pub fn ip(&self, value: &str) {
        if value.parse::<IpAddr>().is_err() {
            self.invalid(value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        }
    }

    pub fn cidr(&self, value: &str) {
        if value.parse::<ipnet::IpNet>().is_err() {
            self.invalid(value, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
        }
    }

    /// Keys and values of labels, or of a node selector.
    pub fn labels(&self, labels: Option<&BTreeMap<String, String>>) {
        for (key, value) in labels.into_iter().flatten() {
            self.qualified_name(key);
            self.texts(names::label_value(value), value);
        }
    }

    pub fn annotations(&self, annotations: Option<&BTreeMap<String, String>>) {
        let mut size = 0;
        for (key, value) in annotations.into_iter().flatten() {
            self.texts(names::qualified_name(&key.to_lowercase()), key);
            size += key.len() + value.len();
        }
        self.max_bytes(size, names::ANNOTATIONS_MAX_BYTES);
    }

    /// As [`annotations`](Self::annotations), where every key has a domain.
    pub fn domain_prefixed_annotations(&self, annotations: Option<&BTreeMap<String, String>>) {
        let mut size = 0;
        for (key, value) in annotations.into_iter().flatten() {
            let problems = names::qualified_name(&key.to_lowercase());
            if key.is_empty() {
                self.required("");
            } else if !problems.is_empty() {
                self.texts(problems, key);
            } else if !key.contains('/') {
                self.invalid(key, "must be a domain-prefixed key (such as \"acme.io/foo\")");
            }
            size += key.len() + value.len();
        }
        self.max_bytes(size, names::ANNOTATIONS_MAX_BYTES);
    }

    pub fn label_selector(&self, selector: Option<&LabelSelector>) {
        let Some(selector) = selector else { return };
        self.child("matchLabels").labels(selector.match_labels.as_ref());
        for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
            let at = self.item("matchExpressions", index);
            let values = expression.values.as_deref().unwrap_or_default();
            at.selector_operator(&expression.operator, values.is_empty());
            at.child("key").qualified_name(&expression.key);
            for (index, value) in values.iter().enumerate() {
                at.item("values", index).texts(names::label_value(value), value);
            }
        }
    }

    /// Whether an operator of a selector of labels or nodes goes with its values.
    pub fn selector_operator(&self, operator: &str, no_values: bool) {
        match operator {
            "In" | "NotIn" if no_values => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                self.child("values").required(why);
            }
            "Exists" | "DoesNotExist" if !no_values => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                self.child("values").forbidden(why);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => self.child("operator").invalid(other, "not a valid selector operator"),
        }
    }

    /// A quantity that must be valid and not negative.
    pub fn amount(&self, text: &Text) -> Option<Quantity> {
        match text.0.parse::<Quantity>() {
            Ok(amount) => {
                if amount.is_negative() {
                    self.invalid(&text.0, NOT_NEGATIVE);
                }
                Some(amount)
            }
            Err(error) => {
                self.invalid(&text.0, error.to_string());
                None
            }
        }
    }

    /// A number or a percentage, as in `maxUnavailable`.
    pub fn number_or_percent(&self, value: &IntOrString) {
        match value {
            IntOrString::Int(number) => self.not_negative(*number),
            IntOrString::String(text) if percent(value).is_none() => {
                let problem = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                self.invalid(text, problem);
            }
            IntOrString::String(_) => {}
        }
    }

    /// Refuses a percentage above 100.
    pub fn not_more_than_all(&self, value: &IntOrString) {
        if percent(value).is_some_and(|percent| percent > 100) {
            self.invalid(value, "must not be greater than 100%");
        }
    }

    /// A path below a volume: relative, without `..`.
    pub fn local_descending_path(&self, value: &str) {
        if value.starts_with('/') {
            self.invalid(value, "must be a relative path");
        }
        self.no_backsteps(value);
    }

    pub fn no_backsteps(&self, value: &str) {
        if value.split('/').any(|part| part == "..") {
            self.invalid(value, "must not contain '..'");
        }
    }

    /// As [`local_descending_path`](Self::local_descending_path), and not starting with two dots,
    /// which the atomic writer uses.
    pub fn local_non_reserved_path(&self, value: &str) {
        self.local_descending_path(value);
        if value.starts_with("..") && !value.starts_with("../") {
            self.invalid(value, "must not start with '..'");
        }
    }
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

/// The number before `%`.
pub fn percent(value: &IntOrString) -> Option<i64> {
    let IntOrString::String(text) = value else {
        return None;
    };
    let digits = text.strip_suffix('%')?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// Zero or zero percent.
pub fn is_zero(value: Option<&IntOrString>) -> bool {
    match value {
        None => true,
        Some(IntOrString::Int(number)) => *number == 0,
        Some(value) => percent(value) == Some(0),
    }
}

/// Refuses the second and later occurrence of a value.
#[derive(Default)]
pub struct Unique(BTreeSet<String>);

impl Unique {
    /// False, and an error, for a value seen before.
    pub fn add(&mut self, value: &str, at: &At<'_>) -> bool {
        let new = self.is_new(value);
        if !new {
            at.duplicate(value);
        }
        new
    }

    /// Whether a value has not been seen before.
    pub fn is_new(&mut self, value: &str) -> bool {
        self.0.insert(value.to_owned())
    }
}
