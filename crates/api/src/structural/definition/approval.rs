//! Groups of the Kubernetes community need an approval of their API.

use serde_json::Value;

use super::{Errors, text};
use crate::status::FieldError;
use crate::structural::format;

const ANNOTATION: &str = "api-approved.kubernetes.io";

#[derive(PartialEq, Eq)]
enum Approval {
    Missing,
    Bypassed,
    Approved,
    Invalid,
}

fn of(definition: &Value) -> (Approval, &str) {
    let annotation = text(definition["metadata"]["annotations"].get(ANNOTATION));
    let approval = match annotation {
        "" => Approval::Missing,
        reason if reason.starts_with("unapproved") => Approval::Bypassed,
        url if format::is_request_uri(url) && has_host(url) => Approval::Approved,
        _ => Approval::Invalid,
    };
    (approval, annotation)
}

fn has_host(url: &str) -> bool {
    format::scheme(url)
        .and_then(|(_, rest)| rest.strip_prefix("//"))
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
}

/// An approval that an update does not change is not judged.
pub fn validate(new: &Value, old: Option<&Value>, errors: &mut Errors) {
    let group = text(new["spec"].get("group"));
    let is_within = |domain: &str| {
        group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    if !is_within("k8s.io") && !is_within("kubernetes.io") {
        return;
    }
    let (approval, annotation) = of(new);
    if old.is_some_and(|old| of(old).0 == approval) {
        return;
    }
    let field = format!("metadata.annotations[{ANNOTATION}]");
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    match approval {
        Approval::Approved | Approval::Bypassed => {}
        Approval::Missing => {
            let detail =
                format!("protected groups must have approval annotation {ANNOTATION:?}, {see}");
            errors.push(FieldError::required(field, detail));
        }
        Approval::Invalid => {
            let detail = format!(
                "protected groups must have approval annotation {ANNOTATION:?} with either a URL or a reason starting with \"unapproved\", {see}"
            );
            errors.push(FieldError::invalid(field, annotation, detail));
        }
    }
}
