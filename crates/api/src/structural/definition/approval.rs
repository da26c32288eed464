//! Groups of the Kubernetes community need an approval of their API.

use serde_json::Value;

use super::{Errors, text};
use crate::status::FieldError;
use crate::structural::format;

/// Where a group of the Kubernetes community says who has approved it.
pub const ANNOTATION: &str = "api-approved.kubernetes.io";

/// Whether the API of a definition has been reviewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    Missing,
    Bypassed,
    Approved,
    Invalid,
}

impl Approval {
    /// What the annotation of a definition says, and in words.
    pub fn of(annotation: &str) -> (Self, String) {
        let see = "see https://github.com/kubernetes/enhancements/pull/1111";
        let needed = format!("protected groups must have approval annotation {ANNOTATION:?}");
        match annotation {
            "" => (Self::Missing, format!("{needed}, {see}")),
            reason if reason.starts_with("unapproved") => {
                (Self::Bypassed, format!("not approved: {reason:?}"))
            }
            url if format::is_request_uri(url) && has_host(url) => {
                (Self::Approved, format!("approved in {url}"))
            }
            _ => (
                Self::Invalid,
                format!(
                    "{needed} with either a URL or a reason starting with \"unapproved\", {see}"
                ),
            ),
        }
    }

    /// Whether a group needs one.
    pub fn is_needed(group: &str) -> bool {
        ["k8s.io", "kubernetes.io"].iter().any(|domain| {
            group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }
}

fn annotation(definition: &Value) -> &str {
    text(definition["metadata"]["annotations"].get(ANNOTATION))
}

fn has_host(url: &str) -> bool {
    format::scheme(url)
        .and_then(|(_, rest)| rest.strip_prefix("//"))
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
}

/// An approval that an update does not change is not judged.
pub fn validate(new: &Value, old: Option<&Value>, errors: &mut Errors) {
    if !Approval::is_needed(text(new["spec"].get("group"))) {
        return;
    }
    let (approval, detail) = Approval::of(annotation(new));
    if old.is_some_and(|old| Approval::of(annotation(old)).0 == approval) {
        return;
    }
    let field = format!("metadata.annotations[{ANNOTATION}]");
    match approval {
        Approval::Approved | Approval::Bypassed => {}
        Approval::Missing => errors.push(FieldError::required(field, detail)),
        Approval::Invalid => errors.push(FieldError::invalid(field, annotation(new), detail)),
    }
}
